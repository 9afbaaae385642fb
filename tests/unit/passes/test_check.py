"""`check`: every offending node is named, and a model the device takes has no finding."""

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper, parser

from models import ref_model, wheel_model
from nets import build
from nncc.device_profiles.registry import load
from nncc.passes.check import Finding, check, weight_bytes
from nncc.passes.model import Model

NANO, X86, HOST = load("jetson-nano"), load("x86-cpu"), load("host")


def model(source: str | onnx.ModelProto) -> Model:
    """A model from ONNX's text format, or from a proto."""
    proto = parser.parse_model(source) if isinstance(source, str) else source
    return Model(ir.from_proto(proto), "test", "0" * 64)


def graph(body: str, signature: str, opset: int = 13, ir_version: int = 7) -> Model:
    """A model of one graph in ONNX's text format."""
    return model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> g {signature} {{ {body} }}'
    )


def found(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.node, finding.op) for finding in findings]


@pytest.mark.parametrize("name", ["pp-ocr-rec", "pp-ocr-cls", "mtcnn-rnet", "mtcnn-onet"])
@pytest.mark.parametrize("profile", [NANO, X86, HOST], ids=lambda p: p.name)
def test_published_models_that_fit_have_no_finding(name, profile):
    ocr = model(onnx.load(wheel_model(name)))
    assert check(ocr, profile) == []


@pytest.mark.parametrize("name", ["lenet300", "lenet5", "vggs"])
def test_reference_nets_fit_the_nano(name):
    assert check(model(onnx.load(ref_model(name))), NANO) == []


def test_magika_names_both_reciprocals_on_the_nano():
    findings = check(model(onnx.load(wheel_model("magika"))), NANO)
    assert [finding.op for finding in findings] == ["Reciprocal", "Reciprocal"]
    assert len({finding.node for finding in findings}) == 2
    assert "TensorRT 8.2.1 has no operator Reciprocal" in findings[0].reason


def test_silero_names_every_one_dimensional_convolution_on_the_nano():
    silero = onnx.load(wheel_model("silero-vad"))
    lines = {n.name for n in ir.from_proto(silero).graph.all_nodes() if n.op_type == "Conv"}
    findings = check(model(silero), NANO)
    assert lines
    assert {f.node for f in findings if "1-D Conv" in f.reason} == lines
    assert check(model(silero), HOST) == []


@pytest.mark.parametrize("opset", [14, 17, 21, 25])
def test_a_plain_network_of_a_newer_opset_has_no_finding(opset):
    net = model(build("mobilenet-v2", "noise", opset=opset))
    assert check(net, NANO) == []


def test_operators_that_changed_are_named():
    net = graph(
        """
        [norm] a = LayerNormalization (x, scale)
        [relu] b = Relu (a)
        [mean] c = ReduceMean (b, axes)
        [gelu] y = Gelu (c)
        """,
        "(float[1,4] x, float[4] scale) => (float[1,1] y) <int64[1] axes = {1}>",
        opset=20,
    )
    findings = check(net, NANO)
    assert found(findings) == [
        ("norm", "LayerNormalization"),
        ("mean", "ReduceMean"),
        ("gelu", "Gelu"),
    ]
    assert check(net, X86) == []


def test_the_remedy_names_the_opset_to_export_with():
    net = graph(
        "[mean] y = ReduceMean (x, axes)",
        "(float[1,4] x) => (float[1,1] y) <int64[1] axes = {1}>",
        opset=18,
    )
    (finding,) = check(net, NANO)
    assert finding.remedy == "re-export with opset_version=13"
    assert "since opset 18" in finding.reason


def test_a_nameless_node_is_called_by_what_it_makes():
    net = graph("y = NonZero (x)", "(float[4] x) => (int64[1,N] y)")
    assert found(check(net, NANO)) == [("(unnamed, makes 'y')", "NonZero")]


def test_nodes_in_branches_are_found():
    net = graph(
        """
        [choose] y = If (c) <
          then_branch = a () => (float[4] s) { [hard] s = HardSwish (x) },
          else_branch = b () => (float[4] t) { [soft] t = Relu (x) }
        >
        """,
        "(bool c, float[4] x) => (float[4] y)",
        opset=14,
    )
    assert found(check(net, NANO)) == [("hard", "HardSwish")]


def test_branches_must_name_their_outputs_apart():
    net = graph(
        """
        [choose] y = If (c) <
          then_branch = a () => (float[4] s) { [one] s = Neg (x) },
          else_branch = b () => (float[4] s) { [two] s = Relu (x) }
        >
        """,
        "(bool c, float[4] x) => (float[4] y)",
    )
    assert found(check(net, NANO)) == [("choose", "If")]


def test_types_the_nano_cannot_take_are_named_wherever_they_are():
    net = graph(
        "[up] a = Cast <to = 11> (x) [down] y = Cast <to = 1> (a)",
        "(uint8[4] x) => (float[4] y)",
    )
    net.graph_model.graph.node(0).outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)
    findings = check(net, NANO)
    assert found(findings) == [("x", "input"), ("up", "Cast")]
    assert "uint8" in findings[0].reason and "double" in findings[1].reason
    assert check(net, X86) == []


@pytest.mark.parametrize(
    ("array", "offends"),
    [
        (np.array([7], np.int64), False),
        (np.array([2**31 - 1, -(2**31)], np.int64), False),
        (np.array([2**31], np.int64), True),
        (np.array([1.5], np.float64), True),
        (np.array([1], np.uint8), True),
        (np.array([1.5], np.float16), False),
        (np.zeros(0, np.int64), False),
    ],
)
def test_initializers_the_parser_would_clamp_or_refuse(array, offends):
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["w"], ["y"], "keep")],
            "g",
            [],
            [helper.make_tensor_value_info("y", kind, list(array.shape))],
            [numpy_helper.from_array(array, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
    )
    assert (("w", "initializer") in found(check(model(proto), NANO))) == offends
    assert check(model(proto), HOST) == []


def test_to_the_end_of_a_slice_is_no_overflow():
    net = graph(
        """
        starts = Constant <value = int64[1] {1}> ()
        ends = Constant <value = int64[1] {9223372036854775807}> ()
        axes = Constant <value = int64[1] {0}> ()
        [rest] y = Slice (x, starts, ends, axes)
        """,
        "(float[4] x) => (float[3] y)",
    )
    assert check(net, NANO) == []


@pytest.mark.parametrize(
    ("body", "signature", "op", "reason"),
    [
        ("[n] y = Conv (x, w)", "(float[1,1,4,4] x, float[1,1,2,2] w) => (float[1,1,3,3] y)",
         "Conv", "weights and bias must be constant"),
        ("[n] y, i = MaxPool <kernel_shape = [2,2]> (x)",
         "(float[1,1,4,4] x) => (float[1,1,3,3] y, int64[1,1,3,3] i)", "MaxPool", "Indices"),
        ("[n] y = AveragePool <kernel_shape = [2]> (x)",
         "(float[1,1,4] x) => (float[1,1,3] y)", "AveragePool", "a 1-D AveragePool"),
        ("[n] y = Unsqueeze (x, a)", "(float[4] x, int64[1] a) => (float[1,4] y)",
         "Unsqueeze", "axes must be constant"),
        ("[n] y, i = TopK (x, k)", "(float[4] x, int64[1] k) => (float[N] y, int64[N] i)",
         "TopK", "K must be constant"),
        ("[n] y = Resize <mode = \"cubic\"> (x, , s)",
         "(float[1,1,2,2] x) => (float[1,1,4,4] y) <float[4] s = {1.,1.,2.,2.}>",
         "Resize", "mode 'cubic'"),
        ("[n] y = Resize <coordinate_transformation_mode = \"tf_crop_and_resize\"> (x, r, s)",
         "(float[1,1,2,2] x, float[8] r) => (float[1,1,4,4] y) <float[4] s = {1.,1.,2.,2.}>",
         "Resize", "tf_crop_and_resize"),
        ("[n] y = Resize (x, , s)", "(float[1,1,2,2] x, float[4] s) => (float[1,1,4,4] y)",
         "Resize", "scales must be constant"),
        ("[n] y = Einsum <equation = \"ii->i\"> (x)", "(float[2,2] x) => (float[2] y)",
         "Einsum", "no diagonal"),
        ("[n] y = Einsum <equation = \"...i->...\"> (x)", "(float[2,2] x) => (float[2] y)",
         "Einsum", "no ellipsis"),
        ("[n] y = CumSum (x, a)", "(float[4] x, int64 a) => (float[4] y)",
         "CumSum", "axis must be constant"),
        ("[n] y = QLinearMatMul (a, s, z, a, s, z, s, z)",
         "(int8[2,2] a, float s, int8 z) => (int8[2,2] y)", "QLinearMatMul",
         "has no operator"),
        ("[n] y = Reciprocal (x)", "(float[4] x) => (float[4] y)", "Reciprocal",
         "has no operator"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)  # fmt: skip
def test_restrictions_of_tensorrt_8_2_are_named(body, signature, op, reason):
    net = graph(body, signature)
    findings = [f for f in check(net, NANO) if f.node == "n" and f.op == op]
    assert any(reason in finding.reason for finding in findings), findings
    assert all(finding.remedy for finding in findings)
    assert check(net, X86) == []


def test_quantized_models_are_refused_where_nothing_computes_int8():
    net = graph(
        """
        [quantize] q = QuantizeLinear (x, scale, zero)
        [restore] y = DequantizeLinear (q, scale, zero)
        """,
        "(float[4] x) => (float[4] y) <float scale = {0.5}, int8 zero = {0}>",
    )
    findings = check(net, NANO)
    assert {"quantize", "restore"} <= {finding.node for finding in findings}
    assert any("computes no int8" in finding.reason for finding in findings)


def test_an_asymmetric_zero_point_is_refused_by_tensorrt_with_int8_too():
    types = NANO.dtypes | {"int8", "uint8"}
    xavier = dataclasses.replace(NANO, precisions=("int8", "fp16"), dtypes=types)
    net = graph(
        """
        [good] a = QuantizeLinear (x, scale, zero)
        [bad] b = QuantizeLinear (x, scale, middle)
        """,
        "(float[4] x) => (int8[4] a, uint8[4] b) "
        "<float scale = {0.5}, int8 zero = {0}, uint8 middle = {128}>",
    )
    assert found(check(net, xavier)) == [("bad", "QuantizeLinear")]


def test_local_functions_are_for_onnx_runtime_only():
    net = model(
        """
        <ir_version: 8, opset_import: ["" : 13, "local" : 1]>
        g (float[4] x) => (float[4] y) { [call] y = local.twice (x) }
        <domain: "local", opset_import: ["" : 13]>
        twice (x) => (y) { y = Add (x, x) }
        """
    )
    assert found(check(net, NANO)) == [("local::twice", "function")]
    assert check(net, HOST) == []


def test_an_operator_of_an_unknown_domain_is_refused_everywhere():
    net = model(
        """
        <ir_version: 7, opset_import: ["" : 13, "acme" : 1]>
        g (float[4] x) => (float[4] y) { [mine] y = acme.Magic (x) }
        """
    )
    for profile in (NANO, X86, HOST):
        assert found(check(net, profile)) == [("mine", "Magic")]


def test_contrib_operators_are_for_onnx_runtime_only():
    net = model(
        """
        <ir_version: 7, opset_import: ["" : 13, "com.microsoft" : 1]>
        g (float[4] x) => (float[4] y) { [gelu] y = com.microsoft.Gelu (x) }
        """
    )
    assert found(check(net, NANO)) == [("gelu", "Gelu")]
    assert check(net, HOST) == []


def test_an_operator_that_onnx_does_not_define_is_refused():
    net = graph("[odd] y = Frobnicate (x)", "(float[4] x) => (float[4] y)")
    (finding,) = check(net, HOST)
    assert finding.reason == "operator Frobnicate does not exist at opset 13"


def test_weights_that_do_not_fit_beside_the_builder_are_told_in_numbers():
    net = model(build("resnet18", "noise"))
    weights = weight_bytes(net.graph_model.graph)
    assert weights == sum(t.nbytes for t in initializers(net))
    tight = dataclasses.replace(
        NANO, memory_bytes=3 * weights + NANO.build_workspace_bytes - 1
    )
    (finding,) = check(net, tight)
    assert (finding.node, finding.op) == ("", "model")
    assert "3 x 44 MiB of weights + 256 MiB of workspace" in finding.reason
    roomy = dataclasses.replace(tight, memory_bytes=3 * weights + NANO.build_workspace_bytes)
    assert check(net, roomy) == []


def initializers(net: Model) -> list[np.ndarray]:
    values = net.graph_model.graph.initializers.values()
    return [value.const_value.numpy() for value in values if value.const_value is not None]


def test_a_newer_ir_version_alone_is_no_finding():
    proto = build("resnet20", "noise")
    proto.ir_version = 10
    assert check(model(proto), NANO) == []


def test_checking_changes_nothing():
    proto = build("resnet20", "noise", opset=17)
    net = model(proto)
    before = ir.to_proto(net.graph_model).SerializeToString(deterministic=True)
    check(net, NANO)
    assert ir.to_proto(net.graph_model).SerializeToString(deterministic=True) == before


def test_findings_are_in_graph_order_without_doubles():
    net = graph(
        "[b] p = Reciprocal (x) [a] q = Reciprocal (p) [c] y = Det (q)",
        "(float[2,2] x) => (float y)",
    )
    findings = check(net, NANO)
    assert [finding.node for finding in findings] == ["b", "a", "c"]
    assert len(set(findings)) == len(findings)
