"""Masks: triangles and diagonals, of sizes known or not."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from .known import Refused, dtype_of, first_of, input_of, known, rank_of, sizes_of
from .lowering import Builder, Lowering

Size = int | ir.Value
"""A number of elements: known, or a scalar that is computed, int64."""


def size_of(b: Builder, x: ir.Value, axis: int) -> Size:
    """Size of one axis of `x`."""
    sizes = sizes_of(x)
    size = None if sizes is None else sizes[axis]
    if size is not None:
        return size
    axis = axis % rank_of(x)
    return b.op("Gather", b.op("Shape", x), b.constant(np.array(axis, np.int64)), axis=0)


def counted(b: Builder, size: Size) -> ir.Value:
    """0, 1, …, size − 1, int64."""
    if isinstance(size, int):
        return b.constant(np.arange(size, dtype=np.int64))
    return b.op("Range", b.constant(0), size, b.constant(1))


def triangle(b: Builder, rows: Size, columns: Size, k: Size, upper: bool) -> ir.Value:
    """Where column − row ≥ k (`upper`) or ≤ k, bool [rows, columns]."""
    if isinstance(rows, int) and isinstance(columns, int) and isinstance(k, int):
        apart = np.arange(columns) - np.arange(rows)[:, None]
        return b.constant(apart >= k if upper else apart <= k)
    down = b.unsqueeze(counted(b, rows), [1])
    across = b.unsqueeze(counted(b, columns), [0])
    if isinstance(k, ir.Value):
        diagonal = b.op("Add", b.op("Add", down, k), -1 if upper else 1)
    else:
        diagonal = b.op("Add", down, k - 1 if upper else k + 1)
    return b.op("Greater" if upper else "Less", across, diagonal)


def trilu(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """Trilu: a Where on a triangle, so that infinities outside of it leave nothing behind."""
    x = first_of(node)
    if rank_of(x) < 2:
        raise Refused("it needs at least two axes", "check the model")
    shift = input_of(node, 1)
    array = known(shift)
    k: Size = int(array.ravel()[0]) if array is not None else 0
    if shift is not None and array is None:
        k = b.reshape(shift, [1])
    upper = bool(node.attributes.get_int("upper", 1))
    inside = triangle(b, size_of(b, x, -2), size_of(b, x, -1), k, upper)
    if dtype_of(x) == ir.DataType.BOOL:
        return (b.op("And", x, inside),)
    return (b.op("Where", inside, x, b.constant(0, like=x)),)


def eye_like(node: ir.Node, b: Builder) -> Sequence[ir.Value] | None:
    """EyeLike of a computed size: where column = row + k."""
    x = first_of(node)
    rows, columns = size_of(b, x, 0), size_of(b, x, 1)
    if isinstance(rows, int) and isinstance(columns, int):
        return None  # a constant
    given = node.attributes.get_int("dtype", 0)
    down = b.unsqueeze(counted(b, rows), [1])
    k = node.attributes.get_int("k", 0)
    diagonal = b.op("Add", down, k) if k else down
    across = b.unsqueeze(counted(b, columns), [0])
    return (b.cast(b.op("Equal", across, diagonal), ir.DataType(given or dtype_of(x))),)


def computed_range(node: ir.Node, b: Builder) -> Sequence[ir.Value] | None:
    """Range of floats up to a computed limit: start + step · (0, 1, …), counted in int64.

    max(⌈(limit − start) / step⌉, 0) numbers, as the definition says.
    """
    start, limit, step = (first_of(node, at) for at in range(3))
    dtype = dtype_of(start)
    if not dtype.is_floating_point():
        return None
    span = limit if _is(start, 0) else b.op("Sub", limit, start)
    count = span if _is(step, 1) else b.op("Div", span, step)
    whole = b.cast(b.op("Ceil", count), ir.DataType.INT64)
    scalar = b.reshape(whole, b.constant(np.zeros(0, np.int64)))
    steps = b.cast(counted(b, scalar), dtype)
    scaled = steps if _is(step, 1) else b.op("Mul", steps, step)
    return (scaled if _is(start, 0) else b.op("Add", scaled, start),)


def _is(value: ir.Value, number: int) -> bool:
    array = known(value)
    return array is not None and bool(array == number)


LOWERINGS: Mapping[str, tuple[Lowering, ...]] = {
    "EyeLike": (eye_like,),
    "Range": (computed_range,),
    "Trilu": (trilu,),
}
