"""The clipping range of an even grid that loses least."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .quantize_levels import as_half

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

_CHUNK = 1 << 18
"""Weights handled at once, so that they stay in the cache."""
_SAMPLE = 1 << 22
"""Weights that the search looks at; more are thinned out evenly."""
_ROUNDS = 4
"""Least-squares steps after the search."""


def best_grid(
    W: Floats, weights: Floats | None, k: int, *, is_symmetric: bool
) -> tuple[Doubles, Doubles]:
    """argmin over s, z of Σ h (w − s (q − z))² in every row, q = 0 … k − 1 the nearest.

    The range is shrunk towards the mean (towards 0 where symmetric) in steps, the best one is
    kept, and least squares on its codes follow for as long as the error falls. s and z are
    tried as the float16 that they are stored in.

    Args:
        W: (P, L).
        weights: h, (P, L); None is 1.
        k: levels.
        is_symmetric: whether z = k / 2, so that the codes are signed integers.

    Returns:
        s and z, (P,) each.
    """
    size = np.float32(np.exp2(np.floor(np.log2(max(float(np.abs(W).max()), 1e-38)))))
    W = W / size  # an exact division: squares of very small weights stay above zero
    low, high = W.min(axis=1).astype(np.float64), W.max(axis=1).astype(np.float64)
    stride = max(1, W.size // _SAMPLE)
    X = np.ascontiguousarray(W[:, ::stride])
    h = None if weights is None else np.ascontiguousarray(weights[:, ::stride])
    s, z = np.empty(len(W)), np.empty(len(W))
    step = max(1, _CHUNK // X.shape[1])
    for at in range(0, len(W), step):
        part = slice(at, at + step)
        s[part], z[part] = _searched(
            X[part], None if h is None else h[part], low[part], high[part], k, is_symmetric
        )
    return s * float(size), z


def _searched(
    X: Floats,
    h: Floats | None,
    low: Doubles,
    high: Doubles,
    k: int,
    is_symmetric: bool,
) -> tuple[Doubles, Doubles]:
    middle = X.mean(axis=1, dtype=np.float64)
    unit = _unit(low, high, k)
    best = np.zeros((2, len(X)))
    least = np.full(len(X), np.inf)

    def offer(s: Doubles, z: Doubles) -> npt.NDArray[np.bool_]:
        nonlocal best, least
        s = as_half(s / unit).astype(np.float64) * unit
        z = as_half(z).astype(np.float64)
        R = X - _values(_codes(X, s, z, k), s, z)
        R *= R if h is None else R * h
        error = R.sum(axis=1, dtype=np.float64)
        is_less = (error < least) & (s > 0)
        best = np.where(is_less, np.array([s, z]), best)
        least = np.where(is_less, error, least)
        return is_less

    for share in np.linspace(1.0, 0.7, 7) if k >= 64 else np.linspace(1.0, 0.2, 25):
        if is_symmetric:
            half = k // 2
            size = np.maximum(high / max(half - 1, 1), -low / half)
            offer(share * size, np.full(len(X), float(half)))
        else:
            bottom = middle + share * (low - middle)
            s = share * (high - low) / (k - 1)
            offer(s, -bottom / np.where(s > 0, s, 1.0))
    for _ in range(_ROUNDS):
        s, z = best
        q = _codes(X, s, z, k)
        if not offer(*_regressed(X, h, q, s, z, is_symmetric)).any():
            break
    # A row of one value is that value: s (0 − z) with z = ∓ 1.
    flat = least == np.inf
    best[0, flat] = np.abs(middle[flat])
    best[1, flat] = k // 2 if is_symmetric else -np.sign(middle[flat])
    return best[0], best[1]


def _unit(low: Doubles, high: Doubles, k: int) -> float:
    """A power of two that keeps float16 scales of these rows normal."""
    top = float((high - low).max()) / (k - 1)
    return 1.0 if top <= 0 or top >= 2.0**-10 else float(2.0 ** np.floor(np.log2(top)))


def _codes(X: Floats, s: Doubles, z: Doubles, k: int) -> Floats:
    safe = np.where(s > 0, s, 1.0)
    u = X / safe.astype(X.dtype)[:, None] + z.astype(X.dtype)[:, None]
    return np.clip(np.rint(u), 0, k - 1)


def _values(q: Floats, s: Doubles, z: Doubles) -> Floats:
    return (q - z.astype(q.dtype)[:, None]) * s.astype(q.dtype)[:, None]


def _regressed(
    X: Floats,
    h: Floats | None,
    q: Floats,
    s: Doubles,
    z: Doubles,
    is_symmetric: bool,
) -> tuple[Doubles, Doubles]:
    """Least squares of X on its codes, with or without a constant."""
    ones = np.ones_like(X) if h is None else h
    if is_symmetric:
        d = q - z.astype(q.dtype)[:, None]
        above = (ones * d * X).sum(axis=1, dtype=np.float64)
        below = (ones * d * d).sum(axis=1, dtype=np.float64)
        return np.divide(above, below, out=s.copy(), where=below > 0), z
    total = ones.sum(axis=1, dtype=np.float64)
    safe = np.where(total > 0, total, 1.0)
    mean_q = (ones * q).sum(axis=1, dtype=np.float64) / safe
    mean_x = (ones * X).sum(axis=1, dtype=np.float64) / safe
    d = q - mean_q.astype(q.dtype)[:, None]
    above = (ones * d * X).sum(axis=1, dtype=np.float64)
    below = (ones * d * d).sum(axis=1, dtype=np.float64)
    new = np.divide(above, below, out=s.copy(), where=below > 0)
    new = np.where(new > 0, new, s)
    return new, mean_q - mean_x / np.where(new > 0, new, 1.0)
