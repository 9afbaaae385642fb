"""Sizes are followed back through shapes, and conditions on them are decided."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from lowered import lowered, profile, run
from nncc.passes.legalise.infer import infer_model
from nncc.passes.legalise.sizes import reshaped, sizes_in


def graph(body, inputs="float[N, 4, T, 8] x", opset=17, tensors=""):
    text = (
        f'<ir_version: 8, opset_import: ["" : {opset}]> '
        f"g ({inputs}) => (float[M] y) {tensors} {{ {body} y = Identity (last) }}"
    )
    model = ir.from_proto(parser.parse_model(text))
    infer_model(model, opset)
    return {value.name: value for node in model.graph for value in node.outputs}


def test_a_reshape_by_parts_of_a_shape_knows_its_sizes():
    values = graph(
        """
        s = Shape (x) zero = Constant <value_int = 0> () n = Gather (s, zero)
        two = Constant <value_ints = [0]> () nn = Unsqueeze (n, two)
        rest = Constant <value_ints = [2, -1, 8]> () wanted = Concat <axis: int = 0> (nn, rest)
        last = Reshape (x, wanted)
        """
    )
    assert [values["last"].shape[at] for at in (1, 3)] == [2, 8]
    assert sizes_in(values["wanted"]) == ["N", 2, -1, 8]


def test_what_is_left_is_found_where_names_cancel():
    values = graph(
        """
        a = Shape <start = 0, end = 1> (x) b = Shape <start = 2> (x)
        m = Constant <value_ints = [-1]> () wanted = Concat <axis: int = 0> (a, m, b)
        last = Reshape (x, wanted)
        """,
        inputs="float[N, 4, T, 8] x",
    )
    assert [str(size) for size in values["last"].shape] == ["N", "4", "T", "8"]


@pytest.mark.parametrize(
    ("have", "wanted", "keeps", "made"),
    [
        (["n", 2, 2, 8], ["n", -1, 8], True, ["n", 4, 8]),
        (["n", 6], [0, 2, 3], True, ["n", 2, 3]),
        (["n", 6], [0, 2, 3], False, [0, 2, 3]),
        (["n", "t", 6], ["n", -1], True, ["n", None]),
        ([None, 6], [-1, 3], True, [None, 3]),
        (None, [0, -1], True, [None, None]),
        ([4, 0], [0, -1, 2], True, [4, 0, 2]),
    ],
)
def test_the_sizes_after_a_reshape(have, wanted, keeps, made):
    assert reshaped(have, wanted, keeps) == made


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("target", ["jetson-nano-jp44"])
def test_a_branch_on_a_known_size_is_taken(size, target):
    """As torch writes x.squeeze(1); its Squeeze is in the form of opset 17 at first."""
    shape = "A, C" if size == 1 else f"A, {size}, C"
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, {size}, 4] x) => (float[{shape}] y)
        <int64 one = {{1}}, int64[1] axes = {{1}}> {{
            h = Abs (x) s = Shape (h) n = Gather (s, one) c = Equal (n, one)
            y = If (c) <
                then_branch = t () => (float[A, C] p) {{ p = Squeeze (h, axes) }},
                else_branch = e () => (float[A, B, C] q) {{ q = Identity (h) }}
            >
        }}"""
    proto = parser.parse_model(text)
    done, made = lowered(proto, profile(target))
    assert not done.refused
    operators = [node.op_type for node in made.graph.node]
    assert "If" not in operators and ("Squeeze" in operators) == (size == 1)
    onnx.checker.check_model(made, full_check=True)
    x = {"x": np.arange(8 * size, dtype=np.float32).reshape(2, size, 4) - 5}
    want = np.abs(x["x"])
    np.testing.assert_array_equal(run(made, x)[0], want.squeeze(1) if size == 1 else want)
