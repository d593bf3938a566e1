"""Faces, their landmarks, and the persons they belong to, by the networks in the wheel.

Coordinates are continuous pixels of the picture: its top left corner is (0, 0), its first
pixel's centre (0.5, 0.5). Left and right are the person's own.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import attrs

from talkgen.draft import Box, Person
from talkgen.errors import NoFaceInPortrait
from talkgen.models._assets import (
    FACE_DETECTION_FULL_RANGE,
    FACE_DETECTION_SHORT_RANGE,
    FACE_LANDMARK,
    PEAK_BYTES,
)
from talkgen.models._faces import (
    LANDMARKS,
    Face,
    FaceCrop,
    FaceMesh,
    prominence,
    same_face,
    suppress,
)

if TYPE_CHECKING:
    from talkgen.media import Image
    from talkgen.models._assets import Asset
    from talkgen.models._blazeface import LoadedBlazeFace
    from talkgen.models._facemesh import LoadedFaceMesh
    from talkgen.protocols import GPUScheduler

__all__ = [
    "LANDMARKS",
    "Face",
    "FaceCrop",
    "FaceDetectionModel",
    "FaceDetector",
    "FaceMesh",
    "FaceMeshModel",
    "Reach",
    "find_mesh",
    "find_meshes",
]

Reach: TypeAlias = Literal["near", "far"]
"""`near`: faces that fill much of the picture; `far`: smaller ones."""


@attrs.frozen
class FaceDetectionModel:
    """Where faces may be: `Model[Image, tuple[Face, ...]]`, highest score first, from 0.1.

    Attributes:
        reach: `near` looks at the picture as a whole; `far` at overlapping parts of it, too.
    """

    reach: Reach

    device: ClassVar[str] = "cpu"
    max_instances: ClassVar[int] = 2
    max_batch: ClassVar[int] = 8
    levels: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """The network's file and its content."""
        return self._asset.key

    @property
    def _asset(self) -> Asset:
        return FACE_DETECTION_SHORT_RANGE if self.reach == "near" else FACE_DETECTION_FULL_RANGE

    def vram_bytes(self, device: str) -> int:  # noqa: ARG002 - it runs on the CPU, whatever there is
        """Peak memory of one instance."""
        return PEAK_BYTES

    def load(self, device: str) -> LoadedBlazeFace:  # noqa: ARG002 - as above
        """Load the network.

        Raises:
            talkgen.errors.ModelUnavailable: Its file is absent or damaged.
            talkgen.errors.MissingDependency: The runtime cannot be had on this machine.
        """
        from talkgen.models._blazeface import FAR, NEAR, LoadedBlazeFace

        return LoadedBlazeFace(self._asset, NEAR if self.reach == "near" else FAR)


@attrs.frozen
class FaceMeshModel:
    """The landmarks of a face: `Model[FaceCrop, FaceMesh | None]`, None where there is none."""

    device: ClassVar[str] = "cpu"
    max_instances: ClassVar[int] = 2
    max_batch: ClassVar[int] = 8
    levels: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """The network's file and its content."""
        return FACE_LANDMARK.key

    def vram_bytes(self, device: str) -> int:  # noqa: ARG002 - it runs on the CPU, whatever there is
        """Peak memory of one instance."""
        return PEAK_BYTES

    def load(self, device: str) -> LoadedFaceMesh:  # noqa: ARG002 - as above
        """Load the network.

        Raises:
            talkgen.errors.ModelUnavailable: Its file is absent or damaged.
            talkgen.errors.MissingDependency: The runtime cannot be had on this machine.
        """
        from talkgen.models._facemesh import LoadedFaceMesh

        return LoadedFaceMesh(FACE_LANDMARK)


# The overlap above which two detections are one face.
_SAME_FACE = 0.45

# A face that somebody points at may be less clear than one that nobody expects.
_LOWEST_CONFIDENCE = 0.3


async def find_meshes(
    image: Image,
    *,
    scheduler: GPUScheduler,
    confidence: float = 0.5,
    iou: float = _SAME_FACE,
) -> tuple[FaceMesh, ...]:
    """Every face of a picture, the most prominent first.

    The detectors propose, the mesh confirms: alone they take many a sleeve for a face.

    Args:
        image: RGB or RGBA; alpha is ignored.
        scheduler: Runs the networks.
        confidence: The lowest `FaceMesh.confidence` that counts, 0..1.
        iou: Overlap above which two are the same face, 0..1.

    Raises:
        talkgen.errors.ModelUnavailable: A network's file is absent or damaged.
    """
    near = await scheduler.run(FaceDetectionModel("near"), image)
    far = await scheduler.run(FaceDetectionModel("far"), image)
    # However present the face, a score below the square cannot reach the confidence.
    likely = [face for face in near + far if face.score >= confidence**2]
    meshes: list[FaceMesh] = []
    for face in sorted(likely, key=lambda face: -face.score):
        if any(same_face(face.box, mesh.box, iou) for mesh in meshes):
            continue
        crop = FaceCrop(image, face.box, face.roll, face.score)
        mesh = await scheduler.run(FaceMeshModel(), crop)
        if mesh is not None and mesh.confidence >= confidence:
            meshes.append(mesh)
    # Boxes that differ may have led to the same face.
    best_first = sorted(meshes, key=lambda mesh: -mesh.confidence)
    return tuple(sorted(suppress(best_first, iou), key=lambda mesh: -_prominence(mesh, image)))


def _prominence(mesh: FaceMesh, image: Image) -> float:
    return prominence(mesh.box, mesh.confidence, image.width, image.height)


async def find_mesh(image: Image, *, scheduler: GPUScheduler) -> FaceMesh:
    """The landmarks of a picture's most prominent face.

    Raises:
        talkgen.errors.NoFaceInPortrait: No face is clear enough for landmarks.
        talkgen.errors.ModelUnavailable: A network's file is absent or damaged.
    """
    meshes = await find_meshes(image, scheduler=scheduler, confidence=_LOWEST_CONFIDENCE)
    if not meshes:
        raise NoFaceInPortrait("No face was found in the portrait.")
    return meshes[0]


# Head and shoulders around the head's centre, in eye distances: to either side, above
# and below. A crown is about 1.9 above the eyes, a chin 1.8 below, and shoulders are 6 wide.
_ASIDE, _ABOVE, _BELOW = 3.0, 2.2, 3.8


def _person(number: int, mesh: FaceMesh, image: Image) -> Person:
    x, y = mesh.centre
    box = Box(
        max(floor(x - _ASIDE * mesh.scale), 0),
        max(floor(y - _ABOVE * mesh.scale), 0),
        min(ceil(x + _ASIDE * mesh.scale), image.width),
        min(ceil(y + _BELOW * mesh.scale), image.height),
    )
    return Person(number, box, mesh.confidence, landmarks=mesh.points[:, :2])


@attrs.frozen
class FaceDetector:
    """Finds persons by their faces: the embedded `Detector`.

    A person's box holds head and shoulders, clipped to the picture; the confidence is the
    geometric mean of the detector's score and the mesh's presence; the landmarks are the mesh's
    468 points. The order is by prominence: confidence times the square root of the face's share
    of the picture's area, times closeness to its centre (1 there, 0.5 in a corner).
    """

    @property
    def key(self) -> str:
        """The networks."""
        models = (FaceDetectionModel("near"), FaceDetectionModel("far"), FaceMeshModel())
        return "+".join(model.key for model in models)

    async def detect(
        self,
        image: Image,
        *,
        scheduler: GPUScheduler,
        confidence: float = 0.5,
        iou: float = _SAME_FACE,
    ) -> tuple[Person, ...]:
        """Everybody whose face is seen, the most prominent first, numbered from 1.

        Args:
            image: RGB or RGBA; alpha is ignored.
            scheduler: Runs the networks.
            confidence: The lowest that counts, 0..1.
            iou: Overlap of faces above which two are the same, 0..1.

        Raises:
            talkgen.errors.ModelUnavailable: A network's file is absent or damaged.
        """
        meshes = await find_meshes(image, scheduler=scheduler, confidence=confidence, iou=iou)
        return tuple(_person(number, mesh, image) for number, mesh in enumerate(meshes, start=1))
