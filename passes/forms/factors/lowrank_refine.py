"""Factors of a folded or blocked weight, refined by least squares in the whole metric.

A folded weight moves kernel entries from the inputs to the outputs, and blocks leave entries
of the input factor out: neither has a closed form in a metric that couples what they part.
The error is quadratic in each factor, so they are solved for in turns and it never rises.
"""

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..metric import Metric

Matrix = npt.NDArray[np.float64]
Factor = npt.NDArray[Any]

_SWEEPS = 3
_STEPS = 10
"""Conjugate gradient steps for the input factor; each lowers the error."""
_RIDGE = 1e-9


def folded_moments(
    metric: Metric, channels: int, kernel: tuple[int, ...], axes: frozenset[int]
) -> Matrix:
    """H as (g, A, c · B, A, c · B): kernel entries A of the outputs, then the inputs' part.

    Args:
        metric: with moments (g, n, n).
        channels: c of a group.
        kernel: its sizes.
        axes: kernel axes that went to the outputs.
    """
    H = metric.H
    assert H is not None, "the identity needs no refinement"
    inner = sorted(axes)
    outer = [a for a in range(len(kernel)) if a not in axes]
    order = [*(1 + a for a in inner), 0, *(1 + a for a in outer)]
    both = [1 + o for o in order] + [2 + len(kernel) + o for o in order]
    A = int(np.prod([kernel[a] for a in inner], dtype=int))
    n = H.shape[-1]
    whole = H.reshape(len(H), channels, *kernel, channels, *kernel).transpose(0, *both)
    return np.ascontiguousarray(whole).reshape(len(H), A, n // A, A, n // A)


def own_moments(folded: Matrix) -> Metric:
    """The moments of what the first factor reads: the mean over A of its sub-blocks."""
    return Metric(np.einsum("gaiaj->gij", folded) / folded.shape[1])


def refined(
    W: Factor,
    U: Factor,
    V: Factor,
    H: Matrix,
    mask: npt.NDArray[np.bool_] | None = None,
) -> tuple[Matrix, Matrix]:
    """U and V of one group after a few turns of least squares; never worse in H.

    Args:
        W: (m · A, n / A), the folded weight.
        U: (m · A, j).
        V: (j, n / A).
        H: (A, n / A, A, n / A), positive definite.
        mask: (j, n / A), entries of V that are free; None frees all.
    """
    A, width = H.shape[:2]
    m = len(W) // A
    n = A * width
    flat = H.reshape(n, n)
    target = W.astype(np.float64).reshape(m, n)
    WH = target @ flat
    left, right = U.astype(np.float64), V.astype(np.float64)
    free = np.ones(right.shape) if mask is None else mask.astype(np.float64)
    best, error = (left, right), _error(target, flat, left, right)
    for _ in range(_SWEEPS):
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is no nearer
            left = _outputs(WH, right, H)
            right = _inputs(WH, left, right, H, free)
            fallen = _error(target, flat, left, right)
        if not fallen < error:
            break
        slow = fallen > (1 - 1e-4) * error
        best, error = (left, right), fallen
        if slow:
            break
    return best


def _outputs(WH: Matrix, V: Matrix, H: Matrix) -> Matrix:
    """U at its optimum for V: one system of A · j unknowns an output."""
    A, width = H.shape[:2]
    j = len(V)
    TH = np.tensordot(V, H, axes=(1, 1)).swapaxes(0, 1)  # (A, j, A, width)
    S = np.tensordot(TH, V, axes=(3, 1)).reshape(A * j, A * j)
    R = np.tensordot(WH.reshape(-1, A, width), V, axes=(2, 1)).reshape(-1, A * j)
    level = np.trace(S) / len(S)
    S += (_RIDGE * level if level > 0 else 1.0) * np.eye(len(S))
    solved = cast(Matrix, np.linalg.solve((S + S.T) / 2, R.T))
    return solved.T.reshape(-1, j)


def _inputs(WH: Matrix, U: Matrix, V: Matrix, H: Matrix, free: Matrix) -> Matrix:
    """V a few preconditioned conjugate gradient steps nearer to its optimum for U."""
    A, width = H.shape[:2]
    j = len(V)
    rows = U.reshape(-1, A * j)
    G = (rows.T @ rows).reshape(A, j, A, j)
    columns: Matrix = H.reshape(A * width, A, width)

    def normal(X: Matrix) -> Matrix:
        # Σ over a, b of G[a, b] X H[b, a]
        spread = np.tensordot(G, X, axes=(3, 0)).reshape(A, j, A * width)
        found: Matrix = free * sum(spread[a] @ columns[:, a] for a in range(A))
        return found

    pull: Matrix = np.einsum(
        "maj,maw->jw", U.reshape(-1, A, j), WH.reshape(-1, A, width), optimize=True
    )
    gram = cast(Matrix, np.einsum("ajak->jk", G) / A)
    gram += _RIDGE * max(float(np.trace(gram)) / j, 1e-300) * np.eye(j)
    left = cast(Matrix, np.linalg.inv(gram))
    right = cast(Matrix, np.linalg.inv(np.einsum("aiaj->ij", H)))
    residual = pull * free - normal(V)
    nearer: Matrix = (left @ residual @ right) * free
    direction, product = nearer, float(np.vdot(residual, nearer))
    found = V.copy()
    for _ in range(_STEPS):
        bent = normal(direction)
        curve = float(np.vdot(direction, bent))
        if curve <= 0 or product <= 0:
            break
        step = product / curve
        found += step * direction
        residual = residual - step * bent
        nearer = (left @ residual @ right) * free
        was, product = product, float(np.vdot(residual, nearer))
        direction = nearer + (product / was) * direction
    return found


def _error(W: Matrix, H: Matrix, U: Matrix, V: Matrix) -> float:
    R = W - (U @ V).reshape(W.shape)
    return float(np.vdot(R @ H, R))
