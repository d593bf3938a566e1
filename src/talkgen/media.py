"""Pictures, recordings and videos as values.

Everything behind this module sees pixels and samples; encoded bytes stay in `talkgen.codecs`,
which is imported when the first one is opened, so that `import talkgen` stays quick.
"""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeAlias
from uuid import uuid4

import anyio
import anyio.to_thread
import attrs

from talkgen.errors import (
    AudioNotFound,
    AudioUnreadable,
    ImageNotFound,
    ImageUnreadable,
    InvalidAudio,
    InvalidImage,
    InvalidInput,
    NotReady,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

    ImageSource: TypeAlias = (
        "str | os.PathLike[str] | bytes | IO[bytes] | PIL.Image.Image | NDArray[np.uint8] | Image"
    )
    SpeechSource: TypeAlias = (
        "str | os.PathLike[str] | bytes | IO[bytes] | tuple[NDArray[np.generic], int] | Speech"
    )

__all__ = ["Encoded", "FileReader", "FileRef", "Image", "Speech", "Text", "Tier", "Video"]

logger = logging.getLogger(__name__)

Tier: TypeAlias = Literal["uploads", "processed", "videos", "temp"]
"""Where a file belongs: it decides how long the file is kept."""

MAX_PIXELS = 50_000_000
MAX_IMAGE_BYTES = 50_000_000
MAX_SECONDS = 600.0
MAX_AUDIO_BYTES = 200_000_000

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
    _encoded: Encoded | None = attrs.field(default=None, kw_only=True, repr=False)

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
            max_pixels: Width times height, checked before anything is decoded.
            max_bytes: Of the file, checked before more is read.

        Raises:
            talkgen.errors.InvalidImage: It is no picture, is damaged or over a limit. As
                `ImageNotFound` also a `FileNotFoundError`, as `ImageUnreadable` also a
                `PermissionError`.
            TypeError: The source is nothing that could hold a picture.
        """
        if isinstance(source, Image):
            return source
        with _about(source):
            return cls._open(source, max_pixels, max_bytes)

    @classmethod
    def _open(cls, source: Any, max_pixels: int, max_bytes: int) -> Image:
        import numpy as np
        import PIL.Image

        from talkgen import codecs

        if isinstance(source, np.ndarray):
            image = cls(source)
            codecs.check_pixels(image.width, image.height, max_pixels)
            return image
        if isinstance(source, PIL.Image.Image):
            return cls(codecs.from_pillow(source, max_pixels=max_pixels))
        data = PICTURE.read(source, max_bytes)
        pixels, suffix = codecs.decode_image(data, max_pixels=max_pixels)
        return cls(pixels, encoded=Encoded(data, suffix))

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

    def original(self) -> Encoded:
        """The very file that was opened; a PNG where there was none. Encoding blocks."""
        return self._encoded or Encoded(self.encode("png"), "png")

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

        return codecs.encode_image(self.pixels, format, quality=quality)

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

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (Image, (self.pixels,), self._encoded)


@attrs.frozen(eq=False)
class Speech:
    """A recording. `Speech.open` makes one of whatever holds sound.

    Attributes:
        samples: `float32` in -1..1, shape (channels, n), C-contiguous and read-only. The
            constructor also takes what `codecs.as_samples` takes: shape (n,), other floats,
            integers of sample formats.
        sample_rate: Hz.
    """

    samples: NDArray[np.float32] = attrs.field(converter=_samples)
    sample_rate: int
    _encoded: Encoded | None = attrs.field(default=None, kw_only=True, repr=False)

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
        """Decode a recording. Blocks: an application calls it in a worker thread.

        Args:
            source: A path, the bytes of a file, or a binary file object (read from where it
                stands, and left open); any audio that FFmpeg decodes, or a video with sound. Or
                a pair of an array of samples and its rate in Hz. A `Speech` is given back as it
                is. Nothing is fetched from a URL.
            max_seconds: Decoding stops with an error as soon as there is more.
            max_bytes: Of the file, checked before more is read.

        Raises:
            talkgen.errors.InvalidAudio: It is no recording, is damaged or over a limit. As
                `AudioNotFound` also a `FileNotFoundError`, as `AudioUnreadable` also a
                `PermissionError`.
            TypeError: The source is nothing that could hold a recording.
        """
        if isinstance(source, Speech):
            return source
        with _about(source):
            return cls._open(source, max_seconds, max_bytes)

    @classmethod
    def _open(cls, source: Any, max_seconds: float, max_bytes: int) -> Speech:
        from talkgen import codecs

        if isinstance(source, tuple):
            speech = cls(*source)
            codecs.check_seconds(speech.duration, max_seconds)
        else:
            data = RECORDING.read(source, max_bytes)
            samples, rate, suffix = codecs.decode_audio(data, max_seconds=max_seconds)
            speech = cls(samples, rate, encoded=Encoded(data, suffix))
        if speech.silent:
            logger.warning("the recording is silent: the mouth will not move")
        return speech

    @property
    def channels(self) -> int:
        """How many."""
        return int(self.samples.shape[0])

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.samples.shape[1] / self.sample_rate)

    @cached_property
    def silent(self) -> bool:
        """Nothing in it is louder than -60 dB below full scale."""
        return float(abs(self.samples).max()) < SILENCE

    @cached_property
    def digest(self) -> str:
        """SHA-256 of rate, shape and samples, hexadecimal."""
        return _digest(f"{self.sample_rate} {self.samples.shape}", self.samples)

    def original(self) -> Encoded:
        """The very file that was opened; a WAV where there was none. Encoding blocks."""
        from talkgen import codecs

        return self._encoded or Encoded(codecs.encode_wav(self.samples, self.sample_rate), "wav")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (Speech, (self.samples, self.sample_rate), self._encoded)


def _rebuild(cls: Any, arguments: tuple[Any, ...], encoded: Encoded | None) -> Any:
    return cls(*arguments, encoded=encoded)


def _digest(form: str, array: NDArray[Any]) -> str:
    digest = hashlib.sha256(form.encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


# --- reading sources ---------------------------------------------------------------------------


@attrs.frozen
class _Kind:
    """How sources of a kind are read, and what they raise.

    Attributes:
        what: The word for it.
        invalid: It is no good.
        absent: It is not there.
        unreadable: It may not be read.
    """

    what: str
    invalid: type[InvalidInput]
    absent: type[InvalidInput]
    unreadable: type[InvalidInput]

    def read(self, source: Any, max_bytes: int) -> bytes:
        """All bytes of a source, if they are not too many."""
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
        elif isinstance(source, (str, os.PathLike)):
            data = self._read_path(os.fspath(source), max_bytes)
        elif hasattr(source, "read"):
            data = self._read_file(source, max_bytes)
        else:
            raise TypeError(
                f"{type(source).__name__} holds no {self.what}: "
                "give a path, bytes or a binary file object"
            )
        if len(data) > max_bytes:
            raise self._too_large(max_bytes)
        if not data:
            raise self.invalid(f"The {self.what} is empty: it has no bytes.")
        return data

    def _read_path(self, path: str, max_bytes: int) -> bytes:
        if "://" in path:
            raise self.invalid(
                f"The {self.what} is a remote address.",
                hint="talkgen fetches no remote files: download it first, then give its path.",
            )
        try:
            with Path(path).open("rb") as file:
                return self._read_file(file, max_bytes)
        except FileNotFoundError as error:
            raise self.absent(f"There is no {self.what} here.", hint="Check the path.") from error
        except IsADirectoryError as error:
            raise self.invalid(
                f"This is a folder, not a {self.what}.", hint="Give the path of a file in it."
            ) from error
        except PermissionError as error:
            raise self.unreadable(
                f"The {self.what} may not be read.", hint="Change the file's permissions."
            ) from error
        except (OSError, ValueError) as error:
            raise self.invalid(f"The {self.what} cannot be read: {error}.") from error

    def _read_file(self, file: IO[bytes], max_bytes: int) -> bytes:
        data = file.read(max_bytes + 1)
        if not isinstance(data, bytes):
            raise TypeError(f"the {self.what}'s file is open as text; open it with mode 'rb'")
        return data

    def _too_large(self, max_bytes: int) -> InvalidInput:
        return self.invalid(
            f"The {self.what} has more than the limit of {max_bytes} bytes.",
            hint="Make it smaller, or raise the limit: open(source, max_bytes=...).",
        )


PICTURE = _Kind("picture", InvalidImage, ImageNotFound, ImageUnreadable)
RECORDING = _Kind("recording", InvalidAudio, AudioNotFound, AudioUnreadable)


@contextmanager
def _about(source: Any) -> Iterator[None]:
    """Begin the message of an error with the name of the source, where it has one."""
    try:
        yield
    except InvalidInput as error:
        name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
        if isinstance(name, (str, os.PathLike)):
            error.message = f"{os.fspath(name)}: {error.message}"
        raise


# --- speech yet to be spoken, files and videos -------------------------------------------------


@attrs.frozen
class Text:
    """Speech that is yet to be spoken, for generators that do so themselves.

    Attributes:
        text: What to say; not blank.
        voice: The generator's name of a voice; None takes its default.
    """

    text: str = attrs.field()
    voice: str | None = None

    @text.validator
    def _not_blank(self, _attribute: object, value: str) -> None:
        if not value.strip():
            raise ValueError("the text to speak is blank")

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
        """All bytes of a file."""
        ...


@attrs.frozen(eq=False)
class Video:
    """A finished video.

    Attributes:
        file: Its file.
        duration: Seconds.
        fps: Frames a second.
        size: Width and height in pixels.
        reader: Gets the bytes, normally the storage; keeps a temporary one alive. It is left
            behind when the video is pickled.
    """

    file: FileRef
    duration: float
    fps: float
    size: tuple[int, int]
    reader: FileReader | None = attrs.field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where a reader outside finds it; empty where there is no such place."""
        return self.file.url

    async def aread(self) -> bytes:
        """The whole file.

        Raises:
            talkgen.errors.NotReady: It has no reader yet: its run has not ended.
            talkgen.errors.FileMissing: The storage has it no more.
        """
        if self.reader is None:
            raise NotReady(
                f"The bytes of {self.file.name} cannot be read here.",
                hint="Take the video from the run's result.",
            )
        return await self.reader.get(self.file)

    async def asave(self, path: str | os.PathLike[str]) -> Path:
        """Write the whole file, or nothing.

        Args:
            path: The file to make or to replace; its folder must exist.

        Returns:
            The path.
        """
        data = await self.aread()
        return await anyio.to_thread.run_sync(_write, Path(path), data)

    def read(self) -> bytes:
        """The whole file; blocks. See `aread`."""
        # A thread of its own: a loop that runs in this one could not be waited for from inside.
        with ThreadPoolExecutor(1, "talkgen-video") as executor:
            return executor.submit(anyio.run, self.aread).result()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the whole file, or nothing; blocks. See `asave`."""
        return _write(Path(path), self.read())

    def __reduce__(self) -> tuple[Any, ...]:
        return Video, (self.file, self.duration, self.fps, self.size)


def _write(path: Path, data: bytes) -> Path:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the path of the file to make")
    made = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        made.write_bytes(data)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    return path
