"""Packed products: exact, set to float32 arithmetic, and only where they are faster."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from layers import product
from nncc.device_profiles.registry import load
from nncc.passes.forms import Affine, CodedTerm, Quantize, Sum, Ternary
from nncc.passes.forms.codes.quantize_levels import Levels
from nncc.passes.forms.sparse.prune import Prune
from nncc.passes.lowering import Lowering, lowering
from nncc.passes.model import Model
from nncc.passes.packed import packed
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites

PER_CHANNEL = Affine(4, per="channel", symmetric=1)
PER_GROUP = Affine(4, per="group", group=32, symmetric=1)
LAYERS = {
    "matmul": product("matmul", m=96, n=160),
    "rows": product("rows", m=31, n=70, rows=(2, 3)),
    "gemm": product("gemm", m=40, n=64, gemm={"transB": 1, "alpha": 0.5}),
    "beta": product("beta", m=40, n=65, gemm={"beta": 2.0}),
}
LARGE = product("large", m=512, n=512, rows=(1,))


def modelled(layer):
    model = Model(ir.from_proto(layer.model), layer.name, "0" * 64)
    (site,), _ = find_sites(model)
    return model, site


def written(model, site, form, term, way):
    made = compress_weights(
        model, Plan({site.name: form}), {site.name: term}, {site.name: Lowering(way)}
    )
    return ir.to_proto(made.graph_model)


def run(proto, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return np.asarray(
        ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)[0]
    )


@pytest.mark.parametrize("form", [PER_CHANNEL, PER_GROUP], ids=["channel", "group"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_packed_product_is_the_dense_one(layer, form):
    model, site = modelled(layer)
    term = form.compress(site.W())

    proto = written(model, site, form, term, "packed")
    expected = run(written(model, site, form, term, "dense"), layer.feeds)

    (node,) = (n for n in proto.graph.node if n.op_type == "MatMulNBits")
    assert {a.name: a.i for a in node.attribute}["accuracy_level"] == 1
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(proto, layer.feeds), expected, atol=1e-5 * scale)


def test_integer_zero_points_are_packed_too():
    model, site = modelled(LAYERS["rows"])
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (31, 70)).astype(np.uint8)
    scale = rng.uniform(0.1, 1, (31, 3)).astype(np.float16)
    zero = rng.integers(0, 16, (31, 3)).astype(np.float16)
    book = np.arange(16, dtype=np.float32)[None, None]
    term = CodedTerm((1, 31, 70), codes, Levels(book, scale, zero, 32, 0))

    found = run(written(model, site, PER_GROUP, term, "packed"), LAYERS["rows"].feeds)

    expected = run(written(model, site, PER_GROUP, term, "dense"), LAYERS["rows"].feeds)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "form",
    [
        Affine(4, per="channel"),  # zero points between integers
        Affine(8, per="channel", symmetric=1),
        Quantize(16),
        Ternary(),
        Sum((PER_CHANNEL, Prune(0.01))),
    ],
    ids=["zero points", "8 bits", "codebook", "ternary", "sum"],
)
def test_what_the_operator_cannot_say_exactly_is_not_packed(form):
    _, site = modelled(LAYERS["matmul"])

    assert packed(site, form.compress(site.W())) is None


def test_a_large_product_of_few_rows_is_packed_on_x86_and_nowhere_else():
    model, site = modelled(LARGE)
    term = PER_CHANNEL.compress(site.W())

    found = lowering(site, term, model, load("x86-cpu"), is_executed=False)
    elsewhere = [
        lowering(site, term, model, load(name), is_executed=False).way
        for name in ("raspberry-pi-5", "jetson-orin-nano")
    ]

    assert found.way == "packed"
    assert found.stored_bytes == 512 * 512 // 2 + 4 * 512 * 4  # codes; a scale a block of 128
    assert elsewhere == ["folded", "dense"]


def test_a_small_product_is_folded_since_packing_would_be_slower():
    model, site = modelled(LAYERS["matmul"])
    term = PER_CHANNEL.compress(site.W())

    assert lowering(site, term, model, load("x86-cpu"), is_executed=False).way == "folded"
