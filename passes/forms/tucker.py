"""Tucker2: the three-factor convolution 1×1 · κ×κ · 1×1."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import scipy.linalg

from ...device_profiles.errors import RankError
from ...device_profiles.kernel import Kernel
from ..geometry import Geometry, Weights
from .form import Cost, Emitter, Shape, Term, better, read_only

_SWEEPS = 3
"""Alternations after the higher-order SVD; each can only lower the error."""


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
        W = np.einsum("gma,gabk,gbc->gmck", self.P, _flat(self.G), self.Q, optimize=True)
        return read_only(W.reshape(self.shape))

    def cost(self) -> Cost:
        stored = self.P.size + self.G.size + self.Q.size
        return Cost(stored, 32 * stored)

    def arrays(self) -> dict[str, Weights]:
        return {"p": self.P, "g": self.G, "q": self.Q}

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        ones = (1,) * geometry.rank
        into = geometry.pointwise_at(geometry.in_extent)
        out = geometry.pointwise_at(geometry.out_extent)
        h = emitter.apply(x, self.Q.reshape(*self.Q.shape, *ones), "q", into)
        h = emitter.apply(h, self.G, "g", geometry.folded(frozenset()))
        return emitter.apply(h, self.P.reshape(*self.P.shape, *ones), "p", out)


@dataclass(frozen=True)
class Tucker2:
    """A convolution between two 1×1 convolutions (Tucker-2; TT with one core per mode pair).

    Higher-order SVD over outputs and inputs, then alternating least squares (HOOI), which
    never raises ‖W − Ŵ‖_F.

    Args:
        outputs: rank a over the outputs.
        inputs: rank b over the inputs.
    """

    outputs: int
    inputs: int
    name: ClassVar[str] = "tucker2"

    def compress(self, W: Weights, start: Term | None = None) -> Term:
        self._check(W.shape)
        kernel = W.shape[3:]
        factors = [_tucker2(group, self.outputs, self.inputs) for group in _flat(W)]
        P, G, Q = (np.stack(part) for part in zip(*factors, strict=True))
        core = G.reshape(*G.shape[:3], *kernel)
        return better(W, Tucker2Term(read_only(P), read_only(core), read_only(Q)), start)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        self._check(shape)
        g, m, c = shape[:3]
        into = geometry.pointwise_at(geometry.in_extent)
        out = geometry.pointwise_at(geometry.out_extent)
        return (
            into.as_kernel(self.inputs, c, g),
            geometry.as_kernel(self.outputs, self.inputs, g),
            out.as_kernel(m, self.outputs, g),
        )

    def _check(self, shape: Shape) -> None:
        m, c, kernel = shape[1], shape[2], shape[3:]
        if not kernel:
            raise RankError("tucker2 is for convolutions", hint="use lowrank for a product")
        if not (1 <= self.outputs <= m and 1 <= self.inputs <= c):
            raise RankError(
                f"ranks ({self.outputs}, {self.inputs}) are outside 1 … ({m}, {c})",
                hint=f"choose outputs ≤ {m} and inputs ≤ {c}",
            )


def _flat(W: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return W.reshape(*W.shape[:3], math.prod(W.shape[3:]))


def _tucker2(
    W: npt.NDArray[np.float32], a: int, b: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """P (m, a), G (a, b, K), Q (b, c) of one group's (m, c, K)."""
    A = W.astype(np.float64)
    Q = _leading(np.einsum("mck,mdk->cd", A, A, optimize=True), b)
    P = np.empty((A.shape[0], a))
    for _ in range(_SWEEPS):
        right = np.einsum("mck,cb->mbk", A, Q, optimize=True)
        P = _leading(np.einsum("mbk,nbk->mn", right, right, optimize=True), a)
        left = np.einsum("mck,ma->ack", A, P, optimize=True)
        Q = _leading(np.einsum("ack,adk->cd", left, left, optimize=True), b)
    G = np.einsum("mck,ma,cb->abk", A, P, Q, optimize=True)
    return P.astype(np.float32), G.astype(np.float32), Q.T.astype(np.float32)


def _leading(gram: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """The leading eigenvectors, as columns, largest entry positive."""
    n = len(gram)
    _, vectors = scipy.linalg.eigh(  # pyright: ignore[reportUnknownMemberType]
        gram, subset_by_index=[n - count, n - 1], driver="evr", check_finite=False
    )
    Q: npt.NDArray[np.float64] = vectors[:, ::-1]
    return Q * np.where(Q[np.abs(Q).argmax(axis=0), np.arange(count)] < 0, -1, 1)
