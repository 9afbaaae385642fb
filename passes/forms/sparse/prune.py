"""Prune: the few entries that matter most, all others zero."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ....device_profiles.errors import PlanError
from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Shape, Term, better
from ..metric import IDENTITY, Metric
from .prune_metric import fit_support, proximal
from .prune_select import ball, hard, kept_count, largest, soft
from .prune_term import PruneTerm, prune_term

Array = npt.NDArray[np.float64]
Prox = Callable[[Array, float], Array]


@dataclass(frozen=True)
class Prune:
    """Pointwise corrections: S with few entries that are not zero (LC, ℓ0 and ℓ1 pruning).

    In the plain norm every variant is solved exactly; in the metric of the layer's input the
    entries are chosen by their true reduction of the output error and their values refitted.

    Args:
        kappa: for "l0" the number of entries kept, or their share of the weights (below 1);
            for "l1" the bound of ‖S‖₁, as a share of ‖W‖₁ where it is below 1; for the
            penalties their factor α.
        by: "l0" and "l1" constrain ‖S‖₀ or ‖S‖₁; "l0-penalty" and "l1-penalty" minimise
            ‖W − S‖² + α ‖S‖₀ (a hard threshold at √α) or + α ‖S‖₁ (a soft one at α / 2).
        of: "net" where kappa is of all layers of a plan that say so, which share it where it
            helps most (LC part V, section 5.1; `joint`); a fit of one layer alone takes it as
            of the layer.
    """

    kappa: int | float
    by: Literal["l0", "l1", "l0-penalty", "l1-penalty"] = "l0"
    of: Literal["layer", "net"] = "layer"
    name: ClassVar[str] = "prune"

    def __post_init__(self) -> None:
        share = isinstance(self.kappa, float)
        least = 0 if self.by == "l0" and not share else 1e-300
        if self.kappa < least or (self.by == "l0" and share and self.kappa >= 1):
            raise PlanError(
                f"prune: kappa={self.kappa!r} is neither a count nor a share of the weights",
                hint="choose a whole number, or a share between 0 and 1",
            )
        if self.of == "net" and self.by not in ("l0", "l1"):
            raise PlanError(
                f"prune: by={self.by} is the same for a layer and for a net",
                hint="leave out of=net",
            )

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        found = self._plain(W)
        if metric.H is not None and not metric.is_round:
            S = self._fitted(W, metric.H)
            index = np.flatnonzero(S)
            found = better(W, prune_term(W.shape, index, S.reshape(-1)[index]), found, metric)
        return better(W, found, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        """The dense layer: pruning without a pattern buys bytes, not time."""
        if self.by == "l0":
            self._count(int(np.prod(shape)))
        return (geometry.as_kernel(shape[1], shape[2], shape[0]),)

    def _count(self, size: int) -> int:
        is_whole = self.of == "net" and isinstance(self.kappa, int)
        return kept_count(min(self.kappa, size) if is_whole else self.kappa, size)

    def _plain(self, W: Weights) -> PruneTerm:
        if self.by == "l0":
            index = largest(np.abs(W), self._count(W.size))
            return prune_term(W.shape, index, W.reshape(-1)[index])
        S = self._prox(W)(W.astype(np.float64), 1.0).reshape(-1)
        index = np.flatnonzero(S)
        return prune_term(W.shape, index, S[index])

    def _fitted(self, W: Weights, H: Array) -> Array:
        flat = W.reshape(*W.shape[:2], -1).astype(np.float64)
        if self.by == "l0":
            count = self._count(W.size)

            def growing(scores: Array, share: float) -> npt.NDArray[np.bool_]:
                return _mask(scores, max(round(share * count), min(count, 1)))

            few = growing if count <= W.size // 4 else None
            return fit_support(flat, Metric(H), lambda s: _mask(s, count), few)
        # The moments are brought to a mean of one, so that α keeps its meaning.
        mean = float(np.trace(H, axis1=1, axis2=2).mean()) / H.shape[-1]
        level = Metric(H / mean if mean > 0 else H)
        alpha = float(self.kappa)
        if self.by == "l0-penalty":
            return fit_support(flat, level, lambda s: s > alpha, None, alpha)
        penalty = alpha if self.by == "l1-penalty" else 0.0
        return proximal(flat, level, self._prox(W), penalty)

    def _prox(self, W: Weights) -> Prox:
        """argmin over S of ‖V − S‖² + t · penalty(S), or the projection, as a function."""
        alpha = float(self.kappa)
        if self.by == "l1":
            share = float(np.abs(W).sum(dtype=np.float64)) if alpha < 1 else 1.0
            return lambda V, _: ball(V, alpha * share)
        if self.by == "l1-penalty":
            return lambda V, t: soft(V, t * alpha / 2)
        return lambda V, t: hard(V, float(np.sqrt(t * alpha)))


def _mask(scores: Array, count: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(scores.size, bool)
    mask[largest(scores, count)] = True
    return mask.reshape(scores.shape)
