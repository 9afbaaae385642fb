"""float16 in the graph: what it costs, what stays in float32, and that nothing is silent."""

from typing import cast

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import ref_model, wheel_model
from nets import build
from nncc.passes.half_arithmetic import in_float_arithmetic
from nncc.passes.half_islands import KEPT, loss, overflows
from nncc.passes.model import Model
from nncc.passes.normalise import normalise
from nncc.passes.precision import in_half

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
UNIT = 2.0**-11  # relative rounding of one float16 number


def model_of(proto: onnx.ModelProto) -> Model:
    return Model(ir.from_proto(proto), "test", "0" * 64)


def proto_of(model: Model) -> onnx.ModelProto:
    proto = ir.to_proto(model.graph_model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return cast(list[np.ndarray], list(session.run(None, feeds)))


def run_half(made: Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """As a card computes: every float16 result is rounded (and the graph itself loads)."""
    run(proto_of(made), feeds)
    return run(proto_of(in_float_arithmetic(made)), feeds)


def sqnr(want: np.ndarray, got: np.ndarray) -> float:
    """10 log10(Σ y² / Σ (y − ŷ)²)."""
    want, got = want.astype(np.float64), got.astype(np.float64)
    noise = float(np.sum((want - got) ** 2))
    return float(10 * np.log10(np.sum(want**2) / noise)) if noise else np.inf


def net(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    inputs: dict[str, tuple[int, list[int | str]]] | None = None,
    outputs: dict[str, int] | None = None,
    shape: list[int | str] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, (kind, shape) in (inputs or {"x": (FLOAT, ["N", 8])}).items()
        ],
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind in (outputs or {"y": FLOAT}).items()
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(made)  # outputs must say their shape


def named(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.name == name)


def reason(proto: onnx.ModelProto, name: str) -> str:
    held = {p.key: p.value for p in named(proto, name).metadata_props}
    return held.get(KEPT, "")


def types(proto: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    graph = inferred.graph
    found = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        found[value.name] = value.type.tensor_type.elem_type
    return found


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng().standard_normal(shape) * scale).astype(np.float32)


def node(op: str, inputs: list[str], out: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [out], name=out, **attributes)


def test_weights_and_activations_are_float16_and_the_interface_is_not():
    before = net(
        [node("MatMul", ["x", "w"], "h"), node("Relu", ["h"], "y")], {"w": normal(8, 4)}
    )
    after = proto_of(in_half(model_of(before)))
    kinds = types(after)
    assert kinds["w"] == kinds["h"] == HALF
    assert kinds["x"] == kinds["y"] == FLOAT
    assert [v.name for v in after.graph.input] == ["x"]
    assert [v.name for v in after.graph.output] == ["y"]
    assert [t.name for t in after.graph.initializer] == ["w"]


def test_the_given_model_is_not_changed():
    before = net([node("MatMul", ["x", "w"], "y")], {"w": normal(8, 4)})
    model = model_of(before)
    in_half(model)
    assert ir.to_proto(model.graph_model) == ir.to_proto(ir.from_proto(before))


@pytest.mark.parametrize(
    ("name", "least"),
    [("lenet5", 65), ("vggs", 65), ("resnet18", 60), ("mobilenet-v2", 42), ("pp-ocr-rec", 35)],
)
def test_a_net_in_float16_is_close_to_itself_in_float32(name, least):
    """ONNX Runtime on the CPU, noise as input; a line a net is printed.

    Over five seconds on a busy machine: five real nets run twice. The deeper the net, the more
    roundings add up: MobileNetV2 (52 layers, random weights) and the text recogniser (about
    200) end lower, as they do with onnxruntime's own converter.
    """
    if name in ("resnet18", "mobilenet-v2"):
        proto, shape = build(name, "noise"), (1, 3, 224, 224)
    elif name == "pp-ocr-rec":
        proto, shape = onnx.load(wheel_model(name)), (1, 3, 48, 320)
    else:
        proto = onnx.load(ref_model(name))
        shape = (
            4,
            *(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[1:]),
        )
    model = normalise(model_of(proto))
    made = in_half(model)
    feeds = {proto.graph.input[0].name: normal(*shape)}
    want, got = run(proto, feeds)[0], run_half(made, feeds)[0]
    print(f"{name}: {sqnr(want, got):.1f} dB in float16")
    assert got.dtype == np.float32
    assert sqnr(want, got) > least


def test_applied_twice_it_changes_nothing_more():
    model = normalise(model_of(onnx.load(wheel_model("pp-ocr-rec"))))
    once = in_half(model)
    assert in_half(once) == once
    assert any(KEPT in node.metadata_props for node in once.graph_model.graph)


def test_two_conversions_give_the_same_bytes():
    made = [
        proto_of(in_half(normalise(model_of(build("resnet20", "noise"))))) for _ in range(2)
    ]
    assert made[0].SerializeToString(deterministic=True) == made[1].SerializeToString(
        deterministic=True
    )


def layer_norm(eps: float, width: int = 64) -> onnx.ModelProto:
    """LayerNormalization as exporters wrote it before opset 17, and a Gelu by Erf."""
    return net(
        [
            node("ReduceMean", ["x"], "mean", axes=[-1]),
            node("Sub", ["x", "mean"], "d"),
            node("Pow", ["d", "two"], "d2"),
            node("ReduceMean", ["d2"], "var", axes=[-1]),
            node("Add", ["var", "eps"], "vare"),
            node("Sqrt", ["vare"], "std"),
            node("Div", ["d", "std"], "n"),
            node("Mul", ["n", "gamma"], "g"),
            node("Add", ["g", "beta"], "h"),
            node("MatMul", ["h", "w"], "m"),
            node("Div", ["m", "sqrt2"], "e0"),
            node("Erf", ["e0"], "e1"),
            node("Add", ["e1", "one"], "e2"),
            node("Mul", ["m", "e2"], "e3"),
            node("Mul", ["e3", "half"], "y"),
        ],
        {
            "two": np.float32(2),
            "eps": np.float32(eps),
            "gamma": np.ones(width, np.float32),
            "beta": np.zeros(width, np.float32),
            "w": normal(width, width, scale=0.1),
            "sqrt2": np.float32(np.sqrt(2)),
            "one": np.float32(1),
            "half": np.float32(0.5),
        },
        inputs={"x": (FLOAT, ["N", width])},
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1000.0])
def test_a_decomposed_layer_norm_stays_in_float32_and_its_gelu_does_not(scale):
    """At scale 1000 the squares reach 10⁷, at 0.001 the variance and 1e-12 are nothing."""
    before = layer_norm(1e-12)
    made = in_half(model_of(before))
    after = proto_of(made)
    for name in ("mean", "d", "d2", "var", "vare", "std", "n", "g", "h"):
        assert reason(after, name), name
    for name in ("m", "e0", "e1", "e2", "e3", "y"):
        assert not reason(after, name), name
    feeds = {"x": normal(4, 64, scale=scale)}
    assert sqnr(run(before, feeds)[0], run_half(made, feeds)[0]) > 55


def test_values_past_65504_in_the_middle_are_saved_by_islands():
    """x · 300 is squared (a norm, as in an image filter): 9·10⁴ and more, then scaled back."""
    before = net(
        [
            node("MatMul", ["x", "w"], "h"),
            node("Mul", ["h", "h"], "sq"),
            node("ReduceMean", ["sq"], "power", axes=[-1]),
            node("Sqrt", ["power"], "rms"),
            node("Div", ["h", "rms"], "y"),
        ],
        {"w": normal(8, 8, scale=300)},
    )
    feeds = {"x": normal(16, 8)}
    want, got = run(before, feeds)[0], run_half(in_half(model_of(before)), feeds)[0]
    assert np.isfinite(got).all()
    assert sqnr(want, got) > 55
    assert not everywhere_half(feeds["x"], 300).any()  # all is divided by infinity


def everywhere_half(x: np.ndarray, scale: float) -> np.ndarray:
    """The same net in numpy, every result rounded to float16."""
    with np.errstate(all="ignore"):
        h = (x @ normal(8, 8, scale=scale)).astype(np.float16)
        power = np.mean((h * h).astype(np.float32), axis=-1, keepdims=True)
        return h / np.sqrt(power.astype(np.float16))


def test_values_seen_to_overflow_stay_by_name():
    """Nothing in this graph tells that h is large; only its numbers do."""
    before = net(
        [
            node("MatMul", ["x", "w"], "h"),
            node("Relu", ["h"], "r"),
            node("MatMul", ["r", "v"], "y"),
        ],
        {"w": normal(8, 8, scale=1e4), "v": normal(8, 8, scale=1e-2)},
    )
    feeds = {"x": normal(16, 8, scale=4)}
    want = run(before, feeds)[0]
    plain = run_half(in_half(model_of(before)), feeds)[0]
    assert not np.isfinite(plain).all()
    kept = in_half(model_of(before), keep={"h", "r"})
    assert "leaves float16's range" in reason(proto_of(kept), "h")
    assert sqnr(want, run_half(kept, feeds)[0]) > 60
    assert kept.warnings == (
        "3 nodes stay in float32, for their values came near float16's end on the samples: "
        "h, r, y",
    )


def test_a_weight_past_65504_keeps_its_node_in_float32_and_is_named():
    W = normal(8, 4)
    W[0, 0] = 70000
    model = model_of(net([node("MatMul", ["x", "w"], "y")], {"w": W}))
    made = in_half(model)
    assert made.warnings == (
        "y (MatMul) stays in float32: 'w' holds 7e+04, beyond float16's 65504",
    )
    feeds = {"x": normal(3, 8)}
    want = run(ir.to_proto(model.graph_model), feeds)[0]
    np.testing.assert_array_equal(run(proto_of(made), feeds)[0], want)


def test_weights_that_vanish_in_float16_keep_their_node_in_float32():
    before = net([node("MatMul", ["x", "w"], "y")], {"w": normal(8, 4, scale=1e-8)})
    after = proto_of(in_half(model_of(before)))
    assert reason(after, "y") == "float32: float16 does not hold 'w'"


@pytest.mark.parametrize("mask", [-1e9, float(np.finfo(np.float32).min)])
def test_an_attention_mask_hides_the_same_places(mask):
    """(1 − m) · mask is added to the scores, as BERT exporters write it; one row hides all."""
    before = net(
        [
            node("Cast", ["m"], "f", to=FLOAT),
            node("Sub", ["one", "f"], "hidden"),
            node("Mul", ["hidden", "low"], "bias"),
            node("MatMul", ["x", "k"], "scores"),
            node("Add", ["scores", "bias"], "masked"),
            node("Softmax", ["masked"], "p", axis=-1),
            node("MatMul", ["p", "v"], "y"),
        ],
        {
            "one": np.float32(1),
            "low": np.float32(mask),
            "k": normal(8, 8),
            "v": normal(8, 8),
        },
        inputs={"x": (FLOAT, ["N", 8]), "m": (TensorProto.INT64, ["N", 8])},
        outputs={"y": FLOAT, "p": FLOAT},
    )
    m = rng().integers(0, 2, (6, 8))
    m[0] = 0
    feeds = {"x": normal(6, 8), "m": m}
    (y, p), (want, want_p) = run_half(in_half(model_of(before)), feeds), run(before, feeds)
    assert np.isfinite(y).all()
    assert (p[1:][m[1:] == 0] == 0).all() == (want_p[1:][m[1:] == 0] == 0).all()
    # A row that hides everything is decided by what float32 leaves of the scores at −1e9.
    assert sqnr(want[1:], y[1:]) > 50


def test_a_fill_and_a_bound_without_end_are_clamped_and_cost_no_island():
    low, high = np.finfo(np.float32).min, np.finfo(np.float32).max
    before = net(
        [
            node("MatMul", ["x", "k"], "scores"),
            node("Where", ["c", "scores", "low"], "masked"),
            node("Clip", ["masked", "", "high"], "clipped"),
            node("Softmax", ["clipped"], "p", axis=-1),
            node("MatMul", ["p", "k"], "y"),
        ],
        {"low": low, "high": high, "k": normal(8, 8)},
        inputs={"x": (FLOAT, ["N", 8]), "c": (TensorProto.BOOL, ["N", 8])},
    )
    c = rng().integers(0, 2, (6, 8)).astype(bool)
    c[0] = False
    feeds = {"x": normal(6, 8), "c": c}
    after = proto_of(in_half(model_of(before)))
    assert not reason(after, "masked") and not reason(after, "clipped")
    got = run_half(in_half(model_of(before)), feeds)[0]
    assert sqnr(run(before, feeds)[0], got) > 50


def test_sizes_computed_in_float_stay_in_float32():
    """Resize to twice the size, its sizes computed: 4099 is no float16 number."""
    before = net(
        [
            node("Shape", ["x"], "s"),
            node("Slice", ["s", "two", "three"], "w"),
            node("Cast", ["w"], "wf", to=FLOAT),
            node("Mul", ["wf", "factor"], "w2"),
            node("Floor", ["w2"], "w3"),
            node("Cast", ["w3"], "w4", to=TensorProto.INT64),
            node("Concat", ["front", "w4"], "sizes", axis=0),
            node("Resize", ["x", "", "", "sizes"], "y", mode="nearest"),
        ],
        {
            "two": np.array([2]),
            "three": np.array([3]),
            "factor": np.float32(1),
            "front": np.array([1, 2]),
        },
        inputs={"x": (FLOAT, [1, 2, "W"])},
        opset=13,
    )
    after = proto_of(in_half(model_of(before)))
    assert run(after, {"x": normal(1, 2, 4099)})[0].shape == (1, 2, 4099)
    assert named(after, "y").input[0] != "x"


def test_scales_of_a_resize_stay_in_float32():
    before = net(
        [node("Resize", ["x", "", "scales"], "y", mode="nearest")],
        {"scales": np.array([1, 1, 1.7], np.float32)},
        inputs={"x": (FLOAT, [1, 2, 100])},
        opset=13,
    )
    after = proto_of(in_half(model_of(before)))
    assert types(after)["scales"] == FLOAT
    assert run(after, {"x": normal(1, 2, 100)})[0].shape == (1, 2, 170)


def test_bodies_stay_in_float32_and_what_they_capture_is_cast():
    """The branch reads `h` from outside, where it is float16 now."""
    branch = helper.make_graph(
        [node("Mul", ["h", "two"], "a")],
        "then",
        [],
        [helper.make_tensor_value_info("a", FLOAT, None)],
    )
    other = helper.make_graph(
        [node("Neg", ["h"], "b")],
        "else",
        [],
        [helper.make_tensor_value_info("b", FLOAT, None)],
    )
    before = net(
        [
            node("MatMul", ["x", "w"], "h"),
            node("If", ["c"], "i", then_branch=branch, else_branch=other),
            node("MatMul", ["i", "w"], "y"),
        ],
        {"w": normal(8, 8), "two": np.float32(2)},
        inputs={"x": (FLOAT, ["N", 8]), "c": (TensorProto.BOOL, [])},
    )
    made = in_half(model_of(before))
    for c in (True, False):
        feeds = {"x": normal(4, 8), "c": np.array(c)}
        assert sqnr(run(before, feeds)[0], run_half(in_half(model_of(before)), feeds)[0]) > 55
    assert made.warnings == ("i (If) stays in float32: holds a graph of its own",)
    assert in_half(made) == made


def test_a_loop_computes_the_same():
    body = helper.make_graph(
        [
            node("Identity", ["cond"], "go"),
            node("Add", ["acc", "h"], "next"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("acc", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, None),
        ],
    )
    before = net(
        [
            node("MatMul", ["x", "w"], "h"),
            node("Loop", ["five", "", "h"], "l", body=body),
            node("Relu", ["l"], "y"),
        ],
        {"w": normal(8, 8), "five": np.array(5)},
        shape=["N", 8],
    )
    feeds = {"x": normal(4, 8)}
    assert sqnr(run(before, feeds)[0], run_half(in_half(model_of(before)), feeds)[0]) > 55


def test_an_output_that_is_read_inside_too_keeps_its_name_and_type():
    before = net(
        [node("MatMul", ["x", "w"], "h"), node("Relu", ["h"], "y")],
        {"w": normal(8, 8)},
        outputs={"h": FLOAT, "y": FLOAT},
    )
    after = proto_of(in_half(model_of(before)))
    assert [v.name for v in after.graph.output] == ["h", "y"]
    assert all(array.dtype == np.float32 for array in run(after, {"x": normal(2, 8)}))


def test_an_input_that_is_an_output_is_left_alone():
    before = net(
        [node("MatMul", ["x", "w"], "y")],
        {"w": normal(8, 8)},
        outputs={"x": FLOAT, "y": FLOAT},
        shape=["N", 8],
    )
    after = proto_of(in_half(model_of(before)))
    x = normal(2, 8)
    np.testing.assert_array_equal(run(after, {"x": x})[0], x)


def test_a_weight_used_in_both_precisions_is_stored_in_both():
    before = net(
        [
            node("MatMul", ["x", "w"], "h"),
            node("Pow", ["w", "two"], "w2"),
            node("MatMul", ["h", "w2"], "y"),
        ],
        {"w": normal(8, 8), "two": np.float32(2)},
    )
    after = proto_of(in_half(model_of(before)))
    kinds = {t.name: t.data_type for t in after.graph.initializer}
    assert kinds["w"] == FLOAT
    assert HALF in kinds.values()
    feeds = {"x": normal(4, 8)}
    assert sqnr(run(before, feeds)[0], run_half(in_half(model_of(before)), feeds)[0]) > 55


def test_half_weights_behind_a_cast_are_used_as_they_are():
    W = normal(8, 8).astype(np.float16)
    before = net(
        [node("Cast", ["w"], "wf", to=FLOAT), node("MatMul", ["x", "wf"], "y")], {"w": W}
    )
    after = proto_of(in_half(model_of(before)))
    assert named(after, "y").input[1] == "w"


def test_one_constant_as_a_bound_and_as_a_number():
    """The bound may be clamped, the number may not; both are float16 here."""
    before = net(
        [
            node("Clip", ["x", "", "c"], "h"),
            node("Mul", ["h", "c"], "y"),
        ],
        {"c": np.float32(8)},
    )
    after = proto_of(in_half(model_of(before)))
    assert [(t.name, t.data_type) for t in after.graph.initializer] == [("c", HALF)]


def test_one_mask_as_a_fill_and_as_a_number():
    before = net(
        [
            node("Where", ["m", "x", "c"], "h"),
            node("Add", ["h", "c"], "g"),
            node("Softmax", ["g"], "y", axis=-1),
        ],
        {"c": np.float32(-1e9)},
        inputs={"x": (FLOAT, ["N", 8]), "m": (TensorProto.BOOL, ["N", 8])},
    )
    made = in_half(model_of(before))
    kinds = {t.name: t.data_type for t in proto_of(made).graph.initializer}
    assert kinds == {"c": FLOAT, "c/half": HALF}
    feeds = {"x": normal(4, 8), "m": np.ones((4, 8), bool)}
    assert np.isfinite(run_half(made, feeds)[0]).all()


def test_outputs_that_are_left_out_stay_out():
    """An LSTM of which only the last state is read."""
    W = {name: normal(*shape) for name, shape in (("w", (1, 16, 8)), ("r", (1, 16, 4)))}
    before = net(
        [helper.make_node("LSTM", ["x", "w", "r"], ["", "y"], name="l", hidden_size=4)],
        W,
        inputs={"x": (FLOAT, [5, "N", 8])},
    )
    after = proto_of(in_half(model_of(before)))
    assert named(after, "l").output[0] == ""
    feeds = {"x": normal(5, 3, 8)}
    got = run_half(in_half(model_of(before)), feeds)[0]
    assert sqnr(run(before, feeds)[0], got) > 55


def test_casts_are_named_and_say_what_they_are_of():
    before = net(
        [node("MatMul", ["x:0", "w"], "y")],
        {"w": normal(8, 8)},
        inputs={"x:0": (FLOAT, ["N", 8])},
    )
    after = proto_of(in_half(model_of(before)))
    casts = [n for n in after.graph.node if n.op_type == "Cast"]
    assert [n.name for n in casts] == ["x_0/half", "y/float"]
    assert {p.key: p.value for p in casts[1].metadata_props} == {
        "nncc.pass": "InHalf",
        "nncc.source": "y",
    }


def test_a_model_without_floats_is_returned_as_it_is():
    before = net(
        [node("Add", ["x", "x"], "y")],
        {},
        inputs={"x": (TensorProto.INT32, ["N"])},
        outputs={"y": TensorProto.INT32},
    )
    model = model_of(before)
    assert in_half(model) == model


def test_rounding_alone_is_no_loss():
    assert loss(normal(1000)) < UNIT
    assert loss(np.zeros(3, np.float32)) == 0
    assert loss(np.array([1e-12], np.float32)) == 1
    assert loss(np.array([], np.float32)) == 0


def test_infinity_is_a_float16_number_and_65505_is_not():
    assert overflows(np.array([np.inf, -np.inf, np.nan, 65504], np.float32)) == 0
    assert overflows(np.array([1, -65536], np.float32)) == 65536
