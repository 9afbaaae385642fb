"""Resize in every mode: as the older operator where the parser has it, else as matrices."""

import numpy as np
import pytest

from lowered import OLD, lowered, one_node, outcome, profile, run

X = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32)
SCALES = np.array([1, 1, 1.6, 0.7], np.float32)
TOLERANCE = 1e-5
EMPTY = np.zeros(0, np.float32)


def resized(target: str, opset: int = 19, *, sizes=None, scales=None, x=X, **attributes):
    """The outcome of one Resize with constant scales or sizes."""
    inputs = {"x": x, "roi": None, "scales": scales, "sizes": sizes}
    constants = tuple(k for k in ("scales", "sizes") if inputs[k] is not None)
    while inputs[[*inputs][-1]] is None:
        inputs.pop([*inputs][-1])
    model = one_node(
        "Resize", inputs, opset=opset, constants=constants, dynamic=False, **attributes
    )
    return outcome(model, {"x": x}, target)


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "transform",
    [
        "half_pixel",
        "pytorch_half_pixel",
        "asymmetric",
        "align_corners",
        "half_pixel_symmetric",
    ],
)
def test_every_mode_and_transformation_computes_the_same(target, mode, transform):
    attributes = {"mode": mode, "coordinate_transformation_mode": transform}
    made = resized(target, scales=SCALES, **attributes)
    assert made.difference <= TOLERANCE
    made = resized(target, sizes=np.array([2, 3, 9, 4]), **attributes)
    assert made.difference <= TOLERANCE


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize(
    "rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
)
def test_nearest_rounds_as_it_is_asked(target, rounding):
    made = resized(target, scales=SCALES, mode="nearest", nearest_mode=rounding)
    assert made.difference == 0


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("outside", [0, 1])
def test_antialiasing_computes_the_same(target, mode, outside):
    made = resized(
        target,
        scales=np.array([1, 1, 0.6, 0.7], np.float32),
        mode=mode,
        antialias=1,
        exclude_outside=outside,
    )
    assert made.difference <= TOLERANCE


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_axes_and_aspect_ratio_policies(target, policy):
    made = resized(
        target,
        18,
        sizes=np.array([7, 8]),
        axes=[2, 3],
        mode="linear",
        coordinate_transformation_mode="asymmetric",
        keep_aspect_ratio_policy=policy,
    )
    assert made.difference <= TOLERANCE


@pytest.mark.parametrize("target", OLD)
def test_whole_factors_need_no_sizes(target):
    inputs = {"x": X, "roi": None, "scales": np.array([1, 1, 2, 3], np.float32)}
    model = one_node("Resize", inputs, opset=13, constants=("scales",), mode="nearest")
    for x in (X, X[:1, :, :3]):
        made = outcome(model, {"x": x}, target)
        np.testing.assert_array_equal(made.got[0], made.expected[0])
    assert "Resize" in made.operators


def test_what_needs_sizes_is_refused_where_they_are_dynamic():
    inputs = {"x": X, "roi": None, "scales": SCALES}
    model = one_node("Resize", inputs, opset=13, constants=("scales",), mode="cubic")
    done, _ = lowered(model, profile("jetson-nano"))
    (refusal,) = done.refused
    assert refusal.op == "Resize" and "dynamic" in refusal.reason
    assert "--shape" in refusal.remedy
    assert run(model, {"x": X})[0].shape == (2, 3, 8, 4)
