"""Error feedback: the rounding error of each weight is passed on to those not yet rounded.

The codes that minimise tr(R H Rᵀ), R = W − Ŵ, are a closest-vector problem. Two steps solve it
well: Babai's nearest plane, which is GPTQ (Frantar et al. 2023; the equality with the
successive rounding below is Theorem 6 of QuIP, Chee et al. 2023), and coordinate descent on
single codes (as in CDQuant, Nair and Suggala 2024).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..metric import Moments
from .quantize_levels import Codes, Levels

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_BLOCK = 128
"""Columns whose corrections are applied together by one matrix product."""


@dataclass(frozen=True, eq=False)
class Order:
    """Columns in the order they are rounded in, and the second moments in that order.

    Args:
        columns: (n,) by falling mean of the diagonal of H: what matters most is rounded first,
            while others can still take up its error.
        H: (g, n, n) in that order.
        L: (g, n, n): w'_j = w_j + Σ_{i<j} L[j, i] r_i is what column j is rounded from; from
            H = M Mᵀ, M upper triangular, L[j, i] = M[i, j] / M[j, j].
    """

    columns: npt.NDArray[np.intp]
    H: Doubles
    L: Doubles


def ordered(H: Moments) -> Order:
    """The order of rounding of a positive definite H (g, n, n).

    M is the Cholesky factor of H with its columns turned round; no inverse is needed.
    """
    columns = np.argsort(-np.einsum("gii->i", H), kind="stable")
    P = np.ascontiguousarray(H[:, columns[:, None], columns[None, :]])
    turned = np.linalg.cholesky(np.ascontiguousarray(P[:, ::-1, ::-1]))
    M = turned[:, ::-1, ::-1]
    diagonal = np.einsum("gii->gi", M)
    L = np.ascontiguousarray(M.swapaxes(1, 2)) / diagonal[:, :, None]
    return Order(columns, P, L)


def slopes_of(R: Doubles, H: Moments) -> Doubles:
    """G = R H (g · m, n), each group with its own H: half the gradient of tr(R H Rᵀ)."""
    g, n = H.shape[:2]
    return (R.reshape(g, -1, n) @ H).reshape(R.shape)


@dataclass(frozen=True, eq=False)
class Rounded:
    """Codes, the weights they make, and how the error slopes there.

    Args:
        codes: (g · m, n).
        values: Ŵ (g · m, n): what the codes stand for, or a free weight's own value.
        slopes: G = (W − Ŵ) H, (g · m, n).
    """

    codes: Codes
    values: Doubles
    slopes: Doubles


def fed_back(W: Doubles, levels: Levels, order: Order, free: Mask | None = None) -> Rounded:
    """The codes of W rounded column by column, each column with the errors before it.

    Args:
        W: (g · m, n).
        levels: what codes stand for; not changed.
        order: of H.
        free: (g · m, n) weights that a correction will bring to any value: they take up the
            errors before them and leave none.
    """
    g, n = order.L.shape[:2]
    target = _columns_first(W, g)[:, order.columns]
    R = np.zeros_like(target)
    codes = np.empty(target.shape, np.uint8)
    rounding = _Rounding.of(levels, W.shape[0])
    spared = None if free is None else _columns_first(free, g)[:, order.columns]
    for i in range(0, n, _BLOCK):
        stop = min(i + _BLOCK, n)
        wanted = target[:, i:stop] + order.L[:, i:stop, :i] @ R[:, :i]
        for j in range(i, stop):
            w = wanted[:, j - i] + _dot(order.L[:, j, i:j], R[:, i:j])
            codes[:, j], values = rounding.column(w, int(order.columns[j]))
            if spared is not None:
                values = np.where(spared[:, j], w, values)
            R[:, j] = target[:, j] - values
    return Rounded(
        _rows_first(codes, order.columns),
        _rows_first(target - R, order.columns),
        _rows_first(order.H @ R, order.columns),
    )


def descended(
    start: Rounded, levels: Levels, order: Order, sweeps: int, free: Mask | None = None
) -> Rounded:
    """The codes after coordinate descent: each in turn the best for all others as they are.

    With G = R H a column's best value is ŵ_j + G_j / H_jj, and of the levels the nearest one
    to it; no step raises tr(R H Rᵀ).

    Args:
        start: where to begin.
        levels: what codes stand for; not changed.
        order: of H.
        sweeps: over all columns, at most.
        free: (g · m, n) weights that take the best value there is.
    """
    g, n = order.H.shape[:2]
    now = _columns_first(start.codes, g)[:, order.columns]
    held = _columns_first(start.values, g)[:, order.columns]
    G = _columns_first(start.slopes, g)[:, order.columns]
    spared = None if free is None else _columns_first(free, g)[:, order.columns]
    diagonal = np.einsum("gii->gi", order.H)[:, :, None]
    rounding = _Rounding.of(levels, start.codes.shape[0])
    moved = np.zeros((g, _BLOCK, held.shape[2]))
    for _ in range(sweeps):
        changes = 0
        for i in range(0, n, _BLOCK):
            stop = min(i + _BLOCK, n)
            for j in range(i, stop):
                slope = G[:, j] - _dot(order.H[:, j, i:j], moved[:, : j - i])
                best = held[:, j] + slope / diagonal[:, j]
                found, value = rounding.column(best, int(order.columns[j]))
                if spared is not None:
                    value = np.where(spared[:, j], best, value)
                moved[:, j - i] = value - held[:, j]
                changes += int(np.count_nonzero(found != now[:, j]))
                now[:, j], held[:, j] = found, value
            G -= order.H[:, :, i:stop] @ moved[:, : stop - i]
        if not changes:
            break
    return Rounded(
        _rows_first(now, order.columns),
        _rows_first(held, order.columns),
        _rows_first(G, order.columns),
    )


@dataclass(frozen=True, eq=False)
class _Rounding:
    """Levels laid out for one column of all rows at a time, float64.

    Args:
        codebook: (R or 1, B or 1, K).
        borders: halfway between neighbours, (R or 1, B or 1, K − 1).
        scale, zero: (R, B or 1).
        block: columns in a block.
        rows: g · m.
        step: distance of the levels where they are even and alike everywhere, else 0.
    """

    codebook: Doubles
    borders: Doubles
    scale: Doubles
    zero: Doubles
    block: int
    rows: int
    step: float

    @classmethod
    def of(cls, levels: Levels, rows: int) -> "_Rounding":
        book = levels.codebook.astype(np.float64)
        steps = np.diff(book.reshape(-1, book.shape[2]), axis=1)
        even = book.shape[:2] == (1, 1) and steps.size and bool(np.all(steps == steps[0, 0]))

        def wide(part: npt.NDArray[Any] | None, neutral: float) -> Doubles:
            if part is None:
                return np.full((rows, 1), neutral)
            single = part.astype(np.float64)
            return np.ascontiguousarray(np.broadcast_to(single, (rows, single.shape[1])))

        return cls(
            book,
            0.5 * (book[..., 1:] + book[..., :-1]),
            wide(levels.steps, 1.0),
            wide(levels.zero, 0.0),
            levels.block,
            rows,
            float(steps[0, 0]) if even else 0.0,
        )

    def column(self, w: Doubles, at: int) -> tuple[Codes, Doubles]:
        """Codes and values (g, m) of column `at`, whose wanted values are w (g, m)."""
        b = at // self.block
        scale = self.scale[:, b if self.scale.shape[1] > 1 else 0]
        zero = self.zero[:, b if self.zero.shape[1] > 1 else 0]
        u = w.reshape(-1) / np.where(scale > 0, scale, 1.0) + zero
        book = self.codebook[:, b if self.codebook.shape[1] > 1 else 0]
        top = book.shape[1] - 1
        if self.step > 0:
            # Halves go down, as a border that is not exceeded does.
            place = np.ceil((u - book[0, 0]) / self.step - 0.5)
            code = np.clip(place, 0, top).astype(np.intp)
            value = book[0, code]
        elif len(book) == 1:
            code = np.searchsorted(self.borders[0, 0], u)
            value = book[0, code]
        else:
            borders = self.borders[:, b if self.borders.shape[1] > 1 else 0]
            code = (u[:, None] > borders).sum(axis=1)
            value = book[np.arange(self.rows), code]
        return (
            code.astype(np.uint8).reshape(w.shape),
            ((value - zero) * scale).reshape(w.shape),
        )


def _dot(factors: Doubles, rows: Doubles) -> Doubles:
    """Σ_i factors[g, i] rows[g, i, :] for every group."""
    if len(factors) == 1:
        return (factors[0] @ rows[0])[None]
    return np.einsum("gi,gim->gm", factors, rows)


def _columns_first(a: npt.NDArray[Any], g: int) -> npt.NDArray[Any]:
    """(g · m, n) as (g, n, m)."""
    return np.ascontiguousarray(a.reshape(g, -1, a.shape[1]).swapaxes(1, 2))


def _rows_first(a: npt.NDArray[Any], columns: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """The inverse of `_columns_first` and of the order."""
    g, n, m = a.shape
    back = np.empty_like(a)
    back[:, columns] = a
    return np.ascontiguousarray(back.swapaxes(1, 2)).reshape(g * m, n)
