"""What a talk is asked for with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs
from attrs import validators

if TYPE_CHECKING:
    from talkgen._types import JSON
    from talkgen.media import Text

__all__ = ["Expression", "TalkConfig", "TalkRequest", "audio_script", "text_script"]

LONGEST_USER_DATA = 1000


@attrs.frozen
class Expression:
    """A mood from a frame on.

    Attributes:
        expression: The mood.
        start_frame: The first frame of it, from 0.
        intensity: 0..1.
    """

    expression: Literal["neutral", "happy", "serious", "surprise"] = attrs.field(
        validator=validators.in_(("neutral", "happy", "serious", "surprise"))
    )
    start_frame: int = attrs.field(default=0, validator=validators.ge(0))
    intensity: float = attrs.field(default=1.0, validator=[validators.ge(0), validators.le(1)])


@attrs.frozen(kw_only=True)
class TalkConfig:
    """How a talk is made.

    Attributes:
        stitch: The animated face is put back into the whole picture; else the video is a square
            of the face. Some plans lack it.
        fluent: The last movement leads back to the first.
        pad_audio: Seconds of silence after the speech, 0..60; they are paid for.
        result_format: `mp4` or `mov`.
        driver_expressions: Moods, in the order of their frames.
    """

    stitch: bool = True
    fluent: bool = False
    pad_audio: float = attrs.field(default=0.0, validator=[validators.ge(0), validators.le(60)])
    result_format: Literal["mp4", "mov"] = attrs.field(
        default="mp4", validator=validators.in_(("mp4", "mov"))
    )
    driver_expressions: tuple[Expression, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        """As the API takes it; what is left at the service's own default is left out."""
        config: dict[str, JSON] = {"stitch": self.stitch, "result_format": self.result_format}
        if self.fluent:
            config["fluent"] = True
        if self.pad_audio:
            config["pad_audio"] = self.pad_audio
        if self.driver_expressions:
            moods = [attrs.asdict(mood) for mood in self.driver_expressions]
            config["driver_expressions"] = {"expressions": moods}
        return config


def audio_script(audio_url: str) -> dict[str, JSON]:
    """A recording that was uploaded, or that is on the web."""
    return {"type": "audio", "audio_url": audio_url}


def text_script(text: Text, provider: str) -> dict[str, JSON]:
    """A text, spoken by a voice of a provider, or by the service's own choice of both."""
    script: dict[str, JSON] = {"type": "text", "input": text.text}
    if text.voice is not None:
        script["provider"] = {"type": provider, "voice_id": text.voice}
    return script


def _one_line(_request: object, _attribute: object, value: str | None) -> None:
    if value is None:
        return
    if not value.strip() or len(value) > LONGEST_USER_DATA or len(value.splitlines()) > 1:
        raise ValueError(f"user_data must be one line of 1..{LONGEST_USER_DATA} characters")


@attrs.frozen(kw_only=True)
class TalkRequest:
    """A talk to be made.

    Attributes:
        source_url: The picture: what an upload gave, or an https link that ends in `.jpg`,
            `.jpeg` or `.png`.
        script: From `audio_script` or `text_script`.
        config: How.
        user_data: Comes back with the talk: what finds it again when an answer is lost.
        name: For people, in D-ID's studio.
        webhook: An https link that D-ID tells of changes.
    """

    source_url: str
    script: dict[str, JSON]
    config: TalkConfig = TalkConfig()
    user_data: str | None = attrs.field(default=None, validator=_one_line)
    name: str | None = None
    webhook: str | None = attrs.field(default=None, repr=False)

    def to_json(self) -> dict[str, JSON]:
        """As the API takes it."""
        body: dict[str, JSON] = {
            "source_url": self.source_url,
            "script": self.script,
            "config": self.config.to_json(),
        }
        options = {"user_data": self.user_data, "name": self.name, "webhook": self.webhook}
        return body | {name: value for name, value in options.items() if value is not None}
