"""Operators whose axes or sizes are an input at one opset and an attribute at another."""

import numpy as np
import onnx_ir as ir

from .known import (
    Refused,
    first_of,
    from_front,
    input_of,
    known,
    known_ints,
    rank_of,
    sizes_of,
)
from .lowering import Builder

Values = tuple[ir.Value, ...]
_NOOP_IS_IDENTITY = frozenset(
    {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"}
)
_TO_THE_END = np.iinfo(np.int64).max


def reduction(node: ir.Node, builder: Builder) -> Values:
    """ReduceX with axes in the form of the written opset; bool (opset 20) as int32 > 0.

    Over nothing the largest int32 is the least there is, and that is false.
    """
    x = first_of(node)
    axes = axes_of(node)
    keepdims = node.attributes.get_int("keepdims", 1) == 1
    if not axes:
        if node.attributes.get_int("noop_with_empty_axes", 0) == 1:
            if node.op_type not in _NOOP_IS_IDENTITY:
                raise Refused("reduces over no axes", "export it without the reduction")
            return (x,)
        axes = None
    elif any(axis < 0 for axis in axes) and builder.goal.opset < 11:
        axes = from_front(axes, rank_of(x))
    if x.dtype != ir.DataType.BOOL:
        return (builder.reduce(node.op_type, x, axes, keepdims),)
    y = builder.reduce(node.op_type, builder.cast(x, ir.DataType.INT32), axes, keepdims)
    return (builder.op("Greater", y, builder.constant(0, like=y)),)


def axes_of(node: ir.Node, at: int = 1) -> tuple[int, ...] | None:
    """The axes of a node, whichever way it says them; None where it says none.

    Raises:
        Refused: they are computed.
    """
    attribute = node.attributes.get("axes")
    if attribute is not None:
        return tuple(attribute.as_ints())
    value = input_of(node, at)
    return None if value is None else known_ints(value, "axes")


def squeeze(node: ir.Node, builder: Builder) -> Values:
    """Squeeze with axes as the written opset takes them."""
    axes = axes_of(node)
    if axes is None:
        return (builder.op("Squeeze", first_of(node)),)
    return (builder.squeeze(first_of(node), axes),)


def unsqueeze(node: ir.Node, builder: Builder) -> Values:
    """Unsqueeze with axes as the written opset takes them."""
    return (builder.unsqueeze(first_of(node), axes_of(node) or ()),)


def split(node: ir.Node, builder: Builder) -> Values:
    """Split by sizes, `num_outputs` (opset 18: the last piece may be smaller) or equal parts.

    Computed sizes, and a dynamic axis cut into `num_outputs`, become one Slice a piece.
    """
    x = first_of(node)
    axis = node.attributes.get_int("axis", 0)
    count = len(node.outputs)
    asked = input_of(node, 1)
    attribute = node.attributes.get("split")
    if attribute is not None:
        return builder.split(x, attribute.as_ints(), axis)
    if asked is not None:
        sizes = known(asked)
        if sizes is not None:
            return builder.split(x, sizes.tolist(), axis)
        return _pieces(builder, x, axis, _running_sums(builder, asked, count))
    shape = sizes_of(x)
    size = None if shape is None else shape[axis]
    if size is not None:
        step = -(-size // count)
        last = size - step * (count - 1)
        if last < 0:
            raise Refused(f"cuts an axis of {size} into {count} pieces", "split it by sizes")
        return builder.split(x, [step] * (count - 1) + [last], axis)
    axis = from_front((axis,), rank_of(x))[0]
    n = builder.shape_of(x, axis, axis + 1)
    step = builder.op("Div", builder.op("Add", n, count - 1), count)
    ends = [builder.op("Mul", step, at) if at != 1 else step for at in range(1, count)]
    return _pieces(builder, x, axis, ends)


def _running_sums(builder: Builder, sizes: ir.Value, count: int) -> list[ir.Value]:
    """Where each piece but the last ends."""
    ends: list[ir.Value] = []
    for at in range(count - 1):
        size = builder.slice(sizes, [at], [at + 1], [0])
        ends.append(builder.op("Add", ends[-1], size) if ends else size)
    return ends


def _pieces(builder: Builder, x: ir.Value, axis: int, ends: list[ir.Value]) -> Values:
    """`x` cut along `axis` at `ends`, each a list of one."""
    if builder.goal.opset < 10:
        raise Refused("cuts at computed places", "re-export with opset 11 or newer")
    along = builder.constant([axis])
    starts = [builder.constant([0]), *ends]
    stops = [*ends, builder.constant([_TO_THE_END])]
    return tuple(
        builder.op("Slice", x, start, stop, along)
        for start, stop in zip(starts, stops, strict=True)
    )
