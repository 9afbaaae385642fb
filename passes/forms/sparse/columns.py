"""Columns: a few whole input channels kept, the others not even read."""

import math
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
from .prune_select import largest
from .prune_term import Positions, Values, closed, narrowed

Array = npt.NDArray[np.float64]

_RIDGE = 1e-3
_TURNS = 64
"""Turns of the greedy choice; wider layers take several channels a turn."""


@dataclass(frozen=True, eq=False)
class ColumnsTerm:
    """W with all but some input channels zero.

    Args:
        channels: input channels of a group.
        index: (g, keep) the channels kept, increasing.
        values: (g, m, keep, *kernel), 16 bits a number (32 where 16 cannot hold them).
    """

    channels: int
    index: Positions
    values: Values

    @property
    def shape(self) -> Shape:
        g, m, _, *kernel = self.values.shape
        return (g, m, self.channels, *kernel)

    def decompress(self) -> Weights:
        W = np.zeros(self.shape, np.float32)
        for group, index, values in zip(W, self.index, self.values, strict=True):
            group[:, index] = values
        return read_only(W)

    def cost(self) -> Cost:
        """16 bits a weight, and the channels' numbers."""
        kept, width = self.values.size, max((self.channels - 1).bit_length(), 1)
        bits = 8 * self.values.nbytes + self.index.size * width
        return Cost(kept, bits, kept, kept)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        kind = np.uint16 if self.channels <= 65536 else np.uint32
        return {"channels": closed(self.index.astype(kind)), "values": self.values}

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        """The channels kept, then a layer of as many inputs."""
        offsets = np.arange(len(self.index))[:, None] * self.channels
        index = emitter.stored((self.index + offsets).reshape(-1), "columns.index")
        axis = channel_axis(geometry)
        kept = emitter.node("Gather", [x, index], "columns.kept", {"axis": axis})
        values = read_only(self.values.astype(np.float32))
        return emitter.apply(kept, values, "columns", geometry.folded(frozenset()))

    def decode(self, emitter: Emitter) -> ir.Value | None:
        """The kept channels and one of zeros, looked up channel by channel."""
        g, m, keep, *kernel = self.values.shape
        c, K = self.channels, math.prod(kernel)
        rows = np.moveaxis(self.values.reshape(g, m, keep, K), 2, 1).reshape(g * keep, m * K)
        rows = np.concatenate([rows, np.zeros((1, m * K), rows.dtype)])
        where = np.full((g, c), g * keep, np.int64)
        for k in range(g):
            where[k, self.index[k]] = k * keep + np.arange(keep)
        stored = emitter.stored(rows, "columns.values")
        if rows.dtype != np.float32:
            to = {"to": int(ir.DataType.FLOAT)}
            stored = emitter.node("Cast", [stored], "columns.floats", {**to})
        index = emitter.stored(where.reshape(-1), "columns.where")
        wide = emitter.node("Gather", [stored, index], "columns.all", {"axis": 0})
        split = emitter.stored(np.array([g, c, m, K], np.int64), "columns.split")
        wide = emitter.node("Reshape", [wide, split], "columns.apart")
        wide = emitter.node("Transpose", [wide], "columns.turned", {"perm": (0, 2, 1, 3)})
        matrix = emitter.stored(np.array([g * m, c * K], np.int64), "columns.shape")
        return emitter.node("Reshape", [wide, matrix], "columns.matrix")


@dataclass(frozen=True)
class Columns:
    """The input channels that matter most, whole: structured pruning that runs fast.

    In the plain norm the channels of largest ‖W[:, j]‖ are kept, which is exact. In the metric
    of the layer's input they are taken greedily by their true reduction of the output error,
    ‖B_J C_JJ^-½‖² with C the covariance of the inputs given those already kept and B = W C,
    and the weights are refitted to them: the others are predicted from what is read. Filters
    before it whose outputs nothing reads any more leave the graph (`remove_filters`).

    Args:
        keep: input channels kept, of each group: a number, or a share of them (0.5 is half).
    """

    keep: int | float
    name: ClassVar[str] = "columns"

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        keep = kept_of(self.keep, W.shape[2], "input channels")
        norms = np.square(W, dtype=np.float64).sum(axis=(1, *range(3, W.ndim)))
        plain = np.stack([largest(row, keep) for row in norms])
        found: Term = _term(W, plain, W)
        if metric.H is not None:
            greedy = np.stack(
                [
                    _greedy(w.reshape(len(w), -1), h, keep, W.shape[2])
                    for w, h in zip(W.astype(np.float64), metric.H, strict=True)
                ]
            )
            for index in (plain, greedy):
                found = better(
                    W, _term(W, index, _refitted(W, index, metric.H)), found, metric
                )
        return better(W, found, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        keep = kept_of(self.keep, shape[2], "input channels")
        return (geometry.as_kernel(shape[1], keep, shape[0]),)


def kept_of(keep: float, count: int, what: str) -> int:
    """How many of `count` channels of a group are kept; a share is rounded, to one or more.

    Example:
        >>> kept_of(0.5, 9, "outputs"), kept_of(3, 9, "outputs"), kept_of(0.01, 9, "outputs")
        (4, 3, 1)

    Raises:
        RankError: more are asked for than there are, or none.
    """
    kept = keep if isinstance(keep, int) else max(round(keep * count), 1)
    if keep <= 0 or kept > count or (isinstance(keep, float) and keep > 1):
        raise RankError(
            f"keep={keep!r} is outside 1 … {count} {what} of a group",
            hint=f"choose keep ≤ {count}, or a share such as 0.5",
        )
    return kept


def channel_axis(geometry: Geometry) -> int:
    """The axis of a layer's input, and of its output, that the channels lie along."""
    if geometry.op != "MatMul":
        return 1
    rank = geometry.input_rank
    if geometry.weight_is_left:
        return -2 if rank is None else rank - 2
    return -1 if rank is None else rank - 1


def _term(W: Weights, index: Positions, V: npt.NDArray[Any]) -> ColumnsTerm:
    values = np.stack([group[:, kept] for group, kept in zip(V, index, strict=True)])
    return ColumnsTerm(W.shape[2], closed(index.astype(np.int64)), closed(narrowed(values)))


def _refitted(W: Weights, index: Positions, H: Array) -> Array:
    """W_T + W_rest H_rest,T H_TT⁻¹ per group: the best weights of the channels T."""
    V = W.astype(np.float64)
    per = H.shape[-1] // W.shape[2]
    for k, kept in enumerate(index):
        T = _inputs(kept, per)
        rest = np.ones(H.shape[-1])
        rest[T] = 0
        flat: Array = V[k].reshape(W.shape[1], -1)
        G: Array = (flat * rest) @ H[k][:, T]
        A: Array = H[k][np.ix_(T, T)] + _ridge(H[k]) * np.eye(per * len(kept))
        flat[:, T] += np.transpose(np.linalg.solve(A, np.transpose(G)))
        V[k] = flat.reshape(V[k].shape)
    return V


def _inputs(channels: Positions, per: int) -> Positions:
    """The inputs (columns of H) of some channels, `per` a channel."""
    at: Positions = np.asarray(channels)[:, None] * per
    return (at + np.arange(per)).reshape(-1)


def _greedy(W: Array, H: Array, keep: int, channels: int) -> Positions:
    """Channels in the order of what they add to those before them, a few at a time."""
    n = H.shape[0]
    per = n // channels
    C: Array = H + _ridge(H) * np.eye(n)
    B: Array = W @ C
    floor = 1e-9 * float(np.trace(C)) / n
    left = np.ones(channels, bool)
    while (missing := keep - int((~left).sum())) > 0:
        gains = np.where(left, _gains(B, C, channels, floor), -np.inf)
        batch = min(max(keep // _TURNS, 1), missing)
        best = np.argsort(-gains, kind="stable")[:batch]
        left[best] = False
        J = _inputs(best, per)
        B, C = _given(B, C, J, floor)
    return np.flatnonzero(~left)


def _gains(B: Array, C: Array, channels: int, floor: float) -> Array:
    """tr(B_J C_JJ⁻¹ B_Jᵀ) of every channel J."""
    per = len(C) // channels
    blocks = np.arange(len(C)).reshape(channels, per)
    own: Array = C[blocks[:, :, None], blocks[:, None, :]] + floor * np.eye(per)
    split = B.reshape(len(B), channels, per)
    grams: Array = np.matmul(split.transpose(1, 2, 0), split.transpose(1, 0, 2))
    return np.einsum("cxx->c", np.linalg.solve(own, grams))


def _given(B: Array, C: Array, J: Positions, floor: float) -> tuple[Array, Array]:
    """B and C once the inputs J are known: what they predict is taken out."""
    K = np.linalg.solve(C[np.ix_(J, J)] + floor * np.eye(len(J)), C[J])
    return B - B[:, J] @ K, C - C[:, J] @ K


def _ridge(H: Array) -> float:
    mean = float(np.trace(H)) / len(H)
    return _RIDGE * mean if mean > 0 else 1.0
