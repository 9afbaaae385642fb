from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nncc.compiler.commands.compare import compare
from nncc.device_profiles.errors import UsageError

REFS = Path(__file__).parents[3] / "data" / "refs"
LENET = REFS / "lenet5_op13.onnx"


def scaled(path: Path, factor: float) -> Path:
    """LeNet with its last weight and bias scaled: every logit is scaled alike."""
    model = onnx.load(LENET)
    last = model.graph.node[-1].input[1:]
    for tensor in model.graph.initializer:
        if tensor.name in last:
            array = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)
    return path


def test_a_model_agrees_with_itself():
    found = compare(LENET, LENET, atol=0, rtol=0)
    assert found.is_close and found.exit_code == 0 and found.nodes_a == found.nodes_b


def test_every_number_beyond_the_tolerance_is_counted(tmp_path: Path):
    worse = scaled(tmp_path / "b.onnx", 1.01)
    assert compare(LENET, worse, atol=1e-6, rtol=0.02).is_close
    found = compare(LENET, worse, atol=1e-6, rtol=0.005)
    assert found.exit_code == 5 and found.beyond["logits"] > 0.9
    assert found.fidelity.sqnr_db == pytest.approx(40, abs=0.1)  # 20 log10(1 / 0.01)
    assert found.to_json()["exit_code"] == 5


def test_given_inputs_are_used(tmp_path: Path):
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 1, 28, 28), np.float32))
    found = compare(LENET, LENET, inputs=str(tmp_path / "x.npz"))
    assert (found.fidelity.inputs, found.fidelity.n) == ("calibration", 3)


def test_models_with_other_outputs_cannot_be_compared(tmp_path: Path):
    model = onnx.load(LENET)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "scores"
    onnx.save(model, tmp_path / "b.onnx")
    with pytest.raises(UsageError, match="outputs are scores, not logits"):
        compare(LENET, tmp_path / "b.onnx")
