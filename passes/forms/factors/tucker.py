"""Tucker2: the three-factor convolution 1×1 · κ×κ · 1×1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ....device_profiles.errors import RankError
from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Cost, Emitter, Shape, Term, better, read_only
from ..metric import IDENTITY, Metric
from ..trains.tensor_train_half import FACTOR_BITS, as_stored, decoded, reshaped, rounded
from .tucker_fit import Factors, three_factors


@dataclass(frozen=True, eq=False)
class Tucker2Term:
    """W[:, :, x] ≈ P G[:, :, x] Q per group.

    Args:
        P: (g, m, a) output factor.
        G: (g, a, b, *kernel) core.
        Q: (g, b, c) input factor.
    """

    P: Weights
    G: Weights
    Q: Weights

    @property
    def shape(self) -> Shape:
        return (*self.P.shape[:2], self.Q.shape[2], *self.G.shape[3:])

    def decompress(self) -> Weights:
        g, a, b = self.G.shape[:3]
        c = self.Q.shape[2]
        taps = self.G.reshape(g, a, b, -1).swapaxes(2, 3)
        inner: Weights = taps.reshape(g, -1, b) @ self.Q
        inner = inner.reshape(g, a, -1, c).swapaxes(2, 3)
        whole: Weights = self.P @ inner.reshape(g, a, -1)
        return read_only(whole.reshape(self.shape))

    def cost(self) -> Cost:
        """Factors of 16 bits; each stored weight multiplies and adds once (appendix B.2)."""
        stored = self.P.size + self.G.size + self.Q.size
        return Cost(stored, FACTOR_BITS * stored, stored, stored)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"p": as_stored(self.P), "g": as_stored(self.G), "q": as_stored(self.Q)}

    def kernels(self, geometry: Geometry) -> tuple[Kernel, ...]:
        """What a device is asked to run."""
        return factor_kernels(self.shape, geometry, self.G.shape[1], self.G.shape[2])

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        return self.chain(emitter, x, geometry)

    def chain(
        self,
        emitter: Emitter,
        x: ir.Value,
        geometry: Geometry,
        terms: tuple[Term | None, Term | None, Term | None] = (None, None, None),
    ) -> ir.Value:
        """Three layers; `terms` are what P, G and Q may be stored as."""
        ones = (1,) * geometry.rank
        into = geometry.pointwise_at(geometry.in_extent)
        out = geometry.pointwise_at(geometry.out_extent)
        p, mid, q = terms
        h = emitter.apply(x, self.Q.reshape(*self.Q.shape, *ones), "q", into, q)
        h = emitter.apply(h, self.G, "g", geometry.folded(frozenset()), mid)
        return emitter.apply(h, self.P.reshape(*self.P.shape, *ones), "p", out, p)

    def decode(self, emitter: Emitter) -> ir.Value | None:
        P, G, Q = (
            decoded(emitter, part, name)
            for name, part in (("p", self.P), ("g", self.G), ("q", self.Q))
        )
        return unfolded(emitter, P, G, Q, self.shape, self.G.shape[1], self.G.shape[2])


def unfolded(
    emitter: Emitter,
    P: ir.Value,
    G: ir.Value,
    Q: ir.Value,
    shape: Shape,
    a: int,
    b: int,
) -> ir.Value:
    """Nodes for the matrix (g · m, c · κ) of P G Q, each given in any shape of its row order.

    Args:
        emitter: of the site.
        P: (g, m, a).
        G: (g, a, b, κ).
        Q: (g, b, c).
        shape: (g, m, c, *kernel).
        a: rank over the outputs.
        b: rank over the inputs.
    """
    g, m, c, *kernel = shape
    size = math.prod(kernel)
    taps = reshaped(emitter, G, (g, a, b, size), "g.taps")
    taps = emitter.node("Transpose", [taps], "g.turned", {"perm": (0, 1, 3, 2)})
    taps = reshaped(emitter, taps, (g, a * size, b), "g.rows")
    inner = emitter.node("MatMul", [taps, reshaped(emitter, Q, (g, b, c), "q.rows")], "gq")
    inner = reshaped(emitter, inner, (g, a, size, c), "gq.taps")
    inner = emitter.node("Transpose", [inner], "gq.turned", {"perm": (0, 1, 3, 2)})
    inner = reshaped(emitter, inner, (g, a, c * size), "gq.rows")
    whole = emitter.node("MatMul", [reshaped(emitter, P, (g, m, a), "p.rows"), inner], "pgq")
    return reshaped(emitter, whole, (g * m, c * size), "pgq.matrix")


@dataclass(frozen=True)
class Tucker2:
    """A convolution between two 1×1 convolutions (Tucker-2; TT with one core per mode pair).

    Higher-order SVD over outputs and inputs, then alternating least squares (HOOI), which
    never raises ‖W − Ŵ‖_F; with moments of the inputs, alternating least squares in their
    metric.

    Args:
        outputs: rank a over the outputs.
        inputs: rank b over the inputs.
    """

    outputs: int
    inputs: int
    name: ClassVar[str] = "tucker2"

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        check_factors(W.shape, self.outputs, self.inputs, self.name)
        found = three_factors(W, self.outputs, self.inputs, metric)
        return better(W, as_term(W, found, metric), start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        check_factors(shape, self.outputs, self.inputs, self.name)
        return factor_kernels(shape, geometry, self.outputs, self.inputs)


def as_term(W: Weights, found: Sequence[Factors], metric: Metric = IDENTITY) -> Tucker2Term:
    """The factors of every group as one term, in 16 bits where that is not felt."""
    kernel = W.shape[3:]
    P, G, Q = (np.stack([factors[at] for factors in found]) for at in range(3))
    G = G.reshape(*G.shape[:3], *kernel)

    def squared(parts: tuple[Weights, ...]) -> float:
        error = np.subtract(W, Tucker2Term(*parts).decompress(), dtype=np.float64)
        return metric.squared(error)

    return Tucker2Term(*rounded((P, G, Q), squared))


def factor_kernels(shape: Shape, geometry: Geometry, a: int, b: int) -> tuple[Kernel, ...]:
    """The three convolutions of a weight of `shape`."""
    g, m, c = shape[:3]
    into = geometry.pointwise_at(geometry.in_extent)
    out = geometry.pointwise_at(geometry.out_extent)
    return (
        into.as_kernel(b, c, g),
        geometry.as_kernel(a, b, g),
        out.as_kernel(m, a, g),
    )


def check_factors(shape: Shape, a: int, b: int, name: str) -> None:
    """Raises RankError where ranks a and b do not fit a convolution of `shape`."""
    m, c, kernel = shape[1], shape[2], shape[3:]
    if not kernel:
        raise RankError(f"{name} is for convolutions", hint="use lowrank for a product")
    if not (1 <= a <= m and 1 <= b <= c):
        raise RankError(
            f"ranks ({a}, {b}) are outside 1 … ({m}, {c})",
            hint=f"choose outputs ≤ {m} and inputs ≤ {c}",
        )
