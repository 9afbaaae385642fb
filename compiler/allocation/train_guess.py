"""Guesses: what a train of each kind would leave of a weight, without fitting any of them.

A basis of every kind is found once a layer; any rank is then a projection. What is left is
judged on a sample of the outputs where the metric makes all of them slow.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...passes.forms import Folded, Form, LowRank, Metric, TensorTrain, TTMatrix
from ...passes.forms.factors.tucker_fit import channel_moments
from ...passes.forms.trains.tensor_train_svd import tail_energies
from ...passes.forms.trains.tt_matrix_modes import Modes, modes_of
from ...passes.geometry import Weights, fold, scheme_axes, unfold
from ...passes.sites import Site
from ...passes.whitened import whitened

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]

_WORK = 2e8
"""Multiply-adds that judging one guess may take; the outputs are sampled to stay below."""
_LEAST_ROWS = 24
_DAMPING = 0.01
_LEAST_RANK = 2
_STEPS = ((32, 4), (8, 2))
"""(from, step): larger ranks are multiples of the step, as kernels like them."""


@dataclass(frozen=True)
class Cut:
    """A form of low rank and the numbers it stores.

    Args:
        form: the form.
        numbers: stored numbers of 16 bits.
        left: (g, rows, c, *kernel) what it leaves of the sampled outputs.
    """

    form: Form
    numbers: int
    left: Floats


class Family(Protocol):
    """Forms of one kind, of any size."""

    def at(self, numbers: float) -> Cut | None:
        """The largest that stores at most so many numbers; None where there is none."""
        ...


@dataclass(frozen=True, eq=False)
class Sample:
    """A weight, some of its outputs, and the norm they are judged in.

    Args:
        W: (g, m, c, *kernel).
        metric: of the layer.
        rows: outputs that are looked at.
    """

    W: Weights
    metric: Metric
    rows: npt.NDArray[np.int64]
    energy: float = field(default=0.0)

    @property
    def seen(self) -> Weights:
        """The sampled outputs."""
        return self.W[:, self.rows]

    @property
    def share(self) -> float:
        """Sampled part of the outputs."""
        return len(self.rows) / self.W.shape[1]

    def error(self, left: Floats) -> float:
        """Relative squared error of what is left."""
        if self.energy <= 0:
            return 0.0
        return max(self.metric.squared(left), 0.0) / self.energy


def sampled(W: Weights, metric: Metric) -> Sample:
    """The outputs that guesses are judged on: all, or evenly spaced ones."""
    g, m = W.shape[:2]
    n = math.prod(W.shape[2:])
    count = m if metric.H is None else int(min(m, max(_LEAST_ROWS, _WORK / (g * n * n))))
    rows = np.arange(count) * m // count
    return Sample(W, metric, rows, metric.energy(W[:, rows]))


def families(site: Site, sample: Sample) -> list[Family]:
    """Every kind of train that a layer can take.

    Trains of two cores are factorisations over the foldings of the kernel (ALDS supplement,
    A.6); convolutions take trains of three cores too, and products the pairs of factors of
    CEPD, eq. (9).
    """
    g, m, c, *kernel = site.shape
    found: list[Family] = [_pair(sample, scheme) for scheme in site.schemes]
    if math.prod(kernel) > 1 and min(m, c) >= 2 * _LEAST_RANK:
        found.append(_three(sample))
    if g == 1 and math.prod(kernel) == 1:
        modes = modes_of(site.shape, 2)
        if min(modes.outputs + modes.inputs) > 1:
            found.append(_matrix(sample, modes))
    return found


@dataclass(frozen=True, eq=False)
class _Pair:
    """LowRank over a folding: U Uᵀ W, with U the leading directions of what is seen."""

    sample: Sample
    scheme: int
    U: Floats
    UtF: Floats

    def at(self, numbers: float) -> Cut | None:
        W = self.sample.W
        g, M, most = self.U.shape
        per = g * (M + self.UtF.shape[2])
        j = sane(numbers / per)
        if not _LEAST_RANK <= j < most:
            return None
        axes = scheme_axes(self.scheme, W.shape[3:])
        rows = self.sample.rows
        U = self.U.reshape(g, W.shape[1], -1, most)[:, rows, :, :j]
        near: Floats = U.reshape(g, -1, j) @ self.UtF[:, :j]
        near = unfold(near, axes, (g, len(rows), *W.shape[2:]))
        form: Form = LowRank(j)
        if self.scheme:
            form = Folded(self.scheme, LowRank(j))
        return Cut(form, per * j, self.sample.seen - near)


def _pair(sample: Sample, scheme: int) -> _Pair:
    F = fold(sample.W, scheme_axes(scheme, sample.W.shape[3:]))
    F = F.reshape(*F.shape[:2], -1)
    white = whitened(sample.W, sample.metric, scheme, 1).reshape(F.shape)
    U = np.stack([_directions(group.astype(np.float64)) for group in white])
    return _Pair(sample, scheme, U, U.swapaxes(1, 2) @ F)


@dataclass(frozen=True, eq=False)
class _Three:
    """TensorTrain: P Pᵀ over the outputs, an oblique projection over the inputs."""

    sample: Sample
    P: Floats
    Q: Floats
    Qt: Floats
    lost_out: Wide
    lost_in: Wide

    def at(self, numbers: float) -> Cut | None:
        g, m, c, *kernel = self.sample.W.shape
        size = math.prod(kernel)
        pairs: list[tuple[float, int, int]] = []
        for r1 in range(_LEAST_RANK, c + 1):
            if r1 != sane(r1):
                continue
            r2 = min(sane((numbers / g - r1 * c) / (r1 * size + m)), m)
            if r2 >= _LEAST_RANK and r2 <= r1 * size and r1 <= r2 * size:
                lost = float(self.lost_in[r1] + self.lost_out[r2])
                pairs.append((lost, r1, r2))
        if not pairs:
            return None
        _, r1, r2 = min(pairs)
        W = self.sample.W.reshape(g, m, c * size)
        inner: Floats = (self.P[..., :r2].swapaxes(1, 2) @ W).reshape(g, r2, c, size)
        inner = np.einsum("gock,gcb->gobk", inner, self.Q[..., :r1], optimize=True)
        inner = np.einsum("gobk,gbc->gock", inner, self.Qt[:, :r1], optimize=True)
        near: Floats = self.P[:, self.sample.rows, :r2] @ inner.reshape(g, r2, c * size)
        seen = self.sample.seen
        stored = g * (r1 * c + r1 * size * r2 + r2 * m)
        return Cut(TensorTrain((r1, r2)), stored, seen - near.reshape(seen.shape))


def _three(sample: Sample) -> _Three:
    W = sample.W
    g, m, c = W.shape[:3]
    flat = W.reshape(g, m, c, -1).astype(np.float64)
    H = sample.metric.damped(_DAMPING).H
    if H is None:
        root = inverse = np.broadcast_to(np.eye(c), (g, c, c))
    else:
        root, inverse = Metric(np.stack([channel_moments(each, c) for each in H])).roots()
    white: Wide = np.einsum("gmck,gcd->gmdk", flat, root, optimize=True)
    outputs = [_decomposed(A.reshape(m, -1)) for A in white]
    inputs = [_decomposed(A.swapaxes(0, 1).reshape(c, -1)) for A in white]
    P = np.stack([vectors for _, vectors in outputs])
    V = np.stack([vectors for _, vectors in inputs])
    return _Three(
        sample,
        P.astype(np.float32),
        (root @ V).astype(np.float32),
        (V.swapaxes(1, 2) @ inverse).astype(np.float32),
        tail_energies(np.sum([values for values, _ in outputs], axis=0)),
        tail_energies(np.sum([values for values, _ in inputs], axis=0)),
    )


@dataclass(frozen=True, eq=False)
class _Matrix:
    """TTMatrix with two cores: a truncation of the weight in its pairs of factors."""

    sample: Sample
    modes: Modes
    U: Floats
    UtT: Floats

    def at(self, numbers: float) -> Cut | None:
        a, b = self.modes.sizes
        j = sane(numbers / (a + b))
        if not _LEAST_RANK <= j < self.U.shape[1]:
            return None
        near = self.U[:, :j] @ self.UtT[:j]
        W = self.modes.weight(near.astype(np.float64)).astype(np.float32)
        whole = W.reshape(self.sample.W.shape)[:, self.sample.rows]
        return Cut(TTMatrix((j,)), j * (a + b), self.sample.seen - whole)


def _matrix(sample: Sample, modes: Modes) -> _Matrix:
    m, c = sample.W.shape[1:3]
    T = modes.tensor(sample.W.reshape(m, c, 1).astype(np.float64))
    U = _directions(T)
    return _Matrix(sample, modes, U, U.T @ T.astype(np.float32))


def sane(rank: float) -> int:
    """The largest rank at or below that is a multiple of what kernels like, at its size.

    Example:
        >>> sane(5.9), sane(13.0), sane(47.0)
        (5, 12, 44)
    """
    j = max(int(rank), 0)
    for least, step in _STEPS:
        if j >= least:
            return j - j % step
    return j


def _directions(A: Wide) -> Floats:
    """The left singular vectors of A, all that are not noise, leading first."""
    if len(A) <= A.shape[1]:
        return _decomposed(A)[1].astype(np.float32)
    values, V = _decomposed(A.T)
    kept = max(int(np.count_nonzero(values > 1e-9 * values[0])), 1)
    return (A @ (V[:, :kept] / np.sqrt(np.maximum(values[:kept], 1e-300)))).astype(np.float32)


def _decomposed(A: Wide) -> tuple[Wide, Wide]:
    """Squared singular values of A and its left singular vectors, largest first."""
    values, vectors = np.linalg.eigh(A @ A.T)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def cuts(found: Sequence[Family], numbers: float) -> Iterator[Cut]:
    """What each kind makes of so many numbers."""
    for family in found:
        cut = family.at(numbers)
        if cut is not None:
            yield cut
