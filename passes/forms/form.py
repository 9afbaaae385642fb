"""The two protocols of the algebra: Form, a frozen recipe, and Term, its frozen result."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...device_profiles.kernel import Kernel
from ..geometry import Geometry, Weights
from .metric import IDENTITY, Metric

Shape = tuple[int, ...]
"""(groups, outputs, inputs, *kernel), per group."""


@dataclass(frozen=True)
class Cost:
    """What a term costs, counted as the papers count.

    Args:
        weights: stored numbers.
        bits: stored bits (LC part V, appendix B.1): codebooks of 32-bit values, indices,
            gap-coded corrections and factors of 16-bit values.
        adds, mults: additions and multiplications of one application of the weight, at one
            output position (appendix B.2).
    """

    weights: int
    bits: int
    adds: int = 0
    mults: int = 0


class Emitter(Protocol):
    """Writes the nodes of a term into a graph; forms see no other part of ONNX."""

    def apply(
        self,
        x: ir.Value,
        W: Weights,
        part: str,
        geometry: Geometry,
        term: "Term | None" = None,
    ) -> ir.Value:
        """A node (or a few) that applies W (g, m, c, *kernel) to x, named by `part`.

        Where W is the decompression of a `term`, it may be stored as that.
        """
        ...

    def node(
        self,
        op: str,
        inputs: list[ir.Value | None],
        part: str,
        attributes: dict[str, int | str | tuple[int, ...]] | None = None,
    ) -> ir.Value:
        """One more node, named by `part`; returns its output."""
        ...

    def stored(self, array: npt.NDArray[Any], part: str) -> ir.Value:
        """A constant as it is, whatever its element type, named by `part`."""
        ...


@runtime_checkable
class Term(Protocol):
    """The result of compressing one weight: a value that can be stored, counted and run."""

    @property
    def shape(self) -> Shape:
        """Shape of the weight it stands for."""
        ...

    def decompress(self) -> Weights:
        """Ŵ = Δ(Θ), float32, of `shape`."""
        ...

    def cost(self) -> Cost:
        """What it stores."""
        ...

    def arrays(self) -> dict[str, Weights]:
        """Θ by part name, for storage."""
        ...

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        """Nodes that compute what the layer computes with Ŵ, without its bias."""
        ...

    def decode(self, emitter: Emitter) -> ir.Value | None:
        """Nodes that unfold Ŵ as a matrix (g · m, n) when the model is loaded.

        Returns:
            The matrix, float32; None where nothing smaller than the dense weight is stored.
        """
        ...


@runtime_checkable
class Form(Protocol):
    """A recipe for compressing a weight of any layer.

    Attributes:
        name: its name in plans and on the command line.
    """

    name: ClassVar[str]

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        """argmin over Θ of ‖W − Δ(Θ)‖ in `metric`; never worse than `start`.

        Args:
            W: (g, m, c, *kernel) float32.
            start: a term to improve on.
            metric: the norm; the plain Frobenius norm unless given.

        Raises:
            RankError: the form does not fit the shape.
        """
        ...

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        """What a device is asked to run for a weight of `shape`.

        Raises:
            RankError: the form does not fit the shape.
        """
        ...


def squared_error(W: Weights, term: Term, metric: Metric = IDENTITY) -> float:
    """‖W − Δ(Θ)‖² in `metric`, summed in float64."""
    return metric.squared(np.subtract(W, term.decompress(), dtype=np.float64))


def better(W: Weights, new: Term, start: Term | None, metric: Metric = IDENTITY) -> Term:
    """`new`, or `start` where that is closer to W: the contract of `compress`."""
    if start is None or squared_error(W, new, metric) <= squared_error(W, start, metric):
        return new
    return start


def kernel_weights(kernels: tuple[Kernel, ...]) -> int:
    """Stored weights of a chain of kernels."""
    return sum(kernel.weights for kernel in kernels)


def kernel_macs(kernels: tuple[Kernel, ...]) -> int | None:
    """Multiply-adds of a chain of kernels; None where one is unknown."""
    macs = [kernel.macs for kernel in kernels]
    return None if None in macs else sum(m for m in macs if m is not None)


def read_only(array: Weights) -> Weights:
    """The array in C order, float32 and closed for writing."""
    frozen = np.ascontiguousarray(array, dtype=np.float32)
    if frozen is array:
        frozen = frozen.view()
    frozen.flags.writeable = False
    return frozen
