"""Biases in float16: one constant in the file, the same model but for their rounding."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nncc.passes.half_store import half_floats, store_halves
from nncc.passes.model import Model
from small_models import write

NET = """
net (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) {
    a = Conv <kernel_shape = [1, 1]> (x, W, b)
    c = Mul (a, scale)
    d = Add (c, shift)
    e = Add (d, tiny)
    y = Pow (e, power)
}
"""


def model(path, opset: int, **other) -> Model:
    rng = np.random.default_rng(0)
    tensors = {
        "W": rng.standard_normal((4, 3, 1, 1)),
        "b": rng.standard_normal(4),
        "scale": rng.standard_normal((1, 4, 1, 1)),
        "shift": rng.standard_normal((4, 1, 1)),
        "tiny": np.full((4, 1, 1), 1e-6),
        "power": np.array(2.0),
    }
    arrays = {k: np.asarray(v, np.float32) for k, v in (tensors | other).items()}
    return Model(ir.load(write(path, NET, opset=opset, **arrays)), "net", "0" * 64)


def outputs(made: Model) -> np.ndarray:
    proto = ir.to_proto(made.graph_model)
    onnx.checker.check_model(proto)
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    found = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    return np.asarray(found[0])


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_the_model_computes_the_same_to_the_digits_of_float16(tmp_path, opset):
    before = model(tmp_path / "net.onnx", opset)
    after = store_halves(before)
    want, got = outputs(before), outputs(after)
    assert 0 < np.abs(got - want).max() < 5e-3 * np.abs(want).max()


def test_biases_scales_and_shifts_are_stored_narrow_and_weights_and_numbers_are_not(tmp_path):
    after = store_halves(model(tmp_path / "net.onnx", 13))
    left = {
        name
        for name, value in after.graph_model.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT
    }
    assert half_floats(after) == 4 + 4 + 4
    assert left == {"W", "power", "tiny"}


def test_what_float16_does_not_hold_stays(tmp_path):
    before = model(tmp_path / "net.onnx", 13, shift=np.full((4, 1, 1), 1e6))
    assert "shift" in store_halves(before).graph_model.graph.initializers


def test_the_model_given_is_left_as_it_is_and_bytes_do_not_depend_on_the_run(tmp_path):
    before = model(tmp_path / "net.onnx", 13)
    first = ir.to_proto(before.graph_model).SerializeToString()
    made = [ir.to_proto(store_halves(before).graph_model).SerializeToString() for _ in "ab"]
    assert made[0] == made[1]
    assert ir.to_proto(before.graph_model).SerializeToString() == first


def test_a_model_without_such_constants_is_returned_itself(tmp_path):
    path = write(
        tmp_path / "plain.onnx",
        "net (float[2, 3] x) => (float[2, 3] y) { y = MatMul (x, W) }",
        W=np.eye(3, dtype=np.float32),
    )
    plain = Model(ir.load(path), "plain", "0" * 64)
    assert store_halves(plain) is plain
