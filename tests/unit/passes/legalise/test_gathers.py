"""Gathers by element of dynamic shapes equal the operator in ONNX Runtime."""

import numpy as np
import pytest

from lowered import one_node, outcome


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((7,), 0), ((3, 4), 1), ((2, 3, 5), -2)])
@pytest.mark.parametrize("fewer", [0, 1])
def test_gather_elements_equals_the_operator(dynamic, shape, axis, fewer):
    rng = np.random.default_rng(len(shape))
    size = shape[axis]
    at = rng.integers(-size, size, [max(1, s - fewer) for s in shape])
    x = {"x": rng.standard_normal(shape).astype(np.float32), "at": at}
    model = one_node("GatherElements", x, opset=13, dynamic=dynamic, axis=axis)
    made = outcome(model, x, "jetson-nano-jp44")
    np.testing.assert_array_equal(made.got[0], made.expected[0])
    assert "GatherElements" not in made.operators


@pytest.mark.parametrize("deep", [1, 2, 3])
def test_gather_nd_equals_the_operator(deep):
    rng = np.random.default_rng(deep)
    shape = (4, 3, 5)
    at = np.stack([rng.integers(-s, s, (2, 6)) for s in shape[:deep]], -1)
    x = {"x": rng.standard_normal(shape).astype(np.float32), "at": at}
    model = one_node("GatherND", x, opset=13)
    model.graph.input[1].type.tensor_type.shape.dim[2].dim_value = deep
    made = outcome(model, x, "jetson-nano-jp44")
    np.testing.assert_array_equal(made.got[0], made.expected[0])
