"""Rules of each TensorRT's parser: one node a case, and the releases that refuse it."""

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper, parser

from nncc.device_profiles.registry import load
from nncc.passes.check import check, objections
from nncc.passes.model import Model
from nncc.passes.tensorrt_rules import violations
from parser_cases import ALL, CASES, OPSET

BOARDS = {
    "7.1": load("jetson-nano-jp44"),
    "8.2": load("jetson-xavier-nx"),
    "8.5": load("jetson-agx-orin"),
    "10": load("jetson-agx-orin-jp6"),
    "rtx": load("rtx"),
}


def node(body: str, signature: str, opset: int = OPSET) -> ir.Node:
    """The node called n of a graph in ONNX's text format, its neighbours connected."""
    source = f'<ir_version: 6, opset_import: ["" : {opset}]> g {signature} {{ {body} }}'
    graph = ir.from_proto(parser.parse_model(source)).graph
    return next(n for n in graph if n.name == "n")


def refusing(n: ir.Node) -> tuple[str, ...]:
    return tuple(name for name, board in BOARDS.items() if [*violations(n, board)])


@pytest.mark.parametrize("name", CASES)
def test_a_node_is_refused_by_the_releases_that_document_it(name):
    body, signature, releases = CASES[name]
    assert refusing(node(body, signature)) == releases


@pytest.mark.parametrize("name", CASES)
def test_every_refusal_has_a_reason_and_a_remedy(name):
    n = node(*CASES[name][:2])
    for board in BOARDS.values():
        for reason, remedy in violations(n, board):
            assert reason and remedy
            assert "\n" not in reason + remedy


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_has_no_such_rules(name):
    assert [*violations(node(*CASES[name][:2]), load("raspberry-pi-5"))] == []


@pytest.mark.parametrize(
    ("body", "signature", "opset", "releases"),
    [
        ("[n] y = Squeeze (x, a)", "(float[1,4] x, int64[1] a) => (float[4] y)", 13, ALL),
        (
            "[n] y = ReduceMean (x, a)",
            "(float[1,4] x, int64[1] a) => (float[4] y)",
            18,
            ALL,
        ),
        (
            "[n] y = Resize <antialias = 1> (x, , s)",
            "(float[1,1,4,4] x) => (float[1,1,2,2] y) <float[4] s = {1.,1.,0.5,0.5}>",
            18,
            ("7.1", "10", "rtx"),
        ),
        (
            '[n] y = ScatterND <reduction = "add"> (x, i, u)',
            "(float[4] x, int64[1,1] i, float[1] u) => (float[4] y)",
            16,
            ("7.1", "8.2", "8.5", "10", "rtx"),
        ),
        (
            "[n] y, m = LayerNormalization (x, s)",
            "(float[1,4] x, float[4] s) => (float[1,4] y, float[1,1] m)",
            17,
            ("10", "rtx"),
        ),
        (
            "[n] y = GridSample (x, g)",
            "(float[1,1,2,2,2] x, float[1,2,2,2,3] g) => (float[1,1,2,2,2] y)",
            20,
            ("7.1", "8.2", "8.5", "10"),
        ),
    ],
)  # fmt: skip
def test_forms_of_newer_opsets_have_rules_too(body, signature, opset, releases):
    assert refusing(node(body, signature, opset)) == releases


@pytest.mark.parametrize(
    ("op", "zero", "releases"),
    [
        ("QuantizeLinear", "int8 z = {0}", ()),
        ("QuantizeLinear", "int8 z = {3}", ALL),
        ("QuantizeLinear", "uint8 z = {128}", ALL),
        ("QuantizeLinear", "uint8 z = {0}", ALL),
        ("DequantizeLinear", "int8 z = {0}", ()),
        ("DequantizeLinear", "int32 z = {0}", ALL),
        ("DequantizeLinear", "uint8 z = {0}", ALL),
    ],
)
def test_quantization_is_symmetric_int8(op, zero, releases):
    kind = zero.split()[0]
    ends = ("float[4] x", f"{kind}[4] y") if op[0] == "Q" else (f"{kind}[4] x", "float[4] y")
    n = node(
        f"[n] y = {op} (x, s, z)",
        f"({ends[0]}) => ({ends[1]}) <float s = {{0.5}}, {zero}>",
        opset=13,
    )
    assert refusing(n) == releases


@pytest.mark.parametrize(
    ("dtype", "releases"), [("int8", ("7.1", "8.2", "8.5")), ("uint8", ALL), ("int32", ALL)]
)
def test_newer_parsers_take_weights_without_a_zero_point(dtype, releases):
    n = node(
        "[n] y = DequantizeLinear (x, s)",
        f"({dtype}[4] x) => (float[4] y) <float s = {{0.5}}>",
        opset=13,
    )
    assert refusing(n) == releases


def graph(body: str, signature: str, opset: int = 13) -> Model:
    source = f'<ir_version: 7, opset_import: ["" : {opset}]> g {signature} {{ {body} }}'
    return Model(ir.from_proto(parser.parse_model(source)), "test", "0" * 64)


@pytest.mark.parametrize(
    ("op", "opset", "refused_by"),
    [
        ("Round", 11, ("7.1",)),
        ("Reciprocal", 13, ("7.1", "8.2")),
        ("HardSwish", 14, ("7.1", "8.2", "8.5")),
        ("Mish", 18, ("7.1", "8.2", "8.5")),
        ("Gelu", 20, ("7.1", "8.2", "8.5")),
        ("Det", 11, ALL),
        ("Relu", 11, ()),
    ],
)
def test_an_operator_is_refused_where_the_release_has_none(op, opset, refused_by):
    net = graph(f"[n] y = {op} (x)", "(float[2,2] x) => (float[2,2] y)", opset)
    found = [name for name, board in BOARDS.items() if check(net, board)]
    assert tuple(found) == refused_by


@pytest.mark.parametrize(
    ("opset", "refused_by"), [(7, ("10", "rtx")), (9, ()), (11, ()), (17, ()), (22, ())]
)
def test_an_opset_older_than_the_parser_reads_is_told_once(opset, refused_by):
    net = graph("[n] y = Relu (x)", "(float[2] x) => (float[2] y)", opset)
    found = {name: check(net, board) for name, board in BOARDS.items()}
    assert tuple(name for name, findings in found.items() if findings) == refused_by
    for name in refused_by:
        (finding,) = found[name]
        assert (finding.node, finding.op) == ("", "model")
        assert "reads 9 and newer" in finding.reason


def test_large_int64_values_offend_only_where_they_are_clamped():
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"], "n")],
            "g",
            [helper.make_tensor_value_info("x", 7, [1])],
            [helper.make_tensor_value_info("y", 7, [1])],
            [numpy_helper.from_array(np.array([2**40], np.int64), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 11)],
        ir_version=6,
    )
    net = Model(ir.from_proto(proto), "test", "0" * 64)
    found = tuple(name for name, board in BOARDS.items() if check(net, board))
    assert found == ("7.1", "8.2", "8.5")


def test_a_sequence_is_no_input_for_tensorrt():
    net = graph("[n] y = SequenceAt (x, i)", "(seq(float[2]) x, int64 i) => (float[2] y)")
    told = [(f.node, f.op, f.reason) for f in check(net, BOARDS["8.5"])]
    assert ("x", "input", "is no tensor, and TensorRT 8.5.2 takes nothing else") in told
    assert check(net, load("host")) == []


def test_tensorrt_rtx_is_called_by_its_name():
    net = graph("[n] y = Det (x)", "(float[2,2] x) => (float y)")
    (finding,) = check(net, BOARDS["rtx"])
    assert finding.reason == "TensorRT-RTX 1.7 has no operator Det"


def test_one_node_may_be_asked_about_alone():
    n = node("[n] y = Round (x)", "(float[2] x) => (float[2] y)")
    assert [f.reason for f in objections(n, 11, BOARDS["7.1"])] == [
        "TensorRT 7.1.3 has no operator Round"
    ]
    assert [*objections(n, 11, BOARDS["8.2"])] == []


def test_a_profile_without_a_parser_has_no_rules():
    bare = dataclasses.replace(BOARDS["7.1"], parser=None)
    assert [*violations(node(*CASES["a 1-D Conv"][:2]), bare)] == []
