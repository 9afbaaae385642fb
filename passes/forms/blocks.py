"""Blocks: the input channels cut into k blocks, each compressed by itself (ALDS)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...device_profiles.errors import RankError
from ...device_profiles.kernel import Kernel
from ..geometry import Geometry, Weights
from .form import Cost, Emitter, Shape, Term, better, read_only
from .lowrank import LowRank, LowRankTerm, check_rank, output_factor


@dataclass(frozen=True, eq=False)
class BlocksTerm:
    """W ≈ [Ŵ₁ … Ŵ_k]: the low-rank terms of the column blocks.

    Lowered as ALDS does (section 2.2): one grouped layer holds all Vᵢ, one dense layer holds
    [U₁ … U_k], which also adds the blocks up.
    """

    parts: tuple[LowRankTerm, ...]

    @property
    def shape(self) -> Shape:
        g, m, c, *kernel = self.parts[0].shape
        return (g, m, c * len(self.parts), *kernel)

    def decompress(self) -> Weights:
        return read_only(np.concatenate([part.decompress() for part in self.parts], axis=2))

    def cost(self) -> Cost:
        costs = [part.cost() for part in self.parts]
        return Cost(sum(c.weights for c in costs), sum(c.bits for c in costs))

    def arrays(self) -> dict[str, Weights]:
        return {
            f"{name}{i}": array
            for i, part in enumerate(self.parts)
            for name, array in part.arrays().items()
        }

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        g, k = self.parts[0].U.shape[0], len(self.parts)
        V = np.stack([part.V for part in self.parts], axis=1)
        U = np.concatenate([part.U for part in self.parts], axis=2)
        h = emitter.apply(x, V.reshape(g * k, *V.shape[2:]), "v", geometry.first())
        return emitter.apply(h, output_factor(U, geometry), "u", geometry.second())


@dataclass(frozen=True)
class Blocks:
    """k column blocks of equal width over the input channels, each compressed by `of`.

    `Blocks(k, LowRank(j))` is ALDS's layer: k rank-j blocks (section 2.1).

    Args:
        k: number of blocks, a divisor of the input channels per group.
        of: form of a block.
    """

    k: int
    of: LowRank
    name: ClassVar[str] = "blocks"

    def compress(self, W: Weights, start: Term | None = None) -> Term:
        self._check(W.shape)
        parts = [self.of.compress(block) for block in np.split(W, self.k, axis=2)]
        return better(
            W, BlocksTerm(tuple(p for p in parts if isinstance(p, LowRankTerm))), start
        )

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        self._check(shape)
        if geometry.op == "MatMul" and (geometry.input_rank or 0) < 2:
            raise RankError(
                "blocks of a product need an input of known rank, at least 2",
                hint="use lowrank without blocks",
            )
        g, _, c = shape[:3]
        block = (g, shape[1], c // self.k, *shape[3:])
        first, second = self.of.kernels(block, geometry)
        return (
            geometry.first().as_kernel(first.outputs, first.inputs, g * self.k),
            geometry.second().as_kernel(second.outputs, self.k * self.of.j, g),
        )

    def _check(self, shape: Shape) -> None:
        c = shape[2]
        if self.k < 1 or c % self.k:
            raise RankError(
                f"k={self.k} blocks do not divide {c} input channels",
                hint=f"choose a divisor of {c}",
            )
        check_rank(self.of.j, (shape[0], shape[1], c // self.k, *shape[3:]))
