"""Spectra: the error of every low-rank candidate of a weight, without building one factor."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse.linalg

from .geometry import Weights, fold, scheme_axes

_PANEL = 1 << 24
"""Elements of a float64 panel of a Gram sum: 128 MiB."""

Vector = npt.NDArray[np.float64]
_Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """Errors of `Folded(scheme, Blocks(k, LowRank(j)))` over a lattice of ranks j.

    Every error is relative, ‖W − Ŵ‖ / ‖W‖, of the folded matrix; for a grouped layer, of the
    block-diagonal one.

    Args:
        scheme: folding.
        k: number of column blocks.
        ranks: the ranks j, increasing; the last may be the full rank, whose error is zero.
        operator: spectral norm of the whole residual [R₁ … R_k].
        blockwise: maxᵢ σ_{j+1}(Wᵢ) / σ₁(W), the error that ALDS minimises (eq. 2): it
            understates the operator norm by up to √k.
        frobenius: Frobenius norm.
        total: ‖W‖_F, the same for every folding.
    """

    scheme: int
    k: int
    ranks: npt.NDArray[np.int64]
    operator: Vector
    blockwise: Vector
    frobenius: Vector
    total: float

    @property
    def sqrt_k(self) -> Vector:
        """√k · blockwise: an upper bound of the operator norm."""
        return math.sqrt(self.k) * self.blockwise


def spectrum(
    W: Weights, scheme: int, k: int, ranks: npt.NDArray[np.int64], *, exact: bool = True
) -> Spectrum:
    """The errors of every rank in `ranks`, from eigenvalues of Gram matrices (float64).

    A Gram matrix squares the condition number, so singular values below about 1e-7 σ₁ are
    rounding; float32 weights carry no more than that. For k > 1 the residual's norm needs
    vectors as well: it is the largest eigenvalue of Σᵢ Rᵢ Rᵢᵀ, which is built up from the
    highest rank down.

    Args:
        W: (g, m, c, *kernel).
        scheme: folding 0 … 3.
        k: number of blocks over the input channels.
        ranks: ranks to evaluate, increasing, at most the full rank of a block.
        exact: compute `operator` for k > 1; otherwise it is the √k bound.
    """
    F = fold(W, scheme_axes(scheme, W.shape[3:]))
    groups = [_GroupErrors.of(group, k, ranks, exact=exact) for group in F]
    top = max(group.norm for group in groups)
    total = math.sqrt(sum(group.energy for group in groups))
    return Spectrum(
        scheme,
        k,
        ranks,
        _relative(np.max([group.operator for group in groups], axis=0), top),
        _relative(np.max([group.blockwise for group in groups], axis=0), top),
        _relative(np.sqrt(np.sum([group.tails for group in groups], axis=0)), total),
        total,
    )


def relative_errors(W: Weights, approximation: Weights) -> tuple[float, float]:
    """‖W − Ŵ‖ / ‖W‖ of the patch matrix m × c·κ in operator and Frobenius norm.

    Recomputed from two sets of weights, whatever made them; 0 where W is zero. The operator
    norm of a matrix beyond a million elements is good to three digits.
    """
    R = np.subtract(W, approximation, dtype=np.float32)

    def top(X: Weights) -> float:
        return max(_operator_norm(group.reshape(len(group), -1)) for group in X)

    scale, energy = top(W), _frobenius(W)
    if energy == 0:
        return 0.0, 0.0
    return top(R) / scale, _frobenius(R) / energy


@dataclass(frozen=True)
class _GroupErrors:
    """Absolute errors of one group over the ranks."""

    norm: float
    energy: float
    operator: Vector
    blockwise: Vector
    tails: Vector

    @staticmethod
    def of(F: Weights, k: int, ranks: npt.NDArray[np.int64], *, exact: bool) -> "_GroupErrors":
        rows, channels = F.shape[:2]
        assert channels % k == 0, "the caller chooses divisors"
        blocks = [part.reshape(rows, -1) for part in np.split(F, k, axis=1)]
        if k == 1:
            values = _singular_values(blocks[0])[None]
            operator = None
        elif exact:
            pairs = [_left_images(block) for block in blocks]
            values = np.stack([s for s, _ in pairs])
            operator = _residual_norms([images for _, images in pairs], ranks)
        else:
            values = np.stack([_singular_values(block) for block in blocks])
            operator = None
        # σ_{j+1}, zero at full rank
        padded = np.concatenate([values, np.zeros((len(values), 1))], axis=1)
        blockwise = padded.max(axis=0)[ranks]
        squares = np.cumsum((padded**2).sum(axis=0)[::-1])[::-1]
        norm = float(values[0, 0]) if k == 1 else _norm(np.concatenate(blocks, axis=1))
        return _GroupErrors(
            norm,
            float(squares[0]),
            math.sqrt(k) * blockwise if operator is None else operator,
            blockwise,
            squares[ranks],
        )


def _relative(errors: Vector, scale: float) -> Vector:
    return errors / scale if scale > 0 else np.zeros_like(errors)


def _gram(A: npt.NDArray[np.floating]) -> _Matrix:
    """The float64 Gram matrix of the shorter side, summed over panels of the longer one."""
    short = A if A.shape[0] <= A.shape[1] else A.T
    m, n = short.shape
    width = max(_PANEL // m, 1)
    G = np.zeros((m, m))
    for at in range(0, n, width):
        panel = np.ascontiguousarray(short[:, at : at + width], dtype=np.float64)
        G += panel @ panel.T
    return G


def _singular_values(A: npt.NDArray[np.floating]) -> Vector:
    """Singular values, decreasing."""
    # numpy.linalg: it releases the interpreter lock, so that layers run side by side
    eigenvalues = np.linalg.eigvalsh(_gram(A))
    return np.sqrt(np.maximum(eigenvalues, 0))[::-1]


def _norm(A: npt.NDArray[np.floating]) -> float:
    """Spectral norm."""
    return math.sqrt(max(_largest_eigenvalue(_gram(A)), 0.0))


def _frobenius(X: Weights) -> float:
    """Frobenius norm, summed in float64 row by row."""
    rows = X.reshape(X.shape[0] * X.shape[1], -1)
    return math.sqrt(
        sum(float(np.vdot(r, r)) for r in (row.astype(np.float64) for row in rows))
    )


def _operator_norm(A: npt.NDArray[np.float32]) -> float:
    """Spectral norm; of a large matrix by products with vectors, without its Gram matrix."""
    if A.size <= _PANEL >> 4:
        return _norm(A)
    short = A if A.shape[0] <= A.shape[1] else A.T

    def times(x: Vector) -> Vector:
        inner = short.T @ x.ravel().astype(np.float32)
        return (short @ inner).astype(np.float64)

    if not A.any():
        return 0.0
    m = len(short)
    gram = scipy.sparse.linalg.LinearOperator((m, m), matvec=times, dtype=np.float64)
    start = np.random.default_rng(m).standard_normal(m)  # fixed: same bytes again
    top = scipy.sparse.linalg.eigsh(  # pyright: ignore[reportUnknownMemberType]
        gram, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False
    )
    return math.sqrt(max(float(top[0]), 0.0))


def _left_images(A: npt.NDArray[np.floating]) -> tuple[Vector, _Matrix]:
    """Singular values and the columns σᵢ uᵢ, decreasing: A's left singular vectors, scaled."""
    pair: tuple[Vector, _Matrix] = np.linalg.eigh(_gram(A))
    values, Q = np.sqrt(np.maximum(pair[0], 0))[::-1], pair[1][:, ::-1]
    if A.shape[0] <= A.shape[1]:
        return values, Q * values
    return values, A.astype(np.float64) @ Q


def _residual_norms(images: list[_Matrix], ranks: npt.NDArray[np.int64]) -> Vector:
    """‖[R₁ … R_k]‖₂ for every rank, Rᵢ = Wᵢ less its `rank` leading terms.

    With B the scaled singular vectors beyond the rank, of all blocks, the norm is that of B:
    from B Bᵀ, built up from the highest rank down, or from Bᵀ B, whose part beyond a rank is a
    leading block once its columns stand in falling order; whichever is smaller.
    """
    rows, full = images[0].shape
    falling = np.stack(images, axis=2)[:, ::-1].reshape(rows, -1)  # (rows, full · k)
    k = len(images)
    inner = falling.T @ falling if falling.shape[1] <= rows else None
    outer = np.zeros((rows, rows)) if inner is None else np.zeros((0, 0))
    norms = np.zeros(len(ranks))
    done, vector = 0, None
    for at in range(len(ranks) - 1, -1, -1):
        width = k * (full - int(ranks[at]))
        if inner is not None:
            residual = inner[:width, :width]
        else:
            outer += falling[:, done:width] @ falling[:, done:width].T
            residual, done = outer, width
        if width:
            value, vector = _largest_eigenpair(residual, vector)
            norms[at] = math.sqrt(max(value, 0.0))
    return norms


def _largest_eigenvalue(G: _Matrix) -> float:
    """The largest eigenvalue of a symmetric positive semidefinite matrix."""
    return _largest_eigenpair(G, None)[0]


def _largest_eigenpair(G: _Matrix, start: Vector | None) -> tuple[float, Vector | None]:
    """The largest eigenvalue, and its vector to start the next search from."""
    n = len(G)
    if n < 96:
        return float(np.linalg.eigvalsh(G)[-1]), None
    if not G.any():
        return 0.0, None
    v0 = np.random.default_rng(n).standard_normal(n)  # fixed: same bytes again
    if start is not None:
        v0 *= 1e-2 / math.sqrt(n)
        v0[: len(start)] += start
    values, vectors = scipy.sparse.linalg.eigsh(  # pyright: ignore[reportUnknownMemberType]
        G, k=1, which="LA", v0=v0, tol=1e-7
    )
    return float(values[0]), vectors[:, 0]
