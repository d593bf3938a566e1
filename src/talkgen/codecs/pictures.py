"""Pictures: files to pixels and back, by Pillow."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from talkgen.codecs._arrays import check_array, frozen
from talkgen.errors import InvalidImage, InvalidInput, MediaFailed
from talkgen.requirements import explained

with explained():
    from PIL import Image, ImageColor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]

__all__ = [
    "IMAGE_FORMATS",
    "as_pixels",
    "decode_image",
    "encode_image",
    "flatten",
    "parse_colour",
    "pixels_of",
    "resize",
]

# Pillow's plugins that are tried, and the file name suffix of each. Left out is what runs another
# program (EPS), draws vectors (WMF), or is no format for photos.
IMAGE_FORMATS = {
    "PNG": "png",
    "JPEG": "jpeg",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tiff",
    "AVIF": "avif",
    "PPM": "ppm",
}
IMAGE_HINT = (
    "Pass a photo as JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or PPM; "
    "save any other format, such as HEIC or SVG, as one of these first."
)
DAMAGED_IMAGE_HINT = "Get the picture again, or open it elsewhere and save it anew."
PIXEL_LIMIT_HINT = "Make it smaller, or raise the limit: Image.open(source, max_pixels=...)."

EXIF_ORIENTATION = 0x0112
OPAQUE = 255

ImageFormat: TypeAlias = Literal["png", "jpeg"]


def decode_image(data: bytes, *, max_pixels: int) -> tuple[Pixels, str]:
    """Decode the first frame of a picture, upright.

    Colour profiles are not applied: the numbers of the file are taken for sRGB.

    Args:
        data: The file.
        max_pixels: Width times height, checked in the header before anything is decoded.

    Returns:
        RGB or, where the file has transparency of any kind, RGBA, shape (height, width, 3 or 4),
        read-only; and the format's file name suffix.

    Raises:
        talkgen.errors.InvalidImage: It is no picture, is damaged or truncated, or is too large.
    """
    with _image_errors():
        image, suffix = _identify(data)
    return _from_pillow(image, max_pixels), suffix


def pixels_of(source: object, *, max_pixels: int) -> Pixels | None:
    """The pixels of an array or of Pillow's image; None where the source is neither.

    Raises:
        talkgen.errors.InvalidImage: See `as_pixels` and `decode_image`.
    """
    if isinstance(source, Image.Image):
        return _from_pillow(source, max_pixels)
    if not isinstance(source, np.ndarray):
        return None
    pixels = as_pixels(source)
    _check_pixels(pixels.shape[1], pixels.shape[0], max_pixels)
    return pixels


def as_pixels(array: NDArray[np.generic]) -> Pixels:
    """Check an array of pixels and make it RGB or RGBA.

    Args:
        array: `uint8`, shape (height, width) for grey, (height, width, 3) or (height, width, 4).

    Returns:
        C-contiguous and read-only; the array itself where it is that already.

    Raises:
        talkgen.errors.InvalidImage: Another shape or dtype, or no pixels.
        TypeError: It is no array.
    """
    check_array(array)
    if array.dtype != np.uint8:
        raise InvalidImage(
            f"An array of {array.dtype} is not a picture: uint8 is wanted.",
            hint="From 0..1: np.rint(array * 255).clip(0, 255).astype(np.uint8).",
        )
    grey = array.ndim == len("hw")
    if not grey and (array.ndim != len("hwc") or array.shape[2] not in {3, 4}):
        raise InvalidImage(
            f"An array of shape {array.shape} is not a picture: "
            "(height, width), (height, width, 3) or (height, width, 4) is wanted."
        )
    _check_pixels(array.shape[1], array.shape[0], array.size)
    pixels = array.astype(np.uint8, copy=False)
    return frozen(np.stack([pixels] * 3, axis=-1) if grey else pixels)


def encode_image(pixels: Pixels, format: ImageFormat, *, quality: int = 90) -> bytes:  # noqa: A002 - the word for it
    """Encode pixels.

    Args:
        pixels: `uint8`, shape (height, width) for grey, (height, width, 3) or (height, width, 4).
        format: `png` is lossless; `jpeg` has no transparency.
        quality: 1..95, of JPEG alone.

    Raises:
        ValueError: JPEG of pixels with alpha.
        talkgen.errors.MediaFailed: The format cannot hold this picture.
    """
    if format == "jpeg" and pixels.shape[2:] == (4,):
        raise ValueError("JPEG has no transparency: put the picture on a background first.")
    file = io.BytesIO()
    try:
        Image.fromarray(pixels).save(file, format, quality=quality)
    except OSError as error:
        height, width = pixels.shape[:2]
        raise MediaFailed(
            f"A picture of {width}x{height} cannot be {format}: {error}.",
            hint="Make it smaller; PNG holds any size.",
        ) from error
    return file.getvalue()


def parse_colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue of an opaque colour as CSS writes it, 0..255.

    Raises:
        ValueError: The text names no colour, or a transparent one.
    """
    advice = "use a CSS name or #rrggbb"
    try:
        red, green, blue, *alpha = ImageColor.getrgb(text)
    except ValueError as error:
        raise ValueError(f"no colour; {advice}") from error
    if alpha and alpha[0] < OPAQUE:
        raise ValueError(f"not opaque; {advice}")
    return red, green, blue


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Scale with a Lanczos filter, colours weighted by alpha so that edges keep theirs."""
    size = (width, height)
    return frozen(np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)))


def flatten(pixels: Pixels) -> Pixels:
    """RGB of RGBA, laid on white."""
    image = Image.fromarray(pixels)
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image.getchannel("A"))
    return frozen(np.asarray(ground))


def _from_pillow(image: Image.Image, max_pixels: int) -> Pixels:
    width, height = image.size
    _check_pixels(width, height, max_pixels)
    with _image_errors():
        image.load()
        # Asked only now: Pillow turns a TIFF itself while loading, and drops the tag.
        orientation = _orientation(image)
        image = _eight_bit(image)
        pixels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        return frozen(_upright(pixels, orientation))


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InvalidImage(
            f"The picture has {width}x{height} pixels, more than the limit of {max_pixels}.",
            hint=PIXEL_LIMIT_HINT,
        )
    if width * height == 0:
        raise InvalidImage(f"The picture has no pixels: it is {width}x{height}.")


def _identify(data: bytes) -> tuple[Image.Image, str]:
    """Read the header alone.

    `PIL.Image.open` would do the same and, beyond its own bound on pixels, warn through the
    process-wide filters or raise; ours is the caller's to set.
    """
    Image.init()
    for name, suffix in IMAGE_FORMATS.items():
        factory, accepts = Image.OPEN.get(name, (None, None))
        # A plugin that was built without its library answers with a text.
        if factory and accepts and accepts(data[:16]) is True:
            return factory(io.BytesIO(data), ""), suffix
    raise InvalidImage("This is not a picture of a known format.", hint=IMAGE_HINT)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged notes on a picture do not make it a damaged picture
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the camera's orientation; the numbers are those of EXIF 2.32, tag Orientation."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which Pillow would clip; colour of 16 bits it reduces itself.

    A grey that counts as transparent becomes alpha before it can no longer be told apart.
    """
    if image.mode == "F":
        raise InvalidImage("The picture has floating-point pixels.", hint=IMAGE_HINT)
    if not image.mode.startswith("I"):
        return image
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > np.iinfo(np.uint16).max:
        raise InvalidImage("The picture has pixels of more than 16 bits.", hint=IMAGE_HINT)
    grey = Image.fromarray(((deep.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if (clear := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(deep != clear))
    return grey


@contextmanager
def _image_errors() -> Iterator[None]:
    """Map what Pillow raises. Hostile bytes make its plugins raise almost anything."""
    try:
        yield
    except (InvalidInput, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InvalidImage(f"The picture is too large: {error}.", hint=PIXEL_LIMIT_HINT) from error
    except Exception as error:
        raise InvalidImage(
            f"The picture is truncated or damaged ({error}).", hint=DAMAGED_IMAGE_HINT
        ) from error
