"""Cutting the person out, and putting something else behind them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import anyio.to_thread
import attrs

from talkgen.cache import IMAGE, recalled
from talkgen.errors import NoPersonDetected
from talkgen.media import Image
from talkgen.requirements import explained

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgen.draft import Draft
    from talkgen.protocols import BackgroundRemover, StageContext

__all__ = ["RemoveBackground", "ReplaceBackground", "cover"]

PORTRAIT = frozenset({"portrait"})
OPAQUE = 255


@attrs.frozen
class RemoveBackground:
    """Cut the person out of the portrait. A run goes on with the whole portrait if this fails.

    Attributes:
        remover: Makes the alpha; None takes the pipeline's.
        smoothing: Fit the alpha to the picture's edges, and clear the old background out of the
            colours there; False leaves the network's own. A remover whose result is final
            (`refined`) is left alone in any case.
    """

    name: ClassVar[str] = "background_removal"
    weight: ClassVar[float] = 1.0
    optional: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = PORTRAIT
    provides: ClassVar[frozenset[str]] = PORTRAIT
    resets: ClassVar[frozenset[str]] = frozenset()

    remover: BackgroundRemover | None = None
    smoothing: bool = True

    @property
    def key(self) -> str:
        """The stage and everything that changes what it gives."""
        return f"{self.name}({getattr(self.remover, 'key', 'default')},{self.smoothing})"

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Make `portrait` RGBA.

        Raises:
            talkgen.errors.NoPersonDetected: The remover took everything for background.
            talkgen.errors.Degraded: The remover has a shortfall, and the pipeline is strict.
        """
        remover = self.remover or context.backends.remover
        if shortfall := getattr(remover, "shortfall", None):
            context.degraded(shortfall)
        remove = partial(remover.remove, draft.portrait, scheduler=context.scheduler)
        cut = await recalled(context, remover, draft.portrait, remove, IMAGE)
        if self.smoothing and not getattr(remover, "refined", False):
            cut = await anyio.to_thread.run_sync(_smoothed, draft.portrait, cut)
        if cut.pixels[..., 3].max() <= OPAQUE // 2:
            raise NoPersonDetected("The portrait has nobody to cut out.")
        await _keep(cut, context)
        context.report(1.0, "Background removed successfully", stage="background_removal_complete")
        return attrs.evolve(draft, portrait=cut)


async def _keep(cut: Image, context: StageContext) -> None:
    whole = await anyio.to_thread.run_sync(cut.original)
    mask = await anyio.to_thread.run_sync(_mask, cut)
    await context.files.put_all(
        ("processed", "transparent.png", whole.data), ("processed", "mask.png", mask)
    )


def _mask(cut: Image) -> bytes:
    from talkgen import codecs

    return codecs.encode_image(cut.pixels[..., 3], "png")


def _smoothed(portrait: Image, cut: Image) -> Image:
    with explained():
        import numpy as np

        from talkgen.models.matting import estimate_foreground, refine_alpha, with_alpha
    alpha = refine_alpha(portrait.pixels, _alpha(cut))
    if portrait.has_alpha:
        # What was transparent before stays so, wherever the filter would draw the edge.
        alpha = np.minimum(alpha, _alpha(portrait))
    return Image(with_alpha(estimate_foreground(portrait.pixels, alpha), alpha))


def _alpha(image: Image) -> NDArray[np.float32]:
    import numpy as np

    return image.pixels[..., 3].astype(np.float32) / np.float32(OPAQUE)


def _background(_instance: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, str | Image):
        raise TypeError(f"background={value!r}: must be a colour, an Image or 'blur'")
    if isinstance(value, str) and value != "blur":
        from talkgen import codecs

        try:
            codecs.parse_colour(value)
        except ValueError as error:
            raise ValueError(f"background={value!r}: {error}, an Image or 'blur'") from error


@attrs.frozen(eq=False)
class ReplaceBackground:
    """Put something behind a person who was cut out.

    Attributes:
        background: A colour as CSS writes it (`white`, `#fff`, `rgb(255, 255, 255)`), a picture,
            of which the middle is fitted so that it covers all, or `blur`: what was there, out
            of focus. Transparent parts of a picture are white.
    """

    name: ClassVar[str] = "background"
    weight: ClassVar[float] = 0.5
    requires: ClassVar[frozenset[str]] = PORTRAIT
    provides: ClassVar[frozenset[str]] = PORTRAIT
    resets: ClassVar[frozenset[str]] = frozenset()

    background: str | Image = attrs.field(validator=_background)

    @property
    def key(self) -> str:
        """The stage and what it puts behind."""
        behind = self.background
        return f"{self.name}({behind.digest if isinstance(behind, Image) else behind})"

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Make `portrait` RGB; one that is not cut out stays as it is.

        Raises:
            talkgen.errors.Degraded: It is not cut out, and the pipeline is strict.
        """
        if not draft.portrait.has_alpha:
            context.degraded("The background was not replaced: the portrait is not cut out.")
            return draft
        portrait = await anyio.to_thread.run_sync(_composed, draft, self.background)
        return attrs.evolve(draft, portrait=portrait)


def _composed(draft: Draft, background: str | Image) -> Image:
    with explained():
        from talkgen.models.matting import over
    return Image(over(draft.portrait.pixels, _plate(draft, background)))


def _plate(draft: Draft, background: str | Image) -> NDArray[np.uint8]:
    """What goes behind the portrait: RGB of its size, or one colour."""
    if isinstance(background, Image):
        behind = cover(background, draft.portrait.width, draft.portrait.height)
        return behind.flattened().pixels
    if background == "blur":
        return _defocused(draft)
    import numpy as np

    from talkgen import codecs

    return np.array(codecs.parse_colour(background), np.uint8)


def _defocused(draft: Draft) -> NDArray[np.uint8]:
    from talkgen.models.matting import defocused_background

    portrait = draft.portrait
    photo = draft.image.cropped(draft.portrait_box).resized(portrait.width, portrait.height)
    return defocused_background(photo.pixels, _alpha(portrait))


def cover(image: Image, width: int, height: int) -> Image:
    """The largest part from the middle of a picture that has this shape, at this size in pixels."""
    scale = min(image.width / width, image.height / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    x0, y0 = (image.width - w) // 2, (image.height - h) // 2
    return image.cropped((x0, y0, x0 + w, y0 + h)).resized(width, height)
