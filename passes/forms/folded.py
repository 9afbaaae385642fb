"""Folded: another matrix view of a convolution, then any form on it (ALDS+)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt
import onnx_ir as ir

from ...device_profiles.errors import RankError
from ...device_profiles.kernel import Kernel
from ..geometry import Geometry, Weights, fold, scheme_axes, unfold
from .blocks import Blocks, refined_term
from .factors.lowrank import LowRank
from .factors.lowrank_fit import DAMPING
from .factors.lowrank_refine import folded_moments, own_moments
from .factors.lowrank_term import sized
from .form import Cost, Emitter, Shape, Term, better, read_only
from .metric import IDENTITY, Metric


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

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return self.of.arrays()

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        return self.of.lower(emitter, x, geometry.folded(self.axes))

    def decode(self, emitter: Emitter) -> ir.Value | None:
        """The folded matrix unfolded, its kernel axes moved back to the inputs."""
        matrix = self.of.decode(emitter)
        if matrix is None or not self.axes:
            return matrix
        g, m, c, *kernel = self.shape
        inner = sorted(self.axes)
        outer = [a for a in range(len(kernel)) if a not in self.axes]
        sizes = (g * m, *(kernel[a] for a in inner), c, *(kernel[a] for a in outer))
        place = {a: 1 + at for at, a in enumerate(inner)}
        place |= {a: 2 + len(inner) + at for at, a in enumerate(outer)}
        perm = (0, 1 + len(inner), *(place[a] for a in range(len(kernel))))
        wide = sized(emitter, matrix, sizes, "f")
        turned = emitter.node("Transpose", [wide], "f.turned", {"perm": perm})
        return sized(emitter, turned, (g * m, c * math.prod(kernel)), "f")


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

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        axes = scheme_axes(self.scheme, W.shape[3:])
        F = fold(W, axes)
        if metric.is_round:
            term: Term = FoldedTerm(self.of.compress(F), axes, W.shape)
        else:
            term = self._in_metric(W, F, axes, metric)
        return better(W, term, start, metric)

    def _in_metric(self, W: Weights, F: Weights, axes: frozenset[int], metric: Metric) -> Term:
        """The fit in the moments of the first factor's input, refined in the whole metric.

        The first factor reads the same channels at every kernel position moved to the outputs:
        its moments are the mean of those sub-blocks of H. What couples the positions is left
        to the refinement; the plain fit is a start too.
        """
        moments = folded_moments(metric.damped(DAMPING), W.shape[2], W.shape[3:], axes)
        best: Term | None = None
        for own in (own_moments(moments), IDENTITY):
            inner = self.of.compress(F, metric=own)
            term = FoldedTerm(inner, axes, W.shape)
            new = FoldedTerm(refined_term(F, inner, moments), axes, W.shape)
            best = better(W, better(W, new, term, metric), best, metric)
        assert best is not None, "there are two starts"
        return best

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
