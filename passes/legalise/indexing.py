"""Gathering and scattering by several indices, as one look-up in the flattened tensor."""

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .known import Refused, dtype_of, first_of, known, sizes_of, static_sizes
from .lowering import Builder

Values = tuple[ir.Value, ...]
Places = NDArray[np.int64]
_INT64 = ir.DataType.INT64
MOST_ROUNDS = 8
"""Updates of one place that are combined one after the other."""


def gather_nd(node: ir.Node, builder: Builder) -> Values:
    """Rows of the tensor, flattened over the indexed axes, at index · strides."""
    data, indices = first_of(node), first_of(node, 1)
    batch = node.attributes.get_int("batch_dims", 0)
    sizes = static_sizes(data)
    index_sizes = sizes_of(indices)
    if index_sizes is None or index_sizes[-1] is None:
        raise Refused("the length of its indices is dynamic", "fix the sizes with --shape")
    deep = index_sizes[-1]
    extents = np.array(sizes[batch : batch + deep], np.int64)
    strides = np.array([math.prod(extents[at + 1 :]) for at in range(deep)], np.int64)
    index = builder.cast(indices, _INT64)
    below = builder.op("Less", index, builder.constant(np.array(0, np.int64)))
    wrapped = builder.op("Add", index, builder.constant(extents))
    index = builder.op("Where", below, wrapped, index)
    weighted = builder.op("Mul", index, builder.constant(strides))
    place = builder.reduce("ReduceSum", weighted, [-1], keepdims=False)
    if batch:
        rows = math.prod(extents)
        offsets = np.arange(math.prod(sizes[:batch]), dtype=np.int64) * rows
        behind = (1,) * (len(index_sizes) - 1 - batch)
        place = builder.op(
            "Add", place, builder.constant(offsets.reshape(*sizes[:batch], *behind))
        )
    rest = sizes[batch + deep :]
    flat = builder.reshape(data, [math.prod(sizes[: batch + deep]), *rest])
    return (builder.op("Gather", flat, place, axis=0),)


def gather_elements(node: ir.Node, builder: Builder) -> Values:
    """Entries of the flattened tensor; every other coordinate is the index's own place."""
    data, indices = first_of(node), first_of(node, 1)
    sizes, index_sizes = static_sizes(data), static_sizes(indices)
    axis = node.attributes.get_int("axis", 0) % len(sizes)
    place = _element_places(builder, sizes, indices, index_sizes, axis)
    return (builder.op("Gather", builder.reshape(data, [-1]), place, axis=0),)


def _element_places(
    builder: Builder,
    sizes: tuple[int, ...],
    indices: ir.Value,
    index_sizes: tuple[int, ...],
    axis: int,
) -> ir.Value:
    strides = [math.prod(sizes[at + 1 :]) for at in range(len(sizes))]
    grids = np.indices(index_sizes, dtype=np.int64)
    others = sum(
        (grids[at] * strides[at] for at in range(len(sizes)) if at != axis),
        np.zeros(index_sizes, np.int64),
    )
    index = builder.cast(indices, _INT64)
    below = builder.op("Less", index, builder.constant(np.array(0, np.int64)))
    size = builder.constant(np.array(sizes[axis], np.int64))
    index = builder.op("Where", below, builder.op("Add", index, size), index)
    along = builder.op("Mul", index, builder.constant(np.array(strides[axis], np.int64)))
    return builder.op("Add", along, builder.constant(others))


def scatter_nd(node: ir.Node, builder: Builder) -> Values | None:
    """ScatterND at constant places: a look-up in tensor and updates put end to end.

    With a reduction what is there is gathered and combined first, in as many rounds as a
    place has updates.
    """
    data, indices, updates = (first_of(node, at) for at in range(3))
    index = known(indices)
    if index is None:
        raise Refused("scatters to computed places", "scatter to constant places")
    sizes = static_sizes(data)
    deep = index.shape[-1]
    extents = sizes[:deep]
    rows = index.reshape(-1, deep).astype(np.int64)
    rows = np.where(rows < 0, rows + np.array(extents, np.int64), rows)
    strides = np.array([math.prod(extents[at + 1 :]) for at in range(deep)], np.int64)
    places = (rows * strides).sum(-1)
    rest = list(sizes[deep:])
    flat = builder.reshape(data, [math.prod(extents), *rest])
    new = builder.reshape(updates, [len(places), *rest])
    return (builder.reshape(_put(node, builder, flat, new, places), sizes),)


def scatter_elements(node: ir.Node, builder: Builder) -> Values | None:
    """ScatterElements at constant places, as `scatter_nd`."""
    data, indices, updates = (first_of(node, at) for at in range(3))
    index = known(indices)
    if index is None:
        raise Refused("scatters to computed places", "scatter to constant places")
    sizes = static_sizes(data)
    axis = node.attributes.get_int("axis", 0) % len(sizes)
    grids = np.indices(index.shape, dtype=np.int64)
    index = index.astype(np.int64)
    grids[axis] = np.where(index < 0, index + sizes[axis], index)
    strides = [math.prod(sizes[at + 1 :]) for at in range(len(sizes))]
    places = sum(grid * stride for grid, stride in zip(grids, strides, strict=True))
    flat, new = builder.reshape(data, [-1]), builder.reshape(updates, [-1])
    made = _put(node, builder, flat, new, np.asarray(places).ravel())
    return (builder.reshape(made, sizes),)


def _put(
    node: ir.Node,
    builder: Builder,
    flat: ir.Value,
    new: ir.Value,
    places: Places,
) -> ir.Value:
    """`flat` with `new` at `places` of its first axis, or combined with what is there."""
    reduction = node.attributes.get_string("reduction", "none") or "none"
    if reduction == "none":
        return _replaced(builder, flat, new, places)
    op_type = {"add": "Add", "mul": "Mul", "max": "Max", "min": "Min"}[reduction]
    rounds = _rounds(places)
    if len(rounds) > MOST_ROUNDS:
        raise Refused(f"combines {len(rounds)} updates of a place", "scatter each place once")
    for rows in rounds:
        part = new
        if len(rows) < len(places):
            part = builder.op("Gather", new, builder.constant(rows), axis=0)
        there = builder.op("Gather", flat, builder.constant(places[rows]), axis=0)
        flat = _replaced(builder, flat, builder.op(op_type, there, part), places[rows])
    return flat


def _rounds(places: Places) -> list[Places]:
    """Rows of updates in rounds, each of which meets a place at most once."""
    seen: dict[int, int] = {}
    made: list[list[int]] = []
    for row, place in enumerate(places.tolist()):
        at = seen.get(place, 0)
        seen[place] = at + 1
        if at == len(made):
            made.append([])
        made[at].append(row)
    return [np.array(rows, np.int64) for rows in made]


def _replaced(builder: Builder, flat: ir.Value, new: ir.Value, places: Places) -> ir.Value:
    """A look-up in `flat` and `new` put end to end; of equal places the last one counts."""
    rows = static_sizes(flat)[0]
    source = np.arange(rows, dtype=np.int64)
    source[places] = rows + np.arange(len(places), dtype=np.int64)
    both = builder.op("Concat", flat, new, axis=0)
    return builder.op("Gather", both, builder.constant(source), axis=0, dtype=dtype_of(flat))
