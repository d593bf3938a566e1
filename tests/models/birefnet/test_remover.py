"""The remover and its model, with random weights: what they find is beside the point."""

import errno
import gc
import pickle
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from talkgen import requirements
from talkgen.errors import MissingDependency, ModelUnavailable
from talkgen.media import Image
from talkgen.models import matting
from talkgen.models.birefnet import VARIANTS, BiRefNetRemover, engine
from talkgen.models.birefnet.backbones import LARGE, LITE
from talkgen.models.birefnet.model import MattingModel
from talkgen.settings import BIREFNET_VARIANTS

from ...memory import growth, on_linux

GIB = 2**30


@pytest.fixture
def cutter(lite_folder) -> BiRefNetRemover:
    return BiRefNetRemover("lite", weights=lite_folder, device="cpu", size=64)


@pytest.fixture
def picture(portrait) -> Image:
    return portrait.resized(150, 100)


# --- the options -------------------------------------------------------------------------------


def test_importing_and_making_one_loads_no_torch():
    code = (
        "import sys; from talkgen.models.birefnet import BiRefNetRemover; BiRefNetRemover().key; "
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_variants_are_those_of_the_settings_and_all_pinned():
    assert tuple(VARIANTS) == BIREFNET_VARIANTS
    for name, variant in VARIANTS.items():
        assert variant.weights.name == f"birefnet-{name}"
        assert len(variant.weights.sha256) == 64
    assert (VARIANTS["lite"].backbone, VARIANTS["general"].backbone) == (LITE, LARGE)
    assert {name for name, variant in VARIANTS.items() if variant.size == 2048} == {
        "hr",
        "hr-matting",
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [("variant", "tiny"), ("size", 100), ("size", 0), ("device", "gpu"), ("half", "yes")],
)
def test_wrong_options_are_refused_at_once(option, value):
    with pytest.raises(ValueError, match=f"^{option}={value!r}: must be "):
        BiRefNetRemover(**{option: value})


def test_without_the_extra_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)

    with pytest.raises(MissingDependency) as caught:
        BiRefNetRemover()
    assert "talkgen[birefnet]" in caught.value.hint


def test_a_key_covers_whatever_changes_the_result(lite_folder):
    plain = BiRefNetRemover("lite", weights=lite_folder)
    others = [
        BiRefNetRemover("lite"),
        *(
            attrs.evolve(plain, **change)
            for change in ({"size": 64}, {"half": True}, {"tensorrt": True}, {"refine": False})
        ),
    ]

    assert len({one.key for one in [plain, *others]}) == 6
    assert plain.key == BiRefNetRemover("general", weights=str(lite_folder)).key


async def test_weights_that_are_not_here_are_named_with_the_command(
    monkeypatch, tmp_path, picture, scheduler
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ModelUnavailable, match=r"BiRefNet_lite.*model\.safetensors") as caught:
        await BiRefNetRemover("lite").remove(picture, scheduler=scheduler)
    assert "python -m talkgen fetch birefnet-lite" in caught.value.hint


async def test_a_path_that_leads_nowhere_is_an_error_of_its_own(tmp_path, picture, scheduler):
    lost = BiRefNetRemover(weights=tmp_path / "lost.safetensors")

    assert "lost" in lost.key
    with pytest.raises(ModelUnavailable, match=r"lost\.safetensors"):
        await lost.remove(picture, scheduler=scheduler)


async def test_a_file_that_has_changed_is_refused(tmp_path, cutter):
    model = attrs.evolve(cutter.model(), sha256="0" * 64)

    with pytest.raises(ModelUnavailable, match="SHA-256"):
        model.load("cpu")


async def test_a_file_that_vanishes_before_it_is_loaded_is_an_error_of_its_own(lite_folder):
    model = BiRefNetRemover("lite", weights=lite_folder).model()
    gone = attrs.evolve(model, weights=lite_folder / "gone.safetensors")

    with pytest.raises(ModelUnavailable, match=r"gone\.safetensors cannot be read"):
        gone.load("cpu")


def test_without_torch_tensorrt_it_falls_short_and_says_so(monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)

    assert BiRefNetRemover().shortfall is None
    assert "torch_tensorrt is not installed" in BiRefNetRemover(tensorrt=True).shortfall


def test_an_engine_that_cannot_be_saved_leaves_nothing(tmp_path):
    class Full:
        """`torch_tensorrt`, when the disk is full half way."""

        @staticmethod
        def save(compiled, path, *, inputs):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        engine._save(Full, compiled=None, path=tmp_path / "engine.ep", example=torch.zeros(1))

    assert list(tmp_path.iterdir()) == []


# --- the model ---------------------------------------------------------------------------------


def test_the_model_is_a_value_that_travels(cutter):
    model = cutter.model()

    again = pickle.loads(pickle.dumps(model))
    assert again == model
    assert hash(again) == hash(model)
    assert (model.max_instances, model.max_batch, model.device) == (1, 1, "cpu")


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(1024, (1024, 512)), (2048, (2048, 1024, 512)), (768, (768, 512)), (512, (512,))],
)
def test_smaller_sizes_are_its_levels(size, sizes):
    model = MattingModel(Path("x"), "0" * 64, LARGE, size)

    assert model.sizes == sizes
    assert model.levels == len(sizes)


def test_a_t4_holds_two_detectors_and_one_of_these():
    model = VARIANTS["general"]
    matting_model = MattingModel(model.weights, model.weights.sha256, LARGE)
    yolo_single, yolo_half = 2 * GIB, 1 * GIB  # as published

    usable = 15 * GIB
    assert matting_model.vram_bytes("cuda:0") + 2 * yolo_half < usable
    full = attrs.evolve(matting_model, half=False)
    assert full.vram_bytes("cuda:0") + 2 * yolo_single < usable
    assert 3.9e9 < matting_model.vram_bytes("cuda") < 4.2e9
    assert 7.9e9 < full.vram_bytes("cuda") < 8.2e9


def test_memory_grows_with_precision_and_size():
    lite = MattingModel(Path("x"), "0" * 64, LITE)
    needs = [
        attrs.evolve(lite, **change).vram_bytes("cuda")
        for change in ({"size": 512}, {}, {"half": False}, {"half": False, "size": 2048})
    ]

    assert needs == sorted(needs)
    assert lite.vram_bytes("cpu") == attrs.evolve(lite, half=True).vram_bytes("cpu")


# --- running -----------------------------------------------------------------------------------


async def test_the_alpha_is_of_the_picture(cutter, picture, scheduler):
    alpha = await scheduler.run(cutter.model(), picture)

    assert alpha.shape == (100, 150)
    assert alpha.dtype == np.float32
    assert 0 <= alpha.min() < alpha.max() <= 1


async def test_what_the_network_sees_is_the_normalised_picture_in_its_square(cutter, picture, lite):
    loaded = cutter.model().load("cpu")
    seen = []
    loaded._networks[64] = lambda pictures: seen.append(pictures) or torch.zeros(1, 1, 64, 64)

    (alpha,) = loaded.run([picture])

    assert (alpha == 0.5).all()
    small = seen[0] * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    small += torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    expected = np.asarray(picture.resized(64, 64).pixels) / 255
    assert small.shape == (1, 3, 64, 64)
    assert np.abs(small[0].permute(1, 2, 0).numpy() - expected).mean() < 0.02


@on_linux
def test_a_photo_takes_little_more_than_itself_and_its_alpha(lite_folder):
    """24 megapixels: 72 MB, 96 MB of alpha, and copies of both; as floats it would be 288 MB."""
    grown = growth(
        f"""
        import numpy as np, torch
        from talkgen import Image
        from talkgen.models.birefnet import BiRefNetRemover
        loaded = BiRefNetRemover(weights={str(lite_folder)!r}, size=64).model().load("cpu")
        loaded._networks[64] = lambda pictures: torch.zeros(1, 1, 64, 64)
        photo = Image(np.zeros((4000, 6000, 3), np.uint8))
        loaded.run([Image(np.zeros((80, 60, 3), np.uint8))])
        """,
        "loaded.run([photo])",
    )

    assert grown < 350


async def test_removing_gives_rgba_and_keeps_what_was_transparent(cutter, picture, scheduler):
    half = np.full((100, 150), 255, np.uint8)
    half[:, 75:] = 0
    clear = Image(np.dstack([picture.pixels, half]))

    whole = await cutter.remove(picture, scheduler=scheduler)
    cut = await cutter.remove(clear, scheduler=scheduler)

    assert whole.pixels.shape == cut.pixels.shape == (100, 150, 4)
    assert np.array_equal(cut.pixels[:, :75, 3], whole.pixels[:, :75, 3])
    assert cut.pixels[:, 75:, 3].max() == 0


async def test_refining_changes_colours_alone(cutter, picture, scheduler):
    refined = await cutter.remove(picture, scheduler=scheduler)
    raw = await attrs.evolve(cutter, refine=False).remove(picture, scheduler=scheduler)

    assert np.array_equal(raw.pixels[..., :3], picture.pixels)
    assert np.array_equal(refined.pixels[..., 3], raw.pixels[..., 3])
    alpha = raw.pixels[..., 3].astype(np.float32) / 255
    colours = matting.estimate_foreground(picture.pixels, alpha)
    assert np.abs(refined.pixels[..., :3].astype(int) - colours).mean() < 1


async def test_no_old_background_shines_through_at_hair(monkeypatch, cutter, scheduler):
    """Dark strands on a bright wall, whose true colour is known, by their true alpha."""
    x = np.arange(200)
    strands = np.clip(0.5 + 0.7 * np.sin(x / 3), 0, 1)[None].repeat(120, 0).astype(np.float32)
    strands[:, :60], strands[:, 140:] = 1, 0
    hair, wall = np.array([60, 35, 20.0]), np.array([200, 220, 240.0])
    mixed = strands[..., None] * hair + (1 - strands[..., None]) * wall
    picture = Image(np.rint(mixed).astype(np.uint8))
    monkeypatch.setattr(MattingModel, "load", lambda *_: Known(strands))

    cut = await cutter.remove(picture, scheduler=scheduler)

    soft = (strands > 0.1) & (strands < 0.95)
    before = np.abs(picture.pixels[soft] - hair).mean()
    after = np.abs(cut.pixels[..., :3][soft] - hair).mean()
    assert before > 60
    assert after < before / 4


@attrs.frozen
class Known:
    """A network that knows the answer."""

    alpha: np.ndarray

    def run(self, batch, *, level=0):
        return [self.alpha for _ in batch]

    def close(self):
        pass


# --- out of memory -----------------------------------------------------------------------------


def tensors_in_memory() -> int:
    gc.collect()
    kinds = (torch.Tensor, torch.nn.Parameter)
    return sum(one.untyped_storage().nbytes() for one in gc.get_objects() if type(one) in kinds)


def test_a_lower_level_runs_where_the_full_one_had_no_room(monkeypatch, lite_folder, picture):
    """The error comes through as it is, from deep within, and leaves nothing behind."""
    monkeypatch.setattr("talkgen.models.birefnet.model._SMALLER", (64,))
    loaded = BiRefNetRemover(weights=lite_folder, size=128).model().load("cpu")
    seen = []

    def exhausted(_module, inputs):
        seen.append(inputs[0].shape[-1] * 32)
        if seen[-1] > 64:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    before = tensors_in_memory()
    with loaded._networks[128].squeeze_module.register_forward_pre_hook(exhausted):
        with pytest.raises(torch.OutOfMemoryError):
            loaded.run([picture], level=0)
        assert tensors_in_memory() == before
        (alpha,) = loaded.run([picture], level=1)
    assert seen == [128, 64]
    assert alpha.shape == (100, 150)

    del alpha
    assert tensors_in_memory() == before
    loaded.close()
    assert tensors_in_memory() < before - 0.9 * 177_634_392
