"""One video from D-ID: upload, pay, wait, collect."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
import attrs

from talkgen._clock import utc_now
from talkgen.errors import (
    DIdError,
    FileMissing,
    MediaFailed,
    NoFaceInPortrait,
    ResultExpired,
    ServiceUnavailable,
    TalkFailed,
    TalkRejected,
)
from talkgen.generators.did import media
from talkgen.generators.did.client import VIDEOS_KEPT
from talkgen.generators.did.purchase import user_data_of
from talkgen.generators.did.request import TalkRequest, audio_script, text_script
from talkgen.generators.did.results import Talk
from talkgen.media import FileRef, Speech, Text, Video
from talkgen.models.face import find_mesh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from talkgen._types import JSON
    from talkgen.generators.did.client import DIdClient
    from talkgen.generators.did.generator import DIdGenerator
    from talkgen.generators.did.media import VideoFacts
    from talkgen.generators.did.purchase import Purchase
    from talkgen.media import Encoded, Image
    from talkgen.protocols import StageContext

__all__ = ["Job", "credits_for"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

BLOCK_SECONDS = 15
CHARACTERS_PER_SECOND = 12.5  # of a voice that takes its time

UPLOADS_KEPT = timedelta(hours=23)  # D-ID promises 24

TICK = 2.0  # real seconds between two events
USUAL_SECONDS = 15.0  # that a talk takes, beside the recording's length

UPLOADING, PROCESSING = 0.0, 0.5  # of the stage's span: 70 and 75 %
NEARLY = 0.95

TIDYING = 10.0  # real seconds that a run which has failed, or was cancelled, goes on for that


def seconds_of(speech: Speech | Text) -> float:
    """How long the speech is; about, for a text."""
    if isinstance(speech, Speech):
        return speech.duration
    return len(speech.text) / CHARACTERS_PER_SECOND


def credits_for(speech: Speech | Text, pad_audio: float) -> int:
    """What it costs: a credit for every 15 seconds that have begun."""
    return blocks(seconds_of(speech) + pad_audio)


def blocks(seconds: float) -> int:
    """Blocks of 15 seconds that have begun."""
    return max(1, ceil(seconds / BLOCK_SECONDS))


@attrs.define
class Job:
    """One call of `DIdGenerator.generate`, on a purchase that may be new or have any past."""

    _generator: DIdGenerator
    _client: DIdClient
    _purchase: Purchase
    _portrait: Image
    _speech: Speech | Text
    _context: StageContext
    _timings: dict[str, float] = attrs.field(factory=dict)
    _uploaded: dict[str, JSON] = attrs.field(factory=dict)
    _seen: str = "asked for"
    _shown: bool = False  # the account's key shows the talk

    async def video(self) -> Video:
        """Do whatever is left to be done."""
        video = await self._kept() or await self._bought()
        await self._tidy()
        return video

    async def _bought(self) -> Video:
        try:
            if self._purchase.operation is None:
                await self._begin()
            talk = await self._told(self._made)
        except BaseException:
            if not self._purchase.spends:
                self._generator.give_back(self._context.task_id)
                with anyio.move_on_after(TIDYING, shield=True):
                    await self._tidy()
            raise
        return await self._collected(talk)

    # --- before anything is paid for -----------------------------------------------------------

    async def _begin(self) -> None:
        """Check, upload, and journal what is about to be paid for."""
        generator = self._generator
        media.check_speech(self._speech)
        if generator.check_face:
            await find_mesh(self._portrait, scheduler=self._context.scheduler)
        cost = generator.cost(self._speech)
        generator.reserve(self._context.task_id, cost)
        with self._timed("upload"):
            uploads = await self._upload()
        await self._purchase.intend(credits=cost, **uploads)

    async def _upload(self) -> dict[str, JSON]:
        self._context.report(UPLOADING, "Uploading to D-ID", stage="did_upload")
        picture, sound = await self._prepared()
        facts: dict[str, JSON] = {"uploaded_at": utc_now().isoformat()}
        self._uploaded = facts  # as far as it comes
        detect = self._generator.detect_faces
        since = self._purchase.since
        image = await self._client.upload_image(picture.data, detect_faces=detect, since=since)
        known = self._purchase.operation
        earlier = known.facts["image_urls"] if known else []
        facts |= {"image_urls": [*earlier, image.url], "image_id": image.id}
        if detect and image.faces == 0:
            raise NoFaceInPortrait("D-ID found no face in the portrait.")
        if sound is not None:
            name = f"speech.{sound.type}"
            audio = await self._client.upload_audio(sound.data, file_name=name, since=since)
            facts |= {"audio_url": audio.url, "audio_id": audio.id}
        return facts

    async def _prepared(self) -> tuple[Encoded, Encoded | None]:
        in_thread = anyio.to_thread.run_sync
        background = self._generator.background
        picture = await in_thread(media.picture, self._portrait, background)
        if isinstance(self._speech, Text):
            return picture, None
        return picture, await in_thread(media.sound, self._speech)

    # --- paying and waiting --------------------------------------------------------------------

    async def _made(self) -> Talk:
        """The talk, once it is done."""
        generator, purchase = self._generator, self._purchase
        with self._timed("asking"):
            number = await purchase.talk_id(self._request, repost=generator.repost)
        try:
            with self._timed("processing"):
                return await self._client.wait_talk(
                    number,
                    timeout=self._timeout(),
                    seconds=seconds_of(self._speech),
                    webhook=generator.webhook is not None,
                    on_look=self._looked,
                )
        except (TalkFailed, TalkRejected):
            await purchase.settle("refused")  # D-ID gives the credits back
            raise
        except ResultExpired as error:
            if not self._shown and utc_now() - purchase.known.intended_at < VIDEOS_KEPT:
                raise _not_shown(error) from error
            await purchase.gone()
            raise

    def _timeout(self) -> float | None:
        own = self._generator.timeout
        return self._context.settings.d_id_timeout_seconds if own is None else own

    async def _request(self) -> TalkRequest:
        """What to ask for; what D-ID may have deleted by now is uploaded again."""
        facts = self._purchase.known.facts
        if utc_now() - _moment(facts["uploaded_at"]) > UPLOADS_KEPT:
            await self._purchase.record(**await self._upload())
            facts = self._purchase.known.facts
        generator, operation = self._generator, self._purchase.known
        script = (
            text_script(self._speech, generator.provider)
            if isinstance(self._speech, Text)
            else audio_script(facts["audio_url"])
        )
        return TalkRequest(
            source_url=facts["image_urls"][-1],
            script=script,
            config=generator.config,
            user_data=user_data_of(operation),
            name=f"{generator.name} {operation.token[:8]}",
            webhook=generator.webhook,
        )

    # --- telling -------------------------------------------------------------------------------

    async def _told(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work while telling of it, whatever it waits for."""
        made: list[T] = []
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell)
            try:
                made.append(await work())
            except Exception as error:  # noqa: BLE001 - raised again, outside of the group
                failed = error
            tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed
        return made[0]

    async def _tell(self) -> None:
        clock = self._client.clock
        began, expected = clock.now(), USUAL_SECONDS + seconds_of(self._speech)
        while True:
            elapsed = clock.now() - began
            share = min(elapsed / expected, NEARLY)
            self._context.report(
                PROCESSING + (1 - PROCESSING) * share,
                f"D-ID: {self._seen}, {elapsed:.0f} of about {expected:.0f} s",
                stage="did_processing",
                elapsed=round(elapsed, 1),
                expected=round(expected, 1),
            )
            await anyio.sleep(TICK)

    def _looked(self, seen: Talk | DIdError) -> None:
        self._shown |= isinstance(seen, Talk)
        self._seen = seen.status if isinstance(seen, Talk) else "not reached just now"

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        began = self._client.clock.now()
        yield
        self._timings[step] = round(self._client.clock.now() - began, 3)

    # --- collecting ----------------------------------------------------------------------------

    async def _collected(self, talk: Talk) -> Video:
        """The video, staged and journaled, and nothing to be paid for any more."""
        suffix = self._generator.config.result_format
        cost = self._cost(talk)
        async with self._context.files.scratch() as folder:
            path = folder / f"video.{suffix}"
            with self._timed("download"):
                facts = await self._downloaded(talk, path)
            file = await self._context.files.put("videos", f"final.{suffix}", path)
        video = self._described(file, facts, cost)
        await self._purchase.record(credits=cost, **_to_json(video))
        await self._purchase.settle("collected")
        self._generator.settle(self._context.task_id, cost)
        self._context.report(1.0, "Video received from D-ID", stage="did_complete")
        return video

    def _cost(self, talk: Talk) -> int:
        """What it did cost: of a text, D-ID alone knows how long it is, once it is spoken."""
        if isinstance(self._speech, Text) and talk.duration is not None:
            return blocks(talk.duration)
        return int(self._purchase.known.facts["credits"])

    async def _downloaded(self, talk: Talk, path: Path) -> VideoFacts:
        """Fetch the video until it is whole."""
        length = None if isinstance(self._speech, Text) else self._speech.duration
        examine = partial(media.examine, path, length, self._generator.pad_audio)
        for left in reversed(range(self._client.policy.retries + 1)):
            try:
                await self._client.download(talk, path)
                return await anyio.to_thread.run_sync(examine)
            except ResultExpired:
                await self._purchase.gone()
                raise
            except MediaFailed:
                if not left:
                    raise
        raise AssertionError("the last try either returns or raises")

    def _described(self, file: FileRef, facts: VideoFacts, cost: int) -> Video:
        metadata = {
            "talk_id": self._purchase.known.facts["talk_id"],
            "credits": cost,
            "timings": dict(self._timings),
        }
        return Video(
            file=file,
            duration=facts.duration,
            fps=facts.fps,
            size=facts.size,
            metadata={"d_id": metadata},
        )

    async def _kept(self) -> Video | None:
        """The video of an attempt that died after collecting it, if its file is still there."""
        operation = self._purchase.operation
        if operation is None or operation.settled != "collected":
            return None
        video = _from_json(operation.facts)
        try:
            await self._context.files.get(video.file)
        except FileMissing:
            return None
        self._context.report(1.0, "Video received from D-ID before", stage="did_complete")
        return video

    async def _tidy(self) -> None:
        """Delete at D-ID what it keeps and nobody needs any more, so that failing does no harm."""
        if self._generator.keep_remote:
            return
        operation, client = self._purchase.operation, self._client
        facts = {**(operation.facts if operation else {}), **self._uploaded}
        deletions = (
            (client.delete_talk, facts.get("talk_id")),
            (client.delete_image, facts.get("image_id")),
            (client.delete_audio, facts.get("audio_id")),
        )
        for delete, name in deletions:
            try:
                if name is not None:
                    await delete(name)
            except DIdError as error:
                logger.warning("task %s: %s", self._context.task_id, str(error))


def _not_shown(error: ResultExpired) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"D-ID took the request for talk {error.talk_id}, and does not show the talk.",
        hint="It is paid for: recover() looks again. Look at whether the key is still that of the "
        "account which asked for it.",
        status=error.status,
        talk_id=error.talk_id,
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _to_json(video: Video) -> dict[str, JSON]:
    """A video as facts of the journal, which keeps no link that is signed."""
    file = attrs.asdict(video.file) | ({"url": ""} if "?" in video.url else {})
    fields = {"duration": video.duration, "fps": video.fps, "size": video.size}
    return {"file": file, "video": {**fields, "metadata": video.metadata}}


def _from_json(facts: Mapping[str, JSON]) -> Video:
    video = facts["video"]
    return Video(file=FileRef(**facts["file"]), **{**video, "size": tuple(video["size"])})
