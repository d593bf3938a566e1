"""Making the portrait speak."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs

from talkgen.media import Text

if TYPE_CHECKING:
    from talkgen.draft import Draft
    from talkgen.protocols import Backends, StageContext, VideoGenerator

__all__ = ["GenerateVideo"]


@attrs.frozen
class GenerateVideo:
    """Make a video of the portrait speaking.

    Attributes:
        generator: Makes the video; None takes the pipeline's.
    """

    name: ClassVar[str] = "video_generation"
    weight: ClassVar[float] = 1.0
    requires: ClassVar[frozenset[str]] = frozenset({"portrait", "speech"})
    provides: ClassVar[frozenset[str]] = frozenset({"video"})
    resets: ClassVar[frozenset[str]] = frozenset()

    generator: VideoGenerator | None = None

    @property
    def key(self) -> str:
        """The stage, and the generator where it was given one."""
        return f"{self.name}({self.generator.key})" if self.generator else self.name

    def bound(self, backends: Backends) -> GenerateVideo:
        """With the pipeline's generator where it was given none.

        A task that one generator was paid for is therefore not taken up with another one, as it
        is where only the settings of the process differ.
        """
        return attrs.evolve(self, generator=self.generator or backends.generator)

    def check(self, draft: Draft, context: StageContext) -> None:
        """Refuse, before any stage works, what the generator cannot speak.

        A generator may have a `check(speech)` of its own.

        Raises:
            ValueError: The speech is a text and the generator wants a recording.
        """
        generator = self._chosen(context)
        if isinstance(draft.speech, Text) and not generator.accepts_text:
            raise ValueError(
                f"{type(generator).__name__} cannot speak a text; give it a recording instead"
            )
        if (check := getattr(generator, "check", None)) is not None:
            check(draft.speech)

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Fill in `video`, and what the generator tells of it in `metadata`."""
        assert draft.speech is not None  # noqa: S101 - `requires` has made sure
        generator = self._chosen(context)
        video = await generator.generate(draft.portrait, draft.speech, context)
        return attrs.evolve(draft, video=video, metadata={**draft.metadata, **video.metadata})

    def _chosen(self, context: StageContext) -> VideoGenerator:
        return self.generator or context.backends.generator
