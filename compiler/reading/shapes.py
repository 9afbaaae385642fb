"""The sizes asked for with --shape: NAME:1x3x48x320 or NAME:MIN:OPT:MAX."""

import re
from collections.abc import Sequence

import onnx_ir as ir

from ...device_profiles.errors import UsageError
from ...passes.model import ShapeRange

Sizes = tuple[int, ...]
_SIZES = re.compile(r"(scalar|\d+(x\d+)*)")
LARGEST_SIZE = 2**31 - 1


def parse_shape(text: str) -> tuple[str, ShapeRange]:
    """One --shape option: the input's name and its sizes.

    Read from the right, since names may hold colons (`x:0`). A scalar input is `name:scalar`.

    Example:
        >>> parse_shape("x:0:1x8:4x8:16x8")[0]
        'x:0'

    Raises:
        UsageError: not of that form, or not min ≤ opt ≤ max.
    """
    where = f"--shape {text}"
    form = "write NAME:1x3x48x320 or NAME:MIN:OPT:MAX"
    *head, last = text.split(":")
    tail: list[str] = [last]
    while len(head) > 1 and len(tail) < 3 and _SIZES.fullmatch(head[-1]):
        tail.insert(0, head.pop())
    name = ":".join(head)
    if len(tail) == 2:  # the name itself ends in a number, as x:0 does
        name, tail = f"{name}:{tail[0]}", tail[1:]
    if not name or not _SIZES.fullmatch(tail[-1]):
        raise UsageError("is not a name and its sizes", where=where, hint=form)
    sizes = [_sizes(part) for part in tail] * (3 if len(tail) == 1 else 1)
    low, best, high = sizes
    if any(value > LARGEST_SIZE for value in high):
        raise UsageError(f"a size above {LARGEST_SIZE:,}", where=where, hint="give real sizes")
    if not len(low) == len(best) == len(high):
        raise UsageError("min, opt and max differ in rank", where=where, hint=form)
    if not all(a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
        raise UsageError("not min ≤ opt ≤ max on every axis", where=where, hint=form)
    return name, ShapeRange(low, best, high)


def asked_shapes(texts: Sequence[str], inputs: Sequence[ir.Value]) -> dict[str, ShapeRange]:
    """All --shape options, held against the model's inputs.

    Raises:
        UsageError: an unknown input, a name given twice, another rank, or another size than
            the model fixes; names the inputs there are.
    """
    known = {str(value.name): value for value in inputs}
    there = "inputs: " + (", ".join(map(describe, inputs)) or "none")
    asked: dict[str, ShapeRange] = {}
    for text in texts:
        name, sizes = parse_shape(text)
        where = f"--shape {text}"
        if name not in known:
            raise UsageError(f"the model has no input '{name}'", where=where, hint=there)
        if name in asked:
            raise UsageError(
                f"input '{name}' is given twice", where=where, hint="give it once"
            )
        shape = known[name].shape
        if shape is not None:
            if len(shape) != len(sizes.optimum):
                raise UsageError(
                    f"{len(sizes.optimum)} sizes for an input of rank {len(shape)}",
                    where=where,
                    hint=there,
                )
            for axis, fixed in enumerate(shape):
                ends = {sizes.minimum[axis], sizes.optimum[axis], sizes.maximum[axis]}
                if isinstance(fixed, int) and ends != {fixed}:
                    raise UsageError(
                        f"axis {axis} is fixed to {fixed} by the model",
                        where=where,
                        hint=there,
                    )
        asked[name] = sizes
    _agree(asked, known, there)
    return asked


def describe(value: ir.Value) -> str:
    """An input for people: name, sizes and type.

    Example:
        >>> x = ir.val("x", ir.DataType.FLOAT, ["N", 3])
        >>> describe(x)
        'x [N,3] float'
    """
    sizes = "?" if value.shape is None else ",".join(map(_size, value.shape))
    kind = "" if value.dtype is None else " " + value.dtype.name.lower()
    return f"{value.name} [{sizes}]{kind}"


def is_named(size: int | ir.SymbolicDim) -> bool:
    """Whether an axis carries a name that ties it to others; '?' and the like do not."""
    return isinstance(size, ir.SymbolicDim) and str(size.value or "?") not in (
        "?",
        "None",
        "-1",
    )


def _agree(asked: dict[str, ShapeRange], known: dict[str, ir.Value], there: str) -> None:
    """Axes of one name must be given one size."""
    seen: dict[str, tuple[int, str]] = {}
    for name, sizes in asked.items():
        for axis, size in enumerate(known[name].shape or ()):
            if not isinstance(size, ir.SymbolicDim) or not is_named(size):
                continue
            optimum = sizes.optimum[axis]
            first, other = seen.setdefault(str(size.value), (optimum, name))
            if first != optimum:
                raise UsageError(
                    f"axis '{size.value}' is {first} in '{other}' and {optimum} in '{name}'",
                    where="--shape",
                    hint=there,
                )


def _sizes(text: str) -> Sizes:
    return () if text == "scalar" else tuple(int(part) for part in text.split("x"))


def _size(size: int | ir.SymbolicDim) -> str:
    return str(size) if isinstance(size, int) else str(size.value or "?")
