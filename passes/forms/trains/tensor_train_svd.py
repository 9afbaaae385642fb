"""TT-SVD: a tensor as a train of cores, one truncated singular value decomposition a mode."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ....device_profiles.errors import RankError

Tensor = npt.NDArray[np.float64]
Cores = list[Tensor]
"""One (r₋, D, r₊) array a mode; the outer ranks are 1."""

_NOISE = 1e-10
"""Share of a Gram matrix's trace that its small eigenvalues cannot be trusted below."""
_STEEP = 1e-6
"""Ratio of eigenvalues up to which A V Σ⁻¹ is orthonormal to 1e-10 without a QR."""


def tt_svd(tensor: Tensor, ranks: Sequence[int]) -> Cores:
    """The cores of a tensor at given ranks, left to right: quasi-optimal in ‖·‖_F.

    Oseledets (2011), algorithm 1: every unfolding is cut to its leading singular vectors, and
    what they span goes on to the next mode. All cores but the last have orthonormal columns.

    Args:
        tensor: of at least one mode.
        ranks: one between every two neighbouring modes.

    Raises:
        RankError: the ranks are not one a gap, or beyond what the sizes allow.

    Example:
        >>> train = tt_svd(np.arange(24.0).reshape(2, 3, 4), (2, 2))
        >>> [core.shape for core in train]
        [(1, 2, 2), (2, 3, 2), (2, 4, 1)]
        >>> bool(np.allclose(multiplied(train), np.arange(24.0).reshape(2, 3, 4)))
        True
    """
    check_ranks(ranks, tensor.shape)
    wanted = iter(ranks)
    return _train(tensor, lambda _: next(wanted))


def tt_svd_by_error(tensor: Tensor, error: float) -> Cores:
    """The cores at the least ranks that TT-SVD keeps ‖T − T̂‖_F ≤ error · ‖T‖_F with.

    Every unfolding may lose error · ‖T‖_F / √(d − 1), as in Oseledets (2011), algorithm 1;
    what one leaves over the next ones take.

    Args:
        tensor: of d ≥ 1 modes.
        error: relative, 0 … 1.
    """
    gaps = tensor.ndim - 1
    budget = error**2 * float(np.vdot(tensor, tensor))
    spent, done = 0.0, 0

    def rank(energies: Tensor) -> int:
        nonlocal spent, done
        share = (budget - spent) / max(gaps - done, 1)
        tails = tail_energies(energies)
        j = max(int(np.argmax(tails <= share * (1 - 1e-9))), 1)
        spent, done = spent + float(tails[j]), done + 1
        return j

    return _train(tensor, rank)


def _train(tensor: Tensor, rank: Callable[[Tensor], int]) -> Cores:
    cores: Cores = []
    rest, r = tensor, 1
    for size in tensor.shape[:-1]:
        rest = rest.reshape(r * size, -1)
        left, rest = split(rest, rank)
        cores.append(left.reshape(r, size, -1))
        r = left.shape[1]
    cores.append(rest.reshape(r, tensor.shape[-1], 1))
    return cores


def split(A: Tensor, rank: Callable[[Tensor], int]) -> tuple[Tensor, Tensor]:
    """Q (m, j), orthonormal, and B (j, n) with Q B the best approximation of A of rank j.

    By the Gram matrix of the shorter side, whose eigenvectors are good to second order in the
    error; by a singular value decomposition where what is cut away drowns in the rounding of
    the Gram matrix.

    Args:
        A: (m, n).
        rank: j from the squared singular values, largest first.
    """
    m, n = A.shape
    gram = A @ A.T if m <= n else A.T @ A
    values, vectors = np.linalg.eigh(gram)
    values = values[::-1]
    j = rank(values)
    if j < min(m, n) and values[j:].sum() < _NOISE * values.sum():
        U, sigma, Vt = np.linalg.svd(A, full_matrices=False)
        return U[:, :j], sigma[:j, None] * Vt[:j]
    V = _signed(vectors[:, : -j - 1 : -1])
    if m <= n:
        return V, V.T @ A
    if values[j - 1] > _STEEP * values[0]:
        sigma = np.sqrt(values[:j])
        return A @ (V / sigma), sigma[:, None] * V.T
    Q, R = np.linalg.qr(A @ V)
    return Q, R @ V.T


def multiplied(cores: Sequence[Tensor]) -> Tensor:
    """The tensor that a train stands for."""
    whole = cores[0]
    for core in cores[1:]:
        whole = np.tensordot(whole, core, axes=(-1, 0))
    return whole.reshape([core.shape[1] for core in cores])


def largest_ranks(sizes: Sequence[int]) -> tuple[int, ...]:
    """The ranks at which any tensor of these sizes is exact.

    Example:
        >>> largest_ranks((64, 9, 32))
        (64, 32)
    """
    cuts = range(1, len(sizes))
    return tuple(min(math.prod(sizes[:at]), math.prod(sizes[at:])) for at in cuts)


def check_ranks(ranks: Sequence[int], sizes: Sequence[int]) -> None:
    """Raises RankError where the ranks do not fit a tensor of these sizes."""
    most = largest_ranks(sizes)
    if len(ranks) != len(most):
        raise RankError(
            f"{len(ranks)} ranks for a train of {len(sizes)} cores",
            hint=f"give {len(most)} ranks, one between every two cores",
        )
    r_before = 1
    for at, (r, limit) in enumerate(zip(ranks, most, strict=True)):
        limit = min(limit, r_before * sizes[at])
        if not 1 <= r <= limit:
            raise RankError(
                f"rank {r} after core {at + 1} is outside 1 … {limit} of a train of sizes "
                f"{' × '.join(map(str, sizes))}",
                hint=f"choose at most {', '.join(map(str, most))}",
            )
        r_before = r


def tail_energies(energies: Tensor) -> Tensor:
    """Σ of the entries from each place on, with 0 at the end."""
    kept = np.maximum(energies, 0.0)
    return np.append(np.cumsum(kept[::-1])[::-1], 0.0)


def _signed(vectors: Tensor) -> Tensor:
    """The columns, their largest entry positive."""
    at = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(vectors[at, np.arange(len(at))] < 0, -1.0, 1.0)


def balanced(size: int, count: int) -> tuple[int, ...]:
    """`count` factors of a size, as alike as they can be, largest last.

    Example:
        >>> balanced(512, 3), balanced(96, 2), balanced(7, 2)
        ((8, 8, 8), (8, 12), (1, 7))
    """
    if count == 1:
        return (size,)
    best: tuple[int, ...] | None = None
    for first in range(1, int(size ** (1 / count) + 1e-9) + 1):
        if size % first == 0:
            found = (first, *balanced(size // first, count - 1))
            if best is None or (max(found), -min(found)) < (max(best), -min(best)):
                best = found
    assert best is not None, "1 divides every size"
    return best
