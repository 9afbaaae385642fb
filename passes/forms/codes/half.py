"""Half: every weight as a float16."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt
import onnx_ir as ir

from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Cost, Emitter, Shape, Term, better, read_only
from ..metric import IDENTITY, Metric
from .quantize_levels import Halves, as_half
from .quantize_term import dense_kernel


@dataclass(frozen=True, eq=False)
class HalfTerm:
    """The weight in float16, (g, m, c, *kernel)."""

    W: Halves

    @property
    def shape(self) -> Shape:
        return self.W.shape

    def decompress(self) -> Weights:
        return read_only(self.W.astype("float32"))

    def cost(self) -> Cost:
        return Cost(self.W.size, 16 * self.W.size, self.W.size, self.W.size)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"half": self.W}

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        return emitter.apply(x, self.decompress(), "q", geometry.folded(frozenset()))

    def decode(self, emitter: Emitter) -> ir.Value | None:
        g, m = self.W.shape[:2]
        held = emitter.stored(self.W.reshape(g * m, -1), "q.half")
        return emitter.node("Cast", [held], "q.float", {"to": int(ir.DataType.FLOAT)})


@dataclass(frozen=True)
class Half:
    """Round to float16; what is too large for it becomes its largest number.

    The same in every metric: its error, 2⁻¹¹ of a weight, is below what feedback is for.
    """

    name: ClassVar[str] = "half"

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        rounded = as_half(W)
        rounded.flags.writeable = False
        return better(W, HalfTerm(rounded), start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        return dense_kernel(shape, geometry)
