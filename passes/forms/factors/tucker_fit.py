"""Three factors of a convolution, W[:, :, x] ≈ P G[:, :, x] Q: plain, and as its inputs are.

Trains of three cores, inputs | kernel | outputs, and Tucker-2 are the same set of weights.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg

from ...geometry import Weights
from ..metric import IDENTITY, Metric

Tensor = npt.NDArray[np.float64]

_SWEEPS = 3
"""Alternations after the higher-order SVD; each can only lower the error."""
_DAMPING = 0.01
_LEAST = 1e-10
"""Share of the largest eigenvalue below which factors in float32 leave only rounding."""


class Factors(NamedTuple):
    """P (m, a), G (a, b, κ) and Q (b, c) of one group, float64."""

    P: Tensor
    G: Tensor
    Q: Tensor

    def whole(self) -> Tensor:
        """(m, c, κ)."""
        c = self.Q.shape[1]
        inner = np.tensordot(self.G, self.Q, axes=(1, 0)).swapaxes(1, 2)
        return (self.P @ inner.reshape(len(inner), -1)).reshape(-1, c, self.G.shape[2])


def three_factors(W: Weights, a: int, b: int, metric: Metric = IDENTITY) -> list[Factors]:
    """P, G, Q of every group: near argmin ‖W − Ŵ‖ in the metric, at or below the plain fit.

    Without moments: higher-order SVD over inputs, then outputs (which is TT-SVD), then
    alternating least squares (HOOI). With them: the same in the metric of the channels alone,
    then P and G at their optimum for Q in the whole metric (reduced-rank regression) and Q by
    least squares, row by row, in turns.

    Args:
        W: (g, m, c, *kernel).
        a: rank over the outputs.
        b: rank over the inputs.
        metric: the norm; moments that are a multiple of I are the plain norm.
    """
    flat = W.reshape(*W.shape[:3], -1).astype(np.float64)
    if metric.H is None:
        return [higher_order(group, a, b) for group in flat]
    damped = metric.damped(_DAMPING).H
    assert damped is not None, "damping keeps the moments"
    return [
        _in_metric(group, a, b, H, D)
        for group, H, D in zip(flat, metric.H, damped, strict=True)
    ]


def higher_order(A: Tensor, a: int, b: int) -> Factors:
    """The plain fit of one group (m, c, κ): never above the higher-order SVD.

    De Lathauwer, De Moor and Vandewalle (2000), HOOI, over the two channel modes.
    """
    Q = leading(_gram(A, 1), b)
    P = np.empty((A.shape[0], a))
    for _ in range(_SWEEPS):
        P = leading(_gram(np.tensordot(A, Q, axes=(1, 0)), 0), a)
        Q = leading(_gram(np.tensordot(P, A, axes=(0, 0)), 1), b)
    core = np.tensordot(np.tensordot(P, A, axes=(0, 0)), Q, axes=(1, 0)).swapaxes(1, 2)
    return Factors(P, np.ascontiguousarray(core), np.ascontiguousarray(Q.T))


def outputs_given_inputs(
    W: Tensor, Q: Tensor, a: int, H: Tensor | None
) -> tuple[Tensor, Tensor]:
    """P (orthonormal) and G at their optimum for Q: argmin ‖(W − P G (Q ⊗ I)) H^½‖_F.

    Reduced-rank regression (Izenman, 1975): with T = Q ⊗ I and S = T H Tᵀ the best factor
    without a limit on its rank is M = W H Tᵀ S⁻¹; P holds the leading eigenvectors of
    M S Mᵀ and G = Pᵀ M.

    Args:
        W: (m, c, κ).
        Q: (b, c).
        a: rank over the outputs.
        H: (c · κ, c · κ), positive definite; None is I.
    """
    S, R = inner_moments(W, Q, H)
    M = solved(S, R)
    P = leading(M @ R.T, a)
    return P, (P.T @ M).reshape(a, len(Q), W.shape[2])


def inner_moments(W: Tensor, Q: Tensor, H: Tensor | None) -> tuple[Tensor, Tensor]:
    """S = T H Tᵀ, the moments of what the middle factor reads, and R = W H Tᵀ; T = Q ⊗ I.

    Args:
        W: (m, c, κ).
        Q: (b, c).
        H: (c · κ, c · κ); None is I.

    Returns:
        S (b · κ, b · κ) and R (m, b · κ).
    """
    m, c, size = W.shape
    n, b = c * size, len(Q)
    if H is None:
        R = np.tensordot(W, Q, axes=(1, 1)).swapaxes(1, 2).reshape(m, b * size)
        return np.kron(Q @ Q.T, np.eye(size)).astype(np.float64, copy=False), R
    TH = (Q @ H.reshape(c, size * n)).reshape(b * size, c, size)
    S = np.tensordot(TH, Q, axes=(1, 1)).swapaxes(1, 2).reshape(b * size, b * size)
    R = W.reshape(m, n) @ TH.reshape(b * size, n).T
    return (S + S.T) / 2, R


def inputs_given_rest(
    W: Tensor, factors: Factors, H: Tensor, *, turns: bool = True
) -> Factors:
    """One sweep of exact least squares over the rows of Q, the others held: never worse.

    The middle factor is turned first so that its slices are orthogonal to each other, which
    makes the rows nearly independent. O(b (n² + c³)).

    Args:
        W: (m, c, κ).
        factors: where to start; P need not be orthonormal.
        H: (n, n), n = c · κ, positive definite.
        turns: whether G may be turned.
    """
    P, G, Q = factors
    _, c, size = W.shape
    b = len(Q)
    slices = G.swapaxes(0, 1).reshape(b, -1)
    if turns and slices.shape[1] >= b:
        turn = np.linalg.svd(slices, full_matrices=False).U
        G = np.ascontiguousarray(np.tensordot(G, turn, axes=(1, 0)).swapaxes(1, 2))
        Q = turn.T @ Q
    error = W - Factors(P, G, Q).whole()
    seen = (P.T @ (error.reshape(len(W), -1) @ H)).reshape(-1, c, size)
    weighed = np.tensordot(P.T @ P, G, axes=(1, 0))
    pairs: Tensor = np.einsum("apk,aql->pqkl", weighed, G, optimize=True)
    gram = pairs.reshape(b, b, size**2)
    pull = np.tensordot(G, seen, axes=((0, 2), (0, 2)))
    taps = H.reshape(c, size, c, size).transpose(1, 3, 0, 2).reshape(size**2, c * c)
    Q = Q.copy()
    for row in range(b):
        normal = (gram[row, row] @ taps).reshape(c, c)
        level = np.trace(normal) / c
        if level <= 0:
            continue
        step = _nudged(normal, 1e-9 * level, pull[row])
        Q[row] += step
        pull -= gram[:, row] @ (taps.reshape(-1, c) @ step).reshape(size**2, c)
    return Factors(P, G, Q)


def _nudged(normal: Tensor, damping: float, pull: Tensor) -> Tensor:
    """The step of one row: (normal + damping · I)⁻¹ pull."""
    symmetric = (normal + normal.T) / 2 + damping * np.eye(len(normal))
    return np.linalg.solve(symmetric, pull).astype(np.float64, copy=False)


def solved(S: Tensor, R: Tensor) -> Tensor:
    """R S⁺ of symmetric, positive S: directions that S all but lacks count as zero."""
    try:
        pivots = np.diag(np.linalg.cholesky(S)) ** 2
        if pivots.min() > _LEAST * pivots.max():
            found: Tensor = np.linalg.solve(S, R.T).T.astype(np.float64, copy=False)
            return found
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(S)
    keep = values > _LEAST * max(float(values[-1]), float(np.finfo(float).tiny))
    V = vectors[:, keep]
    return ((R @ V) / values[keep]) @ V.T


def channel_moments(H: Tensor, channels: int) -> Tensor:
    """Σ over the kernel of H: the moments of the input channels alone, (c, c)."""
    size = len(H) // channels
    return np.einsum("ckdk->cd", H.reshape(channels, size, channels, size))


def squared_in(R: Tensor, H: Tensor) -> float:
    """tr(R H Rᵀ) of one group's R (m, c, κ)."""
    flat = R.reshape(len(R), -1)
    return float(np.vdot(flat @ H, flat))


def is_round(H: Tensor) -> bool:
    """Whether the moments are a multiple of I: the plain norm, scaled."""
    return bool(np.array_equal(H, H[0, 0] * np.eye(len(H))))


def leading(gram: Tensor, count: int) -> Tensor:
    """The leading eigenvectors, as columns, largest entry positive."""
    n = len(gram)
    vectors: npt.NDArray[Any] = scipy.linalg.eigh(
        gram, subset_by_index=[n - count, n - 1], driver="evr", check_finite=False
    )[1]
    Q: Tensor = np.ascontiguousarray(vectors[:, ::-1], np.float64)
    Q *= np.where(Q[np.abs(Q).argmax(axis=0), np.arange(count)] < 0, -1.0, 1.0)
    return Q


def _in_metric(W: Tensor, a: int, b: int, H: Tensor, damped: Tensor) -> Factors:
    plain = higher_order(W, a, b)
    if is_round(H):
        return plain
    c = W.shape[1]
    roots = Metric(channel_moments(damped, c)[None]).roots()
    root: Tensor = roots[0][0]
    inverse: Tensor = roots[1][0]
    white = np.tensordot(W, root, axes=(1, 0)).swapaxes(1, 2)
    Q = higher_order(white, a, b).Q @ inverse
    fitted = Factors(*outputs_given_inputs(W, Q, a, damped), Q)
    for _ in range(_SWEEPS):
        Q = orthonormal(inputs_given_rest(W, fitted, damped).Q)
        fitted = Factors(*outputs_given_inputs(W, Q, a, damped), Q)
    return min((fitted, plain), key=lambda f: squared_in(W - f.whole(), H))


def orthonormal(Q: Tensor) -> Tensor:
    """Rows that span the same and are orthonormal."""
    return np.ascontiguousarray(np.linalg.qr(Q.T).Q.T)


def _gram(A: Tensor, axis: int) -> Tensor:
    flat = np.moveaxis(A, axis, 0).reshape(A.shape[axis], -1)
    return flat @ flat.T
