"""Pad: of all axes, by constant or computed amounts, in the modes that there are."""

import numpy as np
import onnx_ir as ir

from ..opset_change import change
from .known import (
    Refused,
    dtype_of,
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
_TO_THE_END = np.iinfo(np.int64).max
MOST_PIECES = 64
"""Entries of an axis that are copied one by one; a wider margin is refused."""


def pad(node: ir.Node, builder: Builder) -> Values | None:
    """Pad in the form of the written opset; `wrap` as slices; bool as int32."""
    goal = builder.goal.opset
    if builder.opset == goal or change(node, builder.opset, goal) is None:
        return None
    x = first_of(node)
    mode = node.attributes.get_string("mode", "constant") or "constant"
    value = input_of(node, 2)
    rank = rank_of(x)
    pads = _all_pads(node, builder, rank)
    if mode == "wrap":
        if isinstance(pads, ir.Value):
            raise Refused("wraps around by computed amounts", "pad by constant amounts")
        return (_wrap(builder, x, pads, rank),)
    dtype = dtype_of(x)
    if dtype != ir.DataType.BOOL:
        return (builder.pad(x, pads, value, mode),)
    value = None if value is None else builder.cast(value, ir.DataType.INT32)
    y = builder.pad(builder.cast(x, ir.DataType.INT32), pads, value, mode)
    return (builder.cast(y, dtype),)


def _all_pads(node: ir.Node, builder: Builder, rank: int) -> ir.Value | list[int]:
    """Begins of all axes, then ends; `axes` (opset 18) filled up with zeros."""
    attribute = node.attributes.get("pads")
    if attribute is not None:
        return list(attribute.as_ints())
    given = first_of(node, 1)
    axes_input = input_of(node, 3)
    axes = tuple(range(rank))
    if axes_input is not None:
        axes = from_front(known_ints(axes_input, "axes"), rank)
    array = known(given)
    if array is not None:
        pads = [0] * (2 * rank)
        for at, axis in enumerate(axes):
            pads[axis] = int(array[at])
            pads[axis + rank] = int(array[at + len(axes)])
        return pads
    if axes == tuple(range(rank)):
        return given
    zero = builder.constant([0])
    parts: list[ir.Value] = []
    for offset in (0, len(axes)):
        for axis in range(rank):
            at = axes.index(axis) + offset if axis in axes else None
            parts.append(zero if at is None else builder.slice(given, [at], [at + 1], [0]))
    return builder.op("Concat", *parts, axis=0)


def _wrap(builder: Builder, x: ir.Value, pads: list[int], rank: int) -> ir.Value:
    """`x` continued periodically: its own end before it, its own beginning behind it."""
    sizes = sizes_of(x) or (None,) * rank
    for axis in range(rank):
        before, after, size = pads[axis], pads[axis + rank], sizes[axis]
        if before < 0 or after < 0 or (size is not None and max(before, after) > size):
            raise Refused("wraps around by more than the axis", "pad by less")
        parts = [x]
        if before:
            parts.insert(0, builder.slice(x, [-before], [_TO_THE_END], [axis]))
        if after:
            parts.append(builder.slice(x, [0], [after], [axis]))
        if len(parts) > 1:
            x = builder.op("Concat", *parts, axis=axis)
    return x


def pad_in_parts(node: ir.Node, builder: Builder) -> Values:
    """Pad as Concat along each axis, for parsers that add zeros to two axes only.

    `edge` repeats the first and last entry, `reflect` copies the ones next to them in reverse.

    Raises:
        Refused: amounts are computed or negative, or a margin is too wide to copy.
    """
    x = first_of(node)
    mode = node.attributes.get_string("mode", "constant") or "constant"
    rank = rank_of(x)
    pads = _all_pads(node, builder, rank)
    if isinstance(pads, ir.Value):
        raise Refused("pads by computed amounts", "pad by constant amounts")
    if min(pads, default=0) < 0:
        raise Refused("pads by negative amounts", "crop with Slice")
    if mode != "constant" and max(pads, default=0) > MOST_PIECES:
        raise Refused(f"pads by more than {MOST_PIECES} ({mode})", "pad with zeros")
    value = input_of(node, 2) or builder.constant(0, like=x)
    for axis in range(rank):
        before, after = pads[axis], pads[axis + rank]
        if not before and not after:
            continue
        if mode == "constant":
            parts = [_filled(builder, x, axis, count, value) for count in (before, after)]
        else:
            parts = [_copied(builder, x, axis, count, mode, at_end)
                     for count, at_end in ((before, False), (after, True))]  # fmt: skip
        x = builder.op("Concat", *parts[0], x, *parts[1], axis=axis)
    return (x,)


def _filled(
    builder: Builder, x: ir.Value, axis: int, count: int, value: ir.Value
) -> list[ir.Value]:
    """A block of one value, `count` wide."""
    if not count:
        return []
    rank = rank_of(x)
    sizes = list(sizes_of(x) or ())
    fill = known(value)
    if None not in sizes and fill is not None:
        shape = [count if at == axis else size or 0 for at, size in enumerate(sizes)]
        return [builder.constant(np.full(shape, fill.ravel()[0]), like=x)]
    parts = [
        builder.constant([count]) if at == axis else builder.shape_of(x, at, at + 1)
        for at in range(rank)
    ]
    shape_value = builder.op("Concat", *parts, axis=0)
    return [builder.op("Expand", builder.reshape(value, [1]), shape_value)]


def _copied(
    builder: Builder, x: ir.Value, axis: int, count: int, mode: str, at_end: bool
) -> list[ir.Value]:
    """Entries of the axis itself, `count` of them, as they stand beside it."""
    if mode == "edge":
        places = [-1 if at_end else 0] * count
    elif mode == "reflect":
        places = [-2 - at for at in range(count)] if at_end else list(range(count, 0, -1))
    else:
        raise Refused(f"pads by mode {mode!r}", "pad with zeros")
    return [
        builder.slice(x, [at], [at + 1 if at != -1 else _TO_THE_END], [axis]) for at in places
    ]
