"""Settings from the environment, only when asked."""

import importlib.util
from pathlib import Path

import attrs
import pytest

from talkgen import DetectPersons, Pipeline
from talkgen.models.catalogue import known_weights
from talkgen.settings import BIREFNET_VARIANTS, Settings

SCRIPTS = Path(__file__).parent.parent / "scripts"


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
        ("STORAGE_ROOT", "~nobody-of-this-name/store"),
        ("PROGRESS_RETENTION_MINUTES", "1e15"),
        ("STORAGE_RETENTION_UPLOADS_DAYS", "999999999"),
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


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("YOLO_CONFIDENCE_THRESHOLD", "0,5", "must be a number between 0 and 1"),
        ("TALKGEN_MAX_IMAGE_PIXELS", "5.5", "must be a whole number above 0"),
        ("D_ID_TIMEOUT_SECONDS", "5 min", "must be a number above 0"),
        ("STORAGE_RETENTION_VIDEOS_DAYS", "1e9", "must be a number above 0 and at most 36525"),
    ],
)
def test_a_bad_value_is_told_what_is_allowed(name, value, told):
    with pytest.raises(ValueError) as caught:
        Settings.from_env({name: value})
    assert str(caught.value) == f"{name}={value!r}: {told}"


ORIGINAL = {  # the names of the service that talkgen grew out of
    "YOLO_CONFIDENCE_THRESHOLD": ("0.4", "confidence_threshold", 0.4),
    "BIREFNET_USE_TENSORRT": ("true", "birefnet_use_tensorrt", True),
    "BIREFNET_USE_FP16": ("false", "birefnet_use_fp16", False),
    "STORAGE_ROOT": ("/data", "storage_root", Path("/data")),
    "STORAGE_RETENTION_UPLOADS_DAYS": ("8", "retention_uploads_days", 8),
    "STORAGE_RETENTION_PROCESSED_DAYS": ("4", "retention_processed_days", 4),
    "STORAGE_RETENTION_VIDEOS_DAYS": ("31", "retention_videos_days", 31),
    "STORAGE_MIN_FREE_SPACE_GB": ("6", "min_free_space_gb", 6),
    "PROGRESS_RETENTION_MINUTES": ("61", "progress_retention_minutes", 61),
    "PROGRESS_CLEANUP_INTERVAL_MINUTES": ("11", "progress_cleanup_interval_minutes", 11),
    "D_ID_API_KEY": ("user:password", "d_id_api_key", "user:password"),
    "D_ID_TIMEOUT_SECONDS": ("301", "d_id_timeout_seconds", 301),
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_originals_names_are_all_read(name):
    value, argument, meaning = ORIGINAL[name]
    assert getattr(Settings.from_env({name: value}), argument) == meaning
    assert getattr(Settings(), argument) != meaning


def test_explicit_arguments_win(monkeypatch):
    monkeypatch.setenv("YOLO_CONFIDENCE_THRESHOLD", "0.9")
    pipeline = Pipeline([DetectPersons(confidence=0.2)], settings=Settings.from_env())
    assert pipeline._stages[0].confidence == 0.2
    assert Pipeline(settings=Settings.from_env())._stages[0].confidence == 0.9


def hook():
    spec = importlib.util.spec_from_file_location("settings_table", SCRIPTS / "settings_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_table_has_every_setting():
    page = (SCRIPTS.parent / "docs" / "settings.md").read_text()
    shown = hook().on_page_markdown(page)
    rows = [line.split(" | ") for line in shown.splitlines() if line.startswith("| `")]
    assert [row[0].strip("| `") for row in rows] == [
        field.metadata["environ_config"].name for field in attrs.fields(Settings)
    ]
    assert [row[4].strip("| `") for row in rows] == [f.name for f in attrs.fields(Settings)]
    assert (
        "| `YOLO_CONFIDENCE_THRESHOLD` | number | `0.5` "
        "| 0..1, for detecting persons. | `confidence_threshold` |"
    ) in shown
    assert "| `BIREFNET_USE_FP16` | yes or no, or `auto` | `auto` |" in shown
    assert "<!--" not in shown
