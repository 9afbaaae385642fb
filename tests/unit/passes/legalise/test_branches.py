"""Branches where the parser has none: both are computed, and one is chosen."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from lowered import run
from nncc.device_profiles.registry import load
from nncc.passes.legalise import legalise
from nncc.passes.legalise.findings import remaining
from nncc.passes.model import Model

JP44 = load("jetson-nano-jp44")
BODY = """
    b = ReduceMax <keepdims: int = 0> (x)
    c = Greater (b, z)
    y = If (c) <
        then_branch = t () => (float[N, 4] p) <float w = {2}> { p = Mul (x, w) },
        else_branch = e () => (float[N, OTHER] q) { h = Neg (x) q = STEP }
    >
"""


def branching(other: str, step: str) -> Model:
    body = BODY.replace("OTHER", other).replace("STEP", step)
    text = (
        '<ir_version: 8, opset_import: ["" : 16]> '
        f"g (float[N, 4] x) => (float[N, M] y) <float z = {{0}}> {{ {body} }}"
    )
    return Model(ir.from_proto(parser.parse_model(text)), "test", "0" * 64)


def test_both_branches_are_computed_and_one_is_chosen():
    given = branching("4", "Exp (h)")
    done = legalise(given, JP44)
    assert not remaining(done, JP44)
    before, after = (ir.to_proto(m.graph_model) for m in (given, done.model))
    onnx.checker.check_model(after, full_check=True)
    assert "If" not in {node.op_type for node in after.graph.node}
    for sign in (1, -1):
        feed = {"x": sign * np.arange(1, 9, dtype=np.float32).reshape(2, 4)}
        np.testing.assert_array_equal(run(after, feed)[0], run(before, feed)[0])


@pytest.mark.parametrize(("other", "step"), [("8", "Concat <axis: int = 1> (h, h)")])
def test_branches_of_other_shapes_are_refused(other, step):
    (refusal,) = legalise(branching(other, step), JP44).refused
    assert refusal.op == "If" and "other types or shapes" in refusal.reason


def test_where_the_parser_has_branches_they_stay():
    done = legalise(branching("4", "Exp (h)"), load("jetson-nano"))
    assert "If" in {node.op_type for node in done.model.graph_model.graph}
