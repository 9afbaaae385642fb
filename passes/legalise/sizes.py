"""Sizes followed back to the shapes they are read from: constants, names and what is open."""

from collections.abc import Sequence

import onnx_ir as ir

from .known import first_of, known

Size = int | str | None
"""A number, the name of a dynamic axis, or None where it is computed otherwise."""
_DEEPEST = 8
"""Nodes that a size is followed back through."""


def sizes_in(value: ir.Value | None, depth: int = 0) -> Sequence[Size] | None:
    """What is known of a vector of whole numbers; None where not even its length is.

    A scalar counts as a vector of one. Equal names are equal sizes: inference gives every
    unknown size a name of its own.
    """
    array = known(value)
    if array is not None:
        return [int(number) for number in array.ravel()] if array.dtype.kind in "iub" else None
    node = value.producer() if value is not None else None
    if node is None or depth == _DEEPEST or not node.inputs:
        return None
    if node.op_type == "Shape":
        return _shape(node)
    first = sizes_in(node.inputs[0], depth + 1)
    if first is None:
        return None
    if node.op_type in ("Cast", "Identity", "Squeeze", "Unsqueeze"):
        return first
    if node.op_type == "Reshape":
        return first if len(first) == 1 else None
    rest = [sizes_in(part, depth + 1) for part in node.inputs[1:]]
    if any(part is None for part in rest):
        return None
    others = [part for part in rest if part is not None]
    if node.op_type == "Concat":
        return [size for part in (first, *others) for size in part]
    if node.op_type == "Gather":
        return _gathered(first, others[0])
    if node.op_type == "Slice":
        return _sliced(first, others)
    return None


def decided(condition: ir.Value, depth: int = 0) -> bool | None:
    """A condition on sizes that are known; None where it is open."""
    array = known(condition)
    if array is not None:
        return bool(array.all())
    node = condition.producer()
    if node is None or depth == _DEEPEST:
        return None
    if node.op_type in ("Cast", "Identity", "Not"):
        inner = decided(first_of(node), depth + 1)
        return None if inner is None else inner != (node.op_type == "Not")
    if node.op_type not in ("Equal", "Greater", "Less"):
        return None
    sides = [sizes_in(value) for value in node.inputs]
    single = [side[0] for side in sides if side is not None and len(side) == 1]
    if len(single) < 2:
        return None
    a, b = single
    if not isinstance(a, int) or not isinstance(b, int):
        return None
    return {"Equal": a == b, "Greater": a > b, "Less": a < b}[node.op_type]


def reshaped(have: Sequence[Size] | None, wanted: Sequence[Size], keeps: bool) -> list[Size]:
    """The sizes after a Reshape of `have` to `wanted`.

    Args:
        have: sizes before, where known.
        wanted: the asked shape; -1 takes what is left.
        keeps: whether 0 keeps a size (allowzero=0).

    Example:
        >>> reshaped(["n", 2, 2, 8], ["n", -1, 8], True)
        ['n', 4, 8]
    """
    sizes = list(wanted)
    for at, size in enumerate(sizes):
        if size == 0 and keeps:
            sizes[at] = have[at] if have is not None and at < len(have) else None
    if -1 in sizes:
        sizes[sizes.index(-1)] = _left(have, [size for size in sizes if size != -1])
    return sizes


def _left(have: Sequence[Size] | None, taken: Sequence[Size]) -> int | None:
    """What is left of `have` when `taken` is divided out; None where that is not a number."""
    if have is None or None in have or None in taken:
        return None
    names = [size for size in have if isinstance(size, str)]
    for size in taken:
        if isinstance(size, str):
            if size not in names:
                return None
            names.remove(size)
    whole, part = (_product(sizes) for sizes in (have, taken))
    return whole // part if not names and part and whole % part == 0 else None


def _product(sizes: Sequence[Size]) -> int:
    product = 1
    for size in sizes:
        product *= size if isinstance(size, int) else 1
    return product


def sizes_of_value(value: ir.Value | None) -> list[Size] | None:
    """The shape of a value with names of its dynamic axes."""
    if value is None or value.shape is None:
        return None
    return [
        size if isinstance(size, int) else (None if size.value is None else str(size.value))
        for size in value.shape
    ]


def _shape(node: ir.Node) -> Sequence[Size] | None:
    sizes = sizes_of_value(node.inputs[0])
    if sizes is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get("end")
    return sizes[start : end.as_int() if end is not None else None]


def _gathered(whole: Sequence[Size], at: Sequence[Size]) -> Sequence[Size] | None:
    places = [n for n in at if isinstance(n, int) and -len(whole) <= n < len(whole)]
    return [whole[n] for n in places] if len(places) == len(at) else None


def _sliced(whole: Sequence[Size], limits: Sequence[Sequence[Size]]) -> Sequence[Size] | None:
    """A slice of a vector by (starts, ends, axes, steps)."""
    if not 2 <= len(limits) <= 4 or any(len(part) != 1 for part in limits):
        return None
    start, end = limits[0][0], limits[1][0]
    step = limits[3][0] if len(limits) == 4 else 1
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int)):
        return None
    return whole[start:end:step] if step > 0 else None
