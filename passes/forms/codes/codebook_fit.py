"""The best scale of a fixed codebook, in closed form or by trying all that can be best."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

_POWERS = 12
"""Exponents tried below the largest weight's."""


def best_binary(W: Floats, weights: Floats | None) -> Doubles:
    """argmin over c ≥ 0 of Σ h (w − c sign w)² in every row: c = Σ h |w| / Σ h.

    Args:
        W: (R, n).
        weights: h, (R, n); None is 1.

    Returns:
        (R,).
    """
    size = np.abs(W)
    if weights is None:
        return size.mean(axis=1, dtype=np.float64)
    above = (size * weights).sum(axis=1, dtype=np.float64)
    below = weights.sum(axis=1, dtype=np.float64)
    return above / np.maximum(below, np.finfo(np.float64).tiny)


def best_ternary(W: Floats, weights: Floats | None) -> Doubles:
    """argmin over c of Σ h min(w², (|w| − c)²) in every row.

    The weights that are not zeroed are the j largest: the error is Σ h w² − A_j² / B_j with
    A_j, B_j the sums of h |w| and h over them. The best j is found among all, c = A_j / B_j.

    Args:
        W: (R, n).
        weights: h, (R, n); None is 1.

    Returns:
        (R,).
    """
    size = np.abs(W)
    if weights is None:
        A = np.cumsum(np.sort(size, axis=1)[:, ::-1], axis=1, dtype=np.float64)
        B = np.broadcast_to(np.arange(1.0, W.shape[1] + 1), A.shape)
    else:
        order = np.argsort(-size, axis=1, kind="stable")
        h = np.take_along_axis(weights, order, 1).astype(np.float64)
        A = np.cumsum(h * np.take_along_axis(size, order, 1), axis=1)
        B = np.maximum(np.cumsum(h, axis=1), np.finfo(np.float64).tiny)
    j = (A * A / B).argmax(axis=1)[:, None]
    return (np.take_along_axis(A, j, 1) / np.take_along_axis(B, j, 1))[:, 0]


def best_power(W: Floats, weights: Floats | None, codebook: Doubles) -> Doubles:
    """The power of two that a codebook is best multiplied by, in every row.

    Args:
        W: (R, n).
        weights: h, (R, n); None is 1.
        codebook: (K,) ascending, its largest value 1.

    Returns:
        (R,) powers of two.
    """
    top = np.abs(W).max(axis=1).astype(np.float64)
    first = np.ceil(np.log2(np.where(top > 0, top, 1.0)))
    borders = (0.5 * (codebook[1:] + codebook[:-1])).astype(W.dtype)
    book = codebook.astype(W.dtype)
    best, least = np.ones(len(W)), np.full(len(W), np.inf)
    for down in range(_POWERS):
        power = 2.0 ** (first - down)
        u = W / power.astype(W.dtype)[:, None]
        R = u - book[np.searchsorted(borders, u)]
        R *= R if weights is None else R * weights
        error = R.sum(axis=1, dtype=np.float64) * power**2
        is_less = error < least
        best, least = np.where(is_less, power, best), np.where(is_less, error, least)
    return best
