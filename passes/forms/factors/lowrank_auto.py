"""LowRankAuto: W ≈ U V of the rank that its own cost is worth (L-Rank)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ....device_profiles.errors import RankError
from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Form, Shape, Term, better
from ..metric import IDENTITY, Metric, lower_root
from .lowrank import LowRank
from .lowrank_fit import DAMPING, break_even

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LowRankAuto:
    """argmin over U, V and their rank j of ‖W − U V‖² + alpha · C(j).

    Automatic rank selection (Idelbayev and Carreira-Perpiñán, CVPR 2020, eq. (5) for one
    layer): Eckart-Young gives the error of every rank at once, so that the joint problem is
    solved by looking at each. C(j) = positions · j (m + n): numbers stored at positions = 1,
    multiplications at as many positions as the layer has outputs. Ranks beyond break-even
    are not looked at. Moments are brought to a mean of one, so that alpha keeps its meaning.

    Args:
        alpha: squared error that one number, or multiplication, is worth.
        positions: 1 counts storage; output positions of the layer count FLOPs.
        u: form of the output factor (m × j); dense unless given.
        v: form of the input factor (j × n); dense unless given.
    """

    alpha: float
    positions: int = 1
    u: Form | None = None
    v: Form | None = None
    name: ClassVar[str] = "lowrank_auto"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise RankError(
                f"lowrank_auto: alpha={self.alpha} is no penalty", hint="choose alpha ≥ 0"
            )
        if self.positions < 1:
            raise RankError(
                f"lowrank_auto: positions={self.positions}",
                hint="1 counts storage, the layer's output positions count FLOPs",
            )

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        term = self.resolved(W, metric).compress(W, metric=metric)
        return better(W, term, start, metric)

    def resolved(self, W: Weights, metric: Metric = IDENTITY) -> LowRank:
        """The form of the rank that is worth most for this weight."""
        g, m = W.shape[:2]
        n = W.size // (g * m)
        lost = lost_energies(W, metric)
        ranks = np.arange(1, max(break_even(m, n), 1) + 1)
        # a group stores and multiplies for itself
        worth = lost[ranks] + self.alpha * self.positions * g * (m + n) * ranks
        return LowRank(int(ranks[np.argmin(worth)]), self.u, self.v)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        """The two layers, of the largest rank that may be chosen: it waits for the weight."""
        n = int(np.prod(shape[2:], dtype=int))
        most = max(break_even(shape[1], n), 1)
        return LowRank(most, self.u, self.v).kernels(shape, geometry)


def lost_energies(W: Weights, metric: Metric = IDENTITY) -> Vector:
    """‖W − W_j‖² of the best approximation of every rank j = 0 … min(m, n), over all groups.

    Args:
        W: (g, m, c, *kernel).
        metric: the norm, scaled to a mean of one over the inputs.
    """
    flat = W.reshape(*W.shape[:2], -1).astype(np.float64)
    if not metric.is_round:
        damped = metric.damped(DAMPING).H
        assert damped is not None, "damping keeps the moments"
        mean = float(np.trace(damped, axis1=1, axis2=2).mean()) / damped.shape[-1]
        flat = flat @ lower_root(damped / mean)
    energies = np.linalg.svd(flat, compute_uv=False) ** 2
    tails = np.cumsum(energies[:, ::-1], axis=1)[:, ::-1].sum(axis=0)
    lost: Vector = np.concatenate([tails, [0.0]])
    return lost
