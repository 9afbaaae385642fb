"""Normalisations computed by plain arithmetic equal the operator in ONNX Runtime."""

import numpy as np
import pytest

from lowered import OLD, lowered, one_node, outcome, profile, run

CLOSE = 2e-6  # a few roundings of float32, relative to the largest value


def draw(seed, *shape, offset=0.0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * rng.uniform(0.2, 3) + offset).astype(np.float32)


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 7), -1), ((2, 3, 5), 1), ((2, 3, 4, 5), -2), ((6,), 0)]
)
def test_layer_normalization_equals_the_operator(target, dynamic, shape, axis):
    part = shape[axis:]
    x = {"x": draw(1, *shape, offset=3), "scale": draw(2, *part), "bias": draw(3, *part)}
    model = one_node(
        "LayerNormalization", x, opset=17, constants=("scale", "bias"), dynamic=dynamic,
        axis=axis, epsilon=1e-3,
    )  # fmt: skip
    made = outcome(model, x, target)
    assert made.difference < CLOSE
    assert made.operators.count("ReduceMean") == 2


def test_layer_normalization_gives_mean_and_inverse_deviation_where_they_are_read():
    x = {"x": draw(1, 3, 8), "scale": draw(2, 8)}
    model = one_node("LayerNormalization", x, opset=17, constants=("scale",), outputs=3)
    assert outcome(model, x).difference < CLOSE


def test_layer_normalization_of_a_large_offset_keeps_its_digits():
    """Deviations first: E[x²] − E[x]² would lose all digits at an offset of 10⁴."""
    x = {"x": draw(1, 4, 64) + np.float32(1e4), "scale": np.ones(64, np.float32)}
    model = one_node("LayerNormalization", x, opset=17, constants=("scale",))
    _, made = lowered(model, profile())
    wide = x["x"].astype(np.float64)
    wide = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(run(made, {"x": x["x"]})[0], wide, atol=2e-3)


def test_half_precision_statistics_are_computed_in_float32_as_defined():
    x = {"x": draw(1, 2, 8).astype(np.float16), "scale": np.ones(8, np.float16)}
    model = one_node("LayerNormalization", x, opset=17, constants=("scale",))
    made = outcome(model, x)
    assert made.operators[0] == "Cast"
    assert made.difference < 1e-3


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 5), (1, 6, 4, 3), (2, 6, 2, 3, 2)])
def test_group_normalization_with_scales_by_channel(target, dynamic, shape):
    x = {"x": draw(4, *shape), "scale": draw(5, 6), "bias": draw(6, 6)}
    model = one_node(
        "GroupNormalization", x, opset=21, constants=("scale", "bias"), dynamic=dynamic,
        num_groups=3, epsilon=1e-4,
    )  # fmt: skip
    made = outcome(model, x, target)
    assert made.difference < CLOSE
    takes_it = target == "jetson-nano" or not dynamic  # TensorRT 7.1: static shapes only
    assert ("InstanceNormalization" in made.operators) == takes_it


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("computed", [False, True])
def test_group_normalization_with_scales_by_group(target, computed):
    """Opset 18 to 20 have one scale a group; onnx's own reference defines the result."""
    x = {"x": draw(4, 2, 6, 5, 2), "scale": draw(5, 2), "bias": draw(6, 2)}
    constants = () if computed else ("scale", "bias")
    model = one_node("GroupNormalization", x, opset=18, constants=constants, num_groups=2)
    assert outcome(model, x, target).difference < CLOSE


@pytest.mark.parametrize("dynamic", [False, True])
def test_group_normalization_with_computed_scales_by_channel(dynamic):
    x = {"x": draw(4, 2, 6, 5, 2), "scale": draw(5, 6), "bias": draw(6, 6)}
    model = one_node("GroupNormalization", x, opset=21, dynamic=dynamic, num_groups=2)
    assert outcome(model, x).difference < CLOSE


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5)])
def test_instance_normalization_with_computed_scale(target, shape):
    x = {"x": draw(4, *shape, offset=1), "scale": draw(5, 3), "bias": draw(6, 3)}
    model = one_node("InstanceNormalization", x, opset=22)
    assert outcome(model, x, target).difference < CLOSE


def test_instance_normalization_with_constant_scale_stays():
    x = {"x": draw(4, 2, 3, 5), "scale": draw(5, 3), "bias": draw(6, 3)}
    model = one_node("InstanceNormalization", x, opset=22, constants=("scale", "bias"))
    assert outcome(model, x).operators == ["InstanceNormalization"]


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize(("shape", "axis"), [((3, 8), -1), ((2, 3, 4), 1)])
def test_rms_normalization_equals_the_operator(target, shape, axis):
    x = {"x": draw(7, *shape), "scale": draw(8, *shape[axis:])}
    model = one_node("RMSNormalization", x, opset=23, constants=("scale",), axis=axis)
    assert outcome(model, x, target).difference < CLOSE


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("axes", [None, (1, 2), (0, 2, 3)])
def test_mean_variance_normalization_equals_the_operator(target, axes):
    x = {"x": draw(9, 2, 3, 4, 5, offset=2)}
    attributes = {} if axes is None else {"axes": axes}
    model = one_node("MeanVarianceNormalization", x, opset=13, **attributes)
    assert outcome(model, x, target).difference < CLOSE
