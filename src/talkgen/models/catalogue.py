"""Every file of weights that talkgen knows by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from talkgen.models.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["AGPL", "MIT", "birefnet", "known_weights", "yolo"]

AGPL = "AGPL-3.0-only"
MIT = "MIT"


def known_weights() -> Mapping[str, Weights]:
    """All of them, by name."""
    return _KNOWN


def yolo(text: str) -> Weights | None:
    """What `yolov8n` or `yolov8n.pt` means; None where it is no known name."""
    weights = _KNOWN.get(text.removesuffix(".pt"))
    return weights if weights is not None and weights.filename.endswith(".pt") else None


def birefnet(variant: str) -> Weights:
    """What `general`, `lite` and so on mean.

    Raises:
        KeyError: There is no such variant.
    """
    return _KNOWN[f"birefnet-{variant}"]


def _yolo(name: str, repository: str, size: int, sha256: str, revision: str = "main") -> Weights:
    return Weights(
        name=name,
        repository=f"Ultralytics/{repository}",
        revision=revision,
        filename=f"{name}.pt",
        sha256=sha256,
        licence=AGPL,
        size=size,
    )


def _birefnet(variant: str, repository: str, revision: str, size: int, sha256: str) -> Weights:
    return Weights(
        name=f"birefnet-{variant}",
        repository=f"ZhengPeng7/{repository}",
        revision=revision,
        filename="model.safetensors",
        sha256=sha256,
        licence=MIT,
        companions=("config.json",),
        size=size,
    )


# Swin-L in fp16 and fp32, Swin-T in fp32 and fp16: whatever it was trained on, a file holds the
# same tensors.
LARGE_HALF, LARGE, LITE, LITE_HALF = 444_473_596, 884_878_856, 177_634_392, 88_965_896

YOLOV8 = "8a9e1a55f987a77f9966c2ac3f80aa8aa37b3c1a"


def _table() -> Iterator[Weights]:
    yield _yolo(
        "yolov8n",
        "YOLOv8",
        6_534_387,
        "31e20dde3def09e2cf938c7be6fe23d9150bbbe503982af13345706515f2ef95",
        YOLOV8,
    )
    yield _yolo(
        "yolov8s",
        "YOLOv8",
        22_573_363,
        "268e5bb54c640c96c3510224833bc2eeacab4135c6deb41502156e39986b562d",
        YOLOV8,
    )
    yield _yolo(
        "yolov8m",
        "YOLOv8",
        52_117_635,
        "6c25b0b63b1a433843f06d821a9ac1deb8d5805f74f0f38772c7308c5adc55a5",
        YOLOV8,
    )
    yield _yolo(
        "yolo11n",
        "YOLO11",
        5_613_764,
        "0ebbc80d4a7680d14987a577cd21342b65ecfd94632bd9a8da63ae6417644ee1",
        "8b8ac7d1fae7468f85dbf89670dd66f41f485aab",
    )
    # Of this repository no commit is known here; the digest pins the file all the same.
    yield _yolo(
        "yolo26n",
        "YOLO26",
        5_544_453,
        "9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef",
    )
    yield _birefnet(
        "general",
        "BiRefNet",
        "e2bf8e4460fc8fa32bba5ea4d94b3233d367b0e4",
        LARGE_HALF,
        "9ab37426bf4de0567af6b5d21b16151357149139362e6e8992021b8ce356a154",
    )
    yield _birefnet(
        "lite",
        "BiRefNet_lite",
        "7838f1c3472f827cd8ce13ab5ccc2ce48077360f",
        LITE,
        "4417d89795250e698c3cb0ae8df15743810065f646f48a694fdfa7ca052d0815",
    )
    yield _birefnet(
        "portrait",
        "BiRefNet-portrait",
        "b6561965a70070d9143fd9e558f6ca3c481510db",
        LARGE,
        "4a4eb3a5469b75f0cccaec6772c22fc30e6c12ed429c2c0ba71b43e3d8d97182",
    )
    yield _birefnet(
        "matting",
        "BiRefNet-matting",
        "eccde0a8cbdce7ac5fecfeb06340fe7b949e85d9",
        LARGE,
        "a9875de5b1e6c8eb5fdaa8c727a82927ce442cdc87ba3abee6a77e6fa46c25bb",
    )
    yield _birefnet(
        "hr",
        "BiRefNet_HR",
        "a7a562f6fd16021180f2f4348f4de003a2d3d1e1",
        LARGE_HALF,
        "9d678bafec0b0019fbb073b7fd02f05ede25dc4b15254f23b2fb0be333200c0d",
    )
    yield _birefnet(
        "hr-matting",
        "BiRefNet_HR-matting",
        "5d6b6f8adcb5b417c871b1d84ceaae9871355b7f",
        LARGE_HALF,
        "a5a4de698739ea5e0e8bbab28e1b293dde95092b87a442d566cbc585c53cef55",
    )
    yield _birefnet(
        "dynamic",
        "BiRefNet_dynamic",
        "280306042f57b7a33854319da62fd86aaa89ec4c",
        LARGE_HALF,
        "e3d2e4884e51ff30f0cd630edc6b1e41b06b7f23a0a2a5169f7b7cb33a711c2d",
    )
    yield _birefnet(
        "lite-matting",
        "BiRefNet_lite-matting",
        "99c33412e3f58e1f33187abdc8c435c645243690",
        LITE_HALF,
        "ce8bcfc045e336322c0424a5863dcfb7e9ce8fed0a5fd4d1b2b20adf12d97243",
    )


_KNOWN = MappingProxyType({weights.name: weights for weights in _table()})
