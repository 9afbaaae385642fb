"""Shapes of results that onnx's own inference leaves open: at least their rank."""

from collections.abc import Callable, Mapping

import onnx_ir as ir

from .sizes import reshaped, sizes_in, sizes_of_value


def shape_of_result(node: ir.Node) -> ir.Shape | None:
    """The shape of a node's first output as far as its inputs tell; None where they do not.

    For operators that onnx defines by a function (it is not looked into where one node is
    inferred alone) and for computed shapes, whose length is the rank.
    """
    if not node.inputs or node.inputs[0] is None:
        return None
    rule = _RULES.get(node.op_type)
    return rule(node) if rule is not None else None


def _as_first(node: ir.Node) -> ir.Shape | None:
    x = node.inputs[0]
    return x.shape.copy() if x is not None and x.shape is not None else None


def _rank_of_first(node: ir.Node) -> ir.Shape | None:
    x = node.inputs[0]
    return ir.Shape([None] * len(x.shape)) if x is not None and x.shape is not None else None


def _reshaped(node: ir.Node) -> ir.Shape | None:
    """The sizes that the wanted shape says, as far as they follow."""
    wanted = sizes_in(node.inputs[1] if len(node.inputs) > 1 else None)
    if wanted is None:
        length = _length(node, 1)
        return None if length is None else ir.Shape([None] * length)
    keeps = node.attributes.get_int("allowzero", 0) == 0
    return ir.Shape(reshaped(sizes_of_value(node.inputs[0]), wanted, keeps))


def _expanded(node: ir.Node) -> ir.Shape | None:
    """As many axes as the wanted shape has numbers, or the input where it has more."""
    x, length = node.inputs[0], _length(node, 1)
    if length is None or x is None or x.shape is None:
        return None
    return ir.Shape([None] * max(length, len(x.shape)))


def _length_of_first(node: ir.Node) -> ir.Shape | None:
    """ConstantOfShape: as many axes as the wanted shape has numbers."""
    length = _length(node, 0)
    return None if length is None else ir.Shape([None] * length)


def _length(node: ir.Node, at: int) -> int | None:
    value = node.inputs[at] if at < len(node.inputs) else None
    if value is None or value.shape is None or len(value.shape) != 1:
        return None
    length = value.shape[0]
    return length if isinstance(length, int) else None


def _attention(node: ir.Node) -> ir.Shape | None:
    """(batch, heads, rows, size of a value), or (batch, rows, heads · size)."""
    q, v = node.inputs[0], node.inputs[2]
    if q is None or v is None or q.shape is None or v.shape is None:
        return None
    if len(q.shape) == 4 and len(v.shape) == 4:
        return ir.Shape([*q.shape[:3], v.shape[3]])
    if len(q.shape) != 3 or len(v.shape) != 3:
        return None
    heads, shared = (node.attributes.get_int(f"{n}_num_heads", 0) for n in ("q", "kv"))
    size = v.shape[2]
    whole = size * heads // shared if isinstance(size, int) and shared else None
    return ir.Shape([*q.shape[:2], whole])


_RULES: Mapping[str, Callable[[ir.Node], ir.Shape | None]] = {
    **dict.fromkeys(
        (
            "BiasGelu", "Celu", "Clip", "Elu", "FastGelu", "Gelu", "GroupNormalization",
            "HardSwish", "InstanceNormalization", "LayerNormalization",
            "MeanVarianceNormalization", "Mish", "QuickGelu", "RMSNormalization",
            "RotaryEmbedding", "Selu", "Shrink", "Softplus", "Softsign", "Swish",
            "ThresholdedRelu", "Trilu",
        ),
        _as_first,
    ),
    **dict.fromkeys(
        ("AveragePool", "LpPool", "MaxPool", "Pad", "Resize", "Slice", "Tile", "Upsample"),
        _rank_of_first,
    ),
    "Attention": _attention,
    "ConstantOfShape": _length_of_first,
    "Expand": _expanded,
    "Reshape": _reshaped,
}  # fmt: skip
