"""Pattern: n of every m neighbouring inputs, the sparsity that hardware multiplies."""

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ....device_profiles.errors import PlanError, RankError
from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Cost, Emitter, Shape, Term, better, read_only
from ..metric import IDENTITY, Metric
from .prune_metric import fit_support
from .prune_term import Values, closed, narrowed

Mask = npt.NDArray[np.bool_]
_MOST_PATTERNS = 256


@dataclass(frozen=True, eq=False)
class PatternTerm:
    """W with n of every m inputs in a row other than zero.

    Args:
        shape: (g, m, c, *kernel).
        of: m, the inputs in a block.
        codes: (blocks,) uint8, which n of a block are kept, in the order of
            `itertools.combinations`; blocks of output, kernel position and inputs, in order.
        values: (blocks, n), 16 bits a number (32 where 16 cannot hold them).
    """

    shape: Shape
    of: int
    codes: npt.NDArray[np.uint8]
    values: Values

    def decompress(self) -> Weights:
        blocks = np.zeros((len(self.codes), self.of), np.float32)
        kept = _patterns(self.values.shape[1], self.of)[self.codes]
        np.put_along_axis(blocks, kept, self.values.astype(np.float32), axis=1)
        return read_only(_joined(blocks, self.shape))

    def cost(self) -> Cost:
        """16 bits a kept weight and the number of the pattern of every block."""
        n = self.values.shape[1]
        width = (math.comb(self.of, n) - 1).bit_length()
        bits = 8 * self.values.nbytes + len(self.codes) * width
        return Cost(self.values.size, bits, self.values.size, self.values.size)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"patterns": self.codes, "values": self.values}

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        return emitter.apply(x, self.decompress(), "pattern", geometry.folded(frozenset()))

    def decode(self, emitter: Emitter) -> ir.Value | None:
        """Values times one-hot rows: (blocks, 1, n) × (blocks, n, m)."""
        n = self.values.shape[1]
        hot = np.eye(self.of, dtype=np.float32)[_patterns(n, self.of)]
        to_int, to_float = {"to": int(ir.DataType.INT32)}, {"to": int(ir.DataType.FLOAT)}
        codes = emitter.node(
            "Cast", [emitter.stored(self.codes, "pattern.codes")], "pattern.index", {**to_int}
        )
        table = emitter.stored(hot, "pattern.table")
        places = emitter.node("Gather", [table, codes], "pattern.places", {"axis": 0})
        values = emitter.stored(self.values[:, None, :], "pattern.values")
        if self.values.dtype != np.float32:
            values = emitter.node("Cast", [values], "pattern.floats", {**to_float})
        y = emitter.node("MatMul", [values, places], "pattern.blocks")
        g, m, c, *kernel = self.shape
        K = math.prod(kernel)
        split = emitter.stored(np.array([g * m, K, c], np.int64), "pattern.split")
        y = emitter.node("Reshape", [y, split], "pattern.apart")
        if K > 1:
            y = emitter.node("Transpose", [y], "pattern.turned", {"perm": (0, 2, 1)})
        matrix = emitter.stored(np.array([g * m, c * K], np.int64), "pattern.shape")
        return emitter.node("Reshape", [y, matrix], "pattern.matrix")


@dataclass(frozen=True)
class Pattern:
    """n of every m inputs, for each output and kernel position: 2:4 is what tensor cores take.

    In the plain norm the n largest of a block are kept, which is exact; in the metric of the
    layer's input they are chosen by output error and refitted.

    Args:
        n: kept of a block.
        m: neighbouring inputs in a block, a divisor of the input channels.
    """

    n: int
    m: int
    name: ClassVar[str] = "pattern"

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m or math.comb(self.m, self.n) > _MOST_PATTERNS:
            raise PlanError(
                f"pattern {self.n}:{self.m}",
                hint=f"choose 1 ≤ n < m with at most {_MOST_PATTERNS} patterns, such as 2:4",
            )

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        self._check(W.shape)
        found = self._term(W, self._mask(np.abs(W)))
        if metric.H is not None:
            flat = W.reshape(*W.shape[:2], -1).astype(np.float64)

            def select(scores: npt.NDArray[np.float64]) -> Mask:
                return self._mask(scores.reshape(W.shape)).reshape(flat.shape)

            S = fit_support(flat, metric, select, None)
            # A weight that was refitted to zero keeps its place.
            mask = self._mask(np.abs(S.reshape(W.shape)))
            found = better(W, self._term(S.reshape(W.shape), mask), found, metric)
        return better(W, found, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        self._check(shape)
        return (geometry.as_kernel(shape[1], shape[2], shape[0]),)

    def _mask(self, scores: npt.NDArray[Any]) -> Mask:
        """The n largest of every block, the first of equal ones."""
        blocks = _blocks(scores, self.m)
        order = np.argsort(-blocks, axis=1, kind="stable")[:, : self.n]
        mask = np.zeros(blocks.shape, bool)
        np.put_along_axis(mask, order, values=True, axis=1)
        return _joined(mask, scores.shape)

    def _term(self, W: npt.NDArray[Any], mask: Mask) -> PatternTerm:
        kept = np.nonzero(_blocks(mask, self.m))[1].reshape(-1, self.n)
        values = np.take_along_axis(_blocks(W, self.m), kept, axis=1)
        numbers = np.zeros(1 << self.m, np.uint8)
        patterns = _patterns(self.n, self.m)
        numbers[(1 << patterns).sum(axis=1)] = np.arange(len(patterns))
        codes = numbers[(1 << kept).sum(axis=1)]
        return PatternTerm(W.shape, self.m, closed(codes), closed(narrowed(values)))

    def _check(self, shape: Shape) -> None:
        if shape[2] % self.m:
            raise RankError(
                f"{shape[2]} input channels are no multiple of m={self.m}",
                hint="choose another form for this layer",
            )


def _patterns(n: int, m: int) -> npt.NDArray[np.int64]:
    """Every choice of n of m, (patterns, n)."""
    return np.array(list(itertools.combinations(range(m), n)), np.int64)


def _blocks(W: npt.NDArray[Any], m: int) -> npt.NDArray[Any]:
    """(g, m, c, *kernel) as blocks of neighbouring inputs, (blocks, m)."""
    return np.ascontiguousarray(np.moveaxis(W, 2, -1)).reshape(-1, m)


def _joined(blocks: npt.NDArray[Any], shape: Shape) -> npt.NDArray[Any]:
    """The inverse of `_blocks`."""
    g, m, c, *kernel = shape
    return np.ascontiguousarray(np.moveaxis(blocks.reshape(g, m, *kernel, c), -1, 2))
