"""The official checkpoints that can be asked for by name."""

from __future__ import annotations

import attrs

from talkgen.models.birefnet.backbones import LARGE, LITE, Backbone
from talkgen.models.weights import Weights

__all__ = ["VARIANTS", "Variant"]


@attrs.frozen
class Variant:
    """A published checkpoint.

    Attributes:
        weights: Its file.
        backbone: The network's size.
        size: Side of the square, in pixels, that it was trained on.
    """

    weights: Weights
    backbone: Backbone
    size: int


def _variant(  # noqa: PLR0913 - a row of the table below
    name: str, repository: str, revision: str, sha256: str, backbone: Backbone, size: int = 1024
) -> tuple[str, Variant]:
    weights = Weights(
        name=f"birefnet-{name}",
        repository=f"ZhengPeng7/{repository}",
        revision=revision,
        filename="model.safetensors",
        sha256=sha256,
        licence="MIT",
        companions=("config.json",),
    )
    return name, Variant(weights, backbone, size)


# Commits and hashes as third parties have recorded them beside each other; two at least agree on
# each hash. A wrong hash is refused at download, so that a mistake here is loud.
VARIANTS: dict[str, Variant] = dict(
    [
        _variant(
            "general",
            "BiRefNet",
            "e2bf8e4460fc8fa32bba5ea4d94b3233d367b0e4",
            "9ab37426bf4de0567af6b5d21b16151357149139362e6e8992021b8ce356a154",
            LARGE,
        ),
        _variant(
            "lite",
            "BiRefNet_lite",
            "aa62cd87eafb9cc43056d08ef3615a14628b831d",
            "4417d89795250e698c3cb0ae8df15743810065f646f48a694fdfa7ca052d0815",
            LITE,
        ),
        _variant(
            "portrait",
            "BiRefNet-portrait",
            "b6561965a70070d9143fd9e558f6ca3c481510db",
            "4a4eb3a5469b75f0cccaec6772c22fc30e6c12ed429c2c0ba71b43e3d8d97182",
            LARGE,
        ),
        _variant(
            "matting",
            "BiRefNet-matting",
            "eccde0a8cbdce7ac5fecfeb06340fe7b949e85d9",
            "a9875de5b1e6c8eb5fdaa8c727a82927ce442cdc87ba3abee6a77e6fa46c25bb",
            LARGE,
        ),
        _variant(
            "hr",
            "BiRefNet_HR",
            "a7a562f6fd16021180f2f4348f4de003a2d3d1e1",
            "9d678bafec0b0019fbb073b7fd02f05ede25dc4b15254f23b2fb0be333200c0d",
            LARGE,
            2048,
        ),
        _variant(
            "hr-matting",
            "BiRefNet_HR-matting",
            "5d6b6f8adcb5b417c871b1d84ceaae9871355b7f",
            "a5a4de698739ea5e0e8bbab28e1b293dde95092b87a442d566cbc585c53cef55",
            LARGE,
            2048,
        ),
        _variant(
            "dynamic",
            "BiRefNet_dynamic",
            "280306042f57b7a33854319da62fd86aaa89ec4c",
            "e3d2e4884e51ff30f0cd630edc6b1e41b06b7f23a0a2a5169f7b7cb33a711c2d",
            LARGE,
        ),
        _variant(
            "lite-matting",
            "BiRefNet_lite-matting",
            "99c33412e3f58e1f33187abdc8c435c645243690",
            "ce8bcfc045e336322c0424a5863dcfb7e9ce8fed0a5fd4d1b2b20adf12d97243",
            LITE,
        ),
    ]
)
