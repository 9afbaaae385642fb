"""Codes and levels fitted in the metric of a layer: rounding, feedback and least squares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...geometry import Weights
from ..form import Term, better
from ..metric import Metric, Moments
from .feedback import Order, Rounded, descended, fed_back, ordered, slopes_of
from .feedback_refit import refitted
from .quantize_levels import Codes, Levels
from .quantize_term import CodedTerm

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
LevelsOf = Callable[[Weights, Floats | None], Levels]
"""Fits levels to W (R, n) in a diagonal metric (R, n), or in the plain norm."""

_DAMPING = 0.01
"""Share of the mean diagonal of H that is added to it, as in GPTQ."""
_ROUNDS = 6
"""Alternations of levels and codes at most."""
_ROUNDS_IN_LARGE = 3
"""The same for large layers, which do not start again either."""
_PRODUCTS = 4e9
"""Multiplications of W H above which a layer is large."""
_RESTARTS = 3
"""Feedback with the levels that alternation has found, at most."""
_SWEEPS = 2
"""Sweeps of coordinate descent in a round."""
_GAIN = 1e-3
"""A round that lowers the objective by a smaller share is the last."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Weights to be rounded in a metric.

    Args:
        W: (g · m, n).
        H: (g, n, n), positive definite.
        damping: what H has more than the metric on each group's diagonal, (g,).
        order: of rounding.
        free: (g · m, n) weights that corrections bring to any value; None for none.
    """

    W: Doubles
    H: Moments
    damping: Doubles
    order: Order
    free: Mask | None = None

    @property
    def heights(self) -> Weights:
        """The diagonal of H for every weight (g · m, n), around 1."""
        h = np.repeat(np.einsum("gii->gi", self.H), len(self.W) // len(self.H), axis=0)
        return (h / h.mean()).astype(np.float32)

    @property
    def is_large(self) -> bool:
        """Whether a fit must do with few products W H."""
        return self.W.size * self.W.shape[1] > _PRODUCTS

    def error(self, found: Rounded) -> float:
        """tr(R Hₒ Rᵀ), with Hₒ = H without its damping."""
        R = self.W - found.values
        lengths = np.square(R).reshape(len(self.H), -1).sum(axis=1)
        return max(float(np.vdot(found.slopes, R)) - float(self.damping @ lengths), 0.0)

    def at(self, codes: Codes, levels: Levels, values: Doubles | None = None) -> Rounded:
        """Codes as they are; free weights keep the value they have in `values`."""
        made = levels.values(codes).astype(np.float64)
        if self.free is not None and values is not None:
            made = np.where(self.free, values, made)
        return Rounded(codes, made, slopes_of(self.W - made, self.H))


def posed(W: Weights, H: Moments) -> Problem:
    """The problem for W (g, m, c, *kernel), H damped: safe where it has no full rank."""
    mean = np.einsum("gii->g", H) / H.shape[-1]
    # Groups that saw nothing get the damping of the others.
    level = _DAMPING * np.where(mean > 0, mean, mean.mean() if mean.mean() > 0 else 1.0)
    flat = W.reshape(W.shape[0] * W.shape[1], -1)
    damped = H + level[:, None, None] * np.eye(H.shape[-1])
    return Problem(flat.astype(np.float64), damped, level, ordered(damped))


def coded(W: Weights, levels_of: LevelsOf, start: Term | None, metric: Metric) -> Term:
    """The codes and levels nearest to W in `metric`, never worse than rounding or `start`.

    Without moments the levels are fitted and the weights rounded. With them: levels in the
    diagonal of H, codes by error feedback, then levels by least squares and codes by
    coordinate descent for as long as the error falls; then all over from the levels found.

    Args:
        W: (g, m, c, *kernel).
        levels_of: fits the levels.
        start: a term to improve on.
        metric: the norm.
    """
    flat = W.reshape(W.shape[0] * W.shape[1], -1)
    plain = levels_of(flat, None)
    rounded = CodedTerm(W.shape, plain.nearest(flat), plain)
    if metric.H is None or metric.is_round:
        return better(W, rounded, start, metric)
    problem = posed(W, metric.H)
    levels = levels_of(flat, problem.heights)
    first = problem.at(levels.nearest(flat), levels)
    found, levels = alternated(problem, levels, (first, levels))
    error = metric.squared(W - rounded.decompress())
    # What differs by rounding alone does not replace the plain fit.
    if problem.error(found) < error * (1 - 1e-9):
        rounded = CodedTerm(W.shape, found.codes, levels)
    return better(W, rounded, start, metric)


def alternated(
    problem: Problem, levels: Levels, first: tuple[Rounded, Levels] | None = None
) -> tuple[Rounded, Levels]:
    """Codes by feedback and descent, levels by least squares, in turns: the best met.

    Args:
        problem: weights and moments.
        levels: where to begin.
        first: codes and levels that may be the best already.
    """
    best = first
    least = np.inf if first is None else problem.error(first[0])
    rounds = _ROUNDS_IN_LARGE if problem.is_large else _ROUNDS
    for _ in range(1 if levels.is_rigid or problem.is_large else _RESTARTS):
        before, error = least, np.inf
        found = fed_back(problem.W, levels, problem.order, problem.free)
        for turn in range(1 if levels.is_rigid else 1 + rounds):
            if turn:
                levels, codes = refitted(
                    found.codes, levels, problem.H, found.slopes, problem.free
                ).ascending(found.codes)
                found = problem.at(codes, levels, found.values)
            found = descended(found, levels, problem.order, _SWEEPS, problem.free)
            now = problem.error(found)
            if now < least:
                best, least = (found, levels), now
            if now > error * (1 - _GAIN):
                break
            error = now
        if least > before * (1 - _GAIN):
            break
    assert best is not None, "an error is less than infinity"
    return best
