"""Dense: the identity of the algebra, the weight as it is."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...device_profiles.kernel import Kernel
from ..geometry import Geometry, Weights
from .form import Cost, Emitter, Shape, Term, read_only
from .metric import IDENTITY, Metric


@dataclass(frozen=True, eq=False)
class DenseTerm:
    """The weight itself."""

    W: Weights

    @property
    def shape(self) -> Shape:
        return self.W.shape

    def decompress(self) -> Weights:
        return self.W

    def cost(self) -> Cost:
        return Cost(self.W.size, 32 * self.W.size, self.W.size, self.W.size)

    def arrays(self) -> dict[str, Weights]:
        return {"weight": self.W}

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        return emitter.apply(x, self.W, "dense", geometry.folded(frozenset()))

    def decode(self, emitter: Emitter) -> ir.Value | None:
        del emitter
        return None


@dataclass(frozen=True)
class Dense:
    """Leave the weight dense: always a candidate, and what small layers usually take."""

    name: ClassVar[str] = "dense"

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> DenseTerm:
        del start, metric  # nothing is closer to W than W
        return DenseTerm(read_only(W))

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        return (geometry.as_kernel(shape[1], shape[2], shape[0]),)
