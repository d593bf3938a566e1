"""Cutting the person out, and putting something else behind them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import anyio.to_thread
import attrs

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
BLUR = 0.03  # of the portrait's longer side, standard deviation


@attrs.frozen
class RemoveBackground:
    """Cut the person out of the portrait. A run goes on with the whole portrait if this fails.

    Attributes:
        remover: Makes the alpha; None takes the pipeline's.
        smoothing: Fit the alpha to the picture's edges and clear the old background out of the
            colours there; False leaves the network's own.
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
        """Make `portrait` RGBA."""
        remover = self.remover or context.backends.remover
        cut = await remover.remove(draft.portrait, scheduler=context.scheduler)
        if self.smoothing:
            cut = await anyio.to_thread.run_sync(_smoothed, draft.portrait, cut)
        await self._keep(cut, context)
        context.report(1.0, "Background removed successfully", stage="background_removal_complete")
        return attrs.evolve(draft, portrait=cut)

    async def _keep(self, cut: Image, context: StageContext) -> None:
        file = await anyio.to_thread.run_sync(cut.encode, "png")
        await context.files.put("processed", "transparent.png", file)
        mask = await anyio.to_thread.run_sync(_mask, cut)
        await context.files.put("processed", "mask.png", mask)


def _smoothed(portrait: Image, cut: Image) -> Image:
    with explained():
        import numpy as np

        from talkgen.models.matting import estimate_foreground, refine_alpha
    pixels = np.ascontiguousarray(portrait.pixels[..., :3])
    alpha = refine_alpha(pixels, np.asarray(cut.pixels[..., 3] / OPAQUE, np.float32))
    colours = estimate_foreground(pixels, alpha)
    return Image(np.dstack([colours, np.rint(alpha * OPAQUE).astype(np.uint8)]))


def _mask(cut: Image) -> bytes:
    from talkgen import codecs

    return codecs.encode_image(cut.pixels[..., 3], "png")


@attrs.frozen(eq=False)
class ReplaceBackground:
    """Put something behind a person who was cut out.

    Attributes:
        background: A colour as CSS names it, a picture (fitted so that it covers), or `blur`:
            what was there, out of focus.
    """

    name: ClassVar[str] = "background"
    weight: ClassVar[float] = 0.5
    requires: ClassVar[frozenset[str]] = PORTRAIT
    provides: ClassVar[frozenset[str]] = PORTRAIT
    resets: ClassVar[frozenset[str]] = frozenset()

    background: str | Image = attrs.field()

    @background.validator
    def _known(self, _attribute: object, value: str | Image) -> None:
        if isinstance(value, str) and value != "blur":
            _colour(value)

    @property
    def key(self) -> str:
        """The stage and what it puts behind."""
        behind = self.background
        return f"{self.name}({behind.digest if isinstance(behind, Image) else behind})"

    async def run(self, draft: Draft, context: StageContext) -> Draft:
        """Make `portrait` RGB again."""
        if not draft.portrait.has_alpha:
            context.degraded("The background was not replaced: the portrait is not cut out.")
            return draft
        work = partial(_composed, draft, self.background)
        portrait = await anyio.to_thread.run_sync(work)
        return attrs.evolve(draft, portrait=portrait)


def _composed(draft: Draft, background: str | Image) -> Image:
    import numpy as np

    portrait = draft.portrait
    # In the encoded values, not in linear light: that is how the alpha was estimated, and how
    # browsers and editors lay a cut-out on a page.
    alpha = portrait.pixels[..., 3:].astype(np.float32) / OPAQUE
    mixed = portrait.pixels[..., :3] * alpha + _plate(draft, background) * (1 - alpha)
    return Image(np.rint(mixed).astype(np.uint8))


def _plate(draft: Draft, background: str | Image) -> NDArray[np.uint8]:
    import numpy as np

    width, height = draft.portrait.width, draft.portrait.height
    if isinstance(background, Image):
        return cover(background, width, height).pixels[..., :3]
    if background == "blur":
        return _blurred(draft.image.cropped(draft.portrait_box).resized(width, height))
    return np.full((height, width, 3), _colour(background), np.uint8)


def _blurred(image: Image) -> NDArray[np.uint8]:
    with explained():
        import cv2
        import numpy as np
    sigma = BLUR * max(image.width, image.height)
    return np.asarray(cv2.GaussianBlur(image.pixels[..., :3], (0, 0), sigma), np.uint8)


def cover(image: Image, width: int, height: int) -> Image:
    """The largest part from the middle that has this shape, at this size in pixels."""
    scale = min(image.width / width, image.height / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    x0, y0 = (image.width - w) // 2, (image.height - h) // 2
    return image.cropped((x0, y0, x0 + w, y0 + h)).resized(width, height)


def _colour(text: str) -> tuple[int, int, int]:
    with explained():
        from PIL import ImageColor
    red, green, blue, *_ = ImageColor.getrgb(text)
    return red, green, blue
