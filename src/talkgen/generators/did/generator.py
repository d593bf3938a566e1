"""D-ID as a generator of videos."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from talkgen._types import Secret
from talkgen.errors import BudgetExceeded, Unauthorized
from talkgen.generators.backgrounds import WHITE, check_colour
from talkgen.generators.did import media
from talkgen.generators.did.client import BASE_URL, DIdClient, check_base_url
from talkgen.generators.did.credentials import authorization
from talkgen.generators.did.job import Job, credits_for
from talkgen.generators.did.purchase import Purchase
from talkgen.generators.did.request import Expression, TalkConfig
from talkgen.generators.did.sharing import SharedClients
from talkgen.generators.did.spending import Spending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from talkgen._types import JSON
    from talkgen.generators.did.timing import Clock, Polling, RetryPolicy
    from talkgen.media import Image, Speech, Text, Video
    from talkgen.protocols import StageContext

__all__ = ["DIdGenerator"]

VERSION = 1  # raised whenever the same input gives another video


def _key(value: str | None) -> Secret | None:
    if not value:
        return None
    authorization(value)  # refuses what is no key before anything runs
    return Secret(value)


def _expressions(value: Iterable[Expression]) -> tuple[Expression, ...]:
    return tuple(value)


def _address(_generator: object, _attribute: object, value: str) -> None:
    check_base_url(value)


def _not_negative(_generator: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value >= 0:  # nor what is no number, which no limit would be
        raise ValueError(f"{attribute.name} must be None, 0 or a number above it")


@attrs.frozen(eq=False)
class DIdGenerator:
    """Has D-ID make the videos; takes recordings and texts, and costs money.

    What leaves the machine: the portrait, laid on the background and without metadata, and the
    recording or the text.

    Attributes:
        api_key: As for `DIdClient`; None takes the pipeline's settings (`D_ID_API_KEY`). Not in
            the repr, and left out of pickles.
        base_url: Of the API.
        background: A colour, as CSS names it, for a portrait that was cut out: D-ID knows no
            transparency.
        stitch: The animated face is put back into the whole portrait; else the video is a square
            of the face. Some plans lack it.
        fluent: The last movement leads back to the first.
        pad_audio: Seconds of silence after the speech, 0..60; they are paid for.
        result_format: `mp4` or `mov`.
        driver_expressions: Moods.
        provider: Who speaks a text whose voice is named.
        name: What talks are called in D-ID's studio, with a part of their token.
        webhook: An https link that D-ID tells of changes; hand what it is sent to `notify`. Not in
            the repr, since its path should be unguessable.
        timeout: Seconds until a talk that is not done is deferred; None takes the settings'
            (`D_ID_TIMEOUT_SECONDS`), else 300, or 20 for each second of the recording.
        max_credits: The most that one run may cost; of a text, by the estimate of `cost`.
        budget: The most that all runs of this object may cost together, in this process: of one
            pipeline, or of all that were given it. A copy counts anew, and so does the next
            process, also for what that one goes on with; a run that D-ID could not make is
            counted out again.
        repost: Ask once more when the answer to a request for a talk was lost and the talk was
            not found; else that is `OutcomeUnknown`.
        keep_remote: Leave talk and uploads at D-ID once the video is here, or will never be.
        check_face: Look for the face with the embedded models before anything is uploaded, also
            where `DetectPersons` has done so: it takes a tenth of a second, and a talk is money.
        detect_faces: Have D-ID count the faces, too, before it is paid.
        client: Asks D-ID, instead of one made here; it stays open.
        retry: How often requests are repeated, of a client made here.
        polling: How often a talk is looked at, of a client made here.
        clock: By which a client made here waits.
    """

    accepts_text: ClassVar[bool] = True

    api_key: Secret | None = attrs.field(default=None, converter=_key)
    base_url: str = attrs.field(default=BASE_URL, kw_only=True, validator=_address)
    background: str = attrs.field(default=WHITE, kw_only=True, validator=check_colour)
    stitch: bool = attrs.field(default=True, kw_only=True)
    fluent: bool = attrs.field(default=False, kw_only=True)
    pad_audio: float = attrs.field(default=0.0, kw_only=True)
    result_format: Literal["mp4", "mov"] = attrs.field(default="mp4", kw_only=True)
    driver_expressions: tuple[Expression, ...] = attrs.field(
        default=(), kw_only=True, converter=_expressions
    )
    provider: str = attrs.field(default="microsoft", kw_only=True)
    name: str = attrs.field(default="talkgen", kw_only=True)
    webhook: str | None = attrs.field(default=None, kw_only=True, repr=False)
    timeout: float | None = attrs.field(default=None, kw_only=True, validator=_not_negative)
    max_credits: float | None = attrs.field(default=None, kw_only=True, validator=_not_negative)
    budget: float | None = attrs.field(default=None, kw_only=True, validator=_not_negative)
    repost: bool = attrs.field(default=True, kw_only=True)
    keep_remote: bool = attrs.field(default=True, kw_only=True)
    check_face: bool = attrs.field(default=True, kw_only=True)
    detect_faces: bool = attrs.field(default=False, kw_only=True)
    client: DIdClient | None = attrs.field(default=None, kw_only=True)
    retry: RetryPolicy | None = attrs.field(default=None, kw_only=True)
    polling: Polling | None = attrs.field(default=None, kw_only=True)
    clock: Clock | None = attrs.field(default=None, kw_only=True)
    config: TalkConfig = attrs.field(init=False, repr=False)
    _spending: Spending = attrs.field(factory=Spending, init=False, repr=False)
    _clients: SharedClients = attrs.field(factory=SharedClients, init=False, repr=False)

    @config.default
    def _config(self) -> TalkConfig:
        return TalkConfig(
            stitch=self.stitch,
            fluent=self.fluent,
            pad_audio=self.pad_audio,
            result_format=self.result_format,
            driver_expressions=self.driver_expressions,
        )

    @property
    def key(self) -> str:
        """The service and everything that changes its video; no secret."""
        return f"d-id@{VERSION}({self.background},{self.provider},{self.config})"

    def cost(self, speech: Speech | Text) -> int:
        """Credits that a video costs: one for every 15 seconds that have begun.

        Of a text it is an estimate, at 12.5 characters a second.
        """
        return credits_for(speech, self.pad_audio)

    def check(self, speech: Speech | Text) -> None:
        """Refuse, before any stage works, what D-ID would refuse.

        Raises:
            talkgen.errors.InvalidMedia: The recording is too long or silent, or the text is too
                short or too long.
        """
        media.check_speech(speech)

    async def generate(
        self, portrait: Image, speech: Speech | Text, context: StageContext
    ) -> Video:
        """Have a video made, or go on with one that an earlier attempt has paid for.

        Args:
            portrait: With a face, 160 pixels a side or more.
            speech: A recording of 5 minutes at most, or a text.
            context: The stage's. Its operations say what was paid for.

        Raises:
            talkgen.errors.InvalidMedia: A limit of D-ID's is exceeded.
            talkgen.errors.NoFaceInPortrait: There is no face to animate.
            talkgen.errors.BudgetExceeded: It would cost too much.
            talkgen.errors.OutcomeUnknown: Nobody knows whether a talk was made.
            talkgen.errors.MediaFailed: The video came damaged, again and again.
            talkgen.errors.DIdError: Its other classes say what went wrong.
        """
        async with self._client_for(context) as client:
            purchase = await Purchase.open(client, context.operations)
            return await Job(self, client, purchase, portrait, speech, context).video()

    def reserve(self, task_id: str, cost: int) -> None:
        """Count a run in, unless that is more than is allowed.

        Raises:
            talkgen.errors.BudgetExceeded: It would cost too much.
        """
        if self.max_credits is not None and cost > self.max_credits:
            raise BudgetExceeded(
                f"The run costs {cost} credits, and max_credits is {self.max_credits:g}."
            )
        self._spending.reserve(task_id, cost, self.budget)

    def give_back(self, task_id: str) -> None:
        """Count a run out that cost nothing after all."""
        self._spending.give_back(task_id)

    def settle(self, task_id: str, cost: int) -> None:
        """Count a run for what it did cost."""
        self._spending.settle(task_id, cost)

    def notify(self, body: bytes | str | Mapping[str, JSON]) -> bool:
        """Hand over what the webhook was sent, from any thread; see `DIdClient.notify`."""
        return self.client.notify(body) if self.client else self._clients.notify(body)

    @asynccontextmanager
    async def _client_for(self, context: StageContext) -> AsyncIterator[DIdClient]:
        if self.client is not None:
            yield self.client
            return
        api_key = self.api_key or context.settings.d_id_api_key
        if not api_key:
            raise Unauthorized(
                "There is no key for D-ID.",
                hint="Set D_ID_API_KEY and use Settings.from_env(), or pass DIdGenerator(api_key). "
                "Pickles leave the key out.",
            )
        options: dict[str, Any] = {"retry": self.retry, "polling": self.polling}
        async with self._clients.one(
            api_key,
            lambda: DIdClient(api_key, base_url=self.base_url, clock=self.clock, **options),
        ) as client:
            yield client
