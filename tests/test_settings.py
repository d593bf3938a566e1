"""Settings from the environment, only when asked."""

from pathlib import Path

import pytest

from talkgen.settings import Settings


def test_default_reads_nothing(monkeypatch):
    monkeypatch.setenv("YOLO_CONFIDENCE_THRESHOLD", "0.9")
    assert Settings().confidence_threshold == 0.5
    assert Settings.from_env().confidence_threshold == 0.9


def test_values_are_typed():
    settings = Settings.from_env({"STORAGE_ROOT": "/data", "STORAGE_MIN_FREE_SPACE_GB": "2.5"})
    assert settings.storage_root == Path("/data")
    assert settings.min_free_space_gb == 2.5
    assert Settings.from_env({"STORAGE_ROOT": ""}).storage_root is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("YOLO_CONFIDENCE_THRESHOLD", "1.5"),
        ("STORAGE_RETENTION_VIDEOS_DAYS", "0"),
        ("STORAGE_MIN_FREE_SPACE_GB", "nan"),
        ("TALKGEN_MAX_IMAGE_PIXELS", "many"),
    ],
)
def test_bad_value_names_its_variable(name, value):
    with pytest.raises(ValueError, match=f"{name}='{value}'"):
        Settings.from_env({name: value})
