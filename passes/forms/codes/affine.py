"""Affine: an even grid of 2ᵇⁱᵗˢ levels, with a scale and a zero point."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ....device_profiles.errors import PlanError
from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Shape, Term
from ..metric import IDENTITY, Metric
from .affine_fit import best_grid
from .feedback_fit import coded
from .quantize import check_group, check_sharing
from .quantize_levels import Levels, as_half, halved
from .quantize_term import dense_kernel

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Affine:
    """Ŵ = s (q − z), q = 0 … 2ᵇⁱᵗˢ − 1, with the clipping range that loses least.

    s and z are float16; z is not rounded to an integer.

    Args:
        bits: of a code, 2 … 8.
        per: what has a grid of its own: "layer", "channel" (an output's row) or "group"
            (`group` consecutive weights of a row).
        group: weights in a group; a row's last one may be smaller.
        symmetric: 1 for signed codes and no zero point.

    Raises:
        PlanError: the fields contradict each other.
    """

    bits: int
    per: str = "channel"
    group: int = 0
    symmetric: int = 0
    name: ClassVar[str] = "affine"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise PlanError(f"form 'affine' has bits={self.bits}", hint="choose 2 … 8")
        if self.symmetric not in (0, 1):
            raise PlanError(
                f"form 'affine' has symmetric={self.symmetric}", hint="choose 0 or 1"
            )
        check_sharing(self.name, "per", self.per, ("layer", "channel", "group"))
        check_group(self.name, self.group, self.per == "group")

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        return coded(W, self.levels, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        return dense_kernel(shape, geometry)

    def levels(self, W: Weights, weights: Floats | None) -> Levels:
        """The best grids for W (R, n) in a diagonal metric (R, n), or in the plain norm."""
        rows, n = W.shape
        block = min(self.group, n) if self.group else n
        X, h, grid = W, weights, (rows, -1)
        if self.per == "layer":
            X, grid = W.reshape(1, -1), (1, 1)
            h = None if h is None else h.reshape(1, -1)
        elif block < n:
            fill = ((0, 0), (0, -n % block))
            ones = np.ones(W.shape, np.float32) if h is None else h
            X = np.pad(W, fill, mode="edge").reshape(-1, block)
            h = np.pad(ones, fill).reshape(-1, block)
        k = 1 << self.bits
        s, z = best_grid(X, h, k, is_symmetric=bool(self.symmetric))
        scale, unit = halved(s.reshape(grid))
        book = np.arange(k) - (k // 2 if self.symmetric else 0)
        zero = None if self.symmetric else as_half(z.reshape(grid))
        return Levels(book.astype(np.float32)[None, None], scale, zero, block, 0, unit)
