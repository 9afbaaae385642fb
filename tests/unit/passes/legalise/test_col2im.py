"""Col2Im as a transposed convolution equals the operator."""

import numpy as np
import pytest

from lowered import OLD, lowered, one_node, outcome, profile


def columns(image, block, given, channels=3, n=2):
    """Columns as im2col makes them: as many places as fit."""
    dims = len(image)
    pads = given.get("pads", (0,) * 2 * dims)
    strides = given.get("strides", (1,) * dims)
    dilations = given.get("dilations", (1,) * dims)
    places = 1
    for at in range(dims):
        room = image[at] + pads[at] + pads[at + dims] - dilations[at] * (block[at] - 1) - 1
        places *= room // strides[at] + 1
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, channels * int(np.prod(block)), places))
    return {
        "x": x.astype(np.float32),
        "image": np.array(image, np.int64),
        "block": np.array(block, np.int64),
    }


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize(
    ("image", "block", "given"),
    [
        ((5, 6), (2, 3), {}),
        ((7, 8), (3, 2), {"strides": (2, 3)}),
        ((6, 6), (3, 3), {"pads": (1, 0, 1, 2)}),
        ((9, 8), (2, 2), {"dilations": (2, 3), "strides": (2, 1)}),
        ((4, 4, 5), (1, 2, 2), {}),
    ],
)
def test_col2im_equals_the_operator(target, image, block, given):
    x = columns(image, block, given)
    model = one_node("Col2Im", x, opset=18, constants=("image", "block"), **given)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = x["x"].shape[1]
    made = outcome(model, x, target)
    assert "ConvTranspose" in made.operators
    assert made.difference < 1e-6


def test_computed_sizes_are_refused():
    x = columns((5, 6), (2, 3), {})
    model = one_node("Col2Im", x, opset=18, constants=("block",))
    (refusal,) = lowered(model, profile())[0].refused
    assert "image sizes are computed" in refusal.reason
