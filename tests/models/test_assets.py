"""The networks' files: whole, or a typed error."""

from pathlib import Path

import attrs
import pytest

import talkgen.models
from talkgen.errors import ModelUnavailable
from talkgen.models._assets import ASSETS, FACE_LANDMARK
from talkgen.models.face import FaceDetectionModel, FaceMeshModel
from talkgen.models.segmentation import SelfieSegmentationModel

FOLDER = Path(talkgen.models.__path__[0]) / "assets"
MODELS = [
    FaceDetectionModel("near"),
    FaceDetectionModel("far"),
    FaceMeshModel(),
    SelfieSegmentationModel(),
]


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.name)
def test_the_files_are_those_pinned(asset):
    assert asset.read()


def test_no_file_is_carried_without_being_pinned_and_named_in_the_notice():
    files = {path.name for path in FOLDER.glob("*.tflite")}
    notice = (FOLDER / "NOTICE").read_text()

    assert files == {asset.name for asset in ASSETS}
    assert all(asset.name in notice and asset.sha256 in notice for asset in ASSETS)


def test_they_are_under_three_megabytes():
    assert sum((FOLDER / asset.name).stat().st_size for asset in ASSETS) < 3e6


def test_a_damaged_file_is_refused_before_the_runtime_sees_it():
    damaged = attrs.evolve(FACE_LANDMARK, sha256="0" * 64)

    with pytest.raises(ModelUnavailable, match=r"face_landmark.tflite is damaged") as caught:
        damaged.read()
    assert "pip install" in caught.value.hint


def test_an_absent_file_is_a_model_that_is_unavailable():
    absent = attrs.evolve(FACE_LANDMARK, name="absent.tflite")

    with pytest.raises(ModelUnavailable, match="cannot be read"):
        absent.read()


def test_keys_differ_and_follow_the_content():
    assert len({model.key for model in MODELS}) == len(MODELS)
    other = attrs.evolve(FACE_LANDMARK, sha256="1" * 64)
    assert other.key != FACE_LANDMARK.key


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_models_are_values_that_say_what_they_need(model):
    assert model == attrs.evolve(model)
    assert hash(model) == hash(attrs.evolve(model))
    assert model.vram_bytes("cpu") >= 1e6
    assert (model.max_instances, model.max_batch, model.levels) == (2, 8, 1)
