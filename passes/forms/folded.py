"""Folded: another matrix view of a convolution, then any form on it (ALDS+)."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...device_profiles.errors import RankError
from ...device_profiles.kernel import Kernel
from ..geometry import Geometry, Weights, fold, scheme_axes, unfold
from .blocks import Blocks
from .form import Cost, Emitter, Shape, Term, better, read_only
from .lowrank import LowRank


@dataclass(frozen=True, eq=False)
class FoldedTerm:
    """A term of the folded weight.

    Args:
        of: term of the (g, m · A, c, *B) view.
        axes: kernel axes A that went to the outputs.
        shape: (g, m, c, *kernel) of the weight.
    """

    of: Term
    axes: frozenset[int]
    shape: Shape

    def decompress(self) -> Weights:
        return read_only(unfold(self.of.decompress(), self.axes, self.shape))

    def cost(self) -> Cost:
        return self.of.cost()

    def arrays(self) -> dict[str, Weights]:
        return self.of.arrays()

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        return self.of.lower(emitter, x, geometry.folded(self.axes))


@dataclass(frozen=True)
class Folded:
    """`of`, on folding `scheme` of a convolution's weight (ALDS supplement, A.6).

    0: f × c·κ₁·κ₂, a κ₁×κ₂ then a 1×1 convolution; 1: f·κ₁ × c·κ₂, 1×κ₂ then κ₁×1;
    2: f·κ₂ × c·κ₁, κ₁×1 then 1×κ₂; 3: f·κ₁·κ₂ × c, 1×1 then κ₁×κ₂.

    Args:
        scheme: 0, 1, 2 or 3.
        of: form of the folded matrix.
    """

    scheme: int
    of: LowRank | Blocks
    name: ClassVar[str] = "folded"

    def compress(self, W: Weights, start: Term | None = None) -> Term:
        axes = scheme_axes(self.scheme, W.shape[3:])
        inner = self.of.compress(fold(W, axes))
        return better(W, FoldedTerm(inner, axes, W.shape), start)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        axes = scheme_axes(self.scheme, shape[3:])
        if not geometry.is_separable and 0 < len(axes) < geometry.rank:
            raise RankError(
                "the kernel axes of this layer cannot be split (its output size is given "
                "explicitly)",
                hint="choose scheme 0 or 3",
            )
        return self.of.kernels(folded_shape(shape, axes), geometry.folded(axes))


def folded_shape(shape: Shape, axes: frozenset[int]) -> Shape:
    """Shape of `fold(W, axes)`."""
    g, m, c, *kernel = shape
    for a in axes:
        m *= kernel[a]
    return (g, m, c, *(size for a, size in enumerate(kernel) if a not in axes))
