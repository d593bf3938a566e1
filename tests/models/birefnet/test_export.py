"""What others make of the network: an exported program, ONNX, compiled code."""

import numpy as np
import pytest
import torch

from talkgen.models.birefnet.network import BiRefNet


@pytest.fixture
def picture(pictures) -> torch.Tensor:
    return pictures[:1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_gives_the_same_by_standard_operators(
    lite: BiRefNet, picture, tmp_path
):
    program = torch.export.export(lite, (picture,))
    expected = lite(picture)

    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in targets if not name.startswith(("aten.", "<built-in", "_op"))]
    assert not any("scaled_dot_product" in name or "embedding_bag" in name for name in targets)
    assert torch.allclose(program.module()(picture), expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_gives_the_same(lite: BiRefNet, picture, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "birefnet.onnx"

    torch.onnx.export(lite, (picture,), path, dynamo=True, opset_version=20)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    (logits,) = session.run(None, {name: picture.numpy()})
    assert np.abs(logits - lite(picture).numpy()).max() < 1e-3


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_compiled_code_gives_the_same(lite: BiRefNet, picture):
    compiled = torch.compile(lite, fullgraph=True)

    assert torch.allclose(compiled(picture), lite(picture), atol=1e-3)
    torch.compiler.reset()
