"""Fixed codebooks: {−1, 1}, {−c, c}, {−c, 0, c} and powers of two."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ....device_profiles.errors import PlanError
from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Shape, Term
from ..metric import IDENTITY, Metric
from .codebook_fit import best_binary, best_power, best_ternary
from .feedback_fit import coded
from .quantize import check_sharing
from .quantize_levels import Levels, halved
from .quantize_term import dense_kernel

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Binary:
    """Signs, times c = mean |w| (LC toolkit; Rastegari et al. 2016, eq. 6).

    Args:
        per: what has a c of its own: "layer" or "channel" (an output's row).
        scaled: 1 for {−c, c}; 0 for {−1, 1}, which stores no number at all.

    Raises:
        PlanError: the fields contradict each other.
    """

    per: str = "layer"
    scaled: int = 1
    name: ClassVar[str] = "binary"

    def __post_init__(self) -> None:
        check_sharing(self.name, "per", self.per, ("layer", "channel"))
        if self.scaled not in (0, 1) or (not self.scaled and self.per != "layer"):
            raise PlanError(
                f"form 'binary' has scaled={self.scaled} beside per={self.per}",
                hint="choose scaled=1, or scaled=0 and per=layer",
            )

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        return coded(W, self.levels, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        return dense_kernel(shape, geometry)

    def levels(self, W: Weights, weights: Floats | None) -> Levels:
        """{−c, c} for W (R, n) in a diagonal metric (R, n), or in the plain norm."""
        signs = np.array([-1.0, 1.0])
        if not self.scaled:
            return Levels(signs.astype(np.float32)[None, None], None, None, W.shape[1], 0)
        return _stretched(signs, self.per, W, best_binary(*_rows(self.per, W, weights)))


@dataclass(frozen=True)
class Ternary:
    """{−c, 0, c} with the best c: a closed form (LC toolkit; see `best_ternary`).

    Args:
        per: what has a c of its own: "layer" or "channel" (an output's row).

    Raises:
        PlanError: `per` is another word.
    """

    per: str = "layer"
    name: ClassVar[str] = "ternary"

    def __post_init__(self) -> None:
        check_sharing(self.name, "per", self.per, ("layer", "channel"))

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        return coded(W, self.levels, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        return dense_kernel(shape, geometry)

    def levels(self, W: Weights, weights: Floats | None) -> Levels:
        """{−c, 0, c} for W (R, n) in a diagonal metric (R, n), or in the plain norm."""
        c = best_ternary(*_rows(self.per, W, weights))
        return _stretched(np.array([-1.0, 0.0, 1.0]), self.per, W, c)


@dataclass(frozen=True)
class Powers:
    """0 and ± 2ᵉ, 2ᵉ⁻¹, …: multiplication is a shift (Carreira-Perpiñán and Idelbayev 2017).

    Args:
        bits: bits of a code, 2 … 5: 2ᵇⁱᵗˢ⁻¹ − 1 powers with either sign, and 0.
        per: what has an e of its own: "layer" or "channel" (an output's row).

    Raises:
        PlanError: a field is out of range.
    """

    bits: int = 4
    per: str = "layer"
    name: ClassVar[str] = "powers"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 5:
            raise PlanError(f"form 'powers' has bits={self.bits}", hint="choose 2 … 5")
        check_sharing(self.name, "per", self.per, ("layer", "channel"))

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        return coded(W, self.levels, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        return dense_kernel(shape, geometry)

    def levels(self, W: Weights, weights: Floats | None) -> Levels:
        """The best e for W (R, n) in a diagonal metric (R, n), or in the plain norm."""
        powers = np.exp2(-np.arange(2 ** (self.bits - 1) - 1, dtype=np.float64))
        book = np.concatenate([-powers, [0.0], powers[::-1]])
        c = best_power(*_rows(self.per, W, weights), book)
        return replace(_stretched(book, self.per, W, c), is_rigid=True)


def _rows(per: str, W: Weights, weights: Floats | None) -> tuple[Weights, Floats | None]:
    """One row for everything that shares a number."""
    if per == "channel":
        return W, weights
    return W.reshape(1, -1), None if weights is None else weights.reshape(1, -1)


def _stretched(
    book: npt.NDArray[np.float64], per: str, W: Weights, c: npt.NDArray[np.float64]
) -> Levels:
    """The codebook times c, which is a float32 for a layer and a float16 for a row."""
    if per == "layer":
        return Levels((book * c[0]).astype(np.float32)[None, None], None, None, W.shape[1], 1)
    scale, unit = halved(c[:, None])
    return Levels(book.astype(np.float32)[None, None], scale, None, W.shape[1], 0, unit)
