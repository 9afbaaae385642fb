"""The --shape option: its grammar, and what of it contradicts a model."""

import onnx_ir as ir
import pytest

from nncc.compiler.reading.shapes import asked_shapes, parse_shape
from nncc.device_profiles.errors import UsageError

INPUTS = [
    ir.val("x", ir.DataType.FLOAT, ["N", 3, "H", "W"]),
    ir.val("x:0", ir.DataType.INT64, ["N", 5]),
    ir.val("rate", ir.DataType.INT64, []),
]


@pytest.mark.parametrize(
    ("text", "name", "low", "best", "high"),
    [
        ("x:1x3x48x320", "x", (1, 3, 48, 320), (1, 3, 48, 320), (1, 3, 48, 320)),
        ("x:1x2:1x4:1x8", "x", (1, 2), (1, 4), (1, 8)),
        ("x:0:1x2", "x:0", (1, 2), (1, 2), (1, 2)),
        ("x:0:1x2:1x4:1x8", "x:0", (1, 2), (1, 4), (1, 8)),
        ("scope/x:0:7", "scope/x:0", (7,), (7,), (7,)),
        ("rate:scalar", "rate", (), (), ()),
    ],
)
def test_names_and_sizes_are_read_from_the_right(
    text: str, name: str, low: tuple[int], best: tuple[int], high: tuple[int]
) -> None:
    found, sizes = parse_shape(text)
    assert (found, sizes.minimum, sizes.optimum, sizes.maximum) == (name, low, best, high)


@pytest.mark.parametrize(
    "text",
    ["", "x", "x:", ":1x3", "x:1x", "x:-1x3", "x:axb", "x:1x3:2", "x:2:1:3", "x:9999999999"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shape"):
        asked_shapes([text], INPUTS)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["z:1x3"], "no input 'z'"),
        (["x:1x3x4"], "3 sizes for an input of rank 4"),
        (["x:1x4x8x8"], "axis 1 is fixed to 3"),
        (["x:1x3x8x8", "x:1x3x8x8"], "given twice"),
        (["x:2x3x8x8", "x:0:1x5"], "axis 'N' is 2 in 'x' and 1 in 'x:0'"),
    ],
)
def test_contradiction_names_the_inputs_there_are(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        asked_shapes(texts, INPUTS)
    if "twice" not in said:
        assert "x [N,3,H,W] float" in str(caught.value)
    assert caught.value.exit_code == 2
