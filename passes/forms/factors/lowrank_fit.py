"""The best factors of a matrix, as its weights are or as its inputs see them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from ....device_profiles.errors import RankError
from ...geometry import Weights
from ..form import Shape, read_only
from ..metric import Metric, lower_root

Matrix = npt.NDArray[np.float64]

DAMPING = 1e-6
"""Share of the mean moment that is added to all: breaks ties where inputs say nothing."""
_WORTH = 0.01
"""Most of the residual's energy that rounding factors to 16 bits may add."""
_EXACT = 1e-6
"""Share of the weight's energy below which a residual is left to 32 bits."""


def truncate(W: Weights, j: int) -> tuple[Weights, Weights]:
    """The best rank-j factors of W, balanced: argmin over U, V of ‖W − U V‖_F.

    Eckart-Young; the L term of the additive-combinations paper, eq. (4), and the local step of
    ALDS. The leading singular vectors of the shorter side are eigenvectors of its Gram matrix
    (float64); W is projected onto them, which is exact to second order in their error. √σ goes
    to each factor so that U and V quantize alike. Signs are fixed: the largest entry of each
    column of U is positive.

    Args:
        W: (m, n) weights.
        j: rank, 1 ≤ j ≤ min(m, n).

    Returns:
        U (m, j) and V (j, n).

    Raises:
        RankError: j is out of range.

    Example:
        >>> U, V = truncate(np.outer([1, 2], [3, 4, 5]).astype(np.float32), 1)
        >>> bool(np.allclose(U @ V, np.outer([1, 2], [3, 4, 5])))
        True
    """
    m, n = W.shape
    check_rank(j, (1, m, n))
    if m > n:
        right, left = truncate(W.T, j)
        U, V = left.T, right.T
    else:
        # Projection makes the factors exact to second order in the error of the vectors, so
        # that float32 eigenvectors are enough where the matrix is large.
        A = W.astype(np.float64 if m <= 1024 else np.float32)
        Q = _leading(A @ A.T, j)
        U, V = balanced(Q, Q.T @ A)
    return signed(U, V)


def truncate_in(W: Weights, j: int, H: Matrix) -> tuple[Weights, Weights]:
    """The best rank-j factors of W as inputs of moments H see it: argmin ‖(W − U V) H^½‖_F.

    Eckart-Young on W H^½, whose left singular vectors Q are eigenvectors of W H Wᵀ, the
    moments of the outputs: U V = Q Qᵀ W. Where outputs outnumber inputs, the right ones, with
    H = L Lᵀ: U V = W L Q Qᵀ L⁻¹. Balanced and signed as in `truncate`.

    Args:
        W: (m, n) weights.
        j: rank, 1 ≤ j ≤ min(m, n).
        H: (n, n), positive definite.

    Returns:
        U (m, j) and V (j, n).
    """
    m, n = W.shape
    check_rank(j, (1, m, n))
    A = W.astype(np.float64)
    if m <= n:
        Q = _leading(A @ H @ A.T, j)
        return signed(*balanced(Q, Q.T @ A))
    L = lower_root(H)
    WL = A @ L
    Q = _leading(WL.T @ WL, j)
    V = scipy.linalg.solve_triangular(L, Q, lower=True, trans=1, check_finite=False).T
    return signed(*balanced(WL @ Q, V))


def factors(W: Weights, j: int, metric: Metric) -> tuple[Weights, Weights]:
    """U (g, m, j) and V (g, j, n), each group by itself, in the metric."""
    g, m = W.shape[:2]
    flat = W.reshape(g, m, -1)
    if metric.is_round:
        pairs = [truncate(group, j) for group in flat]
    else:
        damped = metric.damped(DAMPING).H
        assert damped is not None, "damping keeps the moments"
        pairs = [truncate_in(A, j, H) for A, H in zip(flat, damped, strict=True)]
    return np.stack([u for u, _ in pairs]), np.stack([v for _, v in pairs])


def rounded(W: Weights, U: Weights, V: Weights, metric: Metric) -> tuple[Weights, Weights]:
    """The factors in float32, rounded to 16 bits where that is not felt.

    At an optimum the residual is orthogonal to what moving a factor changes, so that rounding
    adds ‖U V − U′ V′‖² to the squared error and no more; the residual itself is
    ‖W‖² − ‖U V‖². Both are taken from Gram matrices of the factors.

    Args:
        W: (g, m, …) what they stand for.
        U: (g, m, j).
        V: (g, j, n).
        metric: the norm.
    """
    with np.errstate(over="ignore"):
        u, v = (part.astype(np.float16).astype(np.float32) for part in (U, V))
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        return read_only(U), read_only(V)
    both = np.concatenate([U, u], axis=2).astype(np.float64)
    rest = np.concatenate([V, -v], axis=1).astype(np.float64)
    seen = rest if metric.H is None else rest @ metric.H
    into = seen @ rest.swapaxes(1, 2)
    out = both.swapaxes(1, 2) @ both
    j = U.shape[2]
    moved = float((out * into).sum())
    kept = float((out[:, :j, :j] * into[:, :j, :j]).sum())
    energy = metric.energy(W)
    if energy - kept <= _EXACT * energy or moved > _WORTH * (energy - kept):
        return read_only(U), read_only(V)
    return read_only(u), read_only(v)


def halves(U: npt.NDArray[Any], V: npt.NDArray[Any]) -> tuple[Weights, Weights]:
    """Each group's factors balanced and rounded to 16 bits where those can hold them."""
    pairs = [balanced(u, v) for u, v in zip(U, V, strict=True)]
    U, V = np.stack([u for u, _ in pairs]), np.stack([v for _, v in pairs])
    with np.errstate(over="ignore"):
        u, v = (part.astype(np.float16).astype(np.float32) for part in (U, V))
    if np.isfinite(u).all() and np.isfinite(v).all():
        return read_only(u), read_only(v)
    return read_only(U), read_only(V)


def balanced(U: npt.NDArray[Any], V: npt.NDArray[Any]) -> tuple[Any, Any]:
    """The same product with equal norms of each column of U and its row of V."""
    left = np.linalg.norm(U, axis=0)
    right = np.linalg.norm(V, axis=1)
    live = (left > 0) & (right > 0)
    scale = np.sqrt(np.where(live, right, 1) / np.where(live, left, 1))
    scale = np.where(live, scale, 0.0 * scale)
    return U * scale, V / np.where(live, scale, 1)[:, None]


def signed(U: npt.NDArray[Any], V: npt.NDArray[Any]) -> tuple[Weights, Weights]:
    """The same product, the largest entry of each column of U positive; float32, read-only."""
    j = U.shape[1]
    sign = np.where(U[np.abs(U).argmax(axis=0), np.arange(j)] < 0, -1, 1).astype(np.float32)
    return read_only(U * sign), read_only(V * sign[:, None])


def break_even(m: int, n: int) -> int:
    """The largest rank with fewer weights than the dense matrix: j (m + n) < m n."""
    return max((m * n - 1) // (m + n), 0)


def check_rank(j: int, shape: Shape) -> None:
    """Raises RankError where rank j does not fit a weight of `shape`."""
    m, n = shape[1], int(np.prod(shape[2:], dtype=int))
    if not 1 <= j <= min(m, n):
        raise RankError(
            f"rank j={j} is outside 1 … min(m, n)={min(m, n)} of a ({m}, {n}) matrix",
            hint=f"choose j ≤ {min(m, n)}, or j ≤ {break_even(m, n)} to save storage",
        )


def _leading(gram: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """The leading eigenvectors of a symmetric matrix, as columns."""
    n = len(gram)
    _, Q = scipy.linalg.eigh(  # pyright: ignore[reportUnknownMemberType]
        gram,
        subset_by_index=[n - count, n - 1],
        driver="evr",
        overwrite_a=True,
        check_finite=False,
    )
    return np.ascontiguousarray(Q[:, ::-1])
