"""Trimmed codebooks: the best levels of the weights that nothing corrects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...geometry import Weights

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]

_BLOCK = 1 << 12
_PASSES = 100
_BISECTIONS = 64


@dataclass(frozen=True, eq=False)
class Trimmed:
    """A codebook for all weights but the κ worst ones.

    Args:
        centres: (k,) float64, ascending.
        reach: distance to the nearest centre beyond which weights are left out.
        errors: Σ (w − nearest centre)² over those within reach, after every pass.
    """

    centres: Doubles
    reach: float
    errors: tuple[float, ...]


class _Ordered:
    """Values in ascending order, with sums of any stretch of them at hand."""

    def __init__(self, values: Weights) -> None:
        self.x = np.sort(values, axis=None)
        self.middle = float(self.x[len(self.x) // 2])
        blocks = -(-len(self.x) // _BLOCK)
        sums = np.empty((2, blocks + 1))
        sums[:, 0] = 0.0
        for at in range(0, blocks, 64):
            starts = range(at, min(at + 64, blocks))
            part = self._part(at * _BLOCK, (at + 64) * _BLOCK)
            cuts = [(b - at) * _BLOCK for b in starts]
            sums[0, at + 1 : at + 1 + len(cuts)] = np.add.reduceat(part, cuts)
            sums[1, at + 1 : at + 1 + len(cuts)] = np.add.reduceat(part * part, cuts)
        self.sums = np.cumsum(sums, axis=1)

    def _part(self, start: int, stop: int) -> Doubles:
        return self.x[start:stop].astype(np.float64) - self.middle

    def below(self, bounds: Doubles) -> npt.NDArray[np.int64]:
        """How many values are less than each bound."""
        return np.searchsorted(self.x, bounds.astype(np.float32), "left").astype(np.int64)

    def prefix(self, at: int) -> Doubles:
        """Sums of x and x² (around the middle) of the first `at` values."""
        block = at // _BLOCK
        rest = self._part(block * _BLOCK, at)
        return self.sums[:, block] + np.array([rest.sum(), np.vdot(rest, rest)])


def trimmed(values: Weights, kappa: int, centres: Doubles, passes: int = _PASSES) -> Trimmed:
    """argmin over centres of Σ (w − nearest centre)² without its κ largest terms, locally.

    The C step of an adaptive codebook with κ sparse corrections (LC part V, eqs. 3-4): a
    corrected weight costs nothing whatever its level is, so that it must not pull its centre.
    Alternates { the κ weights farthest from their nearest centre are left out; every centre
    becomes the mean of the rest of its weights }, which never raises the objective. On sorted
    values the rest are k intervals [c − reach, c + reach] cut at the midpoints: their borders
    are found by bisection, their means from prefix sums, and a pass costs O(k log N).

    Args:
        values: float32, any shape.
        kappa: weights left out, less than values.size.
        centres: (k,) to start from.
        passes: at most so many.
    """
    ordered = _Ordered(values)
    kept = values.size - kappa
    c = np.sort(centres) - ordered.middle
    errors: list[float] = []
    reach = np.inf
    for _ in range(passes):
        reach, starts, stops = _within(ordered, c, kept)
        ends = np.stack([ordered.prefix(int(e)) for e in np.ravel([starts, stops])])
        first, last = ends[: len(c)], ends[len(c) :]
        counts = (stops - starts).astype(np.float64)
        s1, s2 = (last - first).T
        moved = np.where(counts > 0, s1 / np.maximum(counts, 1.0), c)
        error = float(np.sum(np.maximum(s2 - np.square(s1) / np.maximum(counts, 1.0), 0.0)))
        error -= float(counts.sum() - kept) * reach**2  # equal weights at the very border
        if errors and errors[-1] - error <= 1e-10 * error:
            break
        c = moved
        errors.append(error)
    return Trimmed(c + ordered.middle, float(reach), tuple(errors))


def signs(values: Weights) -> Doubles:
    """The means of the weights below and above the mean: where two centres start."""
    middle = values.mean(dtype=np.float64)
    above = values > middle
    count = int(np.count_nonzero(above))
    if not 0 < count < values.size:
        return np.array([middle, middle])
    total = float(values.sum(dtype=np.float64))
    high = float(values.sum(dtype=np.float64, where=above))
    return np.array([(total - high) / (values.size - count), high / count])


def _within(
    ordered: _Ordered, c: Doubles, kept: int
) -> tuple[float, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The reach within which `kept` values lie, and where each centre's interval is."""
    middles = 0.5 * (c[1:] + c[:-1])
    lowest = np.concatenate([[-np.inf], middles])
    highest = np.concatenate([middles, [np.inf]])

    def intervals(reach: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        bounds = np.concatenate(
            [np.maximum(c - reach, lowest), np.minimum(c + reach, highest)]
        )
        found = ordered.below(bounds + ordered.middle)
        return found[: len(c)], np.maximum(found[len(c) :], found[: len(c)])

    low = 0.0
    high = float(
        max(ordered.x[-1] - ordered.x[0], np.abs(ordered.x[[0, -1]] - ordered.middle).max())
    )
    high = 2 * high + 1e-30
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        starts, stops = intervals(middle)
        total = int((stops - starts).sum())
        if total == kept:
            return middle, starts, stops
        low, high = (middle, high) if total < kept else (low, middle)
    return high, *intervals(high)
