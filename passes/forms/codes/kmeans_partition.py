"""The dynamic program of one-dimensional k-means: sorted rows cut into k intervals."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_EXACT = 1 << 20
"""Values × layers up to which the program runs on the values themselves."""
_CELLS = 1 << 14
"""Cells otherwise, at least; shared by the rows."""
_LLOYD = 500
"""Lloyd's steps at most; a few dozen are usual."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Intervals of sorted rows.

    Args:
        centres: (R, k) means of the intervals, ascending.
        gain: (R,) Σ over intervals of (Σ w x)² / Σ w; the error is Σ w x² less this.
        gap: (R,) no partition gains more than gain + gap.
    """

    centres: Doubles
    gain: Doubles
    gap: Doubles


def partition(x: Doubles, w: Doubles, k: int, width: float = 0.0) -> Partition:
    """The k intervals of every row that lose least (see `kmeans.kmeans`).

    Args:
        x: (R, M) ascending.
        w: (R, M) weights ≥ 0.
        k: number of intervals, which may be empty.
        width: the x are means of bins as wide as this; 0 where they are the values.
    """
    rows, length = x.shape
    mass = _cumulated(w)
    moment = _cumulated(w * x)
    layers = max(k - 2, 1)
    cells = max(_CELLS // rows, 4 * k, 256)
    gap = np.zeros(rows)
    if width and k > 1:
        gap = _gap(x, mass, np.tile(np.arange(length + 1, dtype=np.intp), (rows, 1)), width)
    if k == 1:
        ends = np.tile(np.array([0, length]), (rows, 1))
    elif length <= cells or rows * length * layers <= _EXACT or k == 2:
        ends = _program(mass, moment, k)
    else:
        edges = _cells(x, w, cells)
        chosen = _program(
            np.take_along_axis(mass, edges, 1), np.take_along_axis(moment, edges, 1), k
        )
        ends = np.take_along_axis(edges, chosen, 1)
        gap = _gap(x, mass, edges, width)
        for row in range(rows):
            ends[row] = _lloyd(x[row], mass[row], moment[row], ends[row])
    return _measured(mass, moment, ends, gap)


def _measured(mass: Doubles, moment: Doubles, ends: Places, gap: Doubles) -> Partition:
    omega = np.diff(np.take_along_axis(mass, ends, 1), axis=1)
    first = np.diff(np.take_along_axis(moment, ends, 1), axis=1)
    centres = np.divide(first, omega, out=np.zeros_like(first), where=omega > 0)
    # An empty interval repeats the centre below it (above it, where it is the first).
    filled = np.where(omega > 0, np.arange(omega.shape[1], dtype=np.intp), -1)
    below = np.maximum.accumulate(filled, axis=1)
    first_filled = np.where((filled >= 0).any(axis=1), (filled >= 0).argmax(axis=1), 0)
    source = np.where(below >= 0, below, first_filled[:, None])
    centres = np.take_along_axis(centres, source, 1)
    gain = np.divide(first**2, omega, out=np.zeros_like(first), where=omega > 0).sum(axis=1)
    return Partition(np.sort(centres, axis=1), gain, gap)


def _cumulated(a: Doubles) -> Doubles:
    """(R, M + 1) sums of the first 0 … M entries of every row."""
    sums = np.zeros((a.shape[0], a.shape[1] + 1))
    np.cumsum(a, axis=1, out=sums[:, 1:])
    return sums


def _program(mass: Doubles, moment: Doubles, k: int) -> Places:
    """Ends (R, k + 1) of the best k intervals, from cumulated weights and moments (R, M + 1).

    Layer q holds for every prefix the most that q intervals gain, and where the last of them
    begins; the latter rises with the prefix, so that every second unknown beginning lies
    between two known ones.
    """
    rows, length = mass.shape[0], mass.shape[1] - 1
    width = length + 1
    base = np.arange(rows, dtype=np.intp)[:, None] * width
    flat_mass, flat_moment = mass.ravel(), moment.ravel()
    best = np.divide(moment**2, mass, out=np.zeros_like(mass), where=mass > 0).ravel()
    begins: list[Places] = []
    for layer in range(2, k + 1):
        begin = np.repeat(base.ravel(), width)
        now = np.zeros(rows * width)

        def settle(
            at: Places,
            low: Places,
            high: Places,
            before: Doubles = best,
            begin: Places = begin,
            now: Doubles = now,
        ) -> None:
            now[at], begin[at] = _best_begin(flat_mass, flat_moment, before, at, low, high)

        last = (base + length).ravel()
        settle(last, base.ravel(), last)
        if layer < k:
            step = 1 << (length.bit_length() - 1)
            while step:
                at = np.arange(step, length, 2 * step, dtype=np.intp)
                left = (base + at - step).ravel()
                right = (base + np.minimum(at + step, length)).ravel()
                here = (base + at).ravel()
                low = begin[left]
                settle(here, low, np.minimum(begin[right], here))
                step //= 2
        begins.append(begin)
        best = now
    ends = np.zeros((rows, k + 1), np.intp)
    ends[:, k] = length
    place = base.ravel() + length
    for layer in range(k - 1, 0, -1):
        place = begins[layer - 1][place]
        ends[:, layer] = place - base.ravel()
    return ends


def _best_begin(
    mass: Doubles, moment: Doubles, before: Doubles, at: Places, low: Places, high: Places
) -> tuple[Doubles, Places]:
    """For every prefix `at` the best beginning of its last interval in low … high."""
    size = high - low + 1
    starts = np.zeros(size.size, np.intp)
    np.cumsum(size[:-1], out=starts[1:])
    j = np.arange(int(size.sum()))
    j += np.repeat(low - starts, size)
    first = np.repeat(moment[at], size)
    first -= moment[j]
    omega = np.repeat(mass[at], size)
    omega -= mass[j]
    first *= first
    np.divide(first, omega, out=first, where=omega > 0)
    first += before[j]
    top = np.maximum.reduceat(first, starts)
    hits = np.flatnonzero(first == np.repeat(top, size))
    return top, j[hits[np.searchsorted(hits, starts)]]


def _cells(x: Doubles, w: Doubles, cells: int) -> Places:
    """Edges (R, cells + 1) of cells with about equal width × weight.

    Width² × density is constant where each cell takes an equal share of Σ √(w Δx).
    """
    rows, length = x.shape
    spacing = np.diff(x, axis=1, append=x[:, -1:])
    share = np.cumsum(np.sqrt(w * spacing), axis=1)
    total = share[:, -1:]
    cell = np.minimum(share / np.where(total > 0, total, 1) * cells, cells - 1).astype(np.intp)
    row = np.arange(rows, dtype=np.intp)[:, None]
    key = (cell + row * cells).ravel()
    every = np.arange(rows * cells, dtype=np.intp)
    edges = np.empty((rows, cells + 1), np.intp)
    edges[:, :-1] = np.searchsorted(key, every).reshape(rows, cells)
    edges[:, :-1] -= row * length
    edges[:, -1] = length
    return edges


def _gap(x: Doubles, mass: Doubles, edges: Places, width: float) -> Doubles:
    """1.5 (max x − min x) max(h ω) over the cells (see `kmeans.kmeans`)."""
    length = x.shape[1]
    first = np.minimum(edges[:, :-1], length - 1)
    last = np.maximum(edges[:, 1:] - 1, 0)
    h = np.take_along_axis(x, last, 1) - np.take_along_axis(x, first, 1) + width
    omega = np.diff(np.take_along_axis(mass, edges, 1), axis=1)
    return 1.5 * (x[:, -1] - x[:, 0] + width) * (h * omega).max(axis=1)


def _lloyd(x: Doubles, mass: Doubles, moment: Doubles, ends: Places) -> Places:
    """Ends where every value lies at its nearest mean: no step raises the error."""
    for _ in range(_LLOYD):
        omega = np.diff(mass[ends])
        held = omega > 0
        means = np.diff(moment[ends])[held] / omega[held]
        borders = np.searchsorted(x, 0.5 * (means[1:] + means[:-1]), side="right")
        new = ends.copy()
        # Empty intervals wait at the end of the row.
        new[1:-1] = x.size
        new[1 : 1 + borders.size] = borders
        if np.array_equal(new, ends):
            break
        ends = new
    return ends
