"""The networks' files in the wheel, pinned by their content."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import attrs

from talkgen.errors import ModelUnavailable

__all__ = [
    "ASSETS",
    "FACE_DETECTION_FULL_RANGE",
    "FACE_DETECTION_SHORT_RANGE",
    "FACE_LANDMARK",
    "PEAK_BYTES",
    "SELFIE_SEGMENTATION",
    "Asset",
]


@attrs.frozen
class Asset:
    """A network's file in `assets/`, where NOTICE says what it is and where it is from.

    Attributes:
        name: The file's name.
        origin: Its folder in the wheel it was taken from.
        sha256: Hexadecimal digest that its bytes must have.
    """

    name: str
    origin: str
    sha256: str

    @property
    def key(self) -> str:
        """The file and its content, short; the precision belongs to the content."""
        return f"{self.name.removesuffix('.tflite')}@{self.sha256[:12]}"

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            talkgen.errors.ModelUnavailable: The file is absent, unreadable or damaged.
        """
        try:
            data = (files(__package__) / "assets" / self.name).read_bytes()
        except OSError as error:
            raise self._unavailable(f"cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise self._unavailable("is damaged")
        return data

    def _unavailable(self, trouble: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"The embedded model {self.name} {trouble}.",
            hint="Install the package again: pip install --force-reinstall --no-deps talkgen",
        )


FACE_DETECTION_SHORT_RANGE = Asset(
    "face_detection_short_range.tflite",
    "mediapipe/modules/face_detection",
    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
)
FACE_DETECTION_FULL_RANGE = Asset(
    "face_detection_full_range_sparse.tflite",
    "mediapipe/modules/face_detection",
    "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
)
FACE_LANDMARK = Asset(
    "face_landmark.tflite",
    "mediapipe/modules/face_landmark",
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
)
SELFIE_SEGMENTATION = Asset(
    "selfie_segmentation.tflite",
    "mediapipe/modules/selfie_segmentation",
    "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
)

PEAK_BYTES = 32 * 2**20
"""What any one of them needs in memory, weights and working space, rounded up."""

ASSETS = (
    FACE_DETECTION_SHORT_RANGE,
    FACE_DETECTION_FULL_RANGE,
    FACE_LANDMARK,
    SELFIE_SEGMENTATION,
)
