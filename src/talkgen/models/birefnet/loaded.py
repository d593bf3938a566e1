"""BiRefNet on a device: from a picture to its alpha."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from talkgen.models.birefnet import engine
from talkgen.models.birefnet.hub import BiRefNetModel
from talkgen.requirements import explained

with explained():
    import torch
    from torch.nn import functional as F  # noqa: N812 - the field's name for it
    from transformers.utils import logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from talkgen.media import Image
    from talkgen.models.birefnet.model import MattingModel

__all__ = ["LoadedMatting"]

# Of ImageNet, by which the backbone was trained.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class LoadedMatting:
    """The network, ready to run."""

    def __init__(self, model: MattingModel, file: Path, device: str) -> None:
        """Load the weights.

        Args:
            model: What is to be loaded.
            file: Its weights.
            device: As torch calls it.
        """
        self._sizes = model.sizes
        self._device = torch.device(device)
        self._dtype = torch.float16 if model.half_on(device) else torch.float32
        with _without_progress():
            network = BiRefNetModel.from_pretrained(file, dtype=self._dtype)
        network.to(self._device)  # type: ignore[arg-type]  # its decorator confuses mypy
        self._networks: dict[int, Callable[[Tensor], Tensor]] = dict.fromkeys(self._sizes, network)
        if model.tensorrt and self._device.type == "cuda" and engine.available():
            self._networks[model.size] = engine.built(model, network, self._device)
        self._mean = torch.tensor(_MEAN, device=self._device).view(3, 1, 1)
        self._deviation = torch.tensor(_DEVIATION, device=self._device).view(3, 1, 1)

    def run(self, batch: Sequence[Image], *, level: int = 0) -> list[NDArray[np.float32]]:
        """The alpha of each picture.

        Raises:
            torch.OutOfMemoryError: There was no room; a higher level needs less.
        """
        with torch.inference_mode():
            return [self._alpha(image, self._sizes[level]) for image in batch]

    def close(self) -> None:
        """Free the memory."""
        self._networks.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _alpha(self, image: Image, size: int) -> NDArray[np.float32]:
        # The network has learned pictures of any shape squeezed into its square. They are scaled on
        # the host, in bytes: what a device needs does not depend on how large they are.
        pixels = torch.tensor(image.pixels[..., :3]).permute(2, 0, 1)[None]
        small = _scaled(pixels, size, size).to(self._device).float() / 255
        normal = (small - self._mean) / self._deviation
        logits = self._networks[size](normal.to(self._dtype))
        alpha = _scaled(logits.float().sigmoid().cpu(), image.height, image.width)
        return alpha[0, 0].clamp_(0, 1).numpy()


@contextmanager
def _without_progress() -> Iterator[None]:
    """A library writes nothing to a terminal; the switch of `transformers` is the process's."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _scaled(maps: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(maps, (height, width), mode="bilinear", antialias=True)
