"""Quantised forms: closed forms, counts, and decoding in ONNX Runtime."""

import dataclasses
import json
from itertools import product as all_of

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from layers import layers
from nncc.device_profiles.errors import PlanError
from nncc.passes.emitter import SiteEmitter
from nncc.passes.forms import squared_error
from nncc.passes.forms.codes.affine import Affine
from nncc.passes.forms.codes.codebook import Binary, Powers, Ternary
from nncc.passes.forms.codes.half import Half
from nncc.passes.forms.codes.kmeans import kmeans
from nncc.passes.forms.codes.quantize import Quantize
from nncc.passes.forms.codes.quantize_packing import pack, planes
from nncc.passes.model import Model
from nncc.passes.sites import find_sites

FORMS = [
    *(Quantize(k) for k in (2, 3, 4, 5, 8, 11, 16, 23, 256)),
    Quantize(2, "channel"),
    Quantize(8, "channel"),
    Quantize(3, "group", 16),
    Quantize(8, scale="row"),
    Quantize(4, scale="group", group=20),
    Binary(),
    Binary(scaled=0),
    Binary("channel"),
    Ternary(),
    Ternary("channel"),
    Powers(2),
    Powers(4),
    Powers(3, "channel"),
    *(Affine(bits) for bits in (2, 3, 4, 8)),
    Affine(4, "layer"),
    Affine(3, "group", 16),
    Affine(4, symmetric=1),
    Half(),
]
IDS = [repr(form) for form in FORMS]


def weight(*shape, seed=0):
    W = np.random.default_rng(seed).standard_normal(shape)
    return (
        0.1 * W * np.linspace(0.5, 2, shape[1])[:, None][(...,) + (None,) * (len(shape) - 3)]
    ).astype(np.float32)


def unfolded(term, opset, tmp_path):
    """What decode computes in ONNX Runtime, and the operators of the optimised graph."""
    rows, n = term.shape[0] * term.shape[1], int(np.prod(term.shape[2:]))
    emitter = SiteEmitter("layer", ir.DataType.FLOAT, set(), {})
    W = term.decode(emitter)
    x = ir.Value(name="x", shape=ir.Shape([n, n]), type=ir.TensorType(ir.DataType.FLOAT))
    y = emitter.node("MatMul", [W, x], "y")
    y.shape = ir.Shape([rows, n])
    graph = ir.Graph(
        [x],
        [y],
        nodes=emitter.nodes,
        initializers=emitter.initializers,
        opset_imports={"": opset},
        name="decode",
    )
    proto = ir.to_proto(ir.Model(graph, ir_version=5))
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = ort.InferenceSession(proto.SerializeToString(), options)
    (got,) = session.run(None, {"x": np.eye(n, dtype=np.float32)})
    left = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    return got, left


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_decoding_gives_the_weight_and_folds_away(form, opset, tmp_path):
    term = form.compress(weight(2, 6, 5, 3, 3))
    got, left = unfolded(term, opset, tmp_path)
    np.testing.assert_allclose(got, term.decompress().reshape(12, 45), rtol=1e-6, atol=1e-9)
    assert left == ["MatMul"]


@pytest.mark.parametrize(
    "form", [Quantize(8, scale="row"), Affine(3, "group", 16), Ternary("channel"), Half()]
)
def test_every_kind_of_layer_is_taken_and_never_made_worse(form):
    for layer in layers():
        (site,), _ = find_sites(Model(ir.from_proto(layer.model), layer.name, "0" * 64))
        W = site.W()
        start = Quantize(40).compress(W)
        term = form.compress(W, start)
        assert term.shape == W.shape
        assert squared_error(W, term) <= squared_error(W, start)


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_compress_twice_gives_the_same_read_only_bytes(form):
    W = weight(1, 12, 40)
    one, two = form.compress(W).arrays(), form.compress(W.copy()).arrays()
    assert {k: a.tobytes() for k, a in one.items()} == {k: a.tobytes() for k, a in two.items()}
    for array in (*one.values(), form.compress(W).decompress()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_fields_survive_json(form):
    fields = dataclasses.asdict(form)
    assert type(form)(**json.loads(json.dumps(fields))) == form


# Codes of 512 weights in 8 rows of 64, and what stands beside them (LC part V, eq. 8).
@pytest.mark.parametrize(
    ("form", "bits", "mults"),
    [
        (Quantize(2), 512 * 1 + 2 * 32, 2 * 8),
        (Quantize(5), 512 * 3 + 5 * 32, 5 * 8),
        (Quantize(16), 512 * 4 + 16 * 32, 16 * 8),
        (Quantize(4, "channel"), 512 * 2 + 8 * 4 * 32, 4 * 8),
        (Quantize(4, "group", 16), 512 * 2 + 8 * 4 * 4 * 32, 4 * 8 * 4),
        (Quantize(8, scale="row"), 512 * 3 + 8 * 32 + 8 * 16, 8 * 8 + 8),
        (Quantize(8, scale="group", group=32), 512 * 3 + 8 * 32 + 16 * 16, 16 * 8 + 16),
        (Binary(scaled=0), 512, 0),
        (Binary(), 512 + 32, 8),
        (Binary("channel"), 512 + 8 * 16, 8),
        (Ternary(), 512 * 2 + 32, 8),
        (Ternary("channel"), 512 * 2 + 8 * 16, 8),
        (Affine(4), 512 * 4 + 8 * 2 * 16, 16 * 8 + 8),
        (Affine(3, "group", 16, 1), 512 * 3 + 32 * 16, 8 * 32 + 32),
        (Affine(2, "layer"), 512 * 2 + 2 * 16, 4 * 8 + 8),
        (Half(), 512 * 16, 512),
    ],
    ids=repr,
)
def test_bits_and_multiplications_are_those_of_the_paper(form, bits, mults):
    cost = form.compress(weight(1, 8, 64)).cost()
    assert (cost.bits, cost.mults) == (bits, mults)
    assert 512 <= cost.adds <= 512 + 32


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_stored_bytes_are_at_most_the_counted_bits(form):
    term = form.compress(weight(1, 12, 40))
    stored = 8 * sum(array.nbytes for array in term.arrays().values())
    # Whole bytes: a tail of a few codes is the only excess.
    assert stored <= term.cost().bits + 64


@pytest.mark.parametrize("k", [*range(1, 34), 63, 64, 65, 128, 129, 255, 256])
def test_packed_codes_take_no_more_than_their_bits(k):
    codes = np.random.default_rng(k).integers(0, k, (7, 1001)).astype(np.uint8)
    packed = pack(codes, k)
    parts = [
        plane.table()[array].reshape(-1)
        for plane, array in zip(planes(k), packed.bytes_, strict=True)
    ]
    np.testing.assert_array_equal(
        np.concatenate([np.sum(parts, axis=0), packed.tail]), codes.ravel()
    )
    size = 8 * sum(array.size for array in packed.bytes_)
    assert size <= codes.size * max((k - 1).bit_length(), 1)
    assert packed.tail.size < 8


def test_an_adaptive_codebook_is_the_exact_one():
    W = weight(1, 12, 40)
    term = Quantize(5).compress(W)
    assert squared_error(W, term) == pytest.approx(kmeans(W, 5).error, rel=1e-5)
    rows = Quantize(5, "channel").compress(W)
    expected = sum(kmeans(row, 5).error for row in W[0])
    assert squared_error(W, rows) == pytest.approx(expected, rel=1e-5)
    parts = Quantize(3, "group", 16).compress(W)
    groups = (row[at : at + 16] for row in W[0] for at in (0, 16, 32))
    assert squared_error(W, parts) == pytest.approx(
        sum(kmeans(g, 3).error for g in groups), rel=1e-5
    )


def test_row_scales_beat_one_codebook_where_rows_differ():
    W = weight(1, 32, 128)
    plain, scaled = Quantize(8).compress(W), Quantize(8, scale="row").compress(W)
    grouped = Quantize(8, scale="group", group=32).compress(W)
    assert squared_error(W, scaled) < 0.8 * squared_error(W, plain)
    assert squared_error(W, grouped) < squared_error(W, scaled)


def exhaustive(w, levels_of, grid):
    """The least error over all scales on a fine grid."""
    errors = [((w[:, None] - levels_of(c)) ** 2).min(axis=1).sum() for c in grid]
    return min(errors)


def test_binarisation_is_its_closed_form():
    W = weight(1, 4, 33)
    term = Binary().compress(W)
    c = np.abs(W).mean(dtype=np.float64)
    np.testing.assert_allclose(term.decompress(), np.where(W > 0, c, -c), rtol=1e-6)
    rows = Binary("channel").compress(W)
    c = np.abs(W).mean(axis=2, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(rows.decompress(), np.where(W > 0, c, -c), rtol=1e-3)
    bare = Binary(scaled=0).compress(W)
    np.testing.assert_array_equal(bare.decompress(), np.where(W > 0, 1, -1))
    # All signs of a small weight.
    w = W[0, 0, :6].astype(np.float64)
    signs = np.array(list(all_of((-1, 1), repeat=6)))
    gain = (signs @ w) ** 2 / 6
    small = Binary().compress(W[:, :1, :6])
    assert squared_error(W[:, :1, :6], small) == pytest.approx((w @ w) - gain.max(), rel=1e-6)


def test_ternarisation_is_the_best_of_all_assignments():
    for seed in range(5):
        W = weight(1, 1, 8, seed=seed)
        w = W.ravel().astype(np.float64)
        T = np.array([t for t in all_of((-1, 0, 1), repeat=8) if any(t)])
        gain = (T @ w) ** 2 / (T * T).sum(axis=1)
        term = Ternary().compress(W)
        assert squared_error(W, term) == pytest.approx(w @ w - gain.max(), rel=1e-5)
        # One row: its scale is a float16, which may cost half a unit in its last place.
        row = Ternary("channel").compress(W)
        assert squared_error(W, row) == pytest.approx(w @ w - gain.max(), rel=1e-3)


def test_powers_of_two_are_the_best_powers_of_two():
    W = weight(1, 3, 50)
    w = W.ravel().astype(np.float64)
    codebook = np.array([0, 1, 0.5, 0.25, -1, -0.5, -0.25])
    best = exhaustive(w, lambda e: codebook * 2.0**e, range(-20, 5))
    term = Powers(3).compress(W)
    assert squared_error(W, term) == pytest.approx(best, rel=1e-6)
    levels = np.unique(np.abs(term.decompress()))
    mantissa, _ = np.frexp(levels[levels > 0])
    assert (mantissa == 0.5).all()


def test_an_affine_grid_is_clipped_where_it_pays():
    W = weight(1, 16, 256)
    for bits, share in ((2, 0.7), (3, 0.85), (4, 0.95)):
        term = Affine(bits).compress(W)
        low, high = W.min(axis=2, keepdims=True), W.max(axis=2, keepdims=True)
        s = (high - low) / (2**bits - 1)
        naive = W - (np.rint((W - low) / s) * s + low)
        assert squared_error(W, term) < share * float(np.vdot(naive, naive))


def test_an_affine_grid_is_near_the_best_of_all_ranges():
    W = weight(1, 1, 40)
    w = W.ravel().astype(np.float64)
    least = min(
        exhaustive(w, lambda s, b=bottom: b + s * np.arange(4), np.linspace(0.01, 0.2, 200))
        for bottom in np.linspace(-0.4, 0.0, 200)
    )
    assert squared_error(W, Affine(2).compress(W)) <= 1.05 * least


def test_symmetric_codes_keep_zero_and_no_zero_point():
    W = weight(1, 4, 64)
    W[..., ::7] = 0
    term = Affine(4, symmetric=1).compress(W)
    assert "zero" not in term.arrays()
    assert not term.decompress()[..., ::7].any()


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1e4])
def test_scales_survive_float16_whatever_the_size_of_the_weights(size):
    W = weight(1, 8, 64)
    for form in (
        Quantize(8, scale="row"),
        Binary("channel"),
        Ternary("channel"),
        Powers(4, "channel"),
        Affine(4),
        Affine(4, symmetric=1),
    ):
        usual = squared_error(W, form.compress(W))
        V = (W * np.float32(size)).astype(np.float32)
        term = form.compress(V)
        relative = squared_error(V, term) / float(np.vdot(V, V.astype(np.float64)))
        # Powers of two move with the size by up to one octave.
        room = 3.0 if isinstance(form, Powers) else 1.05
        assert relative <= room * usual / float(np.vdot(W, W.astype(np.float64)))


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_weights_that_are_all_alike_are_met(form):
    for value in (0.0, 0.25, -0.25):
        W = np.full((1, 4, 10), value, np.float32)
        got = form.compress(W).decompress()
        if isinstance(form, Binary) and not form.scaled:
            continue
        np.testing.assert_allclose(got, W, rtol=1e-3, atol=1e-7)


def test_float16_clips_what_it_cannot_hold():
    W = np.array([[[1e6, -1e6, 0.1]]], np.float32)
    expected = np.array([[[65504, -65504, np.float16(0.1)]]], np.float32)
    np.testing.assert_array_equal(Half().compress(W).decompress(), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantize(1), "form 'quantize' has 1 levels; choose 2 … 256"),
        (lambda: Quantize(257), "has 257 levels"),
        (lambda: Quantize(2, "row"), "per=row; choose layer, channel, group"),
        (lambda: Quantize(2, "group"), "groups of group=0 weights; choose group ≥ 1"),
        (lambda: Quantize(2, group=8), "group=8, but nothing is per group"),
        (lambda: Quantize(2, "channel", scale="row"), "scale=row beside per=channel"),
        (lambda: Affine(9), "bits=9; choose 2 … 8"),
        (lambda: Affine(4, symmetric=2), "symmetric=2; choose 0 or 1"),
        (lambda: Binary("channel", 0), "scaled=0 beside per=channel"),
        (lambda: Ternary("group"), "per=group; choose layer, channel"),
        (lambda: Powers(6), "bits=6; choose 2 … 5"),
    ],
)
def test_fields_that_contradict_each_other_are_named(make, message):
    with pytest.raises(PlanError, match=message):
        make()
