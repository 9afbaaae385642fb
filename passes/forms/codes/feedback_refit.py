"""Levels re-estimated for codes as they are: least squares in the metric."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..metric import Moments
from .feedback import slopes_of
from .quantize_levels import Codes, Levels, as_half, looked_up

Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_PRODUCTS = 2e10
"""Multiplications spent on normal equations; above it some rows, or some steps, must do."""


def refitted(
    codes: Codes,
    levels: Levels,
    H: Moments,
    slopes: Doubles,
    free: npt.NDArray[np.bool_] | None = None,
) -> Levels:
    """argmin of tr(R H Rᵀ) over the numbers in `levels`, one kind after the other.

    Blocks of columns are solved in turn (Gauss-Seidel), each with the others as they are.
    Scales and zero points are rounded to float16 afterwards.

    Args:
        codes: (g · m, n).
        levels: where to begin; levels that nobody stores are not changed.
        H: (g, n, n), positive definite.
        slopes: R H, (g · m, n), for the levels to begin with.
        free: (g · m, n) weights that keep their values whatever their levels are.
    """
    coded = None if free is None else (~free).astype(np.float64)
    if levels.scale is not None:
        levels, slopes = _scaled(codes, levels, H, slopes, coded)
    if levels.free == 1:
        return _stretched(codes, levels, H, slopes, coded)
    if levels.free:
        shared = levels.codebook.shape[:2] == (1, 1)
        return (_shared if shared else _recentred)(codes, levels, H, slopes, coded)
    return levels


def _scaled(
    codes: Codes, levels: Levels, H: Moments, slopes: Doubles, coded: Doubles | None
) -> tuple[Levels, Doubles]:
    """New scales, and zero points where there are some: a 2 × 2 system for each block.

    Returns:
        The levels, and R H with them.
    """
    assert levels.scale is not None
    rows, n = codes.shape
    q = looked_up(levels.codebook, levels.block, codes).astype(np.float64)
    G = slopes.copy()
    blocks = levels.scale.shape[1]
    width = levels.block if blocks > 1 else n
    steps = levels.scale.astype(np.float64) * levels.unit
    scale = np.broadcast_to(steps, (rows, blocks)).copy()
    zero = np.zeros_like(scale)
    if levels.zero is not None:
        zero[...] = levels.zero
    single = levels.scale.shape[0] == 1
    for b in range(blocks):
        part = slice(b * width, min((b + 1) * width, n))
        here = np.ascontiguousarray(H[:, part, part])
        directions = [q[:, part] - zero[:, b : b + 1]]
        if coded is not None:
            directions[0] *= coded[:, part]
        seen = [slopes_of(directions[0], here)]
        if levels.zero is not None and coded is None:
            directions.append(np.ones_like(directions[0]))
            seen.append(np.repeat(here.sum(axis=1), rows // len(H), axis=0))
        elif levels.zero is not None and coded is not None:
            directions.append(coded[:, part])
            seen.append(slopes_of(directions[1], here))
        A = np.array([[(d * s).sum(axis=1) for s in seen] for d in directions])
        y = np.array([(d * G[:, part]).sum(axis=1) for d in directions])
        if single:
            A, y = A.sum(axis=2, keepdims=True), y.sum(axis=1, keepdims=True)
        step = _solved(np.moveaxis(A, 2, 0), y.T)
        new = scale[:, b] + step[:, 0]
        safe = np.where(new > 0, new, 1.0)
        rounded = as_half(safe / levels.unit).astype(np.float64) * levels.unit
        grows = (new > 0) & (rounded > 0)
        # s' (q − z) + t = s' (q − z') with z' = z − t / s'.
        if levels.zero is not None:
            moved = zero[:, b] - step[:, 1] / np.where(grows, rounded, 1.0)
            after = np.where(grows, as_half(moved).astype(np.float64), zero[:, b])
        else:
            after = zero[:, b]
        rounded = np.where(grows, rounded, scale[:, b])
        grown = (rounded - scale[:, b])[:, None]
        raised = (rounded * (zero[:, b] - after))[:, None]
        if blocks > 1:
            change = grown * directions[0]
            if levels.zero is not None:
                change += raised * directions[1]
            wide = change.reshape(len(H), -1, change.shape[1]) @ H[:, part]
            G -= wide.reshape(G.shape)
        else:
            G -= grown * seen[0]
            if levels.zero is not None:
                G -= raised * seen[1]
        scale[:, b], zero[:, b] = rounded, after
    keep = 1 if single else rows
    new_levels = replace(
        levels,
        scale=as_half(scale[:keep] / levels.unit),
        zero=None if levels.zero is None else as_half(zero[:keep]),
    )
    return new_levels, G


def _stretched(
    codes: Codes, levels: Levels, H: Moments, slopes: Doubles, coded: Doubles | None
) -> Levels:
    """One factor for the whole codebook."""
    V = levels.values(codes).astype(np.float64)
    if coded is not None:
        V *= coded
    below = float(np.vdot(slopes_of(V, H), V))
    factor = 1.0 + float(np.vdot(slopes, V)) / below if below > 0 else 1.0
    if factor <= 0:
        return levels
    return replace(levels, codebook=(levels.codebook * factor).astype(np.float32))


def _shared(
    codes: Codes, levels: Levels, H: Moments, slopes: Doubles, coded: Doubles | None
) -> Levels:
    """K new centres of the one codebook, K × K normal equations.

    A[k, l] = Σ_r (s_r z_rk) H (s_r z_rl)ᵀ, with z the codes one-hot. Large layers take every
    so-many-th row of a group.
    """
    g, n = H.shape[:2]
    k = levels.k
    m = codes.shape[0] // g
    stride = max(1, round(g * m * n * n * k / _PRODUCTS))
    picked = np.arange(g * m, dtype=np.intp).reshape(g, m)[:, :: min(stride, m)].reshape(-1)
    C = codes[picked]
    s = _factors(replace(levels, scale=_of_rows(levels.scale, picked)), C.shape)
    if coded is not None:
        s = s * coded[picked]
    y = _sums(C, s * slopes[picked], k)
    A = np.empty((k, k))
    for level in range(k):
        seen = slopes_of(np.where(level == C, s, 0.0), H)
        A[level] = _sums(C, s * seen, k)
    step = _solved(A[None], y[None])[0]
    return replace(levels, codebook=(levels.codebook + step).astype(np.float32))


def _recentred(
    codes: Codes, levels: Levels, H: Moments, slopes: Doubles, coded: Doubles | None
) -> Levels:
    """K new centres for each row (and block) by itself, by conjugate gradients.

    Every step lowers the error, and k of them solve the normal equations
    A[k, l] = (s z_k) H (s z_l)ᵀ, with z the codes one-hot; large layers make do with fewer.
    """
    rows, n = codes.shape
    k, blocks = levels.k, levels.codebook.shape[1]
    width = levels.block if blocks > 1 else n
    s = _factors(levels, codes.shape)
    if coded is not None:
        s = s * coded
    G = slopes.copy()
    books = levels.codebook.astype(np.float64)
    steps = int(np.clip(_PRODUCTS / (rows * n * width), 3, 2 * k))
    for b in range(blocks):
        part = slice(b * width, min((b + 1) * width, n))
        here = np.ascontiguousarray(H[:, part, part])
        C, scale = codes[:, part], s[:, part]
        place = C + np.arange(rows, dtype=np.intp)[:, None] * k
        y = _sums(place, scale * G[:, part], rows * k).reshape(rows, k)
        heights = np.repeat(np.einsum("gii->gi", here), rows // len(H), axis=0)
        mass = _sums(place, scale * scale * heights, rows * k).reshape(rows, k)

        def applied(
            x: Doubles,
            C: Codes = C,
            place: Places = place,
            scale: Doubles = scale,
            here: Moments = here,
        ) -> Doubles:
            change = scale * np.take_along_axis(x, C.astype(np.intp), 1)
            return _sums(place, scale * slopes_of(change, here), rows * k).reshape(rows, k)

        step = _descent(applied, y, mass, steps)
        books[:, b] += step
        if blocks > 1:
            change = scale * np.take_along_axis(step, C.astype(np.intp), 1)
            wide = change.reshape(len(H), -1, change.shape[1]) @ H[:, part]
            G -= wide.reshape(G.shape)
    return replace(levels, codebook=books.astype(np.float32))


def _descent(
    applied: Callable[[Doubles], Doubles], y: Doubles, diagonal: Doubles, steps: int
) -> Doubles:
    """x (R, k) with A x ≈ y for each row's own A, by preconditioned conjugate gradients."""
    safe = np.where(diagonal > 0, diagonal, 1.0)
    x = np.zeros_like(y)
    r = y
    z = r / safe
    p = z
    rho = (r * z).sum(axis=1)
    first = rho.copy()
    for _ in range(steps):
        Ap = applied(p)
        curve = (p * Ap).sum(axis=1)
        goes = (curve > 0) & (rho > 1e-14 * first)
        if not goes.any():
            break
        alpha = np.where(goes, rho / np.where(goes, curve, 1.0), 0.0)[:, None]
        x, r = x + alpha * p, r - alpha * Ap
        z = r / safe
        now = (r * z).sum(axis=1)
        p = z + np.where(goes, now / np.where(goes, rho, 1.0), 0.0)[:, None] * p
        rho = now
    return x


def _factors(levels: Levels, shape: tuple[int, ...]) -> Doubles:
    """The scale of every weight."""
    scale = levels.steps
    if scale is None:
        return np.ones(shape)
    if scale.shape[1] > 1:
        scale = np.repeat(scale, levels.block, axis=1)[:, : shape[1]]
    factors: Doubles = np.broadcast_to(scale, shape).astype(np.float64)
    return factors


def _sums(places: npt.NDArray[np.integer[Any]], a: Doubles, size: int) -> Doubles:
    """(size,) sums of the entries of `a` with the same place."""
    sums = np.bincount(places.ravel(), a.ravel(), size)
    return sums.astype(np.float64, copy=False)


def _of_rows(
    part: npt.NDArray[np.float16] | None, rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.float16] | None:
    return part if part is None or len(part) == 1 else part[rows]


def _solved(A: Doubles, y: Doubles) -> Doubles:
    """The solutions (R, k) of A x = y, A (R, k, k) positive semi-definite; 0 where A is."""
    k = A.shape[1]
    level = np.trace(A, axis1=1, axis2=2)[:, None, None] / k
    ridge = np.where(level > 0, 1e-10 * level, 1.0) * np.eye(k)
    return np.linalg.solve(A + ridge, y[:, :, None])[:, :, 0].astype(np.float64, copy=False)
