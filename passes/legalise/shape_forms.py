"""Operators on shapes, and the ones that build tensors from positions."""

import math

import numpy as np
import onnx_ir as ir

from .known import (
    Refused,
    dtype_of,
    first_of,
    from_front,
    input_of,
    known,
    rank_of,
    sizes_of,
    static_sizes,
)
from .lowering import Builder

Values = tuple[ir.Value, ...]


def shape(node: ir.Node, builder: Builder) -> Values:
    """Shape of the axes from `start` to `end` (opset 15), clamped to the rank."""
    x = first_of(node)
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", None)
    if start == 0 and end is None:
        return (builder.op("Shape", x),)
    rank = rank_of(x)
    first, last, _ = slice(start, end).indices(rank)
    if last <= first:
        return (builder.constant(np.zeros(0, np.int64)),)
    return (builder.shape_of(x, first, last),)


def size(node: ir.Node, builder: Builder) -> Values:
    """The product of all sizes."""
    sizes = sizes_of(first_of(node)) or (None,)
    known_sizes = [n for n in sizes if n is not None]
    if len(known_sizes) == len(sizes):
        return (builder.constant(np.array(math.prod(known_sizes), np.int64)),)
    whole = builder.shape_of(first_of(node))
    return (builder.reduce("ReduceProd", whole, None, keepdims=False),)


def reshape(node: ir.Node, builder: Builder) -> Values:
    """Reshape without `allowzero` (opset 14).

    It matters for tensors without elements only: those are refused, unless the axis told to
    be 0 is 0 anyway. A computed shape of sizes that are not known is taken to have elements.
    """
    x, wanted = first_of(node), first_of(node, 1)
    if node.attributes.get_int("allowzero", 0) == 1:
        have, sizes = sizes_of(x) or (), known(wanted)
        told = () if sizes is None else np.flatnonzero(sizes == 0)
        kept = [at < len(have) and have[at] == 0 for at in told]
        if not all(kept) or (sizes is None and 0 in have):
            raise Refused("makes a tensor without elements", "drop the empty branch")
    return (builder.op("Reshape", x, wanted),)


def one_hot(node: ir.Node, builder: Builder) -> Values:
    """Where index = position, the second of the values, else the first.

    Indices in [-depth, depth) count from either end; those outside are off everywhere.
    """
    indices, depth_input, values = (first_of(node, at) for at in range(3))
    axis = node.attributes.get_int("axis", -1)
    rank = rank_of(indices) + 1
    axis = axis % rank
    index = builder.cast(indices, ir.DataType.INT64)
    depth = known(depth_input)
    if depth is not None:
        count = int(depth.ravel()[0])
        positions = builder.constant(np.arange(count, dtype=np.int64))
        depth_value = builder.constant(np.array(count, np.int64))
    else:
        depth_value = builder.cast(depth_input, ir.DataType.INT64)
        if sizes_of(depth_input) != ():
            depth_value = builder.reshape(depth_value, builder.constant(np.zeros(0, np.int64)))
        start, step = (builder.constant(np.array(v, np.int64)) for v in (0, 1))
        positions = builder.op("Range", start, depth_value, step)
    below = builder.op("Less", index, builder.constant(np.array(0, np.int64)))
    index = builder.op("Where", below, builder.op("Add", index, depth_value), index)
    index = builder.unsqueeze(index, [axis])
    shape = [1] * rank
    shape[axis] = -1
    is_here = builder.op("Equal", index, builder.reshape(positions, shape))
    off, on = (builder.slice(values, [at], [at + 1], [0]) for at in (0, 1))
    return (builder.op("Where", is_here, on, off),)


def eye_like(node: ir.Node, builder: Builder) -> Values:
    """The unit matrix of a static shape."""
    x = first_of(node)
    rows, columns = static_sizes(x)
    asked = node.attributes.get_int("dtype", None)
    dtype = dtype_of(x) if asked is None else ir.DataType(asked)
    k = node.attributes.get_int("k", 0)
    return (builder.constant(np.eye(rows, columns, k, dtype=dtype.numpy())),)


def cum_sum(node: ir.Node, builder: Builder) -> Values:
    """A product with a triangle of ones: y = x T, T[i, j] = 1 where i ≤ j.

    `exclusive` leaves out the diagonal and `reverse` transposes T. A dynamic axis builds T
    from positions.
    """
    x, axis_input = first_of(node), first_of(node, 1)
    axis_array = known(axis_input)
    if axis_array is None:
        raise Refused("its axis is computed", "fix the axis when exporting")
    rank = rank_of(x)
    axis = from_front((int(axis_array.ravel()[0]),), rank)[0]
    exclusive = node.attributes.get_int("exclusive", 0) == 1
    reverse = node.attributes.get_int("reverse", 0) == 1
    floating = x if dtype_of(x).is_floating_point() else builder.cast(x, ir.DataType.FLOAT)
    triangle = _triangle(builder, floating, axis, exclusive, reverse)
    perm = [at for at in range(rank) if at != axis] + [axis]
    moved = builder.transpose(floating, perm)
    if rank == 1:
        moved = builder.unsqueeze(moved, [0])
    y = builder.op("MatMul", moved, triangle)
    if rank == 1:
        y = builder.squeeze(y, [0])
    back = builder.transpose(y, [perm.index(at) for at in range(rank)])
    return (builder.cast(back, dtype_of(x)),)


def _triangle(
    builder: Builder, x: ir.Value, axis: int, exclusive: bool, reverse: bool
) -> ir.Value:
    sizes = sizes_of(x)
    n = None if sizes is None else sizes[axis]
    if n is not None:
        ones = np.triu(np.ones((n, n), np.float32), 1 if exclusive else 0)
        return builder.constant(ones.T if reverse else ones, like=x)
    count = builder.squeeze(builder.shape_of(x, axis, axis + 1), [0])
    start, step = (builder.constant(np.array(v, np.int64)) for v in (0, 1))
    positions = builder.op("Range", start, count, step)
    row, column = builder.unsqueeze(positions, [1]), builder.unsqueeze(positions, [0])
    if reverse:
        row, column = column, row
    if exclusive:
        return builder.cast(builder.op("Less", row, column), dtype_of(x))
    return builder.cast(builder.op("Not", builder.op("Less", column, row)), dtype_of(x))


def extreme_index(node: ir.Node, builder: Builder) -> Values | None:
    """ArgMax, ArgMin with `select_last_index` (opset 12): first of the mirrored axis."""
    if node.attributes.get_int("select_last_index", 0) != 1:
        return None
    x = first_of(node)
    axis = from_front((node.attributes.get_int("axis", 0),), rank_of(x))[0]
    keepdims = node.attributes.get_int("keepdims", 1)
    mirrored = builder.slice(x, [-1], [np.iinfo(np.int64).min], [axis], [-1])
    at = builder.op(node.op_type, mirrored, axis=axis, keepdims=keepdims)
    last = builder.op("Sub", builder.shape_of(x, axis, axis + 1), 1)
    return (builder.op("Sub", builder.squeeze(last, [0]), at),)


def hardmax(node: ir.Node, builder: Builder) -> Values:
    """1 at the first largest entry of an axis, 0 elsewhere."""
    x = first_of(node)
    rank = rank_of(x)
    default = -1 if builder.opset >= 13 else 1
    axis = node.attributes.get_int("axis", default) % rank
    if builder.opset < 13 and axis != rank - 1:
        raise Refused("takes several axes as one", "re-export with opset 13")
    sizes = sizes_of(x)
    best = builder.op("ArgMax", x, axis=axis, keepdims=1)
    n = None if sizes is None else sizes[axis]
    if n is not None:
        positions = builder.constant(np.arange(n, dtype=np.int64))
    else:
        count = builder.squeeze(builder.shape_of(x, axis, axis + 1), [0])
        start, step = (builder.constant(np.array(v, np.int64)) for v in (0, 1))
        positions = builder.op("Range", start, count, step)
    shape = [1] * rank
    shape[axis] = -1
    is_best = builder.op("Equal", best, builder.reshape(positions, shape))
    return (builder.cast(is_best, dtype_of(x)),)


def softmax(node: ir.Node, builder: Builder) -> Values:
    """Softmax and LogSoftmax along one axis; before opset 13 they took several as one."""
    x = first_of(node)
    if builder.opset >= 13:
        axis = node.attributes.get_int("axis", -1)
        return (builder.softmax(x, axis, node.op_type),)
    axis = node.attributes.get_int("axis", 1)
    return (builder.op(node.op_type, x, axis=axis),)


def space_to_depth(node: ir.Node, builder: Builder) -> Values | None:
    """SpaceToDepth in CRD order (opset 28): channels before the place inside a block."""
    if node.attributes.get_string("mode", "DCR") != "CRD":
        return None
    x = first_of(node)
    size = node.attributes["blocksize"].as_int()
    sizes = static_sizes(x)
    n, c, h, w = sizes
    cut = builder.reshape(x, [n, c, h // size, size, w // size, size])
    turned = builder.transpose(cut, [0, 1, 3, 5, 2, 4])
    return (builder.reshape(turned, [n, c * size * size, h // size, w // size]),)


def bool_like(node: ir.Node) -> bool:
    """Whether all that a node reads is bool."""
    return all(v is None or v.dtype == ir.DataType.BOOL for v in node.inputs)


def identity(node: ir.Node, builder: Builder) -> Values | None:
    """Identity is what it reads, for any type that the graph can carry."""
    del builder
    value = input_of(node, 0)
    if value is None or isinstance(value.type, ir.SequenceType | ir.OptionalType):
        return None
    return (value,)
