"""Decoding: a runtime unfolds exactly what was packed, once, while it loads the model."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nncc.passes.decode import (
    corrected_matrix,
    matrix,
    no_codes,
    packed_codes,
    packed_width,
    scattered,
    with_fillers,
)
from nncc.passes.emitter import SiteEmitter
from nncc.passes.forms import Dense, parse


def unfolded(tmp_path, emit, opset=11):
    """The matrix that ONNX Runtime computes, the nodes it is left with, the file's bytes."""
    emitter = SiteEmitter("layer", ir.DataType.FLOAT, set(), {})
    out = emit(emitter)
    graph = ir.Graph(
        [],
        [out],
        nodes=emitter.nodes,
        initializers=emitter.initializers,
        opset_imports={"": opset},
        name="decode",
    )
    proto = ir.to_proto(ir.Model(graph, ir_version=7))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = ort.InferenceSession(proto.SerializeToString(), options)
    left = len(onnx.load(tmp_path / "optimised.onnx").graph.node)
    return session.run(None, {})[0], left, proto.ByteSize()


def example(levels, shape, kept, seed=0):
    rng = np.random.default_rng(seed)
    codebook = np.sort(rng.standard_normal(levels)).astype(np.float32)
    index = rng.integers(0, levels, shape)
    at = np.sort(rng.choice(index.size, round(kept * index.size), replace=False))
    values = rng.standard_normal(at.size).astype(np.float16)
    return codebook, index, at, values


def corrections(shape, at, values):
    S = np.zeros(shape, np.float32)
    S.ravel()[at] = values
    return S


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5, 16, 17, 256, 300])
@pytest.mark.parametrize("shape", [(3, 7), (64, 576)])
def test_codes_unfold_to_their_levels(tmp_path, levels, shape):
    codebook, index, _, _ = example(levels, shape, 0)

    W, left, _ = unfolded(
        tmp_path, lambda e: matrix(e, packed_codes(e, index, codebook), shape)
    )

    np.testing.assert_array_equal(W, codebook[index])
    assert left == 0


@pytest.mark.parametrize("levels", [2, 3, 16])
@pytest.mark.parametrize("kept", [0, 0.0003, 0.01, 0.05, 0.5, 1])
@pytest.mark.parametrize("shape", [(3, 7), (101, 409)])
def test_corrections_are_added_where_they_belong(tmp_path, levels, kept, shape):
    codebook, index, at, values = example(levels, shape, kept)

    W, left, _ = unfolded(
        tmp_path,
        lambda e: corrected_matrix(e, packed_codes(e, index, codebook), at, values, shape),
    )

    np.testing.assert_array_equal(W, codebook[index] + corrections(shape, at, values))
    assert left == 0


@pytest.mark.parametrize("kept", [0, 0.01, 0.3])
def test_corrections_stand_on_zeros_too(tmp_path, kept):
    shape = (101, 409)
    _, _, at, values = example(2, shape, kept)

    W, left, _ = unfolded(
        tmp_path, lambda e: corrected_matrix(e, no_codes(e, 101 * 409), at, values, shape)
    )

    np.testing.assert_array_equal(W, corrections(shape, at, values))
    assert left == 0


def test_corrections_are_added_to_any_matrix(tmp_path):
    shape = (5, 9)
    _, _, at, values = example(2, shape, 0.3)
    base = np.random.default_rng(1).standard_normal(shape).astype(np.float32)

    W, _, _ = unfolded(
        tmp_path, lambda e: scattered(e, e.stored(base, "base"), at, values, shape)
    )

    np.testing.assert_array_equal(W, base + corrections(shape, at, values))


def test_one_bit_and_one_percent_take_less_than_1_32_bits_a_weight_in_the_file(tmp_path):
    # 1 bit, and for every correction 16 bits of value, 4 of place, 8 of gap (0.97 words each).
    shape = (1024, 2304)
    codebook, index, at, values = example(2, shape, 0.01)

    _, _, size = unfolded(
        tmp_path,
        lambda e: corrected_matrix(e, packed_codes(e, index, codebook), at, values, shape),
    )

    assert 8 * size / index.size < 1.32


def test_a_byte_holds_as_many_weights_as_it_can():
    for levels in range(2, 257):
        width = packed_width(levels)
        assert levels**width <= 256 < levels ** (width + 1)


TERMS = (
    *(f"quantize(k={k})" for k in (2, 3, 4, 8, 16, 32, 64, 128, 256)),
    "quantize(k=4, per=channel)",
    "quantize(k=3, per=group, group=5)",
    "quantize(k=4, scale=row)",
    *(f"affine(bits={bits}, per=channel)" for bits in (2, 3, 4, 8)),
    "affine(bits=4, per=group, group=16, symmetric=1)",
    "binary(per=channel)",
    "ternary",
    "powers(bits=3)",
    "half",
    "prune(kappa=5%)",
    "pattern(n=2, m=4)",
    "columns(keep=3)",
    "filters(keep=3)",
    "quantize(k=2) + prune(kappa=5%)",
    "quantize(k=2) + prune(kappa=5%) + lowrank(j=2)",
    "lowrank(j=2)",
    "lowrank(j=2, u=quantize(k=2)+prune(kappa=10%), v=affine(bits=8))",
    "blocks(k=2, lowrank(j=2))",
    "folded(scheme=1, lowrank(j=2))",
    "tucker2(outputs=3, inputs=2)",
    "tt(ranks=(2, 3))",
    "tt(ranks=(2, 3), cores=quantize(k=4))",
    "tt_matrix(ranks=(2, 3))",
)


@pytest.mark.parametrize("shape", [(1, 12, 16, 3, 3), (2, 9, 8, 3)], ids=["whole", "grouped"])
@pytest.mark.parametrize("form", TERMS)
def test_every_term_unfolds_to_what_it_says_and_leaves_no_node(tmp_path, form, shape):
    W = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    term = parse(form).compress(W)

    found, left, _ = unfolded(tmp_path, term.decode)

    expected = term.decompress().reshape(shape[0] * shape[1], -1)
    assert left == 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("form", ["quantize(k=2)", "affine(bits=3)", "ternary", "half"])
def test_codes_need_nothing_newer_than_opset_9(tmp_path, form):
    W = np.random.default_rng(3).standard_normal((1, 12, 16, 3, 3)).astype(np.float32)
    term = parse(form).compress(W)

    found, left, _ = unfolded(tmp_path, term.decode, opset=9)

    np.testing.assert_array_equal(found, term.decompress().reshape(12, -1))
    assert left == 0


def test_a_dense_weight_has_nothing_to_unfold():
    emitter = SiteEmitter("layer", ir.DataType.FLOAT, set(), {})

    assert Dense().compress(np.ones((1, 2, 3), np.float32)).decode(emitter) is None


def test_long_gaps_are_bridged_by_fillers():
    rng = np.random.default_rng(0)
    for n in (1, 50, 3000):
        positions = np.sort(rng.choice(2_000_000, n, replace=False))
        filled = with_fillers(positions, 2)
        gaps = np.diff(filled, prepend=0)
        assert set(positions) <= set(filled.tolist())
        assert len(set(filled.tolist())) == len(filled)
        assert gaps.min() >= 0
        assert gaps.max() <= 65535
