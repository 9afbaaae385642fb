"""Resize without what opsets 18 and 19 added."""

import numpy as np
import onnx_ir as ir

from ..constants import Array
from .known import Refused, first_of, from_front, input_of, known, rank_of, sizes_of
from .lowering import Attribute, Builder

Values = tuple[ir.Value, ...]
_LATER = frozenset({"antialias", "axes", "keep_aspect_ratio_policy"})


def resize(node: ir.Node, builder: Builder) -> Values | None:
    """Resize of all axes by scales or sizes; roi is there, if empty, since opset 11 wants it.

    Raises:
        Refused: antialiasing when sizes shrink, half_pixel_symmetric, or dynamic sizes where
            the aspect ratio is kept.
    """
    if builder.opset == builder.goal.opset:
        return None
    x = first_of(node)
    rank = rank_of(x)
    attributes: dict[str, Attribute] = {
        name: a.value for name, a in node.attributes.items() if name not in _LATER
    }
    transform = attributes.get("coordinate_transformation_mode", "half_pixel")
    if transform == "half_pixel_symmetric" and builder.goal.opset < 19:
        transform = _plain_half_pixel(node, rank)
        attributes["coordinate_transformation_mode"] = transform
    axes = from_front(tuple(node.attributes.get_ints("axes", None) or range(rank)), rank)
    scales, sizes = _present(node, 2), _present(node, 3)
    if node.attributes.get_int("antialias", 0) == 1 and _shrinks(x, scales, sizes, axes):
        raise Refused("antialiases", "export with antialias=False")
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch") or "stretch"
    empty = builder.constant(np.zeros(0, np.float32))
    roi = empty
    if transform == "tf_crop_and_resize":
        roi = _full_roi(builder, first_of(node, 1), axes, rank)
    if scales is not None:
        full = _full(builder, scales, axes, np.ones(rank, np.float32))
        return (builder.op("Resize", x, roi, full, more=attributes),)
    assert sizes is not None, "Resize has scales or sizes"
    if policy != "stretch":
        kept = builder.constant(_kept_ratio(x, sizes, axes, policy))
        full = _full(builder, kept, axes, np.ones(rank, np.float32))
        return (builder.op("Resize", x, roi, full, more=attributes),)
    if axes != tuple(range(rank)):
        sizes = _full_sizes(builder, x, sizes, axes, rank)
    return (builder.op("Resize", x, roi, empty, sizes, more=attributes),)


def _present(node: ir.Node, at: int) -> ir.Value | None:
    """An input that says something: an empty constant is one left out."""
    value = input_of(node, at)
    array = known(value)
    return None if array is not None and array.size == 0 else value


def _plain_half_pixel(node: ir.Node, rank: int) -> str:
    """half_pixel, where scales times sizes are whole and the two are the same."""
    x = first_of(node)
    scales, have = known(_present(node, 2)), sizes_of(x)
    axes = tuple(node.attributes.get_ints("axes", None) or range(rank))
    if scales is not None and have is not None:
        made = [(have[axis], s) for axis, s in zip(axes, scales.tolist(), strict=True)]
        if all(n is not None and float(n * s).is_integer() for n, s in made):
            return "half_pixel"
    raise Refused("its coordinates are half_pixel_symmetric", "export with half_pixel")


def _shrinks(
    x: ir.Value, scales: ir.Value | None, sizes: ir.Value | None, axes: tuple[int, ...]
) -> bool:
    """Whether any axis may become smaller, so that antialiasing tells."""
    factors, wanted = known(scales), known(sizes)
    if factors is not None:
        return bool(np.any(factors < 1))
    have = sizes_of(x)
    if wanted is None or have is None:
        return True
    pairs = ((have[axis], int(size)) for axis, size in zip(axes, wanted, strict=True))
    return any(n is None or size < n for n, size in pairs)


def _full(builder: Builder, values: ir.Value, axes: tuple[int, ...], base: Array) -> ir.Value:
    """Scales of all axes; those not resized keep what `base` says."""
    if axes == tuple(range(len(base))):
        return values
    array = known(values)
    if array is None:
        parts = [
            builder.slice(values, [axes.index(at)], [axes.index(at) + 1], [0])
            if at in axes
            else builder.constant(base[at : at + 1])
            for at in range(len(base))
        ]
        return builder.op("Concat", *parts, axis=0)
    full = base.copy()
    full[list(axes)] = array
    return builder.constant(full)


def _full_sizes(
    builder: Builder, x: ir.Value, sizes: ir.Value, axes: tuple[int, ...], rank: int
) -> ir.Value:
    have, wanted = sizes_of(x), known(sizes)
    if wanted is not None and have is not None:
        rest = [have[at] for at in range(rank) if at not in axes]
        if None not in rest:
            full = np.array([n or 0 for n in have], np.int64)
            full[list(axes)] = wanted
            return builder.constant(full)
    parts = [
        builder.slice(sizes, [axes.index(at)], [axes.index(at) + 1], [0])
        if at in axes
        else builder.shape_of(x, at, at + 1)
        for at in range(rank)
    ]
    return builder.op("Concat", *parts, axis=0)


def _full_roi(builder: Builder, roi: ir.Value, axes: tuple[int, ...], rank: int) -> ir.Value:
    """Corners of all axes: begins, then ends."""
    if axes == tuple(range(rank)):
        return roi
    array = known(roi)
    if array is None:
        raise Refused("its region is computed", "crop with Slice")
    full = np.concatenate([np.zeros(rank), np.ones(rank)]).astype(array.dtype)
    for at, axis in enumerate(axes):
        full[axis], full[axis + rank] = array[at], array[at + len(axes)]
    return builder.constant(full)


def _kept_ratio(x: ir.Value, sizes: ir.Value, axes: tuple[int, ...], policy: str) -> Array:
    """One scale for all axes, where its sizes rounded down are those rounded half up."""
    have, wanted = sizes_of(x), known(sizes)
    if have is None or wanted is None or any(have[axis] is None for axis in axes):
        raise Refused(f"keeps the aspect ratio ({policy})", "fix the sizes with --shape")
    lengths = np.array([have[axis] for axis in axes], np.float32)
    ratios = wanted.astype(np.float32) / lengths
    scale = ratios.min() if policy == "not_larger" else ratios.max()
    exact = float(scale) * lengths.astype(np.float64)  # float32 could round up to the whole
    if np.any(np.floor(exact) != np.floor(exact + 0.5)):
        raise Refused(f"rounds sizes up ({policy})", "resize to the sizes themselves")
    return np.full(len(axes), scale, np.float32)
