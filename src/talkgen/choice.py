"""Which backends are taken for what is installed and fetched, and what they fall short of."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from talkgen.errors import MissingDependency, ModelUnavailable
from talkgen.generators.did import DIdGenerator
from talkgen.generators.local import LocalGenerator
from talkgen.models.catalogue import birefnet, yolo
from talkgen.models.face import FaceDetector
from talkgen.models.segmentation import SelfieRemover
from talkgen.models.weights import Weights, cached, offline
from talkgen.protocols import Backends
from talkgen.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from talkgen.errors import TalkgenError
    from talkgen.protocols import BackgroundRemover, Detector, Stage

__all__ = ["BIREFNET", "YOLO", "Choice", "FullModel", "Shortfall", "choose_backends"]

ROLES = ("detector", "remover")


@attrs.frozen
class Shortfall:
    """A full model that is not used, and why.

    Attributes:
        role: The field of `Backends` that an embedded one fills instead.
        message: A sentence.
        hint: What to do about it.
        kind: The error that it is where nothing less will do.
    """

    role: Literal["detector", "remover"]
    message: str
    hint: str
    kind: type[MissingDependency | ModelUnavailable]

    def error(self) -> TalkgenError:
        """A new one each time: an error that is raised gathers facts of its run."""
        return self.kind(self.message, hint=self.hint)


@attrs.frozen
class FullModel:
    """A model that an extra brings, and what it takes to use it.

    Attributes:
        name: What people call it.
        extra: Its extra of talkgen.
        role: What it does, a field of `Backends` and of `Settings`.
        packages: What the extra installs, by import name.
        asked_by: The settings that ask for it when they are not left alone.
        weights: What the settings name: a file, or weights of the hub.
        make: The backend.
    """

    name: str
    extra: str
    role: Literal["detector", "remover"]
    packages: tuple[str, ...]
    asked_by: tuple[str, ...]
    weights: Callable[[Settings], Path | Weights]
    make: Callable[[Settings], Any]

    def shortfall(self, settings: Settings) -> Shortfall | None:
        """Why it cannot be used on this machine; None if it can. Imports no heavy package."""
        if not all(find_spec(package) for package in self.packages):
            return Shortfall(
                self.role,
                f"{self.name} is not installed; the embedded {self.role} is used.",
                f'Install it: pip install "talkgen[{self.extra}]"',
                MissingDependency,
            )
        weights = self.weights(settings)
        if _at_hand(weights, settings):
            return None
        return Shortfall(
            self.role,
            f"{self.name} has no weights: {_absent(weights)}; the embedded {self.role} is used.",
            _remedy(weights),
            ModelUnavailable,
        )

    def asked(self, settings: Settings) -> bool:
        """The settings name it, rather than leaving the choice to what is there."""
        left_alone = Settings()
        return any(getattr(settings, name) != getattr(left_alone, name) for name in self.asked_by)


def _at_hand(weights: Path | Weights, settings: Settings) -> bool:
    if not isinstance(weights, Weights):
        return weights.exists()
    return cached(weights) is not None or (settings.allow_downloads and not offline())


def _absent(weights: Path | Weights) -> str:
    if isinstance(weights, Weights):
        return f"{weights.name} is not on this machine"
    return f"there is no file {weights}"


def _remedy(weights: Path | Weights) -> str:
    if isinstance(weights, Weights):
        return f"Fetch them: python -m talkgen fetch {weights.name}"
    return "Check the path; 'python -m talkgen fetch --list' shows what is known by name."


def _yolo_weights(settings: Settings) -> Path | Weights:
    return yolo(settings.yolo_weights) or Path(settings.yolo_weights).expanduser()


def _birefnet_weights(settings: Settings) -> Path | Weights:
    return settings.birefnet_weights or birefnet(settings.birefnet_variant)


def _yolo(settings: Settings) -> Detector:
    from talkgen.models.yolo import YoloDetector

    detector: Detector = YoloDetector(
        weights=settings.yolo_weights,
        device=settings.device,
        allow_downloads=settings.allow_downloads,
    )
    return detector


def _birefnet(settings: Settings) -> BackgroundRemover:
    from talkgen.models.birefnet import BiRefNetRemover

    remover: BackgroundRemover = BiRefNetRemover(
        variant=settings.birefnet_variant,
        weights=settings.birefnet_weights,
        device=settings.device,
        half=settings.birefnet_use_fp16,
        tensorrt=settings.birefnet_use_tensorrt,
        allow_downloads=settings.allow_downloads,
    )
    return remover


YOLO = FullModel(
    name="YOLO",
    extra="yolo",
    role="detector",
    packages=("ultralytics", "huggingface_hub"),
    asked_by=("detector", "yolo_weights"),
    weights=_yolo_weights,
    make=_yolo,
)
BIREFNET = FullModel(
    name="BiRefNet",
    extra="birefnet",
    role="remover",
    packages=("torch", "transformers", "safetensors", "huggingface_hub"),
    asked_by=("remover", "birefnet_weights"),
    weights=_birefnet_weights,
    make=_birefnet,
)


@attrs.frozen
class Choice:
    """The backends that were taken, and what they fall short of."""

    backends: Backends
    shortfalls: tuple[Shortfall, ...] = ()

    def shortfalls_of(self, stages: Iterable[Stage]) -> tuple[Shortfall, ...]:
        """Those that matter to these stages: some were given backends of their own."""
        roles = {role for stage in stages for role in ROLES if getattr(stage, role, stage) is None}
        return tuple(shortfall for shortfall in self.shortfalls if shortfall.role in roles)


def choose_backends(settings: Settings) -> Choice:
    """The full models that are installed and have their weights, else the embedded ones.

    An embedded one needs no download, key or GPU. It is a shortfall where a full one was asked
    for, or is installed but lacks its weights. D-ID makes the videos where the settings have a key.
    Looks at the disk; reaches no network.
    """
    detector, no_yolo = _chosen(YOLO, settings)
    remover, no_birefnet = _chosen(BIREFNET, settings)
    backends = Backends(
        detector=detector or FaceDetector(),
        remover=remover or SelfieRemover(),
        generator=DIdGenerator(settings.d_id_api_key)
        if settings.d_id_api_key
        else LocalGenerator(),
    )
    return Choice(backends, tuple(filter(None, (no_yolo, no_birefnet))))


def _chosen(full: FullModel, settings: Settings) -> tuple[Any, Shortfall | None]:
    if getattr(settings, full.role) == "embedded":
        return None, None
    shortfall = full.shortfall(settings)
    if shortfall is None:
        return full.make(settings), None
    unheard_of = shortfall.kind is MissingDependency and not full.asked(settings)
    return None, None if unheard_of else shortfall
