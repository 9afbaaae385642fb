"""Blocks: the input channels cut into k blocks, each compressed by itself (ALDS)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...device_profiles.errors import RankError
from ...device_profiles.kernel import Kernel
from ..geometry import Geometry, Weights
from .factors.lowrank import LowRank
from .factors.lowrank_fit import DAMPING, check_rank, halves
from .factors.lowrank_refine import folded_moments, refined
from .factors.lowrank_term import LowRankTerm, added, output_factor
from .form import Cost, Emitter, Shape, Term, better, read_only
from .metric import IDENTITY, Metric

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


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
        return added([part.cost() for part in self.parts])

    def arrays(self) -> dict[str, Array]:
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

    def decode(self, emitter: Emitter) -> ir.Value | None:
        """The blocks unfolded one by one and put side by side."""
        blocks = [part.decode(emitter) for part in self.parts]
        return emitter.node("Concat", [*blocks], "b.matrix", {"axis": 1})


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

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        self._check(W.shape)
        term: Term = self._fitted(W, metric)
        if not metric.is_round and self.k > 1:
            damped = metric.damped(DAMPING)
            moments = folded_moments(damped, W.shape[2], W.shape[3:], frozenset())
            term = better(W, refined_term(W, term, moments), term, metric)
            term = better(W, self._fitted(W, IDENTITY), term, metric)
        return better(W, term, start, metric)

    def _fitted(self, W: Weights, metric: Metric) -> BlocksTerm:
        """Every block by itself, in the moments of its own inputs."""
        c = W.shape[2]
        width = c // self.k
        parts = [
            self.of.compress(block, metric=metric.of_channels(at, at + width, c))
            for at, block in zip(range(0, c, width), np.split(W, self.k, axis=2), strict=True)
        ]
        return BlocksTerm(tuple(p for p in parts if isinstance(p, LowRankTerm)))

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


def refined_term(W: Weights, term: Term, moments: npt.NDArray[np.float64]) -> Term:
    """A low-rank or blocked term with its factors refined by least squares, in turns.

    Blocks see each other's residuals then, and a folded weight all its kernel entries. Terms
    of compressed factors are left as they are.

    Args:
        W: (g, m · A, c, *B), the weight the term stands for.
        term: the fit to start from.
        moments: (g, A, n / A, A, n / A), positive definite (`folded_moments`).
    """
    parts = term.parts if isinstance(term, BlocksTerm) else (term,)
    known = [part for part in parts if isinstance(part, LowRankTerm)]
    if len(known) < len(parts) or any(part.u or part.v for part in known):
        return term
    U = np.concatenate([part.U for part in known], axis=2)
    V, free = _stacked(known)
    pairs = [
        refined(flat.reshape(len(flat), -1), u, v, H, free)
        for flat, u, v, H in zip(W, U, V, moments, strict=True)
    ]
    left, right = halves(np.stack([u for u, _ in pairs]), np.stack([v for _, v in pairs]))
    fresh = _unstacked(known, left, right)
    return BlocksTerm(fresh) if isinstance(term, BlocksTerm) else fresh[0]


def _stacked(parts: list[LowRankTerm]) -> tuple[Array, Mask | None]:
    """The input factors as one block-diagonal (g, J, n), and which entries are free."""
    g = len(parts[0].V)
    rows = [part.V.reshape(*part.V.shape[:2], -1) for part in parts]
    if len(rows) == 1:
        return rows[0], None
    height, width = rows[0].shape[1:]
    V = np.zeros((g, height * len(rows), width * len(rows)), np.float32)
    free = np.zeros(V.shape[1:], np.bool_)
    for at, block in enumerate(rows):
        place = np.s_[at * height : (at + 1) * height, at * width : (at + 1) * width]
        V[:, *place] = block
        free[place] = True
    return V, free


def _unstacked(parts: list[LowRankTerm], U: Weights, V: Weights) -> tuple[LowRankTerm, ...]:
    fresh: list[LowRankTerm] = []
    height, width = parts[0].V.shape[1], V.shape[2] // len(parts)
    for at, part in enumerate(parts):
        rows = slice(at * height, (at + 1) * height)
        own = V[:, rows, at * width : (at + 1) * width]
        fresh.append(
            LowRankTerm(read_only(U[:, :, rows]), read_only(own.reshape(part.V.shape)))
        )
    return tuple(fresh)
