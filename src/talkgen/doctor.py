"""What is installed on this machine, which backends are usable, and why the others are not."""

from __future__ import annotations

import platform
from importlib import import_module, metadata
from typing import TYPE_CHECKING

import anyio
import attrs

from talkgen.choice import BIREFNET, YOLO
from talkgen.errors import TalkgenError
from talkgen.generators.did.client import BASE_URL, DIdClient
from talkgen.generators.did.credentials import form_of
from talkgen.models.face import FaceDetectionModel, FaceMeshModel
from talkgen.models.segmentation import SelfieSegmentationModel
from talkgen.models.weights import cache_folder
from talkgen.requirements import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from talkgen.choice import FullModel
    from talkgen.settings import Settings

__all__ = ["Finding", "Report", "examine"]

PACKAGES = ("anyio", "numpy", "pillow", "av", "opencv-python", "ai-edge-litert", "scipy")
OPTIONAL = ("ultralytics", "torch", "transformers", "safetensors", "huggingface-hub", "obstore")
EMBEDDED = (FaceDetectionModel("near"), FaceDetectionModel("far"), FaceMeshModel())


@attrs.frozen
class Finding:
    """One thing that was tried.

    Attributes:
        name: What.
        trouble: Why it is not usable; None where it is.
        optional: The whole job can be done without it.
    """

    name: str
    trouble: str | None = None
    optional: bool = False

    def line(self) -> str:
        """For people."""
        if self.trouble is None:
            return f"  ok  {self.name}"
        return f"  {'-- ' if self.optional else 'NO '} {self.name}: {self.trouble}"


@attrs.frozen
class Report:
    """All that was found.

    Attributes:
        versions: Of talkgen and what it always needs.
        extras: Versions of what its extras bring.
        devices: Where models can run.
        findings: What was tried.
        cache: Where downloaded weights are; None without the hub's client.
    """

    versions: dict[str, str]
    findings: tuple[Finding, ...]
    extras: dict[str, str] = attrs.field(factory=dict)
    devices: tuple[str, ...] = ("cpu",)
    cache: str | None = None

    @property
    def usable(self) -> bool:
        """The whole job can be done here."""
        return all(finding.trouble is None or finding.optional for finding in self.findings)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"talkgen {self.versions['talkgen']}, Python {platform.python_version()}"
        yield f"on {platform.platform()}"
        yield "Packages:"
        yield from _indented(f"{name} {version}" for name, version in self.versions.items())
        yield "Extras:"
        yield from _indented(f"{name} {version}" for name, version in self.extras.items())
        yield "Devices:"
        yield from _indented(self.devices)
        yield "Backends:"
        yield from (finding.line() for finding in self.findings)
        if self.cache is not None:
            yield f"Downloaded weights are in {self.cache}"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def examine(settings: Settings, *, online: bool = False) -> Report:
    """Try everything that the embedded backends need, and look for what the full ones need.

    Args:
        settings: What a run would have.
        online: Ask D-ID for the balance of its key, which costs nothing; else no network is used.
    """
    findings = (
        _tried("detection (embedded)", _load_faces),
        _full("detection", YOLO, settings),
        _tried("background removal (embedded)", _load_segmentation),
        _full("background removal", BIREFNET, settings),
        _tried("video generation (local renderer)", _import_renderer),
        _d_id(settings, online=online),
    )
    return Report(
        versions={name: _version(name) for name in ("talkgen", *PACKAGES)},
        extras={name: _version(name) for name in OPTIONAL},
        devices=("cpu", *_accelerators()),
        findings=findings,
        cache=_cache(),
    )


def _full(job: str, model: FullModel, settings: Settings) -> Finding:
    """Whether a run would take the full model, and why not."""
    name = f"{job} ({model.name})"
    if getattr(settings, model.role) == "embedded":
        return Finding(name, "the settings choose the embedded one.", optional=True)
    shortfall = model.shortfall(settings)
    if shortfall is None:
        return Finding(name)
    return Finding(name, f"{shortfall.message} {shortfall.hint}", optional=True)


def _d_id(settings: Settings, *, online: bool) -> Finding:
    """Whether D-ID makes the videos, and with what key; the key itself is not told."""
    name, key = "video generation (D-ID)", settings.d_id_api_key
    if not key:
        trouble = "D_ID_API_KEY is not set; the local renderer makes the videos."
        return Finding(name, trouble, optional=True)
    try:
        form = form_of(key)
        left = f"; {anyio.run(_credits, key):g} credits are left" if online else ""
    except (ValueError, TalkgenError) as error:
        return Finding(name, f"{error} {getattr(error, 'hint', None) or ''}".strip())
    return Finding(f"{name}: it makes the videos, for money; its key has {form}{left}")


async def _credits(api_key: str) -> float:
    async with DIdClient(api_key, base_url=BASE_URL) as client:
        return (await client.credits()).remaining


def _accelerators() -> Iterator[str]:
    """The GPUs that torch sees, with their memory."""
    try:
        with explained():
            torch = import_module("torch")
    except TalkgenError:
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield f"cuda:{index} {facts.name}, {facts.total_memory / 2**30:.1f} GiB"
    if torch.backends.mps.is_available():
        yield "mps"


def _cache() -> str | None:
    try:
        return str(cache_folder())
    except TalkgenError:
        return None


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
