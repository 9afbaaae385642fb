"""Sparse fits in the metric of the layer's input: chosen and refitted by output error."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..metric import Metric

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Select = Callable[[Array], Mask]
"""Scores (g, m, n) → which entries may differ from zero."""

_ROUNDS = 6
_SHARES = (0.5, 0.75, 1.0)
_RIDGE = 1e-3
_DIRECT = 192
"""Entries in a row up to which the normal equations are solved; above it, by iteration."""
_CHUNK = 1 << 23
_ITERATIONS = 12
_LARGE = 4e9
"""Multiplications of W H above which a layer makes do with less of everything."""
_ROUNDS_IN_LARGE = 2
_ITERATIONS_IN_LARGE = 5
_FEW = 0.05


def fit_support(
    W: Array,
    metric: Metric,
    select: Select,
    growing: Callable[[Array, float], Mask] | None,
    penalty: float = 0.0,
) -> Array:
    """argmin of ‖(W − S) H^½‖² + penalty ‖S‖₀ over supports that `select` allows, nearly.

    Hard thresholding pursuit: a gradient step scaled by diag(H), the entries with the largest
    score h_jj s_ij², and their values refitted by least squares, row by row. Started from the
    plain choice and from a greedy one, which takes the entries with the largest true
    reduction of the error, g_ij² / h_jj, in a few batches; the result is never worse than
    either, nor than plain pruning. With H = I it is plain pruning.

    Args:
        W: (g, m, n).
        metric: not the identity.
        select: the mask of the largest scores that keeps to the constraint.
        growing: the same for a share of the entries, for the greedy start; None for none.
        penalty: α of the penalised form; zero for a constraint.

    Returns:
        S (g, m, n).
    """
    H = metric.H
    assert H is not None
    d = _diagonal(H)
    WH = W @ H

    def graded(S: Array) -> tuple[Array, float]:
        """(W − S) H, and the objective."""
        G = WH - product(S, H)
        return G, float(np.vdot(G, W - S)) + penalty * np.count_nonzero(S)

    plain = select(np.square(W))
    best = np.where(plain, W, 0.0)
    G, least = graded(best)
    starts = [plain, select(np.square(W) * d)]
    if growing is not None:
        starts.append(_greedy(W, H, WH, d, growing))
    for mask in starts:
        S = refitted(W, H, mask, WH)
        gradient, error = graded(S)
        if error < least:
            best, G, least = S, gradient, error
    step = 1.0
    for _ in range(_ROUNDS_IN_LARGE if _is_large(W) else _ROUNDS):
        S = refitted(W, H, select(np.square(best + step * G / d) * d), WH)
        gradient, error = graded(S)
        if error < least:
            gain = (least - error) / least if least > 0 else 0.0
            best, G, least = S, gradient, error
            if gain < 1e-3:
                break
        elif step < 0.2:
            break
        else:
            step /= 3
    return best


def refitted(W: Array, H: Array, mask: Mask, WH: Array | None = None) -> Array:
    """argmin of ‖(W − S) H^½‖² over the values of S on `mask`, each row by itself.

    A slight ridge towards the weights' own values keeps a singular H harmless: the error is
    never above that of the plain values, and H = I gives them exactly.
    """
    S = np.where(mask, W, 0.0)
    G = (W @ H if WH is None else WH) - product(S, H)
    widest = int(mask.sum(axis=2).max(initial=0))
    for k in range(len(W)):
        if not G[k][mask[k]].any():
            continue
        ridge = _RIDGE * float(np.trace(H[k])) / H.shape[-1]
        if widest <= _DIRECT:
            S[k] += _solved(H[k], G[k], mask[k], ridge)
        else:
            S[k] += _iterated(H[k], G[k], mask[k], ridge)
    return S


def proximal(
    W: Array, metric: Metric, prox: Callable[[Array, float], Array], penalty: float
) -> Array:
    """argmin of ‖(W − S) H^½‖² + penalty(S), by accelerated proximal gradient (FISTA).

    Args:
        W: (g, m, n).
        metric: not the identity.
        prox: `prox(V, t)`: argmin of ‖V − S‖² + t · penalty(S), or a projection.
        penalty: the weight of |S| in the objective; zero for a projection.

    Returns:
        S, no worse than prox(W, 1) in the objective.
    """
    H = metric.H
    assert H is not None
    steepest = max(float(np.linalg.norm(H, 2, axis=(1, 2)).max(initial=0.0)), 1e-300)

    def objective(S: Array) -> float:
        return float(np.vdot((W - S) @ H, W - S)) + penalty * float(np.abs(S).sum())

    best = S = prox(W, 1.0)
    least = objective(best)
    Y, t = S, 1.0
    for _ in range(5 * _ITERATIONS):
        new = prox(Y + (W - Y) @ H / steepest, 1 / steepest)
        following = (1 + np.sqrt(1 + 4 * t * t)) / 2
        Y = new + (t - 1) / following * (new - S)
        S, t = new, following
        value = objective(S)
        if value < least:
            best, done = S, least - value < 1e-6 * least
            least = value
            if done:
                break
    return best


def product(S: Array, H: Array) -> Array:
    """S H (g, m, n), by the entries of S where they are few."""
    if np.count_nonzero(S) > _FEW * S.size:
        return S @ H
    from scipy.sparse import csr_array

    return np.stack([csr_array(s) @ h for s, h in zip(S, H, strict=True)])


def _greedy(
    W: Array, H: Array, WH: Array, d: Array, growing: Callable[[Array, float], Mask]
) -> Mask:
    """The entries that lower the error most, taken in batches, values refitted between."""
    S = np.zeros_like(W)
    mask = np.zeros(W.shape, bool)
    for share in _SHARES:
        S = S + np.where(mask, 0.0, (WH - product(S, H)) / d)
        mask = growing(np.square(S) * d, share)
        S = refitted(W, H, mask, WH)
    return mask


def _diagonal(H: Array) -> Array:
    """diag(H) as (g, 1, n), never zero."""
    d = np.diagonal(H, axis1=1, axis2=2)
    mean = d.mean(axis=1, keepdims=True)
    return np.maximum(d, np.where(mean > 0, 1e-6 * mean, 1.0))[:, None, :]


def _solved(H: Array, G: Array, mask: Mask, ridge: float) -> Array:
    """Changes (m, n) by the normal equations of every row, in batches of like rows."""
    m, n = mask.shape
    counts = mask.sum(axis=1)
    order = np.argsort(-counts, kind="stable")
    change = np.zeros((m, n))
    at = 0
    while at < m and counts[order[at]]:
        t = int(counts[order[at]])
        rows = order[at : at + max(1, _CHUNK // (t * t))]
        rows = rows[counts[rows] > 0]
        at += len(rows)
        # Rows with fewer entries are padded with others; those get an identity row.
        columns = np.argsort(~mask[rows], axis=1, kind="stable")[:, :t]
        valid = np.take_along_axis(mask[rows], columns, axis=1)
        A = H[columns[:, :, None], columns[:, None, :]]
        A = np.where(valid[:, :, None] & valid[:, None, :], A, 0.0)
        A[:, np.arange(t), np.arange(t)] += np.where(valid, ridge, 1.0)
        b = np.where(valid, np.take_along_axis(G[rows], columns, axis=1), 0.0)
        x = np.linalg.solve(A, b[:, :, None])[:, :, 0]
        change[rows[:, None], columns] = np.where(valid, x, 0.0)
    return change


def _iterated(H: Floats, G: Floats, mask: Mask, ridge: float) -> Array:
    """The same by conjugate gradients, all rows at once; every step lowers the error.

    Large layers are content with float32 here: the error is judged in float64 afterwards.
    """
    d = np.diagonal(H) + ridge
    is_large = _is_large(G[None])
    if is_large:
        H, d, G = (a.astype(np.float32) for a in (H, d, G))
    x = np.zeros_like(G)
    r = np.where(mask, G, 0)
    z = r / d
    p = z
    rho = np.einsum("ij,ij->i", r, z)
    first = rho.copy()
    for _ in range(_ITERATIONS_IN_LARGE if is_large else _ITERATIONS):
        Hp = np.where(mask, p @ H + np.asarray(ridge, p.dtype) * p, 0)
        curve = np.einsum("ij,ij->i", p, Hp)
        alpha = np.where(curve > 0, rho / np.where(curve > 0, curve, 1.0), 0.0)[:, None]
        x = x + alpha * p
        r = r - alpha * Hp
        z = r / d
        now = np.einsum("ij,ij->i", r, z)
        if np.all(now <= 1e-10 * first):
            break
        p = z + np.where(rho > 0, now / np.where(rho > 0, rho, 1.0), 0.0)[:, None] * p
        rho = now
    return x.astype(np.float64, copy=False)


def _is_large(W: Floats) -> bool:
    """Whether W H, W (g, m, n), takes so long that a fit must do with few of them."""
    return W.size * W.shape[-1] > _LARGE
