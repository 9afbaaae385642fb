"""Triangles and diagonals equal the operator in ONNX Runtime, of known sizes or not."""

import numpy as np
import pytest

from lowered import OLD, one_node, outcome


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, -2, 0, 1, 9])
@pytest.mark.parametrize("kind", ["float32", "int64", "bool"])
def test_trilu_equals_the_operator(target, dynamic, upper, k, kind):
    rng = np.random.default_rng(0)
    x = {"x": rng.integers(0, 9, (2, 4, 6)).astype(kind)}
    if k is not None:
        x["k"] = np.array(k, np.int64)
    constants = ("k",) if k is not None else ()
    model = one_node("Trilu", x, opset=14, constants=constants, dynamic=dynamic, upper=upper)
    made = outcome(model, x, target)
    np.testing.assert_array_equal(made.got[0], made.expected[0])


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [-1, 0, 2])
def test_trilu_of_a_computed_diagonal(upper, k):
    x = {"x": np.arange(20, dtype=np.float32).reshape(4, 5), "k": np.array(k, np.int64)}
    made = outcome(one_node("Trilu", x, opset=14, upper=upper), x)
    np.testing.assert_array_equal(made.got[0], made.expected[0])


def test_infinities_outside_of_the_triangle_leave_zeros():
    x = {"x": np.full((3, 3), -np.inf, np.float32)}
    made = outcome(one_node("Trilu", x, opset=14, upper=1), x)
    assert (made.got[0][np.tril_indices(3, -1)] == 0).all()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("attributes", [{}, {"k": 2}, {"k": -1, "dtype": 7}])
def test_eye_like_equals_the_operator(dynamic, attributes):
    x = {"x": np.zeros((4, 6), np.float32)}
    model = one_node("EyeLike", x, opset=11, dynamic=dynamic, **attributes)
    made = outcome(model, x, "jetson-nano-jp44")
    np.testing.assert_array_equal(made.got[0], made.expected[0])
    assert "EyeLike" not in made.operators


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize(
    ("start", "limit", "step"),
    [(0, 5, 1), (0, 5.5, 1), (-1, 4.2, 0.5), (3, -2, -1), (2, 1, 1)],
)
@pytest.mark.parametrize("computed", ["limit", "all"])
def test_a_range_of_floats_up_to_a_computed_limit(target, start, limit, step, computed):
    x = {
        name: np.array(value, np.float32)
        for name, value in (("start", start), ("limit", limit), ("step", step))
    }
    constants = ("start", "step") if computed == "limit" else ()
    made = outcome(one_node("Range", x, opset=11, constants=constants), x, target)
    np.testing.assert_allclose(made.got[0], made.expected[0], rtol=1e-6, atol=1e-6)
