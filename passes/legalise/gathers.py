"""Gathers by element from dynamic shapes, as one plain Gather of a flattened tensor."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from .known import Refused, first_of, rank_of, sizes_of
from .lowering import Builder, Lowering
from .masks import Size, counted, size_of


def gather_elements(node: ir.Node, b: Builder) -> Sequence[ir.Value] | None:
    """GatherElements: the place of each element in the flattened data, then Gather."""
    x, at = first_of(node), first_of(node, 1)
    if _is_static(x) and _is_static(at):
        return None  # places are mostly constant then
    rank = rank_of(x)
    axis = node.attributes.get_int("axis", 0) % rank
    sizes = [size_of(b, x, i) for i in range(rank)]
    wide = b.cast(at, ir.DataType.INT64)
    place = _times(b, _not_negative(b, wide, sizes[axis]), _stride(b, sizes, axis))
    for i in range(rank):
        if i == axis or (sizes_of(at) or ())[i : i + 1] == (1,):
            continue
        steps = counted(b, size_of(b, at, i))
        after = list(range(1, rank - i))
        steps = b.unsqueeze(steps, after) if after else steps
        place = b.op("Add", place, _times(b, steps, _stride(b, sizes, i)))
    return (b.op("Gather", b.reshape(x, [-1]), place, axis=0),)


def gather_nd(node: ir.Node, b: Builder) -> Sequence[ir.Value] | None:
    """GatherND: the index tuples as places of rows of the flattened data, then Gather."""
    x, at = first_of(node), first_of(node, 1)
    if _is_static(x):
        return None
    if node.attributes.get_int("batch_dims", 0):
        raise Refused("it has batch_dims", "re-export with take_along_dim or index_select")
    tuple_size = (sizes_of(at) or (None,))[-1]
    if tuple_size is None:
        raise Refused("the length of its index tuples is dynamic", "fix it when exporting")
    sizes = [size_of(b, x, i) for i in range(rank_of(x))]
    wide = b.cast(at, ir.DataType.INT64)
    parts = b.split(wide, [1] * tuple_size, axis=rank_of(at) - 1)
    place: ir.Value | None = None
    for i, part in enumerate(parts):
        index = _not_negative(b, b.squeeze(part, [rank_of(at) - 1]), sizes[i])
        step = _times(b, index, _stride(b, sizes[:tuple_size], i))
        place = step if place is None else b.op("Add", place, step)
    assert place is not None, "an index tuple has a member"
    rest = b.shape_of(x, tuple_size)
    rows = b.reshape(x, b.op("Concat", b.constant([-1]), rest, axis=0))
    return (b.op("Gather", rows, place, axis=0),)


def _is_static(x: ir.Value) -> bool:
    sizes = sizes_of(x)
    return sizes is not None and None not in sizes


def _stride(b: Builder, sizes: Sequence[Size], axis: int) -> Size:
    """Elements between neighbours along an axis: the product of the sizes after it."""
    known = int(np.prod([s for s in sizes[axis + 1 :] if isinstance(s, int)], dtype=np.int64))
    stride: Size = known
    for size in sizes[axis + 1 :]:
        if isinstance(size, ir.Value):
            stride = size if stride == 1 else b.op("Mul", size, stride)
    return stride


def _times(b: Builder, x: ir.Value, factor: Size) -> ir.Value:
    return x if factor == 1 else b.op("Mul", x, factor)


def _not_negative(b: Builder, at: ir.Value, size: Size) -> ir.Value:
    """Indices that count from the end, counted from the front."""
    from_end = b.op("Less", at, 0)
    return b.op("Where", from_end, b.op("Add", at, size), at)


LOWERINGS: Mapping[str, tuple[Lowering, ...]] = {
    "GatherElements": (gather_elements,),
    "GatherND": (gather_nd,),
}
