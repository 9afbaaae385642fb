"""LowRank: W ≈ U V, two layers of rank j in place of one."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Form, Shape, Term, better
from ..metric import IDENTITY, Metric
from .lowrank_fit import break_even, check_rank, factors, rounded, truncate
from .lowrank_nested import nested
from .lowrank_term import LowRankTerm, output_factor

__all__ = [
    "LowRank",
    "LowRankTerm",
    "break_even",
    "check_rank",
    "output_factor",
    "truncate",
]


@dataclass(frozen=True)
class LowRank:
    """The best approximation of rank j, each group by itself.

    Args:
        j: rank.
        u: form of the output factor (m × j); dense unless given.
        v: form of the input factor (j × n); dense unless given.
    """

    j: int
    u: Form | None = None
    v: Form | None = None
    name: ClassVar[str] = "lowrank"

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        U, V = factors(W, self.j, metric)
        if self.u is not None or self.v is not None:
            term: Term = nested(W, U, V, self.u, self.v, metric)
        else:
            U, V = rounded(W, U, V, metric)
            term = LowRankTerm(U, V.reshape(*V.shape[:2], *W.shape[2:]))
        return better(W, term, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        check_rank(self.j, shape)
        g, _, c = shape[:3]
        m = shape[1] // int(
            np.prod([geometry.kernel[a] for a in geometry.output_axes], dtype=int)
        )
        return (
            geometry.first().as_kernel(self.j, c, g),
            geometry.second().as_kernel(m, self.j, g),
        )
