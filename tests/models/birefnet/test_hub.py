"""Official repositories in, the same tensors out."""

import json

import pytest
import torch
from safetensors.torch import save_file

from talkgen.errors import ModelUnavailable
from talkgen.models.birefnet import BiRefNetConfig, BiRefNetModel
from talkgen.models.birefnet.files import shapes


def test_a_file_has_the_published_size(lite_folder):
    assert (lite_folder / "model.safetensors").stat().st_size == 177_634_392


def test_an_official_folder_is_loaded_though_it_does_not_name_its_backbone(
    lite_folder, lite, pictures
):
    model = BiRefNetModel.from_pretrained(lite_folder, use_safetensors=True)

    assert model.config.backbone == "lite"
    assert not model.training
    with torch.inference_mode():
        assert torch.allclose(model(pictures), lite(pictures), atol=1e-4)


def test_what_was_saved_is_loaded_again_in_the_official_layout(lite_folder, lite, tmp_path):
    model = BiRefNetModel.from_pretrained(lite_folder)
    model.save_pretrained(tmp_path)

    again = BiRefNetModel.from_pretrained(tmp_path)

    official = lite.state_dict()
    assert shapes(tmp_path / "model.safetensors") == {
        name: tuple(tensor.shape) for name, tensor in official.items()
    }
    assert all(torch.equal(official[name], tensor) for name, tensor in again.state_dict().items())
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


def test_a_single_file_of_any_name_and_half_precision_is_loaded_and_raised(
    lite_weights, tmp_path, pictures
):
    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in lite_weights.items()
    }
    save_file(half, tmp_path / "mine.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "mine.safetensors").stat().st_size == 88_965_896

    model = BiRefNetModel.from_pretrained(tmp_path / "mine.safetensors")

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(
        torch.equal(half[name].to(tensor.dtype), tensor)
        for name, tensor in model.state_dict().items()
    )


def test_weights_that_lack_a_tensor_are_refused(lite_weights, tmp_path):
    some = {name: t for name, t in lite_weights.items() if name != "decoder.conv_out1.0.bias"}
    save_file(some, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelUnavailable, match=r"decoder\.conv_out1\.0\.bias"):
        BiRefNetModel.from_pretrained(tmp_path)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)

    with pytest.raises(ModelUnavailable, match=r"model\.safetensors"):
        BiRefNetModel.from_pretrained(tmp_path)


def test_a_config_names_no_code():
    config = BiRefNetConfig(auto_map={"AutoModel": "birefnet.BiRefNet"})

    assert not hasattr(config, "auto_map")
    assert "auto_map" not in config.to_dict()
