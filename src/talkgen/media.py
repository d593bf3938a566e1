"""Pictures, recordings and videos as values.

Everything behind this module sees pixels and samples; encoded bytes stay in `talkgen.codecs`,
which is imported when the first one is opened, so that `import talkgen` stays quick.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import operator
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from math import inf
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import anyio
import anyio.to_thread
import attrs

from talkgen import html
from talkgen.errors import NotReady
from talkgen.sources import PICTURE, RECORDING, name_of

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Mapping

    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

    from talkgen._types import JSON

    ImageSource: TypeAlias = (
        "str | os.PathLike[str] | bytes | IO[bytes] | PIL.Image.Image | NDArray[np.uint8] | Image"
    )
    SpeechSource: TypeAlias = (
        "str | os.PathLike[str] | bytes | IO[bytes] | tuple[NDArray[np.generic], int] | Speech"
    )

__all__ = ["Encoded", "FileReader", "FileRef", "Image", "Speech", "Text", "Tier", "Video"]

logger = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T", "Image", "Speech")

Tier: TypeAlias = Literal["uploads", "processed", "videos", "temp"]
"""Where a file belongs: it decides how long the file is kept."""

MAX_PIXELS = 50_000_000
MAX_IMAGE_BYTES = 50_000_000
MAX_SECONDS = 600.0
MAX_AUDIO_BYTES = 200_000_000
LARGEST_INLINE = 8_000_000  # bytes of a video that a notebook's page carries itself

# -60 dB below full scale: what is quieter everywhere is a dead microphone, or its hiss.
SILENCE = 0.001


@attrs.frozen
class Encoded:
    """A file's bytes.

    Attributes:
        data: The bytes.
        type: The file name suffix of their format, like `png` or `wav`.
    """

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    type: str


def _pixels(array: Any) -> NDArray[np.uint8]:
    from talkgen import codecs

    return codecs.as_pixels(array)


def _samples(array: Any) -> NDArray[np.float32]:
    from talkgen import codecs

    return codecs.as_samples(array)


def _rate(value: Any) -> int:
    return operator.index(value)


def _shape(array: NDArray[np.generic]) -> str:
    return f"<{array.dtype} {array.shape}>"


@attrs.frozen(eq=False)
class Image:
    """A picture. `Image.open` makes one of whatever holds a picture.

    Attributes:
        pixels: RGB or RGBA `uint8`, shape (height, width, 3 or 4), C-contiguous and read-only.
            The constructor copies an array that is not, and refuses any other with
            `InvalidImage`.
    """

    pixels: NDArray[np.uint8] = attrs.field(converter=_pixels, repr=_shape)
    _encoded: Encoded | None = attrs.field(default=None, init=False, repr=False)

    @classmethod
    def open(
        cls,
        source: ImageSource,
        *,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_IMAGE_BYTES,
    ) -> Image:
        """Read a picture, turned upright, as RGB, or RGBA where it has transparency.

        JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF and PPM, of any mode: palette, grey, 16 bits (scaled
        to 8), CMYK. Of an animation the first frame. Colour profiles are not applied. Blocks:
        call it in a thread from asynchronous code.

        Args:
            source: A path, the bytes of a file, a binary file object (read from where it stands,
                and left open), Pillow's image, or a `uint8` array of shape (height, width),
                (height, width, 3) or (height, width, 4). An `Image` is given back as it is.
                Nothing is fetched from a URL.
            max_pixels: Width times height, 50 million unless set; checked before anything is
                decoded.
            max_bytes: Of the file, 50 million unless set; no more is read.

        Raises:
            talkgen.errors.InvalidImage: It is no picture, is damaged or over a limit. As
                `ImageNotFound` also a `FileNotFoundError`, as `ImageUnreadable` also a
                `PermissionError`.
            TypeError: The source is nothing that could hold a picture.
        """
        if isinstance(source, Image):
            return source
        with PICTURE.about(source):
            return cls._open(source, max_pixels, max_bytes)

    @classmethod
    def _open(cls, source: Any, max_pixels: int, max_bytes: int) -> Image:
        from talkgen import codecs

        pixels = codecs.pixels_of(source, max_pixels=max_pixels)
        if pixels is not None:
            return cls(pixels)
        data = PICTURE.read(source, max_bytes)
        pixels, suffix = codecs.decode_image(data, max_pixels=max_pixels)
        return _with_original(cls(pixels), Encoded(data, suffix))

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.pixels.shape[0])

    @property
    def has_alpha(self) -> bool:
        """The pixels are RGBA."""
        return bool(self.pixels.shape[2] == len("RGBA"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape and pixels, hexadecimal: the same for the same picture in any file."""
        return _digest(f"{self.pixels.shape}", self.pixels)

    @property
    def encoded(self) -> Encoded | None:
        """What `original` gives, as long as that need not be encoded first."""
        return self._encoded

    def original(self) -> Encoded:
        """The very file that was opened; a PNG where there was none, encoded once. Blocks."""
        file = self._encoded or Encoded(self.encode("png"), "png")
        _with_original(self, file)
        return file

    @classmethod
    def restored(cls, file: Encoded) -> Image:
        """What `original` gave, to the last bit. Blocks.

        Of any size: it was within the limits when it was opened first.

        Args:
            file: From `original`.
        """
        return cls.open(file.data, max_pixels=sys.maxsize, max_bytes=len(file.data))

    def encode(self, format: Literal["png", "jpeg"], *, quality: int = 90) -> bytes:  # noqa: A002 - the word for it
        """The pixels as a file. Blocks.

        Args:
            format: `png` is lossless; `jpeg` has no transparency.
            quality: 1..95, of JPEG alone.

        Raises:
            ValueError: JPEG of a picture with alpha.
            talkgen.errors.MediaFailed: The format cannot hold a picture of this size.
        """
        from talkgen import codecs

        if format == "png":
            return self._png
        return codecs.encode_image(self.pixels, format, quality=quality)

    @cached_property
    def _png(self) -> bytes:
        # Kept: a stage stages it as a file, and so does the checkpoint after the stage.
        from talkgen import codecs

        return codecs.encode_image(self.pixels, "png")

    def resized(self, width: int, height: int) -> Image:
        """Scaled with a Lanczos filter; transparent pixels give no colour to their neighbours."""
        from talkgen import codecs

        return Image(codecs.resize(self.pixels, width, height))

    def cropped(self, box: tuple[int, int, int, int]) -> Image:
        """The part within a box.

        Args:
            box: x0, y0, x1, y1 in pixels; x1 and y1 are just outside.

        Raises:
            ValueError: The box is empty, or not within the picture.
        """
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= self.width and 0 <= y0 < y1 <= self.height):
            raise ValueError(
                f"The box {tuple(box)} is not within the picture of {self.width}x{self.height}."
            )
        return Image(self.pixels[y0:y1, x0:x1])

    def fitted(self, side: int) -> Image:
        """Scaled down until neither side is longer than this many pixels."""
        return self._scaled(side / max(self.width, self.height))

    def _scaled(self, scale: float) -> Image:
        if scale >= 1:
            return self
        return self.resized(max(1, round(self.width * scale)), max(1, round(self.height * scale)))

    def flattened(self) -> Image:
        """RGB: what is transparent is white."""
        from talkgen import codecs

        return Image(codecs.flatten(self.pixels)) if self.has_alpha else self

    def thumbnail_url(self) -> str:
        """An address that holds the picture itself, 480 pixels wide at most, for a page."""
        small = self._scaled(html.WIDEST / self.width)
        kind: Literal["png", "jpeg"] = "png" if self.has_alpha else "jpeg"
        return html.data_url(small.encode(kind), f"image/{kind}")

    def _repr_html_(self) -> str:
        """The picture in a notebook."""
        return html.picture(self.thumbnail_url(), (self.width, self.height))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (Image, self.pixels, self._encoded)


@attrs.frozen(eq=False)
class Speech:
    """A recording. `Speech.open` makes one of whatever holds sound.

    Attributes:
        samples: `float32` in -1..1, shape (channels, n), C-contiguous and read-only. The
            constructor copies an array that is not, brings other forms to this one (shape (n,),
            `float64`, and the integers `uint8`, `int16` and `int32`, which are scaled), and
            refuses the rest with `InvalidAudio`.
        sample_rate: Hz.
    """

    samples: NDArray[np.float32] = attrs.field(converter=_samples, repr=_shape)
    sample_rate: int = attrs.field(converter=_rate)
    _encoded: Encoded | None = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        from talkgen import codecs

        codecs.check_rate(self.sample_rate, self.channels)

    @classmethod
    def open(
        cls,
        source: SpeechSource,
        *,
        max_seconds: float = MAX_SECONDS,
        max_bytes: int = MAX_AUDIO_BYTES,
    ) -> Speech:
        """Read a recording, at its own sample rate and with all its channels.

        WAV, MP3, M4A, FLAC, OGG, Opus and other formats that FFmpeg decodes, and the sound of a
        video. One that is silent throughout is accepted, with a warning in the log. Blocks: call
        it in a thread from asynchronous code.

        Args:
            source: A path, the bytes of a file, a binary file object (read from where it stands,
                and left open), or samples and their rate in Hz (see the constructor). A `Speech`
                is given back as it is. Nothing is fetched from a URL.
            max_seconds: Of the sound, 10 minutes unless set; nothing beyond it is decoded.
            max_bytes: Of the file, 200 million unless set; no more is read.

        Raises:
            talkgen.errors.InvalidAudio: It is no recording, is damaged or over a limit. As
                `AudioNotFound` also a `FileNotFoundError`, as `AudioUnreadable` also a
                `PermissionError`.
            TypeError: The source is nothing that could hold sound.
        """
        if isinstance(source, Speech):
            return source
        with RECORDING.about(source):
            speech = cls._open(source, max_seconds, max_bytes)
        if speech.silent:
            logger.warning("%s: The recording is silent.", name_of(source))
        return speech

    @classmethod
    def _open(cls, source: Any, max_seconds: float, max_bytes: int) -> Speech:
        from talkgen import codecs

        if isinstance(source, tuple):
            speech = cls(*source)
            codecs.check_seconds(speech.duration, max_seconds)
            return speech
        data = RECORDING.read(source, max_bytes)
        samples, sample_rate, suffix = codecs.decode_audio(data, max_seconds=max_seconds)
        return _with_original(cls(samples, sample_rate), Encoded(data, suffix))

    @property
    def channels(self) -> int:
        """1 for mono, 2 for stereo."""
        return int(self.samples.shape[0])

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.samples.shape[1] / self.sample_rate)

    @cached_property
    def peak(self) -> float:
        """The largest magnitude of all samples, 0..1."""
        return max(abs(float(self.samples.min())), abs(float(self.samples.max())))

    @property
    def silent(self) -> bool:
        """Every sample is quieter than -60 dB of full scale."""
        return self.peak < SILENCE

    @cached_property
    def digest(self) -> str:
        """SHA-256 of rate, shape and samples, hexadecimal: the same in any lossless file."""
        return _digest(f"{self.sample_rate} {self.samples.shape}", self.samples)

    @property
    def encoded(self) -> Encoded | None:
        """The very file that was opened, which both of the following give; None where none was."""
        return self._encoded

    def original(self) -> Encoded:
        """The very file that was opened; a WAV of 16 bits where there was none. Encoding blocks."""
        from talkgen import codecs

        return self._encoded or Encoded(codecs.encode_wav(self.samples, self.sample_rate), "wav")

    def lossless(self) -> Encoded:
        """The very file that was opened; the bare samples as `npy` where there was none."""
        from talkgen import codecs

        return self._encoded or Encoded(codecs.encode_samples(self.samples), "npy")

    @classmethod
    def restored(cls, file: Encoded, sample_rate: int) -> Speech:
        """What `lossless` gave, to the last bit. Blocks.

        Args:
            file: From `lossless`.
            sample_rate: Hz.
        """
        from talkgen import codecs

        if file.type == "npy":
            return cls(codecs.decode_samples(file.data), sample_rate)
        # Not by `open`: whoever opened it has been told by then that it is silent.
        return cls._open(file.data, inf, len(file.data))

    def mono(self) -> Speech:
        """The mean of all channels; itself where there is one only."""
        if self.channels == 1:
            return self
        return Speech(self.samples.mean(axis=0, keepdims=True), self.sample_rate)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (Speech, self.samples, self._encoded, self.sample_rate)


def _not_blank(_text: Text, _attribute: attrs.Attribute[str], value: str) -> None:
    if not value.strip():
        raise ValueError("There is nothing to say: the text is empty.")


@attrs.frozen
class Text:
    """Speech that is yet to be spoken, for generators that speak themselves.

    Attributes:
        text: What to say; not empty.
        voice: The generator's name of a voice; its own choice where None.
    """

    text: str = attrs.field(validator=[attrs.validators.instance_of(str), _not_blank])
    voice: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of text and voice, hexadecimal."""
        return hashlib.sha256(repr((self.text, self.voice)).encode()).hexdigest()


@attrs.frozen
class FileRef:
    """A stored file, by name; only the storage knows where its bytes are.

    Attributes:
        task_id: The task it belongs to.
        tier: Its tier.
        name: The whole file name, like `{task_id}_final.mp4`.
        size: Bytes.
        sha256: Hexadecimal digest of the bytes.
        url: Where a reader outside finds it once it is published; empty where there is no such
            place.
    """

    task_id: str
    tier: Tier
    name: str
    size: int
    sha256: str
    url: str = ""


class FileReader(Protocol):
    """What a video needs of a storage."""

    async def get(self, file: FileRef) -> bytes:
        """The bytes of a file."""
        ...


@attrs.frozen(eq=False)
class Video:
    """A finished video.

    It keeps its reader alive, and with it a storage that is temporary. Pickles and copies carry
    the facts without the reader: read those through a storage, with `storage.get(video.file)`.

    Attributes:
        file: Its file.
        duration: Seconds.
        fps: Frames a second.
        size: Width and height in pixels.
        metadata: Facts of its making for the result, JSON only.
        reader: What reads the file, normally the storage.
    """

    file: FileRef
    duration: float
    fps: float
    size: tuple[int, int]
    metadata: Mapping[str, JSON] = attrs.field(factory=dict)
    reader: FileReader | None = attrs.field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where a reader outside finds it; empty where there is no such place."""
        return self.file.url

    def read(self) -> bytes:
        """The bytes of the file, MP4. Works inside a running event loop too, and blocks it.

        Raises:
            talkgen.errors.NotReady: The video has no reader.
            talkgen.errors.FileMissing: The file is gone, or not published yet.
        """
        return _in_own_loop(self.aread)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all, replacing what is there; see `read` and `asave`."""
        return _in_own_loop(self.asave, path)

    async def aread(self) -> bytes:
        """The bytes of the file, MP4.

        Raises:
            talkgen.errors.NotReady: The video has no reader.
            talkgen.errors.FileMissing: The file is gone, or not published yet.
        """
        if self.reader is None:
            raise NotReady(
                f"The video {self.file.name} is not connected to a storage.",
                hint="Read it through the storage: await storage.get(video.file).",
            )
        return await self.reader.get(self.file)

    async def asave(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all, replacing what is there.

        Args:
            path: The file to write. Its folder must exist.

        Returns:
            The path.

        Raises:
            IsADirectoryError: The path is a folder.
            FileNotFoundError: Its folder does not exist.
            OSError: Nothing can be written to its folder.
            talkgen.errors.NotReady: The video has no reader.
            talkgen.errors.FileMissing: The file is gone, or not published yet.
        """
        target = Path(path)
        await anyio.to_thread.run_sync(check_target, target)
        data = await self.aread()
        await anyio.to_thread.run_sync(_write_whole, target, data)
        return target

    def _repr_html_(self) -> str:
        """A player in a notebook, or a link where the video is too large for the page."""
        from talkgen import codecs

        facts = f"{self.file.name}, {self.duration:.1f} s, {self.size[0]}x{self.size[1]}"
        if self.reader is None or self.file.size > LARGEST_INLINE:
            if not self.url.startswith("http"):  # a notebook's page cannot lead to a file
                facts += " (video.save('video.mp4') writes it into a file)"
            return html.link(self.url, facts)
        data = self.read()
        poster = Image(codecs.first_frame(data)).thumbnail_url()
        return html.player(html.data_url(data, "video/mp4"), self.size, poster=poster)

    def __reduce__(self) -> tuple[Any, ...]:
        return Video, (self.file, self.duration, self.fps, self.size, self.metadata)


# --- helpers -----------------------------------------------------------------------------------


def _rebuilt(cls: type[T], array: NDArray[np.generic], encoded: Encoded | None, *rest: Any) -> T:
    array.flags.writeable = False  # pickle made it anew, and did not keep that it was read-only
    return _with_original(cls(array, *rest), encoded)


def _with_original(value: T, encoded: Encoded | None) -> T:
    """The value, with the file it was read from. `attrs.evolve` does not take the file along."""
    object.__setattr__(value, "_encoded", encoded)
    return value


def _digest(facts: str, array: NDArray[np.generic]) -> str:
    digest = hashlib.sha256(facts.encode())
    digest.update(array.data)
    return digest.hexdigest()


def _in_own_loop(function: Callable[..., Awaitable[R]], *args: Any) -> R:
    """Run it to its end on an event loop of its own: this thread may be running one already."""
    with ThreadPoolExecutor(1, "talkgen-read") as thread:
        return thread.submit(anyio.run, function, *args).result()


def check_target(path: Path) -> None:
    """Refuse what no video can be written to; for callers who want to know before they make one.

    Raises:
        IsADirectoryError: The path is a folder.
        FileNotFoundError: Its folder does not exist.
        OSError: Nothing can be written to its folder.
    """
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "This is a folder; add the name of the video", str(path)
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "This folder does not exist", str(path.parent))
    part = _part_of(path)
    try:  # nothing else tells it on all systems
        part.touch()
        part.unlink()
    except OSError as error:
        folder = str(path.parent)
        raise OSError(error.errno, "Nothing can be written to this folder", folder) from error


def _write_whole(path: Path, data: bytes) -> None:
    part = _part_of(path)
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _part_of(path: Path) -> Path:
    # Beside the target, so that the last step is one rename; named by itself, so that the name
    # is never too long; and not by `tempfile`, whose files nobody else may read.
    return path.with_name(f".{uuid.uuid4().hex}.part")
