"""How a weight is applied: the convolution or product around it, and its two-factor split."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..device_profiles.errors import RankError
from ..device_profiles.kernel import Kernel, LinearOp

Weights = npt.NDArray[np.float32]
"""A weight as every form sees it: (groups, outputs, inputs, *kernel), per group."""

Extent = tuple[int, ...] | None
Scheme = Literal[0, 1, 2, 3]


@dataclass(frozen=True)
class Geometry:
    """Everything about a linear layer but its weights.

    Args:
        op: Conv, ConvTranspose or MatMul (Gemm is a MatMul with a bias).
        groups: convolution groups.
        kernel, strides, dilations: one entry per kernel axis; empty for a product.
        pads: begins then ends, as in ONNX.
        output_padding: of a transposed convolution.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
        weight_is_left: MatMul computes W x instead of x Wᵀ.
        lead: leading dimensions of size one of a MatMul weight.
        input_rank: number of axes of what a MatMul reads; None where it is unknown.
        in_extent, out_extent: see Kernel.
        output_axes: kernel axes that a factorised form gives to its *second* factor: the
            folding (m · A) × (c · B) of ALDS+ (supplement, A.6).
        is_separable: whether the kernel axes can be split between two factors.
    """

    op: LinearOp
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"
    weight_is_left: bool = False
    lead: tuple[int, ...] = ()
    input_rank: int | None = None
    in_extent: Extent = None
    out_extent: Extent = None
    output_axes: frozenset[int] = frozenset()
    is_separable: bool = True

    @property
    def rank(self) -> int:
        """Number of kernel axes."""
        return len(self.kernel)

    @property
    def input_axes(self) -> frozenset[int]:
        """Kernel axes of the first factor."""
        return frozenset(range(self.rank)) - self.output_axes

    def folded(self, output_axes: frozenset[int]) -> "Geometry":
        """The same layer, its factorised forms split over `output_axes`."""
        return replace(self, output_axes=output_axes)

    def first(self) -> "Geometry":
        """The layer of the first factor: the input side's kernel axes, to the rank."""
        return self._side(self.input_axes, self.in_extent, self._between)

    def second(self) -> "Geometry":
        """The layer of the second factor: the output side's kernel axes, from the rank."""
        return self._side(self.output_axes, self._between, self.out_extent)

    def pointwise_at(self, extent: Extent) -> "Geometry":
        """A 1×…×1 layer at the given positions."""
        return self._side(frozenset(), extent, extent)

    @property
    def _between(self) -> Extent:
        if self.in_extent is None or self.out_extent is None:
            return None
        if not self.kernel:
            return self.out_extent
        taken = {0} | {a + 1 for a in self.input_axes}
        return tuple(
            self.out_extent[i] if i in taken else self.in_extent[i]
            for i in range(len(self.in_extent))
        )

    def _side(self, axes: frozenset[int], reads: Extent, writes: Extent) -> "Geometry":
        def only(values: tuple[int, ...], neutral: int) -> tuple[int, ...]:
            n = self.rank
            return tuple(v if i % n in axes else neutral for i, v in enumerate(values))

        # A factor without kernel axes is an ordinary 1×…×1 convolution.
        op: LinearOp = "Conv" if self.op == "ConvTranspose" and not axes else self.op
        return replace(
            self,
            op=op,
            kernel=only(self.kernel, 1),
            strides=only(self.strides, 1),
            dilations=only(self.dilations, 1),
            pads=only(self.pads, 0),
            output_padding=only(self.output_padding, 0),
            auto_pad=self.auto_pad if axes else "NOTSET",
            in_extent=reads,
            out_extent=writes,
            output_axes=frozenset(),
        )

    def as_kernel(self, outputs: int, inputs: int, groups: int | None = None) -> Kernel:
        """The device kernel of this layer with the given channels per group."""
        return Kernel(
            self.op,
            self.groups if groups is None else groups,
            outputs,
            inputs,
            self.kernel,
            self.in_extent,
            self.out_extent,
        )


def scheme_axes(scheme: int, kernel: tuple[int, ...]) -> frozenset[int]:
    """Kernel axes that folding `scheme` gives to the second factor (ALDS supplement, A.6).

    0: f × c·κ₁·κ₂; 1: f·κ₁ × c·κ₂; 2: f·κ₂ × c·κ₁; 3: f·κ₁·κ₂ × c. In three dimensions
    scheme 1 gives the first axis and scheme 2 the last one.

    Raises:
        RankError: there is no such folding of this kernel.
    """
    axes = {
        0: frozenset[int](),
        1: frozenset({0}),
        2: frozenset({len(kernel) - 1}),
        3: frozenset(range(len(kernel))),
    }.get(scheme)
    if axes is None or (scheme and not kernel):
        raise RankError(
            f"there is no folding scheme {scheme} for a kernel {kernel}",
            hint="choose 0, 1, 2 or 3 for a convolution and 0 for a product",
        )
    return axes


def distinct_schemes(geometry: Geometry) -> tuple[Scheme, ...]:
    """The schemes that differ for this layer: axes of size one are the same on either side.

    Example:
        >>> distinct_schemes(Geometry("Conv", kernel=(3, 3)))
        (0, 1, 2, 3)
        >>> distinct_schemes(Geometry("Conv", kernel=(1, 1)))
        (0,)
    """
    seen: dict[frozenset[int], Scheme] = {}
    schemes: tuple[Scheme, ...] = (0, 3, 1, 2)
    for scheme in schemes:
        if scheme and (
            not geometry.kernel or (scheme in (1, 2) and not geometry.is_separable)
        ):
            continue
        axes = frozenset(
            a for a in scheme_axes(scheme, geometry.kernel) if geometry.kernel[a] > 1
        )
        seen.setdefault(axes, scheme)
    return tuple(sorted(seen.values()))


def fold(W: Weights, axes: frozenset[int]) -> Weights:
    """The weight with kernel axes `axes` moved into the outputs: (g, m · A, c, *B).

    Args:
        W: (g, m, c, *kernel).
        axes: kernel axes to move, in increasing order behind m.

    Returns:
        A view where possible, a copy otherwise.
    """
    g, m, c = W.shape[:3]
    inner = sorted(axes)
    outer = [a for a in range(W.ndim - 3) if a not in axes]
    moved = W.transpose(0, 1, *(3 + a for a in inner), 2, *(3 + a for a in outer))
    sizes = [W.shape[3 + a] for a in inner]
    return moved.reshape(g, m * math.prod(sizes), c, *(W.shape[3 + a] for a in outer))


def unfold(F: Weights, axes: frozenset[int], shape: tuple[int, ...]) -> Weights:
    """The inverse of `fold`: back to `shape` = (g, m, c, *kernel)."""
    g, m, c = shape[:3]
    kernel = shape[3:]
    inner = sorted(axes)
    outer = [a for a in range(len(kernel)) if a not in axes]
    tensor = F.reshape(g, m, *(kernel[a] for a in inner), c, *(kernel[a] for a in outer))
    place = {a: 2 + i for i, a in enumerate(inner)}
    place |= {a: 3 + len(inner) + i for i, a in enumerate(outer)}
    return tensor.transpose(0, 1, 2 + len(inner), *(place[a] for a in range(len(kernel))))
