"""What is installed on this machine, which backends are usable, and why the others are not."""

from __future__ import annotations

import platform
from importlib import import_module, metadata
from typing import TYPE_CHECKING

import attrs

from talkgen.errors import TalkgenError
from talkgen.models.face import FaceDetectionModel, FaceMeshModel
from talkgen.models.segmentation import SelfieSegmentationModel
from talkgen.requirements import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Finding", "Report", "examine"]

PACKAGES = ("anyio", "numpy", "pillow", "av", "opencv-python", "ai-edge-litert", "scipy")
EMBEDDED = (FaceDetectionModel("near"), FaceDetectionModel("far"), FaceMeshModel())


@attrs.frozen
class Finding:
    """One thing that was tried.

    Attributes:
        name: What.
        trouble: Why it is not usable; None where it is.
    """

    name: str
    trouble: str | None = None

    def line(self) -> str:
        """For people."""
        return f"  {'ok ' if self.trouble is None else 'NO '} {self.name}" + (
            f": {self.trouble}" if self.trouble else ""
        )


@attrs.frozen
class Report:
    """All that was found."""

    versions: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """The whole job can be done here."""
        return all(finding.trouble is None for finding in self.findings)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"talkgen {self.versions['talkgen']}, Python {platform.python_version()}"
        yield f"on {platform.platform()}"
        yield "Packages:"
        for name, version in self.versions.items():
            yield f"  {name} {version}"
        yield "Devices:"
        yield "  cpu"
        yield "Backends:"
        for finding in self.findings:
            yield finding.line()


def examine() -> Report:
    """Try everything that the embedded backends need."""
    findings = (
        _tried("detection (embedded)", _load_faces),
        _tried("background removal (embedded)", _load_segmentation),
        _tried("video generation (local renderer)", _import_renderer),
    )
    versions = {name: _version(name) for name in ("talkgen", *PACKAGES)}
    return Report(versions, findings)


def _tried(name: str, attempt: Callable[[], None]) -> Finding:
    try:
        with explained():
            attempt()
    except TalkgenError as error:
        return Finding(name, f"{error} {error.hint or ''}".strip())
    return Finding(name)


def _load_faces() -> None:
    for model in EMBEDDED:
        model.load("cpu").close()


def _load_segmentation() -> None:
    SelfieSegmentationModel().load("cpu").close()


def _import_renderer() -> None:
    import_module("av")
    import_module("cv2")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is not installed"
