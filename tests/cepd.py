"""CEPD's schemes on one layer: sums, sequences and trains within a budget of weights."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import ref_model, wheel_model
from nncc.compiler.allocation.train_search import affordable, search
from nncc.compiler.reading.ingest import ingest
from nncc.device_profiles.errors import RankError
from nncc.passes.forms import IDENTITY, Folded, Form, LowRank, squared_error
from nncc.passes.forms.factors.lowrank import truncate
from nncc.passes.forms.sparse.prune import Prune
from nncc.passes.forms.sparse.prune_select import largest
from nncc.passes.forms.sparse.prune_term import gap_bits
from nncc.passes.forms.sums.sum import Sum
from nncc.passes.forms.trains.tensor_train_svd import tail_energies
from nncc.passes.forms.trains.tt_matrix import TTMatrix
from nncc.passes.forms.trains.tt_matrix_modes import modes_of
from nncc.passes.normalise import normalise
from nncc.passes.sites import Site, find_sites

Array = NDArray[np.float64]

SPLITS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""Share of the budget that goes to S."""
LEAST, MOST = 1500, 700_000
"""Weights of the layers that are looked at."""
SIDE = 12
AT_MOST = 10
"""Layers of one net, evenly taken."""
ALTERNATIONS = 30


@dataclass(frozen=True)
class Layer:
    net: str
    site: Site
    W: NDArray[np.float32]

    @property
    def matrix(self) -> Array:
        return self.W[0].reshape(self.W.shape[1], -1).astype(np.float64)

    @property
    def label(self) -> str:
        return f"{self.net} {self.site.name[-28:]} {'×'.join(map(str, self.W.shape[1:]))}"


def trained(net: str, tmp_path) -> list[Layer]:
    """The dense layers of a net that are neither tiny nor huge."""
    path = ref_model(net) if net in ("lenet5", "vggs") else wheel_model(net)
    sites, _ = find_sites(normalise(ingest(path, workdir=tmp_path)))
    seen: set[str] = set()
    found: list[Layer] = []
    for site in sites:
        if site.shape[0] != 1 or site.weight_name in seen:
            continue
        seen.add(site.weight_name)
        m, n = site.shape[1], math.prod(site.shape[2:])
        if LEAST <= site.weights <= MOST and min(m, n) >= SIDE:
            found.append(Layer(net, site, site.W()))
    return found[:: max(-(-len(found) // AT_MOST), 1)]


def relative(layer: Layer, R: Array) -> float:
    return float(np.linalg.norm(R) / np.linalg.norm(layer.matrix))


def error_of(layer: Layer, form: Form) -> float:
    term = form.compress(layer.W)
    return math.sqrt(squared_error(layer.W, term)) / float(np.linalg.norm(layer.W))


def low_rank(A: Array, j: int) -> Array:
    U, V = truncate(A.astype(np.float32), j)
    return U.astype(np.float64) @ V


def largest_filters(A: Array, count: int) -> Array:
    """Rows with the largest ℓ1 norm kept, the others zero (CEPD, after eq. 12)."""
    S = np.zeros_like(A)
    at = np.argsort(-np.abs(A).sum(axis=1), kind="stable")[:count]
    S[at] = A[at]
    return S


def splits(budget: int, m: int, n: int) -> Iterator[tuple[int, int]]:
    """(rank, weights left for S) over the grid."""
    for share in SPLITS:
        j = int((1 - share) * budget / (m + n))
        if 1 <= j < min(m, n):
            yield j, budget - j * (m + n)


def pointwise_sum(layer: Layer, budget: int) -> float:
    m, n = layer.matrix.shape
    errors = [
        error_of(layer, Sum((LowRank(j), Prune(p))) if p else LowRank(j))
        for j, p in splits(budget, m, n)
    ]
    return min(errors)


def recipe_paid(layer: Layer, budget: int) -> float:
    """What the recipe finds, a train with or without a sparse part, positions paid for."""
    best = search(layer.site, layer.W, IDENTITY).best(budget)
    return 1.0 if best is None else math.sqrt(best.error)


def pointwise_of_low_rank(layer: Layer, budget: int) -> float:
    """S(L): the factors of a higher rank, their smallest entries dropped."""
    A = layer.matrix
    m, n = A.shape
    errors: list[float] = []
    for by in (1.0, 1.15, 1.3, 1.6, 2.0, 3.0):
        j = min(int(by * budget / (m + n)), m, n)
        U, V = (f.astype(np.float64) for f in truncate(A.astype(np.float32), max(j, 1)))
        both = np.concatenate([U.ravel(), V.ravel()])
        if both.size > budget:
            least = np.sort(np.abs(both))[-budget]
            U, V = (np.where(np.abs(f) >= least, f, 0.0) for f in (U, V))
        errors.append(relative(layer, A - U @ V))
    return min(errors)


def pointwise_of_low_rank_paid(layer: Layer, budget: int) -> float:
    """S(L) with the positions of what is left of the factors paid for (LC part V, eq. 9)."""
    A = layer.matrix
    m, n = A.shape
    errors: list[float] = []
    for by in (1.0, 1.15, 1.3, 1.6, 2.0, 3.0):
        j = max(min(int(by * budget / (m + n)), m, n), 1)
        U, V = (f.astype(np.float64) for f in truncate(A.astype(np.float32), j))
        both = np.concatenate([U.ravel(), V.ravel()])
        if both.size > budget:
            index = largest(np.abs(both), affordable(budget, both.size))
            while gap_bits(index) > 16 * budget:
                index = largest(np.abs(both), int(0.98 * len(index)))
            kept = np.zeros_like(both)
            kept[index] = both[index]
            U, V = kept[: U.size].reshape(U.shape), kept[U.size :].reshape(V.shape)
        errors.append(relative(layer, A - U @ V))
    return min(errors)


def low_rank_of_pointwise(layer: Layer, budget: int) -> float:
    """L(S): a pruned weight taken apart; its factors are dense."""
    A = layer.matrix
    j = max(int(budget / sum(A.shape)), 1)
    errors: list[float] = []
    for kept in (1.0, 0.9, 0.7, 0.5, 0.33):
        least = np.sort(np.abs(A), axis=None)[-max(int(kept * A.size), 1)]
        errors.append(relative(layer, A - low_rank(np.where(np.abs(A) >= least, A, 0.0), j)))
    return min(errors)


def filters_sum(layer: Layer, budget: int) -> float:
    """L+S with S whole filters, by alternation: those with the largest residual."""
    A = layer.matrix
    m, n = A.shape
    errors: list[float] = []
    for j, left in splits(budget, m, n):
        count = left // n
        L, best, now = low_rank(A, j), math.inf, math.inf
        for _ in range(ALTERNATIONS if count else 1):
            S = largest_filters(A - L, count)
            L = low_rank(A - S, j)
            # rows of S are free: they may take up whatever L leaves in them
            at = np.flatnonzero(np.abs(S).sum(axis=1))
            S[at] = (A - L)[at]
            now = relative(layer, A - L - S)
            if now >= best * (1 - 1e-5):
                break
            best = now
        errors.append(min(best, now))
    return min(errors)


def filters_sum_apart(layer: Layer, budget: int) -> float:
    """L+S where filters that S holds need no row of L's output factor."""
    A = layer.matrix
    m, n = A.shape
    errors: list[float] = []
    for count in {(m * i) // 20 for i in range(7)}:
        j = min((budget - count * n) // (m - count + n), m - count, n)
        if j < 1:
            continue
        R, best = A - low_rank(A, j), math.inf
        for _ in range(ALTERNATIONS if count else 1):
            rest = np.sort(np.argsort(-np.linalg.norm(R, axis=1), kind="stable")[count:])
            U, _, Vt = np.linalg.svd(A[rest], full_matrices=False)
            del U
            R = A - A @ Vt[:j].T @ Vt[:j]
            now = float(np.linalg.norm(R[rest]) / np.linalg.norm(A))
            if now >= best * (1 - 1e-5):
                break
            best = now
        errors.append(best)
    return min(errors)


def filters_of_low_rank(layer: Layer, budget: int) -> float:
    """S(L): a higher rank, then the filters (rows of U) with the least ℓ1 norm dropped."""
    A = layer.matrix
    m, n = A.shape
    errors: list[float] = []
    for count in {m - (m * i) // 20 for i in range(11)}:
        j = min(budget // (count + n), count, n)
        if j >= 1:
            errors.append(relative(layer, A - largest_filters(low_rank(A, j), count)))
    return min(errors)


def low_rank_of_filters(layer: Layer, budget: int) -> float:
    """L(S): the filters with the least ℓ1 norm dropped, then what is left taken apart."""
    A = layer.matrix
    m, n = A.shape
    errors: list[float] = []
    for count in {m - (m * i) // 20 for i in range(11)}:
        j = min(budget // (count + n), count, n)
        if j >= 1:
            errors.append(relative(layer, A - low_rank(largest_filters(A, count), j)))
    return min(errors)


def tucker_ranks(W: NDArray[np.float32], budget: int) -> list[tuple[int, int]]:
    """Pairs (inputs, outputs) within the budget, the most promising by what they lose."""
    _, m, c = W.shape[:3]
    A = W[0].reshape(m, c, -1).astype(np.float64)
    size = A.shape[2]

    def lost(flat: Array) -> Array:
        return tail_energies(np.linalg.eigvalsh(flat @ flat.T)[::-1])

    into, out = lost(A.swapaxes(0, 1).reshape(c, -1)), lost(A.reshape(m, -1))
    pairs: list[tuple[float, tuple[int, int]]] = []
    for r1 in range(1, c + 1):
        r2 = min((budget - r1 * c) // (r1 * size + m), m)
        if r2 >= 1:
            pairs.append((float(into[r1] + out[r2]), (r1, r2)))
    return [ranks for _, ranks in sorted(pairs)[:5]]


def three_cores(layer: Layer, budget: int, make: Callable[[int, int], Form]) -> float:
    pairs = tucker_ranks(layer.W, budget)
    return min((error_of(layer, make(r1, r2)) for r1, r2 in pairs), default=1.0)


def reshaped_train(layer: Layer, budget: int) -> float:
    """The paper's (K·K) × (O₁I₁) × (O₂I₂), the best pair of ranks within the budget."""
    sizes = modes_of(layer.W.shape, 2).sizes
    assert len(sizes) == 3, "a kernel of more than one position"
    k, a, b = sizes
    errors: list[float] = []
    for r0 in range(1, k + 1):
        r1 = min((budget - k * r0) // (r0 * a + b), r0 * a, b)
        if r1 >= 1:
            errors.append(error_of(layer, TTMatrix((r0, r1))))
    return min(errors, default=1.0)


def svd(layer: Layer, budget: int, schemes: tuple[int, ...]) -> float:
    """The best rank of the best folding within the budget."""
    _, m, c, *kernel = layer.W.shape
    errors: list[float] = []
    for scheme in schemes:
        axes = {0: (), 1: (0,), 2: (len(kernel) - 1,), 3: tuple(range(len(kernel)))}[scheme]
        moved = math.prod(kernel[a] for a in axes)
        rows, columns = m * moved, c * math.prod(kernel) // moved
        j = min(budget // (rows + columns), rows, columns)
        if j >= 1:
            try:
                errors.append(error_of(layer, Folded(scheme, LowRank(j))))
            except RankError:
                continue
    return min(errors, default=1.0)
