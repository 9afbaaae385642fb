"""Einsum as transposes, sums and matrix products."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from .known import Refused, rank_of, sizes_of
from .lowering import Builder

Values = tuple[ir.Value, ...]


@dataclass(frozen=True)
class _Term:
    """A tensor and the letter of each of its axes."""

    value: ir.Value
    letters: str


def einsum(node: ir.Node, builder: Builder) -> Values:
    """Contracts the operands from left to right; a letter in one operand only is summed.

    Of two operands the letters are batch (in both and needed later), contracted (in both and
    not needed), or free; the product is MatMul of (batch, free, contracted) and
    (batch, contracted, free).

    Raises:
        Refused: a letter twice in one operand (a diagonal).
    """
    operands = [value for value in node.inputs if value is not None]
    terms, result = _terms(node.attributes["equation"].as_string(), operands)
    made = terms[0]
    for at, term in enumerate(terms[1:], 1):
        later = result + "".join(t.letters for t in terms[at + 1 :])
        made = _product(builder, made, term, later)
    made = _summed(builder, made, result)
    return (_ordered(builder, made, result).value,)


def _terms(equation: str, operands: Sequence[ir.Value]) -> tuple[list[_Term], str]:
    """Operands with one letter an axis, dots spelled out, and the result's letters."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    spelled: list[_Term] = []
    free = [c for c in string.ascii_letters if c not in equation]
    widest = 0
    for text, value in zip(left.split(","), operands, strict=True):
        rank = rank_of(value)
        hidden = rank - len(text.replace("...", ""))
        widest = max(widest, hidden if "..." in text else 0)
        dots = "".join(free[:hidden][::-1]) if "..." in text else ""
        letters = text.replace("...", dots)
        if len(set(letters)) < len(letters):
            raise Refused(f"{equation!r} takes a diagonal", "write it without the diagonal")
        spelled.append(_Term(value, letters))
    dots = "".join(free[:widest][::-1])
    if not arrow:
        every = "".join(t.letters for t in spelled)
        once = sorted(c for c in set(every) if every.count(c) == 1 and c not in dots)
        return spelled, dots + "".join(once)
    return spelled, right.replace("...", dots)


def _summed(builder: Builder, term: _Term, needed: str) -> _Term:
    """The term without the letters that nobody needs."""
    axes = [at for at, letter in enumerate(term.letters) if letter not in needed]
    if not axes:
        return term
    kept = "".join(letter for letter in term.letters if letter in needed)
    return _Term(builder.reduce("ReduceSum", term.value, axes, keepdims=False), kept)


def _ordered(builder: Builder, term: _Term, letters: str) -> _Term:
    """The term with its axes in another order."""
    perm = [term.letters.index(letter) for letter in letters]
    return _Term(builder.transpose(term.value, perm), letters)


def _product(builder: Builder, a: _Term, b: _Term, later: str) -> _Term:
    """Two terms contracted over what both have and nobody needs later."""
    a = _summed(builder, a, later + b.letters)
    b = _summed(builder, b, later + a.letters)
    both = [letter for letter in a.letters if letter in b.letters]
    batch = "".join(letter for letter in both if letter in later)
    inner = "".join(letter for letter in both if letter not in later)
    rows = "".join(letter for letter in a.letters if letter not in b.letters)
    columns = "".join(letter for letter in b.letters if letter not in a.letters)
    left = _ordered(builder, a, batch + rows + inner)
    right = _ordered(builder, b, batch + inner + columns)
    if not inner:  # an outer product
        x = builder.unsqueeze(left.value, _places(left.letters, len(columns)))
        y = builder.unsqueeze(
            right.value, [len(batch) + at for at in range(len(rows))]
        ) if rows else right.value  # fmt: skip
        return _Term(builder.op("Mul", x, y), batch + rows + columns)
    n = len(batch)
    x = _grouped(builder, left, [*map(str, batch), rows, inner])
    y = _grouped(builder, right, [*map(str, batch), inner, columns])
    product = builder.op("MatMul", x, y)
    return _Term(
        _ungrouped(builder, product, left, right, n, rows, columns), batch + rows + columns
    )


def _places(letters: str, count: int) -> list[int]:
    return [len(letters) + at for at in range(count)]


def _grouped(builder: Builder, term: _Term, groups: list[str]) -> ir.Value:
    """The term with each group of letters as one axis; an empty group has size 1."""
    if all(len(group) == 1 for group in groups):
        return term.value
    sizes = [_group_size(builder, term, group) for group in groups]
    return builder.reshape(term.value, _joined(builder, sizes))


def _group_size(builder: Builder, term: _Term, group: str) -> int | ir.Value:
    """The product of a group's sizes: a number, or a list of one where it is dynamic."""
    sizes = sizes_of(term.value) or (None,) * len(term.letters)
    known, dynamic = 1, list[ir.Value]()
    for letter in group:
        at = term.letters.index(letter)
        size = sizes[at]
        if size is None:
            dynamic.append(builder.shape_of(term.value, at, at + 1))
        else:
            known *= size
    if not dynamic:
        return known
    product = dynamic[0]
    for other in dynamic[1:]:
        product = builder.op("Mul", product, other)
    return product if known == 1 else builder.op("Mul", product, known)


def _joined(builder: Builder, sizes: list[int | ir.Value]) -> ir.Value:
    """A shape; one dynamic size is told as -1."""
    dynamic = [at for at, size in enumerate(sizes) if isinstance(size, ir.Value)]
    if len(dynamic) <= 1:
        return builder.constant([-1 if isinstance(s, ir.Value) else s for s in sizes])
    parts = [s if isinstance(s, ir.Value) else builder.constant([s]) for s in sizes]
    return builder.op("Concat", *parts, axis=0)


def _ungrouped(
    builder: Builder,
    product: ir.Value,
    left: _Term,
    right: _Term,
    batch: int,
    rows: str,
    columns: str,
) -> ir.Value:
    """The product with its rows and columns as the axes they were made of."""
    if len(rows) == 1 and len(columns) == 1:
        return product
    sizes = [_group_size(builder, left, letter) for letter in left.letters[:batch] + rows]
    sizes += [_group_size(builder, right, letter) for letter in columns]
    if not sizes:
        return builder.squeeze(product, [0, 1])
    return builder.reshape(product, _joined(builder, sizes))
