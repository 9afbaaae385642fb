"""Patches: what a linear layer multiplies, position by position, and the moments of that.

A layer computes W x at every output position, with x a patch of what it reads. Patches are in
the order of `W.reshape(g, m, n)`: channel of the group first, then the kernel.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]

_PANEL = 1 << 23
"""Elements of a panel of patches: 32 MiB of float32, the longest sum in single precision."""
_NARROW = 32
"""Patches below this are multiplied for all groups at once."""


@dataclass(frozen=True)
class Reading:
    """How a layer reads one value.

    Args:
        value: name of the value.
        kind: "rows": the last axis is multiplied (x Wᵀ); "columns": the last but one (W x);
            "windows": a convolution; "spread": a transposed convolution.
        inputs: channels (or features) of a group.
        groups: convolution groups.
        kernel, strides, dilations: one entry per kernel axis.
        pads: begins then ends.
        output_padding: of a transposed convolution.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
    """

    value: str
    kind: Literal["rows", "columns", "windows", "spread"]
    inputs: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"

    @property
    def width(self) -> int:
        """n = c · κ, the length of a patch of a group."""
        return self.inputs * math.prod(self.kernel)

    @property
    def moment_bytes(self) -> int:
        """Bytes of the covariance, float64."""
        return 8 * self.groups * self.width**2


def panels(
    reading: Reading, x: Array, most: int, rng: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.float32], float]]:
    """The patches of a value as panels (g, n, positions), each with the weight of a position.

    Args:
        reading: how the value is read.
        x: the value, of any float type.
        most: positions taken; of more, as many are drawn, without repetition, and each stands
            for several.
        rng: draws them.
    """
    if reading.kind in ("rows", "columns"):
        yield from _products(reading, x, most, rng)
        return
    placed, size, offsets, steps = _placed(reading, x)
    count = len(placed) * math.prod(size)
    chosen = _chosen(count, most, rng)
    weight = 1.0 if chosen is None else count / most
    wide = max(_PANEL // (reading.groups * reading.width), 1)
    total = count if chosen is None else len(chosen)
    for start in range(0, total, wide):
        stop = min(start + wide, total)
        at = np.arange(start, stop) if chosen is None else chosen[start:stop]
        yield _windows(reading, placed, size, offsets, steps, at), weight


def _products(
    reading: Reading, x: Array, most: int, rng: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.float32], float]]:
    if reading.kind == "columns" and x.ndim > 1:
        x = np.moveaxis(x, -2, -1)
    rows = x.reshape(-1, reading.inputs)
    chosen = _chosen(len(rows), most, rng)
    weight = 1.0 if chosen is None else len(rows) / most
    if chosen is not None:
        rows = rows[chosen]
    wide = max(_PANEL // max(reading.inputs, 1), 1)
    for start in range(0, len(rows), wide):
        panel = np.ascontiguousarray(rows[start : start + wide].T, dtype=np.float32)
        yield panel[None], weight


def _chosen(count: int, most: int, rng: np.random.Generator) -> npt.NDArray[np.intp] | None:
    if count <= most:
        return None
    return np.sort(rng.choice(count, most, replace=False)).astype(np.intp)


def _placed(
    reading: Reading, x: Array
) -> tuple[
    npt.NDArray[np.float32], tuple[int, ...], tuple[tuple[int, ...], ...], tuple[int, ...]
]:
    """The padded input, output sizes, offset of every kernel entry, and steps.

    A transposed convolution is a convolution of the input spread out with zeros, its kernel
    turned round.
    """
    sizes = x.shape[2:]
    x = np.asarray(x, dtype=np.float32)
    begins, ends, outs = _extents(reading, sizes)
    if reading.kind == "spread":
        spread = [
            (n - 1) * s + 1 if n else 0 for n, s in zip(sizes, reading.strides, strict=True)
        ]
        wide = np.zeros((*x.shape[:2], *spread), np.float32)
        wide[(..., *(slice(None, None, s) for s in reading.strides))] = x
        x = wide
        steps = (1,) * len(outs)
        offsets = [
            tuple(d * (k - 1 - i) for i in range(k))
            for d, k in zip(reading.dilations, reading.kernel, strict=True)
        ]
    else:
        steps = reading.strides
        offsets = [
            tuple(d * i for i in range(k))
            for d, k in zip(reading.dilations, reading.kernel, strict=True)
        ]
    grown = [(max(b, 0), max(e, 0)) for b, e in zip(begins, ends, strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *grown])
    cut = tuple(
        slice(max(-b, 0), n if e >= 0 else e)
        for b, e, n in zip(begins, ends, x.shape[2:], strict=True)
    )
    x = np.ascontiguousarray(x[(..., *cut)])
    return x, outs, tuple(product(*offsets)), steps


def _extents(
    reading: Reading, sizes: tuple[int, ...]
) -> tuple[list[int], list[int], tuple[int, ...]]:
    """Padding at both ends (negative: cut off) and output sizes, by axis."""
    rank = len(sizes)
    spans = [d * (k - 1) for d, k in zip(reading.dilations, reading.kernel, strict=True)]
    begins, ends = list(reading.pads[:rank]), list(reading.pads[rank:])
    extra = reading.output_padding or (0,) * rank
    is_spread = reading.kind == "spread"
    for axis, (n, s, span) in enumerate(zip(sizes, reading.strides, spans, strict=True)):
        if reading.auto_pad == "VALID":
            begins[axis] = ends[axis] = 0
        elif reading.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            if is_spread:
                total = (n - 1) * s + extra[axis] + span + 1 - n * s
            else:
                total = (-(-n // s) - 1) * s + span + 1 - n
            total = max(total, 0)
            less, more = total // 2, total - total // 2
            upper = reading.auto_pad == "SAME_UPPER"
            begins[axis], ends[axis] = (less, more) if upper else (more, less)
    if not is_spread:
        outs = tuple(
            max((n + b + e - span - 1) // s + 1, 0)
            for n, b, e, span, s in zip(
                sizes, begins, ends, spans, reading.strides, strict=True
            )
        )
        return begins, ends, outs
    outs = tuple(
        max((n - 1) * s + span + 1 - b - e + o, 0)
        for n, s, span, b, e, o in zip(
            sizes, reading.strides, spans, begins, ends, extra, strict=True
        )
    )
    begins = [span - b for span, b in zip(spans, begins, strict=True)]
    ends = [span - e + o for span, e, o in zip(spans, ends, extra, strict=True)]
    return begins, ends, outs


def _windows(
    reading: Reading,
    x: npt.NDArray[np.float32],
    size: tuple[int, ...],
    offsets: tuple[tuple[int, ...], ...],
    steps: tuple[int, ...],
    at: npt.NDArray[np.intp],
) -> npt.NDArray[np.float32]:
    """The patches at the output positions `at` (sample first), (g, n, positions)."""
    channels, span = x.shape[1], math.prod(x.shape[2:])
    inner = np.asarray([math.prod(x.shape[3 + a :]) for a in range(len(size))])
    places = np.unravel_index(at, (len(x), *size))
    start = places[0] * span
    for place, step, stride in zip(places[1:], steps, inner, strict=True):
        start = start + place * (step * stride)
    rows = x.swapaxes(0, 1).reshape(channels, -1)
    patches = np.empty((channels, len(offsets), len(at)), np.float32)
    for entry, offset in enumerate(offsets):
        shift = int(np.dot(inner, offset))
        np.take(rows, start + shift, axis=1, out=patches[:, entry], mode="clip")
    return patches.reshape(reading.groups, reading.width, len(at))


class Accumulator:
    """The moments of one reading, added up panel by panel about a fixed point.

    Products of a panel are summed in float32, panels in float64. Everything is taken relative
    to the mean of the first panel, so that a large mean costs the covariance no digits.

    Args:
        reading: whose moments.
        with_products: False for the mean alone.
    """

    def __init__(self, reading: Reading, *, with_products: bool = True) -> None:
        self.reading = reading
        self._with_products = with_products
        g, n = reading.groups, reading.width
        self._products: Matrix = np.zeros((g, n, n) if with_products else (0, 0, 0))
        self._sum: Matrix = np.zeros((g, n))
        self._about: npt.NDArray[np.float32] = np.zeros((g, n), np.float32)
        self._weight = 0.0
        self._is_finite = True

    def add(self, x: Array, most: int, rng: np.random.Generator) -> None:
        """One more sample's value, of at most `most` positions drawn by `rng`."""
        for panel, weight in panels(self.reading, x, most, rng):
            if panel.shape[2] and self._is_finite:
                with np.errstate(invalid="ignore", over="ignore"):  # seen in the sums
                    self._add(panel, weight)

    def _add(self, panel: npt.NDArray[np.float32], weight: float) -> None:
        if not self._weight:
            self._about = panel.mean(axis=2, dtype=np.float64).astype(np.float32)
        panel -= self._about[:, :, None]
        sums = panel.sum(axis=2, dtype=np.float64)
        self._is_finite = bool(np.isfinite(sums).all())
        if not self._is_finite:
            return
        self._sum += weight * sums
        self._weight += weight * panel.shape[2]
        if not self._with_products:
            return
        if panel.shape[1] < _NARROW:
            self._products += weight * np.matmul(panel, panel.swapaxes(1, 2))
            return
        for total, group in zip(self._products, panel, strict=True):
            gram = group @ group.T
            gram *= weight
            total += gram

    def result(self) -> tuple[Matrix | None, Matrix, int] | None:
        """Covariance (g, n, n), mean (g, n) and number of positions.

        Returns:
            None where there was no position, or one that is not finite.
        """
        if not self._weight or not self._is_finite:
            return None
        drift = self._sum / self._weight
        mean = self._about + drift
        if not self._with_products:
            return None, mean, round(self._weight)
        covariance = self._products / self._weight
        covariance -= drift[:, :, None] * drift[:, None, :]
        covariance = (covariance + covariance.swapaxes(1, 2)) / 2
        return covariance, mean, round(self._weight)
