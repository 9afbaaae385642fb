"""A mixed row: what one layer could become, of every family of forms, and what each costs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...passes.forms import Dense, Form
from .bits_candidates import Fit
from .bits_row import Row
from .solve_pareto import pareto
from .solve_table import Choices

Vector = npt.NDArray[np.float64]

Family = Literal[
    "dense", "low-rank", "train", "filters", "codes", "sum", "nested", "int8"
]  # fmt: skip
"""Kinds of forms; candidates of one kind lose the model's outputs in the same way."""
Quantity = Literal["bits", "macs", "seconds"]
"""What a budget may count."""

_LEAST = 1e-12


@dataclass(frozen=True)
class Candidate:
    """One form of a layer and its price.

    Args:
        form: the recipe.
        family: its kind.
        error: squared error of the layer's output over that output's energy; of its weights
            where nothing is known of the inputs.
        bits: all that is stored for the weight.
        macs: multiply-adds of all sites that read it.
        seconds: their predicted time; 0 where nothing predicts it.
        is_fitted: whether error and bits are those of a fitted term, not estimates.
        divergence: how far the model's outputs move, where that was measured.
    """

    form: Form
    family: Family
    error: float
    bits: float
    macs: float
    seconds: float = 0.0
    is_fitted: bool = False
    divergence: float | None = None

    def cost(self, quantity: Quantity) -> float:
        """What a budget counts of it."""
        if quantity == "bits":
            return self.bits
        return self.macs if quantity == "macs" else self.seconds


@dataclass(frozen=True)
class MixedRow:
    """The candidates of one weight; the first leaves it dense.

    Args:
        site: name of the first site that reads it; those that share it follow.
        candidates: dense, then the others.
        weights: numbers in the weight.
        reason: why there is nothing but dense, where that is so.
        slope: divergence for an error of one where none was measured.
    """

    site: str
    candidates: tuple[Candidate, ...]
    weights: int
    reason: str = ""
    slope: float | None = field(default=None)

    @property
    def dense(self) -> Candidate:
        """Leaving it as it is."""
        return self.candidates[0]

    def costs(self, quantity: Quantity) -> Vector:
        """The cost of every candidate."""
        return np.array([c.cost(quantity) for c in self.candidates])

    def divergences(self) -> Vector:
        """The divergence of every candidate: measured, or from what was measured.

        Each family has a curve of its own, log divergence against log error: straight between
        what was measured and of slope one beyond; where fewer than two were measured, the
        curve of all families. Codes, which are all measured, are smoothed (`Row.weighed`).
        Dense has none.
        """
        found = np.zeros(len(self.candidates))
        whole = _curve([c for c in self.candidates[1:] if c.divergence is not None])
        for family in sorted({c.family for c in self.candidates[1:]}):
            at = [i for i, c in enumerate(self.candidates) if c.family == family and i]
            seen = [i for i in at if self.candidates[i].divergence is not None]
            own = _curve([self.candidates[i] for i in seen]) if len(seen) > 1 else whole
            error = np.array([self.candidates[i].error for i in at])
            if own is None:
                found[at] = (1.0 if self.slope is None else self.slope) * error
            else:
                found[at] = _along(own, error)
        coded = [
            i
            for i, c in enumerate(self.candidates)
            if c.family in ("codes", "sum") and c.divergence is not None
        ]
        if coded:
            coded.sort(key=lambda i: (self.candidates[i].bits, self.candidates[i].error))
            found[coded] = self._row(coded).weighed()
        return found

    def _row(self, at: list[int]) -> Row:
        fits = tuple(
            Fit(c.form, int(c.bits), c.error) for c in (self.candidates[i] for i in at)
        )
        lost = tuple(float(self.candidates[i].divergence or 0.0) for i in at)
        return Row(self.site, int(self.dense.bits), fits, lost)

    def choices(self, quantities: Sequence[Quantity]) -> Choices:
        """The row as solvers take it."""
        costs: dict[str, Vector] = {q: self.costs(q) for q in quantities}
        return Choices(self.site, self.divergences(), costs)

    def front(self, family: Family, quantities: Sequence[Quantity]) -> list[int]:
        """Those of a family that no other of it is below in error and every quantity."""
        at = [i for i, c in enumerate(self.candidates) if c.family == family]
        if not at:
            return []
        error = np.array([self.candidates[i].error for i in at])
        table = np.column_stack([error, *(self.costs(q)[at] for q in quantities)])
        return sorted(at[int(i)] for i in pareto(table))

    def with_candidates(self, candidates: tuple[Candidate, ...]) -> "MixedRow":
        """The row with other candidates."""
        return replace(self, candidates=candidates)


def dense_candidate(bits: float, macs: float, seconds: float) -> Candidate:
    """Leaving a layer as it is."""
    return Candidate(Dense(), "dense", 0.0, bits, macs, seconds, is_fitted=True, divergence=0)


def _curve(probes: list[Candidate]) -> tuple[Vector, Vector] | None:
    """Log error and log divergence of what was measured, neither falling."""
    if not probes:
        return None
    probes = sorted(probes, key=lambda c: c.error)
    x = np.log(np.maximum([c.error for c in probes], _LEAST))
    y = np.log(np.maximum([c.divergence or 0.0 for c in probes], _LEAST))
    y = np.maximum.accumulate(np.where(np.isfinite(y), y, 1e3))
    return x, y


def _along(curve: tuple[Vector, Vector], error: Vector) -> Vector:
    x, y = curve
    place = np.log(np.maximum(error, _LEAST))
    beyond = np.minimum(place - x[0], 0) + np.maximum(place - x[-1], 0)
    return np.exp(np.minimum(np.interp(place, x, y) + beyond, 700))
