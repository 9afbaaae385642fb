"""Sum: W ≈ Δ₁(Θ₁) + Δ₂(Θ₂) + …, each part of a form of its own."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy.typing as npt
import onnx_ir as ir

from ....device_profiles.errors import PlanError
from ....device_profiles.kernel import Kernel
from ...decode import corrected_matrix, packed_codes
from ...geometry import Geometry, Weights
from ..codes.quantize_term import CodedTerm
from ..dense import Dense
from ..form import Cost, Emitter, Form, Shape, Term, better, read_only
from ..metric import IDENTITY, Metric
from ..prefixed import Prefixed
from ..sparse.filters import FiltersTerm
from ..sparse.prune_term import PruneTerm
from .sum_fit import backfit, total

MOST_PARTS = 4


@dataclass(frozen=True, eq=False)
class SumTerm:
    """The terms of a sum.

    Args:
        parts: terms of one shape.
        is_folded: whether it runs as one dense layer: a part that is dense when executed makes
            branches beside it a loss.
    """

    parts: tuple[Term, ...]
    is_folded: bool

    @property
    def shape(self) -> Shape:
        return self.parts[0].shape

    def decompress(self) -> Weights:
        return self._dense

    @cached_property
    def _dense(self) -> Weights:
        return read_only(total(self.parts))

    def cost(self) -> Cost:
        """The sum over the parts (LC part V, eq. 11)."""
        costs = [part.cost() for part in self.parts]
        return Cost(
            sum(c.weights for c in costs),
            sum(c.bits for c in costs),
            sum(c.adds for c in costs),
            sum(c.mults for c in costs),
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            f"{i}.{name}": array
            for i, part in enumerate(self.parts)
            for name, array in part.arrays().items()
        }

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        """One dense layer, or a branch a part and the sum of what they give."""
        if self.is_folded:
            return emitter.apply(x, self.decompress(), "sum", geometry.folded(frozenset()))
        y: ir.Value | None = None
        for i, part in enumerate(self.parts):
            named = Prefixed(emitter, str(i))
            if isinstance(part, FiltersTerm):
                branch = part.lower_branch(named, x, geometry)
            else:
                branch = part.lower(named, x, geometry)
            y = branch if y is None else emitter.node("Add", [y, branch], "sum")
        assert y is not None
        return y

    def decode(self, emitter: Emitter) -> ir.Value | None:
        """The parts' matrices added up, corrections last: they touch few entries."""
        rest = [(i, part) for i, part in enumerate(self.parts)]
        sparse = [(i, part) for i, part in rest if isinstance(part, PruneTerm)]
        rest = [pair for pair in rest if not isinstance(pair[1], PruneTerm)]
        y: ir.Value | None = None
        if sparse:
            i, first = sparse[0]
            coded = next((pair for pair in rest if _has_one_codebook(pair[1])), None)
            if coded is not None and len(first.index):
                y = _decode_pair(
                    Prefixed(emitter, str(coded[0])),
                    Prefixed(emitter, str(i)),
                    coded[1],
                    first,
                )
                rest.remove(coded)
                sparse = sparse[1:]
        for i, part in rest:
            matrix = part.decode(Prefixed(emitter, str(i)))
            if matrix is None:
                return None
            y = matrix if y is None else emitter.node("Add", [y, matrix], "sum")
        for i, part in sparse:
            branch = Prefixed(emitter, str(i))
            y = part.decode(branch) if y is None else part.decode_onto(branch, y)
        return y


@dataclass(frozen=True)
class Sum:
    """A sum of two to four forms, fitted together (LC part V, eqs. 1-4).

    Each part is refitted to what the others leave, in the metric of the layer, and taken only
    where the error does not rise. Levels and corrections are fitted in one step: exactly for
    levels that are given (theorem 4.1).

    Args:
        parts: the forms.
    """

    parts: tuple[Form, ...]
    name: ClassVar[str] = "sum"

    def __post_init__(self) -> None:
        if not 2 <= len(self.parts) <= MOST_PARTS:
            raise PlanError(
                f"a sum of {len(self.parts)} forms",
                hint=f"add up 2 to {MOST_PARTS} forms",
            )

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        given = None
        if isinstance(start, SumTerm) and len(start.parts) == len(self.parts):
            given = start.parts
        term = SumTerm(backfit(W, self.parts, metric, given), self.is_folded(W.shape))
        return better(W, term, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        each = [part.kernels(shape, geometry) for part in self.parts]
        if self.is_folded(shape):
            return Dense().kernels(shape, geometry)
        return tuple(kernel for kernels in each for kernel in kernels)

    def is_folded(self, shape: Shape) -> bool:
        """Whether a part runs as the dense layer itself, so that the sum does too."""
        geometry = _plain_geometry(shape)
        dense = Dense().kernels(shape, geometry)
        return any(part.kernels(shape, geometry) == dense for part in self.parts)


def _plain_geometry(shape: Shape) -> Geometry:
    """A layer of this shape without strides or padding: enough to compare kernels."""
    kernel = shape[3:]
    ones = (1,) * len(kernel)
    if not kernel and shape[0] == 1:
        return Geometry("MatMul", input_rank=2)
    return Geometry("Conv", shape[0], kernel, ones, ones, (0,) * (2 * len(kernel)))


def _has_one_codebook(term: Term) -> bool:
    """Whether one table of levels stands for the whole weight."""
    return (
        isinstance(term, CodedTerm)
        and term.levels.codebook.shape[:2] == (1, 1)
        and term.levels.scale is None
        and term.levels.zero is None
    )


def _decode_pair(q: Emitter, p: Emitter, coded: Term, sparse: PruneTerm) -> ir.Value:
    assert isinstance(coded, CodedTerm)
    words = packed_codes(q, coded.codes, coded.levels.codebook[0, 0])
    return corrected_matrix(p, words, sparse.index, sparse.values, sparse.matrix_shape)
