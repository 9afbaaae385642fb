"""The framework: what is kept, what is named, what is refused, inside bodies too."""

import dataclasses
import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from lowered import OLD, lowered, one_node, profile, run
from nncc.device_profiles.registry import load
from nncc.passes.legalise import legalise
from nncc.passes.legalise.findings import remaining
from nncc.passes.legalise.known import Refused
from nncc.passes.legalise.lowering import Builder, Goal
from nncc.passes.model import Model
from nncc.passes.opset_change import change

NANO = load("jetson-nano")


def model(body: str, signature: str, opset: int = 18) -> Model:
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {{ {body} }}'
    return Model(ir.from_proto(parser.parse_model(text)), "test", "0" * 64)


MEANS = """
    a = Constant <value_ints: ints = [1]> ()
    m = ReduceMean <keepdims: int = 1> (x, a)
    d = Sub (x, m)
    y = Mul (d, d)
"""


def test_a_model_that_fits_is_given_back_as_it_is():
    fits = model("y = Relu (x)", "(float[N, 4] x) => (float[N, 4] y)", 13)
    host = dataclasses.replace(load("x86-cpu"), max_opset=17)
    assert legalise(fits, host).model is fits
    done = legalise(fits, dataclasses.replace(NANO, max_ir_version=8))
    assert not done.changes and not done.refused and not done.summary
    assert done.model.opset == 13


def test_the_given_model_is_kept():
    given = model(MEANS, "(float[N, 4] x) => (float[N, 4] y)")
    before = ir.to_proto(given.graph_model).SerializeToString()
    legalise(given, NANO)
    assert ir.to_proto(given.graph_model).SerializeToString() == before


def test_interface_other_nodes_and_provenance_stay():
    given = model(MEANS, "(float[N, 4] x) => (float[N, 4] y)")
    done = legalise(given, NANO)
    graph = done.model.graph_model.graph
    assert [v.name for v in graph.inputs] == ["x"] and [v.name for v in graph.outputs] == ["y"]
    assert graph.outputs[0].shape == ir.Shape(["N", 4])
    (mean,) = [node for node in graph if node.op_type == "ReduceMean"]
    assert mean.outputs[0].name == "m" and list(mean.attributes["axes"].as_ints()) == [1]
    assert mean.metadata_props["nncc.pass"] == "Legalise"
    assert not any(node.metadata_props for node in graph if node.op_type in ("Sub", "Mul"))
    assert done.summary == "1 node rewritten for opset 13: ReduceMean"


@pytest.mark.parametrize("target", OLD)
def test_names_are_unique_and_legal(target):
    x = np.ones((2, 3), np.float32)
    proto = one_node("GreaterOrEqual", {"a:0": x, "b b": x}, opset=16)
    proto.graph.node[0].name = "what ever::it/is"
    _, made = lowered(proto, profile(target))
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names)
    if target == "jetson-nano-jp44":
        assert all(re.fullmatch(r"[A-Za-z0-9_./]+", name) for name in names)
        assert names[0].startswith("what_ever__it/is/")


@pytest.mark.parametrize("target", ["jetson-nano", "raspberry"])
def test_nodes_in_bodies_are_lowered_where_they_stand(target):
    body = """
        b = ReduceMax <keepdims: int = 0> (x, k)
        c = Greater (b, z)
        y = If (c) <
            then_branch = t () => (float[n, m] p) { s = ReduceMean (x, axes) p = Sub (x, s) },
            else_branch = e () => (float[n, m] q) { q = Reciprocal (x) }
        >
    """
    signature = (
        "(float[N, 4] x) => (float[N, 4] y) "
        "<int64[1] axes = {1}, int64[2] k = {0, 1}, float z = {0}>"
    )
    given = model(body, signature)
    device = (
        NANO
        if target == "jetson-nano"
        else dataclasses.replace(load("x86-cpu"), max_opset=13, max_ir_version=7)
    )
    done = legalise(given, device)
    assert not remaining(done, device)
    before, after = (ir.to_proto(m.graph_model) for m in (given, done.model))
    onnx.checker.check_model(after, full_check=True)
    for sign in (1, -1):
        feed = {"x": sign * np.arange(1, 9, dtype=np.float32).reshape(2, 4)}
        np.testing.assert_allclose(run(after, feed)[0], run(before, feed)[0], rtol=1e-6)


def test_an_input_that_becomes_an_output_keeps_both_names():
    given = model("y = ReduceSum <noop_with_empty_axes: int = 1> (x)",
                  "(float[N, 4] x) => (float[N, 4] y)", 13)  # fmt: skip
    done = legalise(given, load("jetson-nano-jp44"))
    made = ir.to_proto(done.model.graph_model)
    assert [node.op_type for node in made.graph.node] == ["Identity"]
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(run(made, {"x": x})[0], x)


def test_a_refusal_names_the_node_the_reason_and_the_remedy():
    given = model("y = NonZero (x)", "(float[N, 4] x) => (int64[2, M] y)", 13)
    given.graph_model.graph.node(0).name = "where"
    (refusal,) = legalise(given, NANO).refused
    assert (refusal.node, refusal.op) == ("where", "NonZero")
    assert "no operator of jetson-nano" in refusal.reason and "values" in refusal.reason
    assert refusal.remedy


def test_what_nothing_needs_after_lowering_is_no_refusal():
    given = model(
        """
        s = SplitToSequence <axis: int = 0, keepdims: int = 0> (x)
        i = Constant <value = int64 {1}> ()
        y = SequenceAt (s, i)
        """,
        "(float[3, 4] x) => (float[4] y)",
    )
    done = legalise(given, NANO)
    assert not remaining(done, NANO)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(run(ir.to_proto(done.model.graph_model), {"x": x})[0], x[1])


def test_declared_output_shapes_are_not_believed():
    given = model("a = Constant <value_ints: ints = [-1]> ()\n y = ReduceMax (x, a)",
                  "(float[N, 4] x) => (float[7, 7, 7] y)")  # fmt: skip
    done = legalise(given, NANO)
    assert not done.refused
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert run(ir.to_proto(done.model.graph_model), {"x": x})[0].shape == (2, 1)


def test_weights_are_shared_with_the_given_model():
    x = {"x": np.ones((2, 64), np.float32), "w": np.ones((64, 64), np.float32)}
    given = Model(ir.from_proto(one_node("MatMul", x, opset=18, constants=("w",))), "m", "")
    done = legalise(given, NANO)
    ours, theirs = (m.graph_model.graph.initializers["w"] for m in (given, done.model))
    assert ours.const_value is theirs.const_value


def test_the_same_model_gives_the_same_bytes():
    given = model(MEANS, "(float[N, 4] x) => (float[N, 4] y)")
    made = [
        ir.to_proto(legalise(given, NANO).model.graph_model).SerializeToString(
            deterministic=True
        )
        for _ in range(2)
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("opset", range(8, 24))
def test_the_builder_writes_each_form_as_its_opset_has_it(opset):
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 6, 1]))
    node = ir.node("Relu", [x], name="it")
    builder = Builder(Goal(opset, NANO), node, 23, {"x", "it"})
    builder.reduce("ReduceMean", x, [-1])
    builder.reduce("ReduceSum", x, [1], keepdims=False)
    builder.squeeze(x, [-1])
    builder.unsqueeze(x, [0])
    builder.split(x, [2, 4], 1)
    builder.clip(x, 0.0, None)
    builder.slice(x, [1], [-1], [-2])
    builder.pad(x, [0, 1, 0, 0, 1, 0])
    builder.softmax(x, 1)
    builder.shape_of(x, 0, 1)
    made = [value for node in builder.nodes for value in node.outputs]
    graph = ir.Graph([x], made, nodes=builder.nodes, initializers=builder.initializers,
                     opset_imports={"": opset}, name="g")  # fmt: skip
    proto = ir.to_proto(ir.Model(graph, ir_version=4 if opset < 11 else 7))
    onnx.checker.check_model(proto, full_check=True)
    feed = {"x": np.random.default_rng(0).standard_normal((2, 6, 1)).astype(np.float32)}
    array = feed["x"]
    mean, total, flat, wide, left, right, clipped, cut, padded, *_ = run(proto, feed)
    np.testing.assert_allclose(mean, array.mean(-1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(total, array.sum(1), rtol=1e-5)
    assert flat.shape == (2, 6) and wide.shape == (1, 2, 6, 1)
    assert left.shape == (2, 2, 1) and right.shape == (2, 4, 1)
    np.testing.assert_array_equal(clipped, array.clip(0))
    np.testing.assert_array_equal(cut, array[:, 1:-1])
    assert padded.shape == (2, 8, 1)


def test_an_operator_that_the_opset_lacks_is_refused_by_the_builder():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    builder = Builder(Goal(11, NANO), ir.node("Relu", [x], name="it"), 17, set())
    with pytest.raises(Refused, match="needs HardSwish, which opset 11 does not have"):
        builder.op("HardSwish", x)


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "why"),
    [
        ("Softmax", {"axis": 1}, [2, 3, 4], "one axis"),
        ("Softmax", {"axis": 2}, [2, 3, 4], None),
        ("Softmax", {"axis": 2}, None, "one axis"),
        ("LogSoftmax", {"axis": -1}, None, None),
    ],
)
def test_softmax_over_an_inner_axis_is_not_the_same_before_opset_13(
    op, attributes, shape, why
):
    sizes = ir.Shape(shape) if shape else None
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=sizes)
    got = change(ir.node(op, [x], attributes), 17, 11)
    assert got is None if why is None else why in (got or "")


def test_mixed_types_and_left_out_inputs_are_changes():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    p = ir.Value(name="p", type=ir.TensorType(ir.DataType.DOUBLE))
    assert change(ir.node("Pow", [x, p]), 15, 11) == "mixes element types since opset 15"
    s = ir.Value(name="s", type=ir.TensorType(ir.DataType.FLOAT))
    assert "leave out 'roi'" in (change(ir.node("Resize", [x, None, s]), 13, 11) or "")
