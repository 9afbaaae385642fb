"""Filters of zeros leave the graph: the same function, computed by a smaller model."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from models import ref_model
from nncc.passes.constants import constant
from nncc.passes.forms import Columns, Filters, LowRank, Term
from nncc.passes.lowering import Lowering
from nncc.passes.model import Model
from nncc.passes.normalise import normalise
from nncc.passes.plan import Plan
from nncc.passes.removal.flow import put
from nncc.passes.removal.remove_filters import Removal, remove_filters
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites

RELATIVE = 1e-5
"""Sums of a few thousand float32 products, in another order."""


def model_of(proto: onnx.ModelProto) -> Model:
    return normalise(Model(ir.from_proto(proto), "net", "0" * 64))


def graph(text: str, opset: int = 17, **tensors) -> Model:
    """A graph in ONNX's text format; nodes are named by what they make."""
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    model = parser.parse_model(f"{head} net {text}")
    for name, array in tensors.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for node in model.graph.node:
        node.name = node.output[0]
    return Model(ir.from_proto(onnx.shape_inference.infer_shapes(model)), "net", "0" * 64)


def drawn(*shape, seed=0):
    return np.random.default_rng([*shape, seed]).standard_normal(shape).astype(np.float32)


def with_zeros(W, rows):
    W = np.array(W)
    W[list(rows)] = 0
    return W


def run(model: Model, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.to_proto(model.graph_model).SerializeToString()
    return ort.InferenceSession(proto, options).run(None, feeds)


def assert_same(before: Model, after: Model, feeds, relative=RELATIVE):
    onnx.checker.check_model(ir.to_proto(after.graph_model), full_check=True)
    for expected, y in zip(run(before, feeds), run(after, feeds), strict=True):
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=0, atol=relative * np.abs(expected).max())


def shape_of(model: Model, layer: str):
    node = next(n for n in model.graph_model.graph if n.name == layer)
    return constant(node.inputs[1]).shape


def half_zeroed(model: Model) -> Model:
    """Every layer without half of its filters; layers of one width lose the same ones."""
    copy = model.copied()
    for node in copy.graph_model.graph:
        W = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        axes = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}
        axes["Gemm"] = 1 - node.attributes.get_int("transB", 0)
        is_grouped = node.attributes.get_int("group", 1) > 1
        if W is None or node.op_type not in axes or is_grouped or W.ndim < 2:
            continue
        W, axis = np.array(W), axes[node.op_type]
        m = W.shape[axis]
        rows = np.random.default_rng(m).permutation(m)[: m // 2]
        np.moveaxis(W, axis, 0)[rows] = 0
        put(copy.graph_model.graph, node, 1, W)
    return copy


def weights(model: Model) -> int:
    held = model.graph_model.graph.initializers.values()
    return sum(v.const_value.size for v in held if v.const_value is not None)


@pytest.mark.parametrize(
    ("name", "exporter", "share", "left"),
    [
        ("resnet18", "torchscript", 0.2, "is an output"),
        ("vgg", "torchscript", 0.2, "is an output"),
        ("densenet", "torchscript", 0.3, "read by LogSoftmax"),
        ("unet", "torchscript", 0.2, "read by Softmax"),
        ("mobilenet-v2", "torchscript", 0.3, "constants are none behind Conv"),
        ("mobilenet-v3", "torchscript", 0.5, "the other branch of Mul"),
    ],
)
def test_nets_of_torch_shrink_and_compute_the_same(name, exporter, share, left):
    """Residuals, concatenations, depthwise layers and gates; torch takes seconds to export."""
    pytest.importorskip("torch")
    from exports import NETS, export

    net = NETS[name]
    zeroed = half_zeroed(model_of(export(net, exporter, 18, False)))
    small, removals = remove_filters(zeroed)
    assert_same(zeroed, small, net.arrays())
    assert weights(small) <= share * weights(zeroed)
    assert any(left in removal.reason for removal in removals)


def filtered(path, keep) -> tuple[Model, Plan, dict[str, Term]]:
    model = model_of(onnx.load(path))
    sites, _ = find_sites(model)
    plan = Plan({site.name: Filters(keep) for site in sites[:-1]})
    terms = {s.name: plan.form(s.name).compress(s.W()) for s in sites[:-1]}
    return model, plan, terms


@pytest.mark.parametrize("name", ["lenet300", "lenet5", "vggs"])
def test_trained_nets_lose_the_filters_that_the_form_drops(name):
    """Convolutions with padding and biases that are not zero: constants travel with one."""
    model, plan, terms = filtered(ref_model(name), 0.5)
    small = compress_weights(model, plan, terms)
    zeroed = model.copied()
    for site in find_sites(zeroed)[0]:
        if site.name in terms:
            _reweigh(zeroed, site, terms[site.name].decompress())
    shape = [d if isinstance(d, int) else 4 for d in model.graph_model.graph.inputs[0].shape]
    assert_same(zeroed, small, {model.graph_model.graph.inputs[0].name: drawn(*shape)})
    assert weights(small) < 0.5 * weights(model)
    assert small.warnings == model.warnings


def _reweigh(model, site, W):
    if site.op == "Conv":
        array = W.reshape(-1, *W.shape[2:])
    else:
        is_first = site.node.attributes.get_int("transB", 0)
        array = W[0] if is_first else W[0].T
    put(model.graph_model.graph, site.node, 1, np.ascontiguousarray(array))


CHAIN = """(float[1, 3, 8, 8] x) => (float[1, 5, N, M] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, A, p)
    r = Relu (a)
    y = Conv <pads = PADS> (r, B, q)
}"""


def test_a_constant_moves_into_the_bias_behind_it_where_nothing_is_padded():
    model = graph(
        CHAIN.replace("PADS", "[0, 0, 0, 0]"),
        A=with_zeros(drawn(6, 3, 3, 3), [1, 2, 5]),
        p=np.array([1, 2, -3, 1, 1, 0.5], np.float32),
        B=drawn(5, 6, 3, 3),
        q=drawn(5),
    )
    small, removals = remove_filters(model)
    assert removals == (Removal("a", 3, 3),)
    assert shape_of(small, "a") == (3, 3, 3, 3) and shape_of(small, "y") == (5, 3, 3, 3)
    assert_same(model, small, {"x": drawn(1, 3, 8, 8)})


def test_behind_padding_one_channel_carries_the_constants_of_all():
    model = graph(
        CHAIN.replace("PADS", "[1, 1, 1, 1]"),
        A=with_zeros(drawn(6, 3, 3, 3), [0, 1, 2, 5]),
        p=np.array([1, 2, -3, 1, 1, 0.5], np.float32),
        B=drawn(5, 6, 3, 3),
        q=drawn(5),
    )
    small, (removal,) = remove_filters(model)
    assert (removal.filters, removal.removed) == (4, 3)
    assert removal.reason == "one stays to carry the constants of the others to 'y'"
    assert not removal.is_held
    assert_same(model, small, {"x": drawn(1, 3, 8, 8)})


RESIDUAL = """(float[1, 4, 6, 6] x) => (float[1, 2, 6, 6] y) {
    a = Conv (x, A, p)
    b = Conv (x, B, q)
    s = Add (a, b)
    r = Relu (s)
    y = Conv (r, C)
}"""


@pytest.mark.parametrize(
    ("left", "right", "gone"), [([0, 3], [3, 0], 2), ([0, 3], [3, 4], 1), ([0], [1, 2], 0)]
)
def test_a_sum_loses_what_both_of_its_branches_lost(left, right, gone):
    model = graph(
        RESIDUAL,
        A=with_zeros(drawn(6, 4, 1, 1), left),
        B=with_zeros(drawn(6, 4, 1, 1, seed=1), right),
        C=drawn(2, 6, 1, 1),
        p=drawn(6),
        q=drawn(6, seed=1),
    )
    small, removals = remove_filters(model)
    assert [r.removed for r in removals] == [gone, gone]
    assert shape_of(small, "y") == (2, 6 - gone, 1, 1)
    if gone < len(left):
        assert removals[0].reason == "the other branch of Add 's' needs them"
    assert_same(model, small, {"x": drawn(1, 4, 6, 6)})


def test_channels_are_followed_through_what_keeps_them_apart():
    model = graph(
        """(float[2, 3, 8, 8] x) => (float[2, 5] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, A, p)
            n = BatchNormalization (a, scale, shift, mean, variance)
            l = PRelu (n, slope)
            m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (l)
            d = Conv <group = 6> (m, D, dp)
            b = ConvTranspose (x, B)
            e = HardSwish (b)
            f = GlobalAveragePool (e)
            g = GlobalAveragePool (d)
            c = Concat <axis = 1> (g, f)
            h = Mul (c, each)
            k = Flatten (h)
            y = Gemm <alpha = 2.0, beta = 0.5> (k, G, gp)
        }""",
        A=with_zeros(drawn(6, 3, 3, 3), [1, 4]),
        p=drawn(6), scale=drawn(6), shift=drawn(6), mean=drawn(6),
        variance=np.abs(drawn(6)) + 0.5, slope=drawn(6, 1, 1),
        D=drawn(6, 1, 3, 3), dp=drawn(6),
        B=np.where(np.arange(4)[:, None, None] == 2, 0, drawn(3, 4, 2, 2)).astype(np.float32),
        each=drawn(10, 1, 1), G=drawn(10, 5), gp=drawn(5),
    )  # fmt: skip
    small, removals = remove_filters(model)
    assert removals == (Removal("a", 2, 2), Removal("b", 1, 1))
    assert shape_of(small, "d") == (4, 1, 3, 3)
    assert shape_of(small, "y") == (7, 5)
    assert_same(model, small, {"x": drawn(2, 3, 8, 8)})


def test_channels_are_followed_through_changes_of_size():
    model = graph(
        """(float[2, 3, 8, 8] x) => (float[2, 5] y) {
            a = Conv (x, A, p)
            c = Clip (a, low, high)
            b = Pad <mode = "reflect"> (c, around)
            s = Slice (b, starts, ends, axes)
            e = Resize <mode = "linear"> (s, none, scales)
            u = Resize <mode = "nearest"> (e, none, none, sizes)
            v = AveragePool <kernel_shape=[3, 3], strides=[4, 4], count_include_pad=1> (u)
            k = Reshape <allowzero = 1> (v, flat)
            m = ReduceMean <axes = [2, -1], keepdims = 0> (u)
            j = Concat <axis = 1> (k, m)
            y = Gemm <transB = 1> (j, G, gp)
        }""",
        A=with_zeros(drawn(6, 3, 3, 3), [1, 4]), p=drawn(6),
        low=np.float32(-0.5), high=np.float32(0.7),
        around=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        starts=np.array([1, 1]), ends=np.array([7, 7]), axes=np.array([2, -1]),
        none=np.zeros(0, np.float32), scales=np.array([1, 1, 2, 2], np.float32),
        sizes=np.array([2, 6, 10, 10]), flat=np.array([2, 24]),
        G=drawn(5, 30), gp=drawn(5),
    )  # fmt: skip
    small, removals = remove_filters(model)
    assert removals == (Removal("a", 2, 2),)
    assert shape_of(small, "y") == (5, 20)
    assert_same(model, small, {"x": drawn(2, 3, 8, 8)})


def test_the_gate_of_a_channel_that_is_gone_goes_with_it():
    model = graph(
        """(float[1, 3, 6, 6] x) => (float[1, 2, 6, 6] y) {
            a = Conv (x, A)
            g = GlobalAveragePool (a)
            h = Conv (g, H, hp)
            s = Sigmoid (h)
            m = Mul (a, s)
            y = Conv (m, B)
        }""",
        A=with_zeros(drawn(6, 3, 1, 1), [0, 2, 3]),
        H=drawn(6, 6, 1, 1),
        hp=drawn(6),
        B=drawn(2, 6, 1, 1),
    )
    small, removals = remove_filters(model)
    assert [r.removed for r in removals] == [3, 3]
    assert shape_of(small, "h") == (3, 3, 1, 1)
    assert_same(model, small, {"x": drawn(1, 3, 6, 6)})


@pytest.mark.parametrize(
    ("reader", "reason"),
    [
        ("y = Softmax <axis = 1> (a)", "it is read by Softmax 'y'"),
        ("y = Identity (a)", "'y' is an output of the model"),
        ("y = Conv <group = 2> (a, G)", "every group of 'y' loses as many"),
        (
            "d = Conv <group = 6, pads = [1, 1, 1, 1]> (a, D) y = Conv (d, K)",
            "none behind Conv 'd'",
        ),
        ("y = Add (a, z)", "Add 'y' joins it with another branch"),
        ("b = Transpose <perm = [0, 2, 3, 1]> (a) y = MatMul (b, M)", "read by Transpose 'b'"),
    ],
)
def test_filters_that_something_needs_stay_and_the_reason_is_told(reader, reason):
    model = graph(
        "(float[1, 3, 6, 6] x, float[1, 6, 6, 6] z) => (float[A, B, C, D] y) "
        f"{{ a = Conv (x, A, p) {reader} }}",
        A=with_zeros(drawn(6, 3, 1, 1), [1, 2]),
        p=np.ones(6, np.float32),
        G=drawn(4, 3, 1, 1),
        D=drawn(6, 1, 3, 3),
        M=drawn(6, 2),
        K=drawn(2, 6, 1, 1),
    )
    before = ir.to_proto(model.graph_model).SerializeToString()
    small, (removal,) = remove_filters(model)
    assert (removal.filters, removal.removed) == (2, 0)
    assert reason in removal.reason and removal.is_held
    assert removal.told.startswith("layer 'a': 2 of 2 filters of zeros stay: ")
    assert ir.to_proto(model.graph_model).SerializeToString() == before
    assert shape_of(small, "a") == (6, 3, 1, 1)


@pytest.mark.parametrize("pads", ["[0, 0, 0, 0]", "[1, 1, 1, 1]"])
def test_groups_lose_as_many_channels_each(pads):
    """Behind padding a group has no channel that could carry constants: zeros alone go."""
    model = graph(
        """(float[1, 4, 8, 8] x) => (float[1, 2, N, M] y) {
            a = Conv <group = 2> (x, A, p)
            r = Relu (a)
            g = Conv <group = 2, pads = PADS> (r, G, q)
            d = Conv <group = 6> (g, D)
            y = Conv (d, B)
        }""".replace("PADS", pads),
        A=with_zeros(drawn(8, 2, 3, 3), [0, 1, 5, 6, 7]),
        p=np.array([-1, 2, 1, 1, 1, -1, 3, -2], np.float32),
        G=with_zeros(drawn(6, 4, 3, 3), [2, 4]),
        q=drawn(6),
        D=drawn(12, 1, 1, 1),
        B=drawn(2, 12, 1, 1),
    )
    small, (first, second) = remove_filters(model)
    gone = 2 if "1" not in pads else 1
    assert (first.removed, second.removed) == (2 * gone, 2)
    assert shape_of(small, "a") == (8 - 2 * gone, 2, 3, 3)
    assert shape_of(small, "g") == (4, 4 - gone, 3, 3)
    assert shape_of(small, "d") == (8, 1, 1, 1) and shape_of(small, "y") == (2, 8, 1, 1)
    assert_same(model, small, {"x": drawn(1, 4, 8, 8)})


@pytest.mark.parametrize("way", ["executed", "dense"])
def test_filters_go_however_the_layer_is_written(way):
    model = graph(
        CHAIN.replace("PADS", "[0, 0, 0, 0]"),
        A=drawn(6, 3, 3, 3), p=drawn(6), B=drawn(5, 6, 3, 3), q=drawn(5),
    )  # fmt: skip
    site = find_sites(model)[0][0]
    term = Filters(0.5).compress(site.W())
    lowerings = {site.name: Lowering(way)}
    small = compress_weights(
        model, Plan({site.name: Filters(0.5)}), {site.name: term}, lowerings
    )
    assert shape_of(small, "y") == (5, 3, 3, 3)


def test_a_layer_keeps_one_filter():
    model = graph(
        CHAIN.replace("PADS", "[0, 0, 0, 0]"),
        A=np.zeros((6, 3, 3, 3), np.float32),
        p=drawn(6),
        B=drawn(5, 6, 3, 3),
        q=drawn(5),
    )
    small, _ = remove_filters(model)
    assert shape_of(small, "a") == (1, 3, 3, 3)
    assert_same(model, small, {"x": drawn(1, 3, 8, 8)})


def test_only_named_layers_lose_filters():
    model = graph(
        CHAIN.replace("PADS", "[0, 0, 0, 0]"),
        A=with_zeros(drawn(6, 3, 3, 3), [1]),
        p=drawn(6),
        B=drawn(5, 6, 3, 3),
        q=drawn(5),
    )
    small, removals = remove_filters(model, layers=["y"])
    assert removals == () and shape_of(small, "a") == (6, 3, 3, 3)


def test_filters_that_kept_columns_do_not_read_are_gone():
    model = graph(
        CHAIN.replace("PADS", "[1, 1, 1, 1]"),
        A=drawn(6, 3, 3, 3), p=drawn(6), B=drawn(5, 6, 3, 3), q=drawn(5),
    )  # fmt: skip
    site = find_sites(model)[0][1]
    form = Columns(2)
    term = form.compress(site.W())
    small = compress_weights(model, Plan({site.name: form}), {site.name: term})
    assert shape_of(small, "a") == (2, 3, 3, 3)
    assert {node.op_type for node in small.graph_model.graph} == {"Conv", "Relu"}
    zeroed = model.copied()
    put(zeroed.graph_model.graph, find_sites(zeroed)[0][1].node, 1, term.decompress()[0])
    assert_same(zeroed, small, {"x": drawn(1, 3, 8, 8)})


def test_filters_that_are_stored_in_16_bits_go_and_the_others_stay_so():
    """Factors of a layer before, as a file for ONNX Runtime holds them."""
    W = drawn(40, 16, 3, 3).astype(np.float16).astype(np.float32)
    model = graph(
        """(float[1, 8, 10, 10] x) => (float[1, 4, 6, 6] z)
        { a = Conv(x, A) y = Conv(a, W) r = Relu(y) z = Conv(r, V) }""",
        A=drawn(16, 8, 1, 1),
        W=W,
        V=drawn(4, 40, 3, 3),
    )
    plan = Plan({"y": LowRank(j=8), "z": Columns(keep=12)})
    sites = {site.name: site for site in find_sites(model)[0]}
    terms = {name: plan.form(name).compress(sites[name].W()) for name in plan.changed}
    stored = {name: Lowering("executed", unfolds=True) for name in terms}
    small = compress_weights(model, plan, terms, stored)
    whole = compress_weights(model, plan, terms)
    assert [n.op_type for n in small.graph_model.graph].count("Gather") == 0
    held = small.graph_model.graph.initializers
    u = next(value for name, value in held.items() if "y/u" in name)
    assert (u.dtype, tuple(u.shape)) == (ir.DataType.FLOAT16, (12, 8, 1, 1))
    assert_same(whole, small, {"x": drawn(1, 8, 10, 10)})


def test_a_factored_reader_reads_less():
    model = graph(
        CHAIN.replace("PADS", "[1, 1, 1, 1]"),
        A=drawn(6, 3, 3, 3), p=-np.abs(drawn(6)), B=drawn(5, 6, 3, 3), q=drawn(5),
    )  # fmt: skip
    first, second = find_sites(model)[0]
    plan = Plan({first.name: Filters(3), second.name: LowRank(2)})
    terms = {s.name: plan.form(s.name).compress(s.W()) for s in (first, second)}
    small = compress_weights(model, plan, terms)
    assert shape_of(small, "y/v") == (2, 3, 3, 3)
    zeroed = model.copied()
    for site in find_sites(zeroed)[0]:
        put(zeroed.graph_model.graph, site.node, 1, terms[site.name].decompress()[0])
    assert_same(zeroed, small, {"x": drawn(1, 3, 8, 8)})


def test_a_warning_says_why_filters_stay():
    model = graph(
        "(float[1, 3, 6, 6] x) => (float[1, 6, 6, 6] y) { y = Conv (x, A) }",
        A=drawn(6, 3, 1, 1),
    )
    (site,), _ = find_sites(model)
    term = Filters(2).compress(site.W())
    small = compress_weights(model, Plan({site.name: Filters(2)}), {site.name: term})
    (said,) = small.warnings
    assert said == (
        "layer 'y/filters': 4 of 4 filters of zeros stay: 'y' is an output of the model"
    )


def test_removal_gives_the_same_bytes_twice():
    model = half_zeroed(model_of(onnx.load(ref_model("vggs"))))
    one, two = (ir.to_proto(remove_filters(model)[0].graph_model) for _ in range(2))
    assert one.SerializeToString() == two.SerializeToString()
