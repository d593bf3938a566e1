"""Settings: plain values, taken from the environment only when asked."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import environ

from talkgen._devices import device_name
from talkgen._types import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Settings"]

T = TypeVar("T")
N = TypeVar("N", int, float)

BIREFNET_VARIANTS = (
    "general",
    "lite",
    "portrait",
    "matting",
    "hr",
    "hr-matting",
    "dynamic",
    "lite-matting",
)
YES = frozenset({"1", "true", "yes", "on"})
NO = frozenset({"0", "false", "no", "off"})
CENTURY = 36_525  # days


def _number(kind: type[N], allowed: Callable[[N], bool], words: str) -> Callable[[Any], N]:
    def parse(value: Any) -> N:
        try:
            number = kind(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or not allowed(number):
            raise ValueError(f"must be {words}")
        return number

    return parse


def _positive(kind: type[N]) -> Callable[[Any], N]:
    noun = "a whole number" if kind is int else "a number"
    return _number(kind, lambda number: 0 < number < inf, f"{noun} above 0")


def _time(most: int) -> Callable[[Any], float]:
    """A time that dates can be reckoned with."""
    return _number(float, lambda number: 0 < number <= most, f"a number above 0 and at most {most}")


_not_negative = _number(float, lambda number: 0 <= number < inf, "0 or a number above it")
_fraction = _number(float, lambda number: 0 <= number <= 1, "a number between 0 and 1")


def _one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return parse


def _flag(value: Any) -> bool:
    word = str(value).lower()
    if word not in YES | NO:
        raise ValueError("must be true or false")
    return word in YES


def _flag_or_auto(value: Any) -> bool | Literal["auto"]:
    if str(value).lower() == "auto":
        return "auto"
    try:
        return _flag(value)
    except ValueError:
        raise ValueError("must be auto, true or false") from None


def _name_or_path(value: Any) -> str:
    if not str(value).strip():
        raise ValueError("must be a name like yolov8n, or a path")
    return str(value)


def _var(name: str, default: Any, parse: Callable[[Any], Any], help_text: str) -> Any:
    """A field that names its environment variable when the value is no good."""

    def convert(value: Any) -> Any:
        try:
            return parse(value)
        except (TypeError, ValueError, RuntimeError) as error:  # the last: nobody's home folder
            raise ValueError(f"{name}={value!r}: {error}") from None

    return environ.var(default, name=name, converter=convert, help=help_text)


def _path(value: Any) -> Path | None:
    return Path(value).expanduser() if value else None


def _secret(value: Any) -> Secret | None:
    return Secret(value) if value else None


def _optional(parse: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value in (None, "") else parse(value)


@environ.config(prefix="", frozen=True)
class Settings:
    """What a pipeline may be told from outside; explicit arguments of its parts win.

    `Settings()` is the default and reads nothing; `Settings.from_env()` reads the variables
    named below. A value that cannot be used is a `ValueError` that names the variable.

    Attributes:
        confidence_threshold: YOLO_CONFIDENCE_THRESHOLD; 0..1, for detecting persons.
        detector: TALKGEN_DETECTOR; what finds persons. `auto`: YOLO where its extra and its
            weights are there, else the embedded one.
        remover: TALKGEN_REMOVER; what removes backgrounds. `auto`: BiRefNet where its extra and
            its weights are there, else the embedded one.
        yolo_weights: YOLO_WEIGHTS; a name like `yolov8n.pt`, or a path.
        birefnet_variant: BIREFNET_VARIANT; which of the published models.
        birefnet_weights: BIREFNET_WEIGHTS; the variant's own file. None: the hub's.
        birefnet_use_fp16: BIREFNET_USE_FP16; half precision. `auto`: where it pays.
        birefnet_use_tensorrt: BIREFNET_USE_TENSORRT; compile for the GPU that is there.
        device: TALKGEN_DEVICE; where YOLO and BiRefNet run: `auto`, `cpu`, `mps`, `cuda`, `cuda:1`.
        allow_downloads: TALKGEN_ALLOW_DOWNLOADS; fetch weights that are absent when they are
            first needed.
        storage_root: STORAGE_ROOT; where files are kept. None: a temporary folder.
        retention_uploads_days: STORAGE_RETENTION_UPLOADS_DAYS; how long originals are kept.
        retention_processed_days: STORAGE_RETENTION_PROCESSED_DAYS; the same, of what the stages
            made.
        retention_videos_days: STORAGE_RETENTION_VIDEOS_DAYS; the same, of videos and manifests.
        min_free_space_gb: STORAGE_MIN_FREE_SPACE_GB; below it no run starts (2**30 bytes).
        progress_retention_minutes: PROGRESS_RETENTION_MINUTES; histories after their end.
        progress_cleanup_interval_minutes: PROGRESS_CLEANUP_INTERVAL_MINUTES; accepted, and
            without effect: histories expire when somebody looks.
        cache_megabytes: TALKGEN_CACHE_MEGABYTES; detections and cut-outs kept for photos that
            come again (2**20 bytes); 0 keeps none.
        max_image_pixels: TALKGEN_MAX_IMAGE_PIXELS; larger pictures are refused.
        max_image_bytes: TALKGEN_MAX_IMAGE_BYTES; larger files are refused.
        max_audio_seconds: TALKGEN_MAX_AUDIO_SECONDS; longer recordings are refused.
        max_audio_bytes: TALKGEN_MAX_AUDIO_BYTES; larger files are refused.
        d_id_api_key: D_ID_API_KEY; with it, D-ID makes the videos, for money. Hidden in the
            repr, and left out of pickles.
        d_id_timeout_seconds: D_ID_TIMEOUT_SECONDS; how long a talk is waited for before the
            run is deferred. None: 300 s, or 20 times the recording where that is more.
    """

    confidence_threshold: float = _var(
        "YOLO_CONFIDENCE_THRESHOLD", 0.5, _fraction, "confidence for detecting persons, 0..1"
    )
    detector: Literal["auto", "embedded", "yolo"] = _var(
        "TALKGEN_DETECTOR", "auto", _one_of("auto", "embedded", "yolo"), "what finds persons"
    )
    remover: Literal["auto", "embedded", "birefnet"] = _var(
        "TALKGEN_REMOVER",
        "auto",
        _one_of("auto", "embedded", "birefnet"),
        "what removes backgrounds",
    )
    yolo_weights: str = _var("YOLO_WEIGHTS", "yolov8n.pt", _name_or_path, "a name or a path")
    birefnet_variant: str = _var(
        "BIREFNET_VARIANT", "general", _one_of(*BIREFNET_VARIANTS), "which published model"
    )
    birefnet_weights: Path | None = _var(
        "BIREFNET_WEIGHTS", None, _path, "the variant's own file instead of the hub's"
    )
    birefnet_use_fp16: bool | Literal["auto"] = _var(
        "BIREFNET_USE_FP16", "auto", _flag_or_auto, "half precision"
    )
    birefnet_use_tensorrt: bool = _var(
        "BIREFNET_USE_TENSORRT", default=False, parse=_flag, help_text="compile for the GPU"
    )
    device: str = _var("TALKGEN_DEVICE", "auto", device_name, "where the full models run")
    allow_downloads: bool = _var(
        "TALKGEN_ALLOW_DOWNLOADS", default=False, parse=_flag, help_text="fetch absent weights"
    )
    storage_root: Path | None = _var("STORAGE_ROOT", None, _path, "where files are kept")
    retention_uploads_days: float = _var(
        "STORAGE_RETENTION_UPLOADS_DAYS", 7.0, _time(CENTURY), "how long originals are kept"
    )
    retention_processed_days: float = _var(
        "STORAGE_RETENTION_PROCESSED_DAYS", 3.0, _time(CENTURY), "how long cut-outs are kept"
    )
    retention_videos_days: float = _var(
        "STORAGE_RETENTION_VIDEOS_DAYS", 30.0, _time(CENTURY), "how long videos are kept"
    )
    min_free_space_gb: float = _var(
        "STORAGE_MIN_FREE_SPACE_GB", 5.0, _positive(float), "below it no run starts"
    )
    progress_retention_minutes: float = _var(
        "PROGRESS_RETENTION_MINUTES", 60.0, _time(CENTURY * 24 * 60), "histories after their end"
    )
    progress_cleanup_interval_minutes: float = _var(
        "PROGRESS_CLEANUP_INTERVAL_MINUTES", 60.0, _time(CENTURY * 24 * 60), "without effect"
    )
    cache_megabytes: float = _var(
        "TALKGEN_CACHE_MEGABYTES", 1024.0, _not_negative, "kept for photos that come again"
    )
    max_image_pixels: int = _var(
        "TALKGEN_MAX_IMAGE_PIXELS", 50_000_000, _positive(int), "larger pictures are refused"
    )
    max_image_bytes: int = _var(
        "TALKGEN_MAX_IMAGE_BYTES", 50_000_000, _positive(int), "larger image files are refused"
    )
    max_audio_seconds: float = _var(
        "TALKGEN_MAX_AUDIO_SECONDS", 600.0, _positive(float), "longer recordings are refused"
    )
    max_audio_bytes: int = _var(
        "TALKGEN_MAX_AUDIO_BYTES", 200_000_000, _positive(int), "larger audio files are refused"
    )

    d_id_api_key: Secret | None = _var("D_ID_API_KEY", None, _secret, "with it, D-ID is used")
    d_id_timeout_seconds: float | None = _var(
        "D_ID_TIMEOUT_SECONDS", None, _optional(_positive(float)), "how long a talk is waited for"
    )

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the environment variables.

        Args:
            environment: Another mapping than `os.environ`.

        Raises:
            ValueError: A variable holds what it must not; the message names it.
        """
        settings: Settings = (
            environ.to_config(cls)
            if environment is None
            else environ.to_config(cls, environ=dict(environment))
        )
        return settings
