"""The cost model of a device: three tiers that name themselves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from .fused import FusedKernel
from .roofline import Roofline

Tier = Literal["measured", "lookup", "interpolated", "analytic"]
"""Where a time comes from, best first; a sum has the worst tier of its parts."""

TIERS: tuple[Tier, ...] = ("measured", "lookup", "interpolated", "analytic")


@dataclass(frozen=True)
class Prediction:
    """A predicted time.

    Args:
        seconds: of one launch, or of a whole net.
        tier: where it comes from.
        extrapolated: kernel classes in it that were never calibrated.
    """

    seconds: float
    tier: Tier
    extrapolated: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How it is written beside a number.

        Example:
            >>> Prediction(1e-3, "analytic", ("depthwise",)).label
            'analytic, extrapolated: depthwise'
        """
        if not self.extrapolated:
            return self.tier
        return f"{self.tier}, extrapolated: {', '.join(self.extrapolated)}"


class CostModel(Protocol):
    """Times of fused kernels on one device in one precision."""

    def predict(self, kernel: FusedKernel) -> Prediction:
        """The time of one launch."""
        ...


def total(parts: Iterable[Prediction]) -> Prediction:
    """The time of kernels that run one after another; its tier is the worst of theirs."""
    seconds, worst = 0.0, 0
    classes: set[str] = set()
    for part in parts:
        seconds += part.seconds
        worst = max(worst, TIERS.index(part.tier))
        classes.update(part.extrapolated)
    return Prediction(seconds, TIERS[worst], tuple(sorted(classes)))


@dataclass(frozen=True)
class Analytic:
    """The roofline as a cost model; classes that its fit did not see are extrapolated."""

    roofline: Roofline

    def predict(self, kernel: FusedKernel) -> Prediction:
        """The time of one launch."""
        known = kernel.kind in self.roofline.classes_seen
        seconds = self.roofline.seconds(kernel)
        return Prediction(seconds, "analytic", () if known else (kernel.kind,))
