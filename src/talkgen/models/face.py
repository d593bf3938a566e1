"""Faces and their landmarks: the networks that the wheel carries.

The networks are MediaPipe's BlazeFace detectors and face mesh; input sizes, anchors and outputs
follow their model cards and published graph options. Coordinates are continuous pixels of the
picture: its top left corner is (0, 0), its first pixel's centre (0.5, 0.5). Left and right are
the person's own.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import attrs
import numpy as np

from talkgen.errors import NoFaceInPortrait
from talkgen.models._litert import Asset, Network
from talkgen.models._windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from talkgen.media import Image
    from talkgen.protocols import GPUScheduler

__all__ = [
    "Face",
    "FaceCrop",
    "FaceDetectionModel",
    "FaceMesh",
    "FaceMeshModel",
    "Reach",
    "find_faces",
    "find_mesh",
    "prominence",
    "suppress",
]

Reach: TypeAlias = Literal["near", "far"]
"""`near`: faces that fill much of the picture; `far`: smaller ones too."""

# One network's peak on the CPU, weights and working memory, rounded up.
_MEMORY = 32 * 2**20


@attrs.frozen(eq=False)
class Face:
    """A face in a picture.

    Attributes:
        box: x0, y0, x1, y1 in pixels, from the brows to the chin; it may reach outside.
        score: 0..1.
        keypoints: `float32`, shape (6, 2): right eye, left eye, tip of the nose, mouth, right
            ear, left ear; x and y in pixels.
    """

    box: tuple[float, float, float, float]
    score: float
    keypoints: NDArray[np.float32]

    @property
    def area(self) -> float:
        """Square pixels of the box."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


def suppress(faces: Iterable[Face], iou: float) -> tuple[Face, ...]:
    """Non-maximum suppression: of faces that overlap, the one with the highest score.

    Args:
        faces: In any order.
        iou: Overlap (intersection over union) above which two are the same face.

    Returns:
        The faces kept, highest score first.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(_overlap(face, other) <= iou for other in kept):
            kept.append(face)
    return tuple(kept)


def _overlap(a: Face, b: Face) -> float:
    width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a.area + b.area - shared) if shared else 0.0


def prominence(face: Face, width: int, height: int) -> float:
    """How likely this is the face that a picture is about.

    The product of its score, its size (the square root of its area over the picture's) and its
    closeness to the centre (1 there, 0.5 in a corner).

    Args:
        face: The face.
        width: The picture's, in pixels.
        height: The picture's, in pixels.
    """
    x0, y0, x1, y1 = face.box
    from_centre = np.hypot((x0 + x1 - width) / 2, (y0 + y1 - height) / 2)
    closeness = 1 - min(from_centre / np.hypot(width, height), 0.5)
    return float(face.score * np.sqrt(face.area / (width * height)) * closeness)


# --- detection ---------------------------------------------------------------------------------


@attrs.frozen
class _Detector:
    """A single-shot detector's published shape.

    Attributes:
        size: Side of its input in pixels.
        layers: For each grid of anchors, its stride in pixels and the anchors on each place.
    """

    asset: Asset
    size: int
    layers: tuple[tuple[int, int], ...]

    def anchors(self) -> NDArray[np.float32]:
        """Their centres in 0..1 of the input, shape (n, 2), in the order of the outputs."""
        return np.concatenate([_grid(self.size // stride, n) for stride, n in self.layers])


def _grid(places: int, each: int) -> NDArray[np.float32]:
    centres = (np.arange(places, dtype=np.float32) + 0.5) / places
    x, y = np.meshgrid(centres, centres)
    return np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), each, axis=0)


_DETECTORS: dict[Reach, _Detector] = {
    "near": _Detector(
        Asset(
            "face_detection_short_range.tflite",
            "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        ),
        size=128,
        layers=((8, 2), (16, 6)),
    ),
    "far": _Detector(
        Asset(
            "face_detection_full_range_sparse.tflite",
            "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
        ),
        size=192,
        layers=((4, 1),),
    ),
}

LOWEST_SCORE = 0.1
"""Below this a detector's answers are noise, and are not handed out."""


@attrs.frozen
class FaceDetectionModel:
    """Finds faces: `Model[Image, tuple[Face, ...]]`, highest score first.

    Attributes:
        reach: `near` looks at the picture as a whole; `far` at overlapping parts of it, too.
    """

    reach: Reach

    max_instances: ClassVar[int] = 2
    max_batch: ClassVar[int] = 8
    levels: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """The network's file and its content."""
        return _DETECTORS[self.reach].asset.key

    def vram_bytes(self, device: str) -> int:  # noqa: ARG002 - it runs on the CPU, whatever there is
        """Peak memory of one instance."""
        return _MEMORY

    def load(self, device: str) -> LoadedFaceDetection:  # noqa: ARG002 - as above
        """Load the network.

        Raises:
            talkgen.errors.ModelUnavailable: Its file is absent or damaged.
            talkgen.errors.MissingDependency: The runtime is not installed on this machine.
        """
        return LoadedFaceDetection(_DETECTORS[self.reach], tiled=self.reach == "far")


class LoadedFaceDetection:
    """A face detector, ready to run."""

    def __init__(self, detector: _Detector, *, tiled: bool) -> None:
        self._network = Network(detector.asset)
        self._size = detector.size
        self._anchors = detector.anchors()
        self._tiled = tiled

    def run(self, batch: Sequence[Image], *, level: int = 0) -> list[tuple[Face, ...]]:  # noqa: ARG002 - there is one
        """The faces of each picture, highest score first."""
        return [self._detect(image) for image in batch]

    def close(self) -> None:
        """Free the memory."""
        self._network.close()

    def _detect(self, image: Image) -> tuple[Face, ...]:
        windows = [_whole(image.width, image.height)]
        found = [face for window in windows for face in self._look(image, window)]
        return suppress(found, iou=0.3)

    def _look(self, image: Image, window: Window) -> Iterable[Face]:
        boxes, logits = self._network.run(window.sample(image.pixels, self._size) * 2 - 1)
        scores = _probability(logits[:, 0])
        for i in np.flatnonzero(scores >= LOWEST_SCORE):
            face = _decoded(boxes[i] / self._size, self._anchors[i], float(scores[i]), window)
            yield face


def _decoded(
    values: NDArray[np.float32], anchor: NDArray[np.float32], score: float, window: Window
) -> Face:
    """A face from a detector's answer: centre, size and keypoints, relative to the anchor."""
    centre, half = values[:2] + anchor, values[2:4] / 2
    points = np.vstack([centre - half, centre + half, values[4:].reshape(6, 2) + anchor])
    (x0, y0), (x1, y1), *_ = placed = window.to_picture(points)
    return Face((float(x0), float(y0), float(x1), float(y1)), score, placed[2:])


def _whole(width: int, height: int) -> Window:
    return Window(width / 2, height / 2, max(width, height))


def _probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # Clipped where exp() would overflow: a probability is 0 or 1 there in any case.
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)


async def find_faces(
    image: Image, *, scheduler: GPUScheduler, confidence: float = 0.5, iou: float = 0.45
) -> tuple[Face, ...]:
    """Every face of a picture, highest score first.

    Args:
        image: RGB or RGBA.
        scheduler: Runs the networks.
        confidence: The lowest score that counts, 0..1.
        iou: Overlap above which two detections are the same face, 0..1.

    Raises:
        talkgen.errors.ModelUnavailable: A network's file is absent or damaged.
    """
    near = await scheduler.run(FaceDetectionModel("near"), image)
    far = await scheduler.run(FaceDetectionModel("far"), image)
    return suppress((face for face in near + far if face.score >= confidence), iou)


# --- landmarks ---------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class FaceCrop:
    """What the mesh looks at: a picture, and a face in it."""

    image: Image
    face: Face


@attrs.frozen(eq=False)
class FaceMesh:
    """The landmarks of a face, in MediaPipe's canonical numbering.

    Attributes:
        points: `float32`, shape (468, 3): x and y in pixels of the picture, z in the same unit,
            smaller towards the camera and about 0 at the face's centre.
        presence: How sure the network is that there is a face, 0..1.
    """

    points: NDArray[np.float32]
    presence: float

    @cached_property
    def right_eye(self) -> NDArray[np.float32]:
        """Between the corners of the right eye, (x, y) in pixels."""
        return _middle(self.points[list(RIGHT_EYE_CORNERS)])

    @cached_property
    def left_eye(self) -> NDArray[np.float32]:
        """Between the corners of the left eye, (x, y) in pixels."""
        return _middle(self.points[list(LEFT_EYE_CORNERS)])

    @property
    def eye_distance(self) -> float:
        """From eye to eye in pixels."""
        return float(np.hypot(*(self.left_eye - self.right_eye)))

    @property
    def roll(self) -> float:
        """The angle of the line from eye to eye in radians; positive where the left is lower."""
        x, y = self.left_eye - self.right_eye
        return float(np.arctan2(y, x))


RIGHT_EYE_CORNERS = (33, 133)  # outer, inner
LEFT_EYE_CORNERS = (263, 362)


def _middle(points: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(points[:, :2].mean(axis=0), np.float32)


MESH_SIZE = 192
LOWEST_PRESENCE = 0.5
"""The published gate: below it the points are a guess at something that is no face."""

_MESH = Asset(
    "face_landmark.tflite",
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
)


@attrs.frozen
class FaceMeshModel:
    """Finds the landmarks of a face: `Model[FaceCrop, FaceMesh | None]`, None for no face."""

    max_instances: ClassVar[int] = 2
    max_batch: ClassVar[int] = 8
    levels: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """The network's file and its content."""
        return _MESH.key

    def vram_bytes(self, device: str) -> int:  # noqa: ARG002 - it runs on the CPU, whatever there is
        """Peak memory of one instance."""
        return _MEMORY

    def load(self, device: str) -> LoadedFaceMesh:  # noqa: ARG002 - as above
        """Load the network.

        Raises:
            talkgen.errors.ModelUnavailable: Its file is absent or damaged.
            talkgen.errors.MissingDependency: The runtime is not installed on this machine.
        """
        return LoadedFaceMesh()


class LoadedFaceMesh:
    """The face mesh, ready to run."""

    def __init__(self) -> None:
        self._network = Network(_MESH)

    def run(self, batch: Sequence[FaceCrop], *, level: int = 0) -> list[FaceMesh | None]:  # noqa: ARG002 - there is one
        """The landmarks of each face, or None where the network sees none."""
        return [self._mesh(crop) for crop in batch]

    def close(self) -> None:
        """Free the memory."""
        self._network.close()

    def _mesh(self, crop: FaceCrop) -> FaceMesh | None:
        # The detector's box is rough: a second look, where the first points are, is the better.
        pixels = crop.image.pixels
        first = self._look(pixels, _around_face(crop.face))
        mesh = self._look(pixels, _around_mesh(first))
        return mesh if mesh.presence >= LOWEST_PRESENCE else None

    def _look(self, pixels: NDArray[np.uint8], window: Window) -> FaceMesh:
        points, logit = self._network.run(window.sample(pixels, MESH_SIZE))
        relative = points.reshape(468, 3) / MESH_SIZE
        flat, depth = window.to_picture(relative[:, :2]), relative[:, 2:] * np.float32(window.side)
        return FaceMesh(np.hstack([flat, depth]), float(_probability(logit).item()))


# How much wider than the face the mesh wants to see.
_SURROUNDINGS = 1.5


def _around_face(face: Face) -> Window:
    x0, y0, x1, y1 = face.box
    side = max(x1 - x0, y1 - y0) * _SURROUNDINGS
    (right, left) = face.keypoints[:2]
    roll = np.arctan2(left[1] - right[1], left[0] - right[0])
    return Window((x0 + x1) / 2, (y0 + y1) / 2, side, float(roll))


def _around_mesh(mesh: FaceMesh) -> Window:
    level = Window(0, 0, 1, -mesh.roll)
    upright = level.to_picture(mesh.points[:, :2] + 0.5)
    low, high = upright.min(axis=0), upright.max(axis=0)
    back = Window(0, 0, 1, mesh.roll)
    x, y = back.to_picture((low + high)[None] / 2 + 0.5)[0]
    return Window(float(x), float(y), float((high - low).max() * _SURROUNDINGS), mesh.roll)


async def find_mesh(image: Image, *, scheduler: GPUScheduler) -> FaceMesh:
    """The landmarks of a picture's most prominent face.

    Raises:
        talkgen.errors.NoFaceInPortrait: No face is clear enough for landmarks.
        talkgen.errors.ModelUnavailable: A network's file is absent or damaged.
    """
    faces = await find_faces(image, scheduler=scheduler, confidence=0.3)
    by_prominence = sorted(faces, key=lambda face: -prominence(face, image.width, image.height))
    for face in by_prominence:
        mesh = await scheduler.run(FaceMeshModel(), FaceCrop(image, face))
        if mesh is not None:
            return mesh
    raise NoFaceInPortrait("No face was found in the portrait.")
