"""Attention and rotary positions in matrix products, written for parsers that have neither."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .known import Refused, dtype_of, first_of, input_of, is_used, known, rank_of, sizes_of
from .lowering import Builder, Lowering
from .masks import Size, counted, size_of, triangle

LOWEST = -65504.0
"""What a masked score becomes: the least that half precision holds. e^LOWEST is 0 in both
precisions, and unlike −∞ it leaves a number where a whole row is masked."""


@dataclass(frozen=True)
class _Bias:
    """What is done to the scores before the softmax.

    Args:
        allowed: bool, where attention may go; None is everywhere.
        added: float, added to the scores; None is nothing.
        empty: whether a row may have nowhere to go, and must then be zero.
    """

    allowed: ir.Value | None
    added: ir.Value | None
    empty: bool


def attention(node: ir.Node, b: Builder) -> Sequence[ir.Value | None]:
    """Attention: softmax(Q Kᵀ · scale, masked) V, heads shared or not, a cache or not.

    Q is scaled before the product, so that half precision does not overflow in it. Shared
    key-value heads are not copied: the queries that share one are stacked as its rows.
    """
    q, k, v = (first_of(node, at) for at in range(3))
    _refuse_unlike(node)
    flat = rank_of(q) == 3
    q = _heads(b, q, node.attributes.get_int("q_num_heads", 0))
    many = node.attributes.get_int("kv_num_heads", 0)
    k, v = _heads(b, k, many), _heads(b, v, many)
    past_k, past_v = input_of(node, 4), input_of(node, 5)
    past: Size = 0
    if past_k is not None and past_v is not None:
        past = size_of(b, past_k, 2)
        k, v = (b.op("Concat", *pair, axis=2) for pair in ((past_k, k), (past_v, v)))
    bias = _bias(node, b, q, k, past)
    scaled = b.op("Mul", q, _scale(node, q))
    heads, shared = _sharing(q, k)
    scores = _product(b, scaled, b.transpose(k, (0, 1, 3, 2)), heads, shared)
    raw = scores
    softcap = node.attributes.get_float("softcap", 0.0)
    if softcap:
        scores = b.op("Mul", b.op("Tanh", b.op("Div", scores, softcap)), softcap)
    capped = scores
    if bias.added is not None:
        scores = b.op("Add", scores, bias.added)
    if bias.allowed is not None:
        scores = b.op("Where", bias.allowed, scores, b.constant(LOWEST, like=scores))
    weights = _softmax(node, b, scores)
    if bias.empty:
        weights = _without_empty_rows(b, weights, bias)
    y = _product(b, weights, v, heads, shared)
    if flat:
        y = b.reshape(b.transpose(y, (0, 2, 1, 3)), [0, 0, -1])
    mode = node.attributes.get_int("qk_matmul_output_mode", 0)
    told = {0: raw, 1: capped, 3: weights}.get(mode)
    return y, k, v, told


def _refuse_unlike(node: ir.Node) -> None:
    mode = node.attributes.get_int("qk_matmul_output_mode", 0)
    if is_used(node, 3) and mode == 2:
        raise Refused("its masked scores are an output", "re-export without that output")
    for name in ("left_window_size", "right_window_size"):
        if node.attributes.get_int(name, -1) >= 0:
            raise Refused(f"it has {name}", "re-export with the window in the mask")


def _heads(b: Builder, x: ir.Value, heads: int) -> ir.Value:
    """(batch, heads, length, size), from (batch, length, heads · size) where it is flat."""
    if rank_of(x) != 3:
        return x
    if heads <= 0:
        raise Refused("its number of heads is missing", "re-export it with 4-D inputs")
    return b.transpose(b.reshape(x, [0, 0, heads, -1]), (0, 2, 1, 3))


def _scale(node: ir.Node, q: ir.Value) -> float:
    """What the scores are multiplied by; 1/√size of a head unless given."""
    given = node.attributes.get("scale")
    if given is not None:
        return given.as_float()
    sizes = sizes_of(q)
    if sizes is None or sizes[-1] is None:
        raise Refused("the size of its heads is dynamic", "re-export it with a fixed scale")
    return 1 / math.sqrt(sizes[-1])


def _sharing(q: ir.Value, k: ir.Value) -> tuple[int, int]:
    """Query heads, and key-value heads where they are fewer (0 where they are not)."""
    own, theirs = ((sizes_of(x) or (None, None))[1] for x in (q, k))
    if own is None or theirs is None:
        raise Refused("its number of heads is dynamic", "fix the number of heads")
    if own % theirs:
        raise Refused(f"{own} query heads do not share {theirs} evenly", "check the model")
    return own, theirs if own != theirs else 0


def _product(b: Builder, x: ir.Value, y: ir.Value, heads: int, shared: int) -> ir.Value:
    """x @ y by head, where `x` has `heads` and `y` has `shared` of them (0: as many)."""
    if not shared:
        return b.op("MatMul", x, y)
    made = b.op("MatMul", b.reshape(x, [0, shared, -1, 0]), y)
    return b.reshape(made, [0, heads, -1, 0])


def _softmax(node: ir.Node, b: Builder, scores: ir.Value) -> ir.Value:
    """In float32 where softmax_precision asks for it, back in the type of the scores."""
    asked = node.attributes.get_int("softmax_precision", 0)
    wide = b.cast(scores, ir.DataType.FLOAT) if asked == ir.DataType.FLOAT else scores
    return b.cast(b.softmax(wide, axis=rank_of(wide) - 1), dtype_of(scores))


def _bias(node: ir.Node, b: Builder, q: ir.Value, k: ir.Value, past: Size) -> _Bias:
    """The mask, the causal frontier j ≤ i + offset, and the padding, of all keys."""
    mask, valid = input_of(node, 3), input_of(node, 6)
    causal = node.attributes.get_int("is_causal", 0) == 1
    allowed: list[ir.Value] = []
    added, empty = None, valid is not None or (causal and mask is not None)
    if mask is not None:
        mask = _widened(b, mask, k)
        array = known(mask)
        if dtype_of(mask) == ir.DataType.BOOL:
            allowed.append(mask)
            open_rows = array is not None and array.any(-1).all()
        else:
            added = mask
            open_rows = array is not None and np.isfinite(array).any(-1).all()
        empty = empty or not open_rows
    rows, columns = size_of(b, q, 2), size_of(b, k, 2)
    if valid is not None:
        length = b.reshape(b.cast(valid, ir.DataType.INT64), [-1, 1, 1, 1])
        across = counted(b, columns)
        allowed.append(b.op("Less", across, length))
        if causal:
            down = b.unsqueeze(counted(b, rows), [1])
            offset = b.op("Sub", length, b.shape_of(q, 2, 3))
            allowed.append(b.op("Less", across, b.op("Add", b.op("Add", down, 1), offset)))
    elif causal:
        allowed.append(triangle(b, rows, columns, past, upper=False))
    both = allowed[0] if allowed else None
    for more in allowed[1:]:
        both = b.op("And", both, more)
    return _Bias(both, added, empty)


def _widened(b: Builder, mask: ir.Value, k: ir.Value) -> ir.Value:
    """A mask shorter than the keys masks the rest; opset 24."""
    if b.opset < 24:
        return mask
    have, want = (sizes_of(mask) or (None,))[-1], (sizes_of(k) or (None, None, None))[2]
    if have is None or want is None or have >= want:
        return mask
    raise Refused(f"its mask covers {have} of {want} keys", "re-export with a full mask")


def _without_empty_rows(b: Builder, weights: ir.Value, bias: _Bias) -> ir.Value:
    """Zero where nothing is allowed: such a row would be even, or not a number."""
    zero = b.constant(0.0, like=weights)
    if bias.allowed is not None:
        weights = b.op("Where", bias.allowed, weights, zero)
    if bias.added is not None:
        best = b.reduce("ReduceMax", bias.added, [-1])
        weights = b.op("Where", b.op("Equal", best, -np.inf), zero, weights)
    return weights


def rotary_embedding(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """RotaryEmbedding: pairs (x₁, x₂) turned to (x₁ cos − x₂ sin, x₁ sin + x₂ cos)."""
    x, cos, sin = (first_of(node, at) for at in range(3))
    places = input_of(node, 3)
    if places is not None:
        cos, sin = (b.op("Gather", table, places, axis=0) for table in (cos, sin))
    flat = rank_of(x) == 3
    heads = node.attributes.get_int("num_heads", 0)
    if flat and heads <= 0:
        raise Refused("its num_heads is missing", "re-export it with 4-D inputs")
    y = b.reshape(x, [0, 0, heads, -1]) if flat else x
    sizes = sizes_of(y)
    if sizes is None or sizes[-1] is None:
        raise Refused("the size of its heads is dynamic", "fix the size of the heads")
    turned = node.attributes.get_int("rotary_embedding_dim", 0) or sizes[-1]
    rest = sizes[-1] - turned
    still = None
    if rest:
        y, still = b.split(y, [turned, rest], axis=3)
    cos, sin = (b.unsqueeze(table, [2 if flat else 1]) for table in (cos, sin))
    between = node.attributes.get_int("interleaved", 0) == 1
    if between:
        pairs = b.reshape(y, b.op("Concat", b.shape_of(y, 0, 3),
                                  b.constant([turned // 2, 2]), axis=0))  # fmt: skip
        first, last = (b.squeeze(part, [4]) for part in b.split(pairs, [1, 1], axis=4))
    else:
        first, last = b.split(y, [turned // 2, turned // 2], axis=3)
    real = b.op("Sub", b.op("Mul", first, cos), b.op("Mul", last, sin))
    imaginary = b.op("Add", b.op("Mul", first, sin), b.op("Mul", last, cos))
    if between:
        parts = [b.unsqueeze(part, [4]) for part in (real, imaginary)]
        y = b.reshape(b.op("Concat", *parts, axis=4), [0, 0, 0, turned])
    else:
        y = b.op("Concat", real, imaginary, axis=3)
    if still is not None:
        y = b.op("Concat", y, still, axis=3)
    return (b.reshape(y, [0, 0, -1]) if flat else y,)


LOWERINGS: Mapping[str, tuple[Lowering, ...]] = {
    "Attention": (attention,),
    "RotaryEmbedding": (rotary_embedding,),
}
