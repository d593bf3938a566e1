"""The talks API of D-ID, usable by itself."""

from __future__ import annotations

import json
import logging
import re
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NoReturn, Self
from urllib.parse import urlsplit

import anyio

from talkgen import telemetry
from talkgen._clock import utc_now
from talkgen.errors import (
    DIdError,
    OutcomeUnknown,
    ResultExpired,
    ServiceUnavailable,
)
from talkgen.generators.did.credentials import authorization
from talkgen.generators.did.looks import Looks
from talkgen.generators.did.results import (
    AudioUpload,
    Credits,
    ImageUpload,
    Talk,
    TalkPage,
    Voice,
    faces_of,
    voices_of,
)
from talkgen.generators.did.session import Session, parsed
from talkgen.generators.did.timing import Clock, Polling, RetryPolicy
from talkgen.generators.did.webhooks import Sleepers

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    import httpx

    from talkgen._types import JSON
    from talkgen.generators.did.request import TalkRequest
    from talkgen.generators.did.results import FaceBox
    from talkgen.generators.did.transport import Transport

__all__ = ["BASE_URL", "VIDEOS_KEPT", "DIdClient", "check_base_url"]

logger = logging.getLogger(__name__)

BASE_URL = "https://api.d-id.com"
IMAGE_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png"}
AUDIO_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "mp4": "audio/mp4",
    "flac": "audio/flac",
}
BLANK = re.compile(r"\s")
FILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,50}")
NOT_FOUND = 404
DOWNLOADS = 4  # at a time
VIDEOS_KEPT = timedelta(hours=25)  # from the request on: D-ID keeps them for a day from the end on
LOOK_SECONDS = 10.0  # real ones, that a look may take beyond the deadline


def check_base_url(url: str) -> None:
    """Refuse what no request can be sent to.

    Raises:
        ValueError: It is no http or https address, names no host, or has a blank.
    """
    try:
        parts = urlsplit(url)  # which leaves out the ends of lines
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or BLANK.search(url):
        raise ValueError(f"base_url={url!r} must be an address like {BASE_URL!r}")


class DIdClient:
    """Asks D-ID: one connection pool, one account.

        async with DIdClient(api_key) as client:
            print(await client.credits())

    What may be repeated is repeated: reads, uploads and deletions, on a dropped connection, a
    429 or a 5xx, three times. A request for a talk is repeated only where it certainly made none.
    It belongs to one event loop. The key is in no repr, log, error or pickle.

    Attributes:
        policy: How often requests are repeated.
        polling: How often a talk is looked at.
        clock: By which it waits.
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = BASE_URL,
        http: httpx.AsyncClient | None = None,
        verify: ssl.SSLContext | None = None,
        http2: bool = False,
        max_requests: int = 8,
        retry: RetryPolicy | None = None,
        polling: Polling | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Open no connection yet.

        Args:
            api_key: `user:password` as D-ID's studio shows it, the same in base64, or a value
                that begins with `Basic ` or `Bearer `.
            base_url: Of the API.
            http: A client of the caller's, with its own proxies, certificates, timeouts and
                limits; it stays open. Give it a read timeout of a minute: D-ID checks the picture
                and the recording before it answers the request for a talk.
            verify: Which authorities are trusted, where those of `certifi` are not the ones.
            http2: Speak HTTP/2 where the server does; needs `httpx[http2]`.
            max_requests: At a time, whatever the number of runs.
            retry: How often requests are repeated.
            polling: How often a talk is looked at.
            clock: By which it waits.

        Raises:
            ValueError: The key is in none of these forms, or the address is none.
        """
        check_base_url(base_url)
        self._header = authorization(api_key)
        self._base_url = base_url
        self._http, self._verify, self._http2 = http, verify, http2
        self._connections = max_requests + DOWNLOADS
        self.policy, self.polling = retry or RetryPolicy(), polling or Polling()
        self.clock = clock or Clock()
        self._session = Session(
            self._connect, limit=max_requests, policy=self.policy, clock=self.clock
        )
        self._downloads = anyio.CapacityLimiter(DOWNLOADS)
        self._sleepers = Sleepers(self.clock)

    def __repr__(self) -> str:
        return f"<DIdClient of {self._base_url}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DIdClient has connections and a key; make another one instead")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, other than the caller's own."""
        await self._session.aclose()

    def _connect(self) -> Transport:
        from talkgen.generators.did.transport import Transport

        telemetry.load()
        return Transport(
            self._header,
            base_url=self._base_url,
            http=self._http,
            connections=self._connections,
            verify=self._verify,
            http2=self._http2,
        )

    @property
    def refusals(self) -> int:
        """How often D-ID has answered that there are too few credits.

        What spends takes an earlier value as `since`: whoever makes a video of several requests
        is ended by a 402 that another one got meanwhile, instead of asking for it himself.
        """
        return self._session.traffic.refusals

    # --- uploads -------------------------------------------------------------------------------

    async def upload_image(
        self,
        data: bytes,
        *,
        file_name: str = "portrait.jpg",
        detect_faces: bool = False,
        since: int | None = None,
    ) -> ImageUpload:
        """Upload a picture, kept for a day or two.

        Args:
            data: JPEG or PNG, 160 pixels a side or more, 10 MB at most.
            file_name: 50 of `a-z A-Z 0-9 . _ -` at most, ending in `.jpg`, `.jpeg` or `.png`.
            detect_faces: Have D-ID count the faces.
            since: `refusals` when the video was begun; by default, now.

        Raises:
            ValueError: The name does not say what the file is.
            talkgen.errors.DIdError: See the module `talkgen.errors`.
        """
        return await self._session.ask(
            ImageUpload.parse,
            "POST",
            "/images",
            doing="upload the picture",
            since=self.refusals if since is None else since,
            files={"image": (file_name, data, _media_type(file_name, IMAGE_TYPES))},
            data={"detect_faces": "true"} if detect_faces else {},
        )

    async def upload_audio(
        self, data: bytes, *, file_name: str = "speech.wav", since: int | None = None
    ) -> AudioUpload:
        """Upload a recording, kept for a day or two.

        Args:
            data: 6 MB at most.
            file_name: As for `upload_image`, ending in `.wav`, `.mp3`, `.m4a`, `.mp4` or `.flac`.
            since: `refusals` when the video was begun; by default, now.

        Raises:
            ValueError: The name does not say what the file is.
            talkgen.errors.DIdError: See the module `talkgen.errors`.
        """
        return await self._session.ask(
            AudioUpload.parse,
            "POST",
            "/audios",
            doing="upload the recording",
            since=self.refusals if since is None else since,
            files={"audio": (file_name, data, _media_type(file_name, AUDIO_TYPES))},
        )

    async def delete_image(self, image_id: str) -> None:
        """Delete an uploaded picture; one that is gone already is no error."""
        await self._delete("/images/{id}", image_id, "delete the picture")

    async def delete_audio(self, audio_id: str) -> None:
        """Delete an uploaded recording; one that is gone already is no error."""
        await self._delete("/audios/{id}", audio_id, "delete the recording")

    async def detect_faces(self, source_url: str) -> tuple[FaceBox, ...]:
        """Where D-ID sees faces in a picture that was uploaded or is on the web."""
        return await self._session.ask(
            faces_of,
            "POST",
            "/images/face-detection",
            doing="look for faces",
            body={"source_url": source_url},
        )

    # --- talks ---------------------------------------------------------------------------------

    async def create_talk(
        self,
        request: TalkRequest,
        *,
        on_sending: Callable[[], Awaitable[object]] | None = None,
        on_created: Callable[[Talk], Awaitable[object]] | None = None,
        since: int | None = None,
    ) -> Talk:
        """Ask for a talk; it costs a credit for every 15 seconds that have begun.

        Sending it is shielded from cancellation, for 60 s at most, and then `on_created` is, too.
        It is repeated only where D-ID refused it, or never got it.

        Args:
            request: What is wanted. Give it `user_data` that nothing else has.
            on_sending: Awaited each time that it is about to be sent, when it need not wait any
                more: writes down that it will be.
            on_created: Awaited with the talk before anything else can happen: writes its id down.
            since: `refusals` when the video was begun; by default, now.

        Raises:
            talkgen.errors.OutcomeUnknown: The answer was lost: the talk may exist, or may yet
                come to exist. `talkgen.generators.did.find_talk` looks for it.
            talkgen.errors.DIdError: It was not created.
            TimeoutError: It was created, and `on_created` did not end.
        """
        since = self.refusals if since is None else since
        post = partial(self._post_talk, request, on_sending, on_created, since)
        return await self._session.retried(post)

    async def _post_talk(
        self,
        request: TalkRequest,
        on_sending: Callable[[], Awaitable[object]] | None,
        on_created: Callable[[Talk], Awaitable[object]] | None,
        since: int,
    ) -> Talk:
        async with self._session.traffic.turn(since=since):
            if on_sending is not None:
                await on_sending()
            with anyio.CancelScope(shield=True):
                talk = await self._post_within_deadline(request)
                if on_created is not None:
                    with anyio.fail_after(self.policy.post_deadline):
                        await on_created(talk)
        return talk

    async def _post_within_deadline(self, request: TalkRequest) -> Talk:
        lost: Exception | None = None
        with anyio.move_on_after(self.policy.post_deadline):
            try:
                answer = await self._session.send(
                    "POST", "/talks", doing="make a talk", body=request.to_json()
                )
                return Talk.parse(answer)
            except ServiceUnavailable as error:
                if not error.sent:
                    raise
                lost = error
            except ValueError as error:
                lost = error
        raise _lost(request, lost) from lost

    async def get_talk(self, talk_id: str) -> Talk:
        """Look at a talk.

        Raises:
            talkgen.errors.ResultExpired: There is none, or none any more.
            talkgen.errors.DIdError: See the module `talkgen.errors`.
        """
        return await self._session.retried(partial(self._seen, talk_id))

    async def list_talks(self, *, limit: int = 100, token: str | None = None) -> TalkPage:
        """A part of the account's talks, in no order that D-ID promises.

        Args:
            limit: How many at most.
            token: From the part before.
        """
        params = {"limit": str(limit)} | ({"token": token} if token else {})
        return await self._session.ask(
            TalkPage.parse, "GET", "/talks", doing="list the talks", params=params
        )

    async def delete_talk(self, talk_id: str) -> None:
        """Delete a talk that has ended; one that is gone already is no error.

        Raises:
            talkgen.errors.DIdError: D-ID is still at work on it, for one.
        """
        await self._delete("/talks/{id}", talk_id, "delete the talk")

    async def wait_talk(
        self,
        talk_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - of the client's clock
        seconds: float = 0.0,
        webhook: bool = False,
        on_look: Callable[[Talk | DIdError], None] | None = None,
    ) -> Talk:
        """Wait until a talk is done.

        A look that fails ends nothing: the talk is paid for, and looked at until the deadline.

        Args:
            talk_id: Which one.
            timeout: Seconds until the deadline; by default 300, or 20 for each second of the
                recording where that is more.
            seconds: The recording's length.
            webhook: The talk has one, and its bodies are handed to `notify`: then it is looked
                at rarely without.
            on_look: Told what each look gave.

        Raises:
            talkgen.errors.TalkFailed: D-ID failed at it.
            talkgen.errors.TalkRejected: D-ID's moderation refused it.
            talkgen.errors.ServiceUnavailable: It was not done by the deadline. It may still be,
                later.
            talkgen.errors.ResultExpired: There is no such talk.
        """
        limit = self.polling.deadline(seconds) if timeout is None else timeout
        end, looks = self.clock.now() + limit, Looks(talk_id, on_look)
        with self._sleepers.waiting(talk_id) as sleeper:
            for wait in self.polling.waits(webhook=webhook):
                await sleeper.sleep(min(wait, end - self.clock.now()))
                rest = end - self.clock.now()
                with anyio.move_on_after(max(self.clock.real(rest), LOOK_SECONDS)):
                    if (talk := looks.saw(await self._look(talk_id))) is not None:
                        return talk
                if rest <= 0:
                    break
        raise looks.overdue(limit)

    async def _look(self, talk_id: str) -> Talk | DIdError:
        """One look, once: the next one is the retry."""
        try:
            return await self._seen(talk_id)
        except DIdError as error:
            return error

    async def _seen(self, talk_id: str) -> Talk:
        try:
            async with self._session.traffic.turn():
                doing = "show the talk"
                answer = await self._session.send("GET", "/talks/{id}", item=talk_id, doing=doing)
        except DIdError as error:
            error.talk_id = talk_id
            if error.status == NOT_FOUND:
                gone = f"D-ID does not have talk {talk_id} (any more)."
                raise ResultExpired(gone, status=NOT_FOUND, talk_id=talk_id) from error
            raise
        return parsed(Talk.parse, answer)

    def notify(self, body: bytes | str | Mapping[str, JSON]) -> bool:
        """Hand over what a talk's webhook was sent; from any thread.

        The body is not believed: it wakes whoever waits for that talk, who then asks D-ID.
        Check before that it came to an address that nobody can guess.

        Args:
            body: As it came, or as JSON.

        Returns:
            Somebody here waits for that talk.
        """
        try:
            value = json.loads(body) if isinstance(body, bytes | bytearray | str) else dict(body)
            talk = Talk.parse(value)
        except (ValueError, RecursionError):  # anybody may have sent it
            logger.warning("A webhook body was no talk of D-ID's; it was left out.")
            return False
        return self._sleepers.wake(talk.id)

    async def download(self, talk: Talk, path: str | os.PathLike[str]) -> None:
        """Fetch a talk's video into a file.

        A link that is not taken any more is replaced by a new one.

        Args:
            talk: It is done.
            path: The file to write, replaced whole or left in pieces: check it.

        Raises:
            talkgen.errors.ResultExpired: The talk is gone; or it is older than a day, and a new
                link is not taken either.
            talkgen.errors.ServiceUnavailable: D-ID or its videos are out of reach, or a new link
                to a video that is still kept is not taken: it may be, later.
            talkgen.errors.DIdError: See the module `talkgen.errors`.
        """
        try:
            await self._session.retried(partial(self._fetch, talk, path))
        except ResultExpired:
            await self._session.retried(partial(self._fetch_anew, talk.id, path))

    async def _fetch_anew(self, talk_id: str, path: str | os.PathLike[str]) -> None:
        talk = await self._seen(talk_id)
        try:
            await self._fetch(talk, path)
        except ResultExpired as error:
            error.talk_id = talk_id
            # The store refuses what it does not have yet, or cannot look up, in the same words.
            if talk.created_at is None or utc_now() - talk.created_at < VIDEOS_KEPT:
                raise _not_taken(error) from error
            raise

    async def _fetch(self, talk: Talk, path: str | os.PathLike[str]) -> None:
        if talk.result_url is None:
            raise DIdError(f"Talk {talk.id} has no video: it is {talk.status}.", talk_id=talk.id)
        async with self._downloads:
            transport = await self._session.transport()
            await transport.download(talk.result_url, path)

    # --- the account ---------------------------------------------------------------------------

    async def credits(self) -> Credits:
        """What the account has left."""
        try:
            return await self._session.ask(
                Credits.parse, "GET", "/credits", doing="tell the credits"
            )
        except DIdError as error:
            if error.status != NOT_FOUND:
                raise
            return Credits(0.0, 0.0)

    async def voices(self, provider: str | None = None) -> tuple[Voice, ...]:
        """The voices for texts, of one provider (like `microsoft`) or of all."""
        params = {"provider": provider} if provider else None
        return await self._session.ask(
            voices_of, "GET", "/tts/voices", doing="list the voices", params=params
        )

    async def _delete(self, route: str, item: str, doing: str) -> None:
        try:
            await self._session.ask(lambda _answer: None, "DELETE", route, item=item, doing=doing)
        except DIdError as error:
            if error.status != NOT_FOUND:
                raise


def _lost(request: TalkRequest, cause: Exception | None) -> OutcomeUnknown:
    why = cause or "there was none in time"
    error = OutcomeUnknown(
        f"The answer to the request for a talk was lost ({why}); it may have been made. "
        f"Its token is {request.user_data!r}."
    )
    error.token = request.user_data
    return error


def _not_taken(refusal: ResultExpired) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"The video of talk {refusal.talk_id} cannot be fetched: {refusal}",
        hint="D-ID says that it is there, and keeps it for a day: recover() collects it. Look at "
        "whether a firewall or a proxy lets the host of the videos through.",
        status=refusal.status,
        talk_id=refusal.talk_id,
    )


def _media_type(file_name: str, known: Mapping[str, str]) -> str:
    suffix = file_name.rpartition(".")[2].lower()
    if suffix not in known or not FILE_NAME.fullmatch(file_name):
        raise ValueError(
            f"{file_name!r} must end in {', '.join(f'.{name}' for name in known)}, and have 50 of "
            "a-z A-Z 0-9 . _ - at most"
        )
    return known[suffix]
