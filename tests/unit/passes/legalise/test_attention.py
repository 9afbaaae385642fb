"""Attention in matrix products equals onnx's own reference and ONNX Runtime."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from lowered import OLD, lowered, one_node, profile, relative, run
from nncc.passes.check import check

CLOSE = 5e-6  # sums of some dozen products in another order, then a softmax


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compare(inputs, target="jetson-nano", opset=23, outputs=1, free=("q", "k", "v"), **given):
    """Lowered against the reference that onnx defines the operator by."""
    names = {"q": None, "k": None, "v": None, "mask": None, "pk": None, "pv": None}
    if opset >= 24:
        names["valid"] = None
    names.update(inputs)
    while list(names.values())[-1] is None:
        names.popitem()
    constants = [n for n, a in inputs.items() if a is not None and n not in free]
    model = one_node(
        "Attention", names, opset=opset, outputs=outputs, constants=constants, **given
    )
    for value in model.graph.input[:3]:  # heads and their size are always known
        dims, array = value.type.tensor_type.shape.dim, inputs[value.name]
        for at in (1, 3) if array.ndim == 4 else (2,):
            dims[at].dim_value = array.shape[at]
    device = profile(target)
    done, made = lowered(model, device)
    assert not done.refused, done.refused
    assert not check(done.model, device)
    feeds = {n: a for n, a in inputs.items() if a is not None and n not in constants}
    want = ReferenceEvaluator(model).run(None, feeds)
    got = run(made, feeds)
    return max(relative(np.asarray(a, b.dtype), b) for a, b in zip(want, got, strict=True))


def qkv(heads=4, shared=None, rows=5, columns=7, size=8):
    shared = shared or heads
    return {
        "q": draw(1, 2, heads, rows, size),
        "k": draw(2, 2, shared, columns, size),
        "v": draw(3, 2, shared, columns, size + 2),
    }


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("given", [{}, {"scale": 0.3}, {"softcap": 0.7}, {"is_causal": 1}])
@pytest.mark.parametrize("shared", [4, 2, 1])
def test_heads_of_their_own_and_shared_ones(target, given, shared):
    assert compare(qkv(shared=shared), target, **given) < CLOSE


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("shared", [4, 2])
def test_flat_heads(target, shared):
    x = {
        "q": draw(1, 2, 5, 4 * 8),
        "k": draw(2, 2, 7, shared * 8),
        "v": draw(3, 2, 7, shared * 6),
    }
    assert compare(x, target, q_num_heads=4, kv_num_heads=shared) < CLOSE


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("causal", [0, 1])
def test_masks(target, kind, constant, causal):
    allowed = np.random.default_rng(0).random((2, 1, 5, 7)) > 0.3
    allowed[..., 0] = True
    mask = allowed if kind == "bool" else draw(5, 2, 1, 5, 7) + np.where(allowed, 0, -np.inf)
    mask = mask.astype(bool if kind == "bool" else np.float32)
    free = ("q", "k", "v") if constant else ("q", "k", "v", "mask")
    x = {**qkv(), "mask": mask}
    assert compare(x, target, free=free, is_causal=causal) < CLOSE


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("causal", [0, 1])
def test_a_row_that_may_attend_to_nothing_is_zero(kind, constant, causal):
    allowed = np.ones((5, 7), bool)
    allowed[2] = False
    allowed[3, :5] = False  # nothing is left of it below the diagonal
    mask = allowed if kind == "bool" else np.where(allowed, 0, -np.inf).astype(np.float32)
    free = ("q", "k", "v") if constant else ("q", "k", "v", "mask")
    assert compare({**qkv(), "mask": mask}, free=free, is_causal=causal) < CLOSE


@pytest.mark.parametrize("causal", [0, 1])
def test_a_cache_of_keys_and_values(causal):
    x = qkv(rows=3, columns=3)
    x |= {"mask": None, "pk": draw(7, 2, 4, 5, 8), "pv": draw(8, 2, 4, 5, 10)}
    free = ("q", "k", "v", "pk", "pv")
    assert compare(x, outputs=3, free=free, is_causal=causal) < CLOSE


@pytest.mark.parametrize("causal", [0, 1])
def test_lengths_of_padded_keys(causal):
    x = {**qkv(), "valid": np.array([7, 4], np.int64)}
    assert compare(x, opset=24, free=("q", "k", "v", "valid"), is_causal=causal) < CLOSE


@pytest.mark.parametrize(("mode", "given"), [(0, {}), (1, {"softcap": 0.5}), (3, {})])
def test_scores_as_an_output(mode, given):
    model = qkv()
    names = {**model}
    proto = one_node(
        "Attention", names, opset=23, outputs=4, dynamic=False, qk_matmul_output_mode=mode,
        **given,
    )  # fmt: skip
    for name in ("y1", "y2"):
        proto.graph.output.remove(next(v for v in proto.graph.output if v.name == name))
    done, made = lowered(proto, profile())
    assert not done.refused
    want = ReferenceEvaluator(proto).run(None, names)
    for a, b in zip(want, run(made, names), strict=True):
        assert relative(np.asarray(a, b.dtype), b) < CLOSE


def test_shared_heads_are_not_copied():
    x = qkv(shared=1)
    model = one_node("Attention", x, opset=23, dynamic=False)
    _, made = lowered(model, profile())
    operators = {node.op_type for node in made.graph.node}
    assert not operators & {"Expand", "Tile", "Concat", "Gather"}


def test_masked_scores_as_an_output_are_refused():
    proto = one_node(
        "Attention", qkv(), opset=23, outputs=4, dynamic=False, qk_matmul_output_mode=2
    )
    (refusal,) = lowered(proto, profile())[0].refused
    assert "masked scores" in refusal.reason


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("looked_up", [False, True])
def test_rotary_embedding_equals_the_reference(target, interleaved, turned, flat, looked_up):
    n, t, heads, size = 2, 5, 3, 8
    angles = draw(1, *((9,) if looked_up else (n, t)), (turned or size) // 2)
    x = draw(2, n, t, heads * size) if flat else draw(2, n, heads, t, size)
    inputs = {"x": x, "cos": np.cos(angles), "sin": np.sin(angles)}
    if looked_up:
        inputs["at"] = np.random.default_rng(0).integers(0, 9, (n, t))
    given = {"interleaved": interleaved, "rotary_embedding_dim": turned}
    if flat:
        given["num_heads"] = heads
    model = one_node("RotaryEmbedding", inputs, opset=23, **given)
    model.graph.input[0].type.tensor_type.shape.dim[x.ndim - 1].dim_value = x.shape[-1]
    done, made = lowered(model, profile(target))
    assert not done.refused, done.refused
    assert not check(done.model, profile(target))
    (want,) = ReferenceEvaluator(model).run(None, inputs)
    assert relative(want, run(made, inputs)[0]) < 1e-6
