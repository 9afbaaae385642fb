"""Filters: a few whole outputs kept, the others zero, or gone where the graph allows it."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Cost, Emitter, Shape, Term, better, read_only
from ..metric import IDENTITY, Metric
from .columns import channel_axis, kept_of
from .prune_select import largest
from .prune_term import Positions, Values, closed, narrowed


@dataclass(frozen=True, eq=False)
class FiltersTerm:
    """W with all but some outputs zero.

    Args:
        outputs: outputs of a group.
        index: (g, keep) the outputs kept, increasing.
        values: (g, keep, c, *kernel), 16 bits a number (32 where 16 cannot hold them).
    """

    outputs: int
    index: Positions
    values: Values

    @property
    def shape(self) -> Shape:
        g, _, *rest = self.values.shape
        return (g, self.outputs, *rest)

    def decompress(self) -> Weights:
        W = np.zeros(self.shape, np.float32)
        for group, index, values in zip(W, self.index, self.values, strict=True):
            group[index] = values
        return read_only(W)

    def cost(self) -> Cost:
        """16 bits a weight, and the outputs' numbers."""
        kept, width = self.values.size, max((self.outputs - 1).bit_length(), 1)
        bits = 8 * self.values.nbytes + self.index.size * width
        return Cost(kept, bits, kept, kept)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        kind = np.uint16 if self.outputs <= 65536 else np.uint32
        return {"filters": closed(self.index.astype(kind)), "values": self.values}

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        """One layer with zero rows, for `remove_filters` to take out of the graph."""
        return emitter.apply(x, self.decompress(), "filters", geometry.folded(frozenset()))

    def lower_branch(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        """A layer of the kept outputs alone, then each put in its place among zeros.

        What a sum adds to its other branches: a look-up by output and a mask.
        """
        g, keep = self.index.shape
        values = read_only(self.values.astype(np.float32))
        y = emitter.apply(x, values, "filters", geometry.folded(frozenset()))
        place = np.zeros((g, self.outputs), np.int64)
        mask = np.zeros((g, self.outputs), np.float32)
        for k in range(g):
            place[k, self.index[k]] = k * keep + np.arange(keep)
            mask[k, self.index[k]] = 1.0
        axis = channel_axis(geometry)
        where = emitter.stored(place.reshape(-1), "filters.place")
        wide = emitter.node("Gather", [y, where], "filters.all", {"axis": axis})
        after = geometry.rank if geometry.op != "MatMul" else int(geometry.weight_is_left)
        column = mask.reshape(-1, *((1,) * after))
        like = (
            emitter.stored(column, "filters.mask")
            if x.dtype != ir.DataType.FLOAT16
            else (emitter.stored(column.astype(np.float16), "filters.mask"))
        )
        return emitter.node("Mul", [wide, like], "filters.masked")

    def decode(self, emitter: Emitter) -> ir.Value | None:
        """The kept rows and one of zeros, looked up row by row."""
        g, keep = self.index.shape
        n = math.prod(self.values.shape[2:])
        rows = self.values.reshape(g * keep, n)
        rows = np.concatenate([rows, np.zeros((1, n), rows.dtype)])
        where = np.full((g, self.outputs), g * keep, np.int64)
        for k in range(g):
            where[k, self.index[k]] = k * keep + np.arange(keep)
        stored = emitter.stored(rows, "filters.values")
        if rows.dtype != np.float32:
            to = {"to": int(ir.DataType.FLOAT)}
            stored = emitter.node("Cast", [stored], "filters.floats", {**to})
        index = emitter.stored(where.reshape(-1), "filters.where")
        return emitter.node("Gather", [stored, index], "filters.matrix", {"axis": 0})


@dataclass(frozen=True)
class Filters:
    """The outputs that matter most, whole (structured pruning of filters).

    Rows do not meet in the error, so that keeping those of largest ‖w_i H^½‖ is exact; ℓ1
    norms are the usual choice where no inputs are at hand (Li et al. 2017).
    The others leave the graph where it allows that (`remove_filters`), and nothing makes up
    for them behind; `columns` of the layer that reads them chooses by its own error, and
    refits.

    Args:
        keep: outputs kept, of each group: a number, or a share of them (0.5 is half).
        by: "l1", the norm of a filter, or "error", its share of the output's energy in the
            metric (its ℓ2 norm without one).
    """

    keep: int | float
    by: Literal["l1", "error"] = "l1"
    name: ClassVar[str] = "filters"

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        keep = kept_of(self.keep, W.shape[1], "outputs")
        flat = W.reshape(*W.shape[:2], -1).astype(np.float64)
        if self.by == "l1":
            scores = np.abs(flat).sum(axis=2)
        else:
            weighted = flat if metric.H is None else flat @ metric.H
            scores = np.einsum("gmn,gmn->gm", weighted, flat)
        index = np.stack([largest(row, keep) for row in scores])
        values = np.stack([group[kept] for group, kept in zip(W, index, strict=True)])
        term = FiltersTerm(W.shape[1], closed(index), closed(narrowed(values)))
        return better(W, term, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        keep = kept_of(self.keep, shape[1], "outputs")
        return (geometry.as_kernel(keep, shape[2], shape[0]),)
