"""Paired moments: what a layer met and what it meets now, and the weight that makes up for it.

With y the input that a layer meets behind compressed layers and x the one it met before, the
weight V that gives back E[(W x) | y] as far as a linear map can is

    V = W C G⁻¹,   C = Cov(x, y),  G = Cov(y).

This is the asymmetric calibration of GPTAQ (Li et al. 2025), here with a ridge that is chosen
by what holds for other samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...passes.geometry import Weights
from ...runtime.collect_patches import Reading, panels

Array = npt.NDArray[np.float64]

MOST_PATCHES = 1 << 14
"""Positions of a layer that are looked at, over all samples; more where patches are wide."""
MOST_BYTES = 1 << 29
"""Of the moments of a layer; where they would take more, only its bias follows."""
RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Shares of the mean diagonal of G that may be added to it where it is inverted."""


@dataclass(frozen=True, eq=False)
class Paired:
    """Moments of what a layer met before (x) and meets now (y), position by position.

    Args:
        mean_before, mean: (g, n) of x and of y.
        covariance: (g, n, n), G = Cov(y); (0, 0, 0) where it would be too large.
        shift: likewise, Cov(x − y, y) = C − G.
        count: positions they are from.
    """

    mean_before: Array
    mean: Array
    covariance: Array
    shift: Array
    count: float

    def about_zero(self) -> "Paired":
        """Moments about zero in place of those about the mean: for a layer without a bias."""
        if not self.covariance.size:
            return self
        y, moved = self.mean[:, None, :], (self.mean_before - self.mean)[:, :, None]
        G = self.covariance + self.mean[:, :, None] * y
        zero = np.zeros_like(self.mean)
        return Paired(zero, zero, G, self.shift + moved * y, self.count)

    def __add__(self, other: "Paired") -> "Paired":
        """The moments of both together."""
        count = self.count + other.count
        a, b = self.count / max(count, 1.0), other.count / max(count, 1.0)
        mx = a * self.mean_before + b * other.mean_before
        my = a * self.mean + b * other.mean
        G = a * self.covariance + b * other.covariance
        S = a * self.shift + b * other.shift
        if G.size:
            apart = self.mean - other.mean
            moved = apart - (self.mean_before - other.mean_before)
            G += a * b * apart[:, :, None] * apart[:, None, :]
            S -= a * b * moved[:, :, None] * apart[:, None, :]
        return Paired(mx, my, G, S, count)


def paired(
    reading: Reading,
    before: Sequence[npt.NDArray[Any]],
    now: Sequence[npt.NDArray[Any]],
    *,
    most_patches: int = MOST_PATCHES,
    most_bytes: int = MOST_BYTES,
) -> Paired:
    """The moments of pairs of values, one of each a sample, read at the same positions."""
    g, n = reading.groups, reading.width
    squares = 4 * reading.moment_bytes <= most_bytes
    sums, products = np.zeros((2, g, n)), np.zeros((2, g, n, n) if squares else (2, 0, 0, 0))
    about = np.zeros((g, n, 1), np.float32)
    count = 0.0
    each = max(max(most_patches, 8 * n) // max(len(now), 1), 1)
    for index, (x, y) in enumerate(zip(before, now, strict=True)):
        rng = (np.random.default_rng(index), np.random.default_rng(index))
        both = panels(reading, x, each, rng[0]), panels(reading, y, each, rng[1])
        for (X, weight), (Y, _) in zip(*both, strict=True):
            if not count:  # a large mean must not cost the covariance its digits
                about = Y.mean(axis=2, keepdims=True)
            X, Y = X - about, Y - about
            count += weight * X.shape[2]
            sums[0] += weight * X.sum(axis=2, dtype=np.float64)
            sums[1] += weight * Y.sum(axis=2, dtype=np.float64)
            if squares:
                products[1] += weight * (Y @ Y.swapaxes(1, 2))
            if squares and x is not y:
                products[0] += weight * ((X - Y) @ Y.swapaxes(1, 2))
    mx, my = sums / max(count, 1.0)
    S, G = products / max(count, 1.0)
    if squares:
        G = G - my[:, :, None] * my[:, None, :]
        S = S - (mx - my)[:, :, None] * my[:, None, :]
    start = about[:, :, 0].astype(np.float64)
    return Paired(mx + start, my + start, (G + G.swapaxes(1, 2)) / 2, S, count)


def aimed_at(
    W: Weights, halves: tuple[Paired, Paired], ridges: Sequence[float] = RIDGES
) -> Weights:
    """V = W + D, D = W (C − G) (G + λ)⁻¹: what Ŵ is to approximate on what the layer meets.

    λ is the ridge whose D, found on one half of the samples, gives back the outputs of the
    other half best: E‖W x − (W + D) y‖² = tr(D G Dᵀ) − 2 tr(W (C − G) Dᵀ) + what D does not
    change. Where none is better than D = 0, it is that.

    Args:
        W: (g, m, c, *kernel).
        halves: the moments of two halves of the samples.
        ridges: to choose from.
    """
    whole = halves[0] + halves[1]
    if not whole.shift.any():
        return W
    flat = W.reshape(*W.shape[:2], -1).astype(np.float64)
    found = [_Moves(flat, half) for half in halves]
    losses = [
        found[0].at(ridge).lost(flat, halves[1]) + found[1].at(ridge).lost(flat, halves[0])
        for ridge in ridges
    ]
    best = int(np.argmin(losses))
    if losses[best] >= 0:
        return W
    D = _Moves(flat, whole).at(ridges[best]).D
    return (flat + D).astype(np.float32).reshape(W.shape)


@dataclass(frozen=True, eq=False)
class _Move:
    """D = V − W, (g, m, n)."""

    D: Array

    def lost(self, W: Array, seen: Paired) -> float:
        """What the squared error of the outputs gains by D, on other samples."""
        own = float(np.vdot(self.D @ seen.covariance, self.D))
        return own - 2 * float(np.vdot(W @ seen.shift, self.D))


class _Moves:
    """D for any ridge, from one decomposition of G."""

    def __init__(self, W: Array, seen: Paired) -> None:
        self._values, self._vectors = np.linalg.eigh(seen.covariance)
        self._right = (W @ seen.shift) @ self._vectors
        self._mean = np.trace(seen.covariance, axis1=1, axis2=2) / seen.covariance.shape[-1]

    def at(self, ridge: float) -> _Move:
        level = np.where(self._mean > 0, ridge * self._mean, 1.0)[:, None]
        below = np.maximum(self._values, 0.0) + level
        return _Move((self._right / below[:, None]) @ self._vectors.swapaxes(1, 2))
