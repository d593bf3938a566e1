"""Settings from the environment, only when asked."""

from pathlib import Path

import pytest

from talkgen.models.catalogue import known_weights
from talkgen.settings import BIREFNET_VARIANTS, Settings


def test_default_reads_nothing(monkeypatch):
    monkeypatch.setenv("YOLO_CONFIDENCE_THRESHOLD", "0.9")
    assert Settings().confidence_threshold == 0.5
    assert Settings.from_env().confidence_threshold == 0.9


def test_values_are_typed():
    settings = Settings.from_env({"STORAGE_ROOT": "/data", "STORAGE_MIN_FREE_SPACE_GB": "2.5"})
    assert settings.storage_root == Path("/data")
    assert settings.min_free_space_gb == 2.5
    assert Settings.from_env({"STORAGE_ROOT": ""}).storage_root is None


def test_the_originals_clean_up_interval_is_accepted():
    """It has no effect, but a typing error in it is told all the same."""
    name = "PROGRESS_CLEANUP_INTERVAL_MINUTES"
    assert Settings.from_env({name: "5"}).progress_cleanup_interval_minutes == 5
    with pytest.raises(ValueError, match=name):
        Settings.from_env({name: "often"})


def test_the_full_models_are_typed_too():
    settings = Settings.from_env(
        {
            "TALKGEN_DETECTOR": "yolo",
            "TALKGEN_REMOVER": "embedded",
            "YOLO_WEIGHTS": "/data/mine.pt",
            "BIREFNET_VARIANT": "lite",
            "BIREFNET_WEIGHTS": "/data/model.safetensors",
            "BIREFNET_USE_FP16": "True",
            "BIREFNET_USE_TENSORRT": "1",
            "TALKGEN_DEVICE": "cuda:1",
            "TALKGEN_ALLOW_DOWNLOADS": "no",
        }
    )
    assert (settings.detector, settings.remover) == ("yolo", "embedded")
    assert settings.yolo_weights == "/data/mine.pt"
    assert settings.birefnet_variant == "lite"
    assert settings.birefnet_weights == Path("/data/model.safetensors")
    assert settings.birefnet_use_fp16 is True
    assert settings.birefnet_use_tensorrt is True
    assert settings.device == "cuda:1"
    assert settings.allow_downloads is False
    assert Settings().birefnet_use_fp16 == "auto"
    assert Settings(birefnet_use_fp16=False).birefnet_use_fp16 is False


def test_every_variant_has_weights():
    known = [name for name in known_weights() if name.startswith("birefnet-")]
    assert known == [f"birefnet-{variant}" for variant in BIREFNET_VARIANTS]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("YOLO_CONFIDENCE_THRESHOLD", "1.5"),
        ("STORAGE_RETENTION_VIDEOS_DAYS", "0"),
        ("STORAGE_MIN_FREE_SPACE_GB", "nan"),
        ("TALKGEN_MAX_IMAGE_PIXELS", "many"),
        ("TALKGEN_DETECTOR", "birefnet"),
        ("TALKGEN_REMOVER", "yolo"),
        ("YOLO_WEIGHTS", " "),
        ("BIREFNET_VARIANT", "heavy"),
        ("BIREFNET_USE_FP16", "half"),
        ("BIREFNET_USE_TENSORRT", "auto"),
        ("TALKGEN_DEVICE", "gpu"),
        ("TALKGEN_ALLOW_DOWNLOADS", ""),
    ],
)
def test_bad_value_names_its_variable(name, value):
    with pytest.raises(ValueError, match=f"{name}='{value}'"):
        Settings.from_env({name: value})
