"""Trains fitted: TT-SVD, then least squares one core at a time, plain or as inputs are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..factors.tucker_fit import is_round, solved, squared_in
from ..metric import Metric
from .tensor_train_svd import (
    Cores,
    Tensor,
    check_ranks,
    largest_ranks,
    multiplied,
    tt_svd,
    tt_svd_by_error,
)
from .tt_matrix_modes import Modes, partial_moments

_SWEEPS = 4
_STEPS = 8
"""Conjugate gradient steps for one core."""
_WORK = 5e10
"""Multiply-adds that least squares in a whole metric may take in one group."""
_EXACT = 1e-12
"""Squared relative error below which there is nothing to refine."""


@dataclass(frozen=True, eq=False)
class Target:
    """One group's weight and the metric it is seen in.

    Args:
        tensor: the weight in its modes.
        modes: of the weight.
        H: (n, n) positive definite; None is I.
    """

    tensor: Tensor
    modes: Modes
    H: Tensor | None = None

    def squared(self, cores: Sequence[Tensor]) -> float:
        """The squared error of a train."""
        return self.squared_of(self.tensor - multiplied(cores))

    def squared_of(self, R: Tensor) -> float:
        """The squared norm of a difference."""
        if self.H is None:
            return float(np.vdot(R, R))
        return squared_in(self.modes.weight(R), self.H)

    def seen(self, R: Tensor) -> Tensor:
        """R H, in modes."""
        if self.H is None:
            return R
        W = self.modes.weight(R)
        return self.modes.tensor((W.reshape(len(W), -1) @ self.H).reshape(W.shape))


def train(target: Target, ranks: Sequence[int], H: Tensor | None = None) -> Cores:
    """The cores at given ranks: never worse than TT-SVD in the metric of `H`.

    Args:
        target: damped moments, to fit with.
        ranks: one a gap.
        H: the moments that the result is judged by.
    """
    check_ranks(ranks, target.tensor.shape)
    plain = refined(Target(target.tensor, target.modes), tt_svd(target.tensor, ranks))
    if target.H is None or H is None or is_round(H):
        return plain
    found = whitened(target, ranks)
    work = math.prod(target.tensor.shape) * len(target.H) * _SWEEPS * _STEPS * len(plain)
    if work <= _WORK:
        found = refined(target, found)
    judge = Target(target.tensor, target.modes, H)
    return min((found, plain), key=judge.squared)


def ranks_keeping(targets: Sequence[Target], error: float) -> tuple[int, ...]:
    """Ranks at which TT-SVD of every group keeps a relative error in its modes' metric."""
    each = [
        [core.shape[2] for core in tt_svd_by_error(_bent(target)[0], error)[:-1]]
        for target in targets
    ]
    most = largest_ranks(targets[0].tensor.shape)
    wanted = [max(ranks) for ranks in zip(*each, strict=True)] if most else []
    fitting: list[int] = []
    for at, (r, limit) in enumerate(zip(wanted, most, strict=True)):
        before = fitting[-1] if fitting else 1
        fitting.append(min(r, limit, before * targets[0].tensor.shape[at]))
    return tuple(fitting)


def whitened(target: Target, ranks: Sequence[int]) -> Cores:
    """TT-SVD in the metric of each input mode alone: H ≈ H₁ ⊗ … ⊗ H_d.

    Whitening a mode is a change of basis of one core, so that ranks stay as they are.
    """
    bent, inverses = _bent(target)
    return [
        core if inverse is None else _along(core, inverse)
        for core, inverse in zip(tt_svd(bent, ranks), inverses, strict=True)
    ]


def refined(target: Target, cores: Cores) -> Cores:
    """Sweeps of least squares, core by core: never worse.

    Each core is fitted with those before it orthonormal to the left and those behind it to
    the right: exactly, by a projection, or by conjugate gradients in a metric.
    """
    if len(cores) < 2 or (len(cores) == 2 and target.H is None):
        return cores  # one truncation is the optimum (Eckart-Young)
    start = error = target.squared(cores)
    if start <= _EXACT * target.squared_of(target.tensor):
        return cores
    best, last = cores, len(cores) - 1
    for _ in range(_SWEEPS):
        found = best
        for k in (*range(last, 0, -1), *range(last)):
            found = centred(found, k)
            found[k] = core_given_rest(target, found, k)
        now = target.squared(found)
        if now >= error * (1 - 1e-6):
            break
        best, error = found, now
    return best


def core_given_rest(target: Target, cores: Sequence[Tensor], k: int) -> Tensor:
    """Core k by least squares, the others held; never worse than the core that is there."""
    left, right = sides(cores, k)
    if target.H is None:
        return _unmixed(left, _projected(target.tensor, left, right, cores[k].shape), right)
    core = cores[k]
    shape = core.shape

    def pull(R: Tensor) -> Tensor:
        return _projected(target.seen(R), left, right, shape)

    def whole(C: Tensor) -> Tensor:
        return _whole(C, left, right, target.tensor.shape)

    residual = pull(target.tensor - whole(core))
    direction, energy = residual, float(np.vdot(residual, residual))
    for _ in range(_STEPS):
        if energy == 0:
            break
        bent = pull(whole(direction))
        step = energy / max(float(np.vdot(direction, bent)), np.finfo(float).tiny)
        core = core + step * direction
        residual = residual - step * bent
        was, energy = energy, float(np.vdot(residual, residual))
        direction = residual + (energy / was) * direction
    return core


def centred(cores: Sequence[Tensor], k: int) -> Cores:
    """The same train with orthonormal cores on both sides of core k."""
    moved = list(cores)
    for at in range(k):
        r, size, _ = moved[at].shape
        Q, R = np.linalg.qr(moved[at].reshape(r * size, -1))
        moved[at] = Q.reshape(r, size, -1)
        moved[at + 1] = np.tensordot(R, moved[at + 1], axes=(1, 0))
    for at in range(len(moved) - 1, k, -1):
        _, size, r = moved[at].shape
        Q, R = np.linalg.qr(moved[at].reshape(-1, size * r).T)
        moved[at] = np.ascontiguousarray(Q.T).reshape(-1, size, r)
        moved[at - 1] = np.tensordot(moved[at - 1], R, axes=(2, 1))
    return moved


def sides(cores: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """(sizes before k, r₋) and (r₊, sizes behind k): what stands beside core k."""
    left = np.ones((1, 1))
    for core in cores[:k]:
        left = np.tensordot(left, core, axes=(1, 0)).reshape(-1, core.shape[2])
    right = np.ones((1, 1))
    for core in reversed(cores[k + 1 :]):
        right = np.tensordot(core, right, axes=(2, 0)).reshape(core.shape[0], -1)
    return left, right


def _projected(X: Tensor, left: Tensor, right: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Leftᵀ X Rightᵀ, as a core of `shape`."""
    flat = left.T @ X.reshape(len(left), -1)
    return (flat.reshape(-1, right.shape[1]) @ right.T).reshape(shape)


def _whole(C: Tensor, left: Tensor, right: Tensor, sizes: tuple[int, ...]) -> Tensor:
    flat = left @ C.reshape(len(C), -1)
    return (flat.reshape(-1, len(right)) @ right).reshape(sizes)


def _unmixed(left: Tensor, C: Tensor, right: Tensor) -> Tensor:
    """(LeftᵀLeft)⁻¹ C (Right Rightᵀ)⁻¹."""
    r, size, s = C.shape
    out = C.reshape(-1, s)
    gram = right @ right.T
    if not np.allclose(gram, np.eye(s), rtol=0, atol=1e-9):
        out = solved(gram, out)
    gram = left.T @ left
    if not np.allclose(gram, np.eye(r), rtol=0, atol=1e-9):
        out = solved(gram, out.reshape(r, -1).T).T
    return out.reshape(r, size, s)


def _bent(target: Target) -> tuple[Tensor, list[Tensor | None]]:
    """The tensor with every input mode whitened, and what undoes it."""
    if target.H is None:
        return target.tensor, [None] * target.tensor.ndim
    bent: Tensor = target.tensor
    inverses: list[Tensor | None] = []
    for axis, moments in enumerate(partial_moments(target.H, target.modes)):
        roots, inverse = Metric(moments[None]).roots()
        core = np.moveaxis(bent, axis, 0).reshape(1, bent.shape[axis], -1)
        mixed = _along(core, roots[0]).reshape(bent.shape[axis], *np.delete(bent.shape, axis))
        bent = np.ascontiguousarray(np.moveaxis(mixed, 0, axis))
        inverses.append(inverse[0])
    return bent, inverses


def _along(core: Tensor, M: Tensor) -> Tensor:
    """A core (r, o · i, s) with M (i, i) applied to its inputs."""
    r, size, s = core.shape
    apart = core.reshape(r, size // len(M), len(M), s)
    return np.einsum("rois,ij->rojs", apart, M, optimize=True).reshape(r, size, s)
