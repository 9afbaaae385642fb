"""k-means in one dimension, solved exactly: the adaptive codebook of K levels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ....device_profiles.errors import ModelError, RankError
from .kmeans_partition import partition

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

_SORTED_TO = 1 << 20
"""Values that are sorted one by one; more are gathered in bins."""
_BINS = 1 << 18
"""Bins of equal width; their sums stay in the cache."""
_CHUNK = 1 << 18
"""Values handled at once, so that they stay in the cache."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Centres, and how good they are.

    Args:
        centres: (k,) float64, ascending; fewer distinct values than k repeat the last.
        error: Σ w (x − its centre)².
        gap: the least possible error is at least error − gap; 0 where the centres are optimal
            to rounding.
    """

    centres: Doubles
    error: float
    gap: float


def kmeans(values: Floats, k: int, weights: Floats | None = None) -> Clusters:
    """argmin over k centres of Σ w (x − nearest centre)², by dynamic programming.

    Optimal clusters are intervals of the sorted values, and the cost of an interval obeys the
    quadrangle inequality, so that each layer of the dynamic program needs O(N log N) (Wu 1991;
    Grønlund et al. 2017, "Fast exact k-means in 1D"). Where N · k is large the program runs on
    cells of neighbouring values and Lloyd's steps on the values themselves follow. An optimal
    border inside a cell of width h and weight ω can be moved to the cell's edge for at most
    ½ h ω times the distance of the two centres, and all borders inside one cell for h² ω;
    hence gap = 1.5 (max x − min x) max(h ω).

    Args:
        values: any shape.
        k: number of centres, ≥ 1.
        weights: ≥ 0, of the shape of values or what broadcasts to it; None is 1 each.

    Raises:
        RankError: k < 1 or there are no values.
        ModelError: a value is not finite.

    Example:
        >>> kmeans(np.array([1.0, 2.0, 9.0, 10.0]), 2).centres.tolist()
        [1.5, 9.5]
    """
    flat = values.reshape(-1)
    omega = None
    if weights is not None:
        omega = np.broadcast_to(weights, values.shape).reshape(-1)
    if k < 1 or not flat.size:
        raise RankError(
            f"{k} centres of {flat.size} values",
            hint="choose k ≥ 1 and give at least one value",
        )
    low, high = float(flat.min()), float(flat.max())
    if not np.isfinite([low, high]).all():
        raise ModelError("a weight is not finite", hint="look for NaN or infinity in the file")
    width = (high - low) / _BINS if flat.size > _SORTED_TO else 0.0
    if width:
        x, w = _binned(flat, omega, low, high)
    else:
        x, w = _sorted(flat[None], None if omega is None else omega[None])
        x, w = x[0], w[0]
    middle = float(np.vdot(w, x) / max(w.sum(), np.finfo(float).tiny))
    found = partition(x[None] - middle, w[None], k, width)
    centres = found.centres[0] + middle
    error, gain = 0.0, found.gain[0]
    for at in range(0, flat.size, _CHUNK):
        part = flat[at : at + _CHUNK].astype(np.float64) - middle
        part *= part if omega is None else part * omega[at : at + _CHUNK]
        error += float(part.sum())
    return Clusters(centres, max(error - float(gain), 0.0), float(found.gap[0]))


def kmeans_rows(values: Floats, k: int, weights: Floats | None = None) -> Doubles:
    """The centres of every row by itself.

    Args:
        values: (R, M).
        k: number of centres, ≥ 1.
        weights: (R, M), or what broadcasts to it, ≥ 0; a value of weight 0 is left out.

    Returns:
        (R, k) ascending.

    Raises:
        RankError, ModelError: see `kmeans`.
    """
    if k < 1 or not values.size:
        raise RankError(
            f"{k} centres of {values.size} values",
            hint="choose k ≥ 1 and give at least one value",
        )
    if not np.isfinite([values.min(), values.max()]).all():
        raise ModelError("a weight is not finite", hint="look for NaN or infinity in the file")
    rows, length = values.shape
    omega = None if weights is None else np.broadcast_to(weights, values.shape)
    centres = np.empty((rows, k))
    step = max(1, _CHUNK // length)
    for at in range(0, rows, step):
        part = slice(at, at + step)
        x, w = _sorted(values[part], None if omega is None else omega[part])
        total = np.maximum(w.sum(axis=1), np.finfo(float).tiny)
        middle = ((w * x).sum(axis=1) / total)[:, None]
        centres[part] = partition(x - middle, w, k).centres + middle
    return centres


def nearest(values: Floats, centres: Floats) -> npt.NDArray[np.uint8]:
    """The index of the nearest centre of every value; the lower one of two as near.

    Args:
        values: any shape.
        centres: (k,) ascending, k ≤ 256.
    """
    borders = (0.5 * (centres[1:] + centres[:-1])).astype(values.dtype)
    codes = np.zeros(values.shape, np.uint8)
    flat, out = values.reshape(-1), codes.reshape(-1)
    for at in range(0, flat.size, _CHUNK):
        part, index = flat[at : at + _CHUNK], out[at : at + _CHUNK]
        if borders.size > 32:
            index[...] = np.searchsorted(borders, part)
        else:
            for border in borders:
                index += part > border
    return codes


def _sorted(x: Floats, w: Floats | None) -> tuple[Doubles, Doubles]:
    """Each row ascending in float64, and the weights in the same order."""
    if w is None:
        rising = np.sort(x, axis=1).astype(np.float64)
        return rising, np.ones_like(rising)
    order = np.argsort(x, axis=1, kind="stable")
    return (
        np.take_along_axis(x, order, axis=1).astype(np.float64),
        np.take_along_axis(w, order, axis=1).astype(np.float64),
    )


def _binned(x: Floats, w: Floats | None, low: float, high: float) -> tuple[Doubles, Doubles]:
    """Means and weights of the bins that hold something, of equal width, ascending."""
    bins = _BINS
    mass, moment = np.zeros(bins), np.zeros(bins)
    factor = bins / (high - low)
    for at in range(0, x.size, 16 * _CHUNK):
        part = x[at : at + 16 * _CHUNK]
        index = ((part - x.dtype.type(low)) * x.dtype.type(factor)).astype(np.intp)
        np.minimum(index, bins - 1, out=index)
        if w is None:
            mass += np.bincount(index, minlength=bins)
            moment += np.bincount(index, part, bins)
        else:
            omega = w[at : at + 16 * _CHUNK]
            mass += np.bincount(index, omega, bins)
            moment += np.bincount(index, part * omega.astype(np.float64), bins)
    held = mass > 0
    return moment[held] / mass[held], mass[held]
