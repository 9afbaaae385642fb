"""Survey: what every site could become, with the error and the cost of each candidate."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...device_profiles.profile import Lattice
from ...passes.forms import (
    Blocks,
    Dense,
    Folded,
    Form,
    LowRank,
    Metric,
    kernel_macs,
    kernel_weights,
)
from ...passes.geometry import Weights, scheme_axes
from ...passes.sites import Site
from ...passes.spectra import Spectrum
from ...passes.whitened import whitened_spectrum
from ...runtime.machine import cores
from ..cache import read_arrays, write_arrays
from ..fitting.fit import metric_of
from ..fitting.moments import Moments
from ..options import Objective
from .allocate import Candidates, Vector

Quantity = Literal["size", "macs", "latency"]

_CACHE_VERSION = 1
_SLOWNESS = {2: 1.18}
"""Factor of time by scheme. κ×1 before 1×κ is 2 to 18 % slower than the other order at equal
counts (ONNX Runtime's blocked layout, VGG16's layers) and counts as at its worst: it is taken
where it costs less."""
WORTH = 0.97
"""A form counts as faster from three percent on: less is below what a prediction can tell."""
_RANKS_OF_BLOCKS = 40
"""Ranks evaluated for k > 1, where each needs the norm of a residual."""


@dataclass(frozen=True)
class Search:
    """Which low-rank candidates are looked at.

    Args:
        lattice: steps of ranks and group widths.
        schemes: foldings for k = 1.
        block_schemes: foldings that k > 1 is tried with; 0 is ALDS's own.
        most_blocks: largest k.
        every_divisor: try every divisor of the channels as k, as ALDS does; otherwise powers
            of two.
        exact: norms of whole residuals for k > 1 (needed by objective "operator").
    """

    lattice: Lattice = field(default_factory=Lattice)
    schemes: tuple[int, ...] = (0, 1, 2, 3)
    block_schemes: tuple[int, ...] = (0,)
    most_blocks: int = 8
    every_divisor: bool = False
    exact: bool = True


@dataclass(frozen=True)
class Survey:
    """Candidates of one site; entry 0 of every array is Dense.

    Args:
        site: the site.
        forms: the recipes.
        operator, blockwise, sqrt_k, frobenius: relative errors (see Spectrum).
        weights: stored weights.
        macs: multiply-adds of this site and of those that share its weight; positions that
            are unknown count as one.
        slowness: factor of time that counts do not show.
        seconds: predicted time of this site and of those that share its weight; empty where
            nothing predicts it.
        energy: ‖W‖²_F.
        reason: why there is nothing but Dense, where that is so.
        divergence: how far the model's outputs move with this site alone changed (see
            `sensitivity`); empty where it was not measured.
    """

    site: Site
    forms: tuple[Form, ...]
    operator: Vector
    blockwise: Vector
    sqrt_k: Vector
    frobenius: Vector
    weights: Vector
    macs: Vector
    slowness: Vector
    energy: float
    reason: str = ""
    seconds: Vector = field(default_factory=lambda: np.zeros(0))
    divergence: Vector = field(default_factory=lambda: np.zeros(0))

    @property
    def is_measured(self) -> bool:
        """Whether its candidates are known by what they do to the model's outputs."""
        return len(self.divergence) > 0

    def errors(self, objective: Objective) -> Vector:
        """The errors that an objective takes the maximum of."""
        return {
            "operator": self.operator,
            "blockwise": self.blockwise,
            "sqrt-k": self.sqrt_k,
            "frobenius": self.frobenius,
        }[objective]

    def cost(self, quantity: Quantity) -> Vector:
        """What a budget counts of each candidate."""
        if quantity == "latency":  # what nothing predicts can save no time
            return self.seconds if len(self.seconds) else np.zeros(len(self.forms))
        return self.weights if quantity == "size" else self.macs

    def useful(self, quantity: Quantity) -> npt.NDArray[np.intp]:
        """Dense, and the candidates that cost less: of latency, those that are faster."""
        cost = self.cost(quantity)
        if quantity == "latency":
            return np.concatenate([[0], 1 + np.flatnonzero(cost[1:] < WORTH * cost[0])])
        return np.concatenate([[0], 1 + np.flatnonzero(cost[1:] < cost[0])])


def are_measured(surveys: Sequence[Survey]) -> bool:
    """Whether a plan is to minimise the sum of measured divergences."""
    return bool(surveys) and all(entry.is_measured for entry in surveys)


def table(
    surveys: Sequence[Survey], objective: Objective, quantity: Quantity
) -> list[Candidates]:
    """The useful candidates of every site, as solvers take them.

    Squared errors are relative, or absolute for the sum that objective "frobenius" minimises;
    measured divergences of the outputs take their place where all sites have them.
    The price of a candidate is its share of the predicted time where latency is what counts.
    Otherwise it is its share of the model's multiply-adds plus its share of the model's
    weights: time is bound by the one or the other.
    """
    all_macs = sum(float(s.macs[0]) for s in surveys) or 1.0
    all_weights = sum(float(s.weights[0]) for s in surveys) or 1.0
    all_time = 1.0
    if quantity == "latency":
        all_time = sum(float(s.cost("latency")[0]) for s in surveys) or 1.0
    is_measured = are_measured(surveys)
    entries: list[Candidates] = []
    for entry in surveys:
        at = entry.useful(quantity)
        scale = entry.energy if objective == "frobenius" else 1.0
        squared = entry.divergence if is_measured else scale * entry.frobenius**2
        entries.append(
            Candidates(
                entry.site.name,
                entry.errors(objective)[at],
                entry.cost(quantity)[at],
                squared[at],
                entry.cost(quantity)[at] / all_time
                if quantity == "latency"
                else entry.slowness[at]
                * (entry.macs[at] / all_macs + entry.weights[at] / all_weights),
            )
        )
    return entries


def survey(
    sites: Sequence[Site],
    search: Search,
    *,
    moments: Mapping[str, Moments] | None = None,
    jobs: int = 0,
    on_done: Callable[[int, int], None] | None = None,
) -> list[Survey]:
    """Spectra and candidates of every site; of sites that share a weight, of the first.

    Spectra are computed side by side, the largest first, and kept in the cache by the digest
    of the weight.

    Args:
        sites: as `find_sites` gives them.
        search: which candidates.
        moments: of what sites read, by name: errors are then of outputs, relative to each
            layer's own.
        jobs: threads; 0 takes one a core.
        on_done: called with (spectra done, of how many).
    """
    from threadpoolctl import threadpool_limits

    firsts = [site for site in sites if not _is_repeated(site, sites)]
    plans = {site.name: list(_views(site, search)) for site in firsts}
    total = sum(len(views) for views in plans.values())
    done = 0

    by_name = {site.name: site for site in sites}

    def work(site: Site) -> list[Spectrum]:
        W = site.W()
        users = [site, *(by_name[name] for name in site.shares)]
        metric = metric_of(users, moments or {})
        digest = hashlib.sha256(W.data)
        if metric.H is not None:
            digest.update(metric.H.data)
        key = digest.hexdigest()
        return [_cached(W, metric, key, *view, search) for view in plans[site.name]]

    order = sorted(firsts, key=lambda s: (-_effort(s, plans[s.name]), s.name))
    results: dict[str, list[Spectrum]] = {}
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(jobs or cores()) as pool,
    ):
        futures: dict[str, Future[list[Spectrum]]] = {
            site.name: pool.submit(work, site) for site in order if plans[site.name]
        }
        for site in order:
            if site.name in futures:
                results[site.name] = futures[site.name].result()
                done += len(plans[site.name])
                if on_done is not None:
                    on_done(done, total)
    surveys: list[Survey] = []
    for site in firsts:
        users = [site, *(by_name[name] for name in site.shares)]
        spectra = results.get(site.name, [])
        reason = "" if spectra else _nothing(site, search)
        found = _survey(site, users, spectra, reason)
        # output errors of different layers compare as shares of their outputs, not as sums
        surveys.append(replace(found, energy=1.0) if moments else found)
    return surveys


def _is_repeated(site: Site, sites: Sequence[Site]) -> bool:
    """Whether an earlier site reads the same weight."""
    return (
        bool(site.shares)
        and next(s.name for s in sites if s.weight_name == site.weight_name) != site.name
    )


def _views(site: Site, search: Search) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
    """(scheme, k, ranks) of every spectrum that is worth computing."""
    g, m, c, *kernel = site.shape
    lattice = search.lattice
    width = lattice.group_width
    if g > 1 and (m % width or c % width):
        return
    for scheme in site.schemes:
        if scheme not in search.schemes:
            continue
        axes = scheme_axes(scheme, tuple(kernel))
        rows = m * math.prod(kernel[a] for a in axes)
        columns = c * math.prod(size for a, size in enumerate(kernel) if a not in axes)
        for k in _block_counts(site, scheme, search):
            full = min(rows, columns // k)
            # j (k · rows + columns) < rows · columns, or no fewer weights
            most = min((rows * columns - 1) // (k * rows + columns), full)
            ranks = np.arange(lattice.rank, most + 1, lattice.rank, dtype=np.int64)
            if k > 1 and len(ranks) > _RANKS_OF_BLOCKS and search.exact:
                picked = np.linspace(0, len(ranks) - 1, _RANKS_OF_BLOCKS).round()
                ranks = ranks[np.unique(picked.astype(np.int64))]
            if len(ranks):
                yield scheme, k, ranks


def _block_counts(site: Site, scheme: int, search: Search) -> list[int]:
    c = site.shape[2]
    counts = [1]
    if scheme not in search.block_schemes:
        return counts
    if site.geometry.op == "MatMul" and (
        (site.geometry.input_rank or 0) < 2 or search.lattice.group_width > 1
    ):
        return counts
    for k in range(2, min(c, search.most_blocks) + 1):
        is_tried = search.every_divisor or k & (k - 1) == 0
        if c % k == 0 and is_tried and (c // k) % search.lattice.group_width == 0:
            counts.append(k)
    return counts


def _nothing(site: Site, search: Search) -> str:
    """Why a site has no candidate but Dense."""
    g, m, c, *kernel = site.shape
    width, step = search.lattice.group_width, search.lattice.rank
    if g > 1 and (m % width or c % width):
        kind = "depthwise" if c == 1 else f"{c}-wide"
        return f"{kind} groups: narrower than the device's group width {width}"
    n = c * math.prod(kernel)
    return f"{m} × {n} is too small: no rank on the device's steps of {step} saves weights"


def _effort(site: Site, views: Sequence[tuple[int, int, npt.NDArray[np.int64]]]) -> float:
    side = min(site.shape[1], site.weights // max(site.shape[0] * site.shape[1], 1))
    return len(views) * float(site.weights) * side


def _cached(
    W: Weights,
    metric: Metric,
    digest: str,
    scheme: int,
    k: int,
    ranks: npt.NDArray[np.int64],
    search: Search,
) -> Spectrum:
    words = (
        _CACHE_VERSION,
        digest,
        W.shape,
        scheme,
        k,
        ranks.tolist(),
        search.exact and k > 1,
    )
    key = hashlib.sha256(repr(words).encode()).hexdigest()
    stored = read_arrays(key, "spectra")
    errors = None if stored is None else stored.get("errors")
    if errors is not None and errors.shape == (3 * len(ranks) + 1,):
        values = np.asarray(errors, dtype=np.float64)
        operator, blockwise, frobenius = values[:-1].reshape(3, -1)
        return Spectrum(scheme, k, ranks, operator, blockwise, frobenius, float(values[-1]))
    found = whitened_spectrum(W, metric, scheme, k, ranks, exact=search.exact)
    flat = [found.operator, found.blockwise, found.frobenius, np.array([found.total])]
    write_arrays(key, "spectra", {"errors": np.concatenate(flat)})
    return found


def _survey(
    site: Site, users: Sequence[Site], spectra: Sequence[Spectrum], reason: str
) -> Survey:
    forms: list[Form] = [Dense()]
    columns: Mapping[str, list[Vector]] = {
        name: [np.zeros(1)] for name in ("operator", "blockwise", "sqrt_k", "frobenius")
    }
    weights: list[Vector] = [np.array([float(site.weights)])]
    macs: list[Vector] = [np.array([_macs(users, Dense())])]
    for found in spectra:
        unit = _form(found.scheme, found.k, 1)
        forms += [_form(found.scheme, found.k, int(j)) for j in found.ranks]
        for name, column in columns.items():
            column.append(np.asarray(getattr(found, name), dtype=np.float64))
        ranks: Vector = found.ranks.astype(np.float64)
        # weights and multiply-adds of a factorised form are proportional to its rank
        factors = kernel_weights(unit.kernels(site.shape, site.geometry)) * ranks
        weights.append(factors + site.weights if site.is_kept else factors)
        macs.append(_macs(users, unit) * ranks)
    return Survey(
        site,
        tuple(forms),
        **{name: np.concatenate(column) for name, column in columns.items()},
        weights=np.concatenate(weights),
        macs=np.concatenate(macs),
        slowness=np.array([_SLOWNESS.get(getattr(form, "scheme", 0), 1.0) for form in forms]),
        energy=spectra[0].total ** 2 if spectra else 0.0,
        reason=reason,
    )


def _form(scheme: int, k: int, j: int) -> Form:
    inner = LowRank(j) if k == 1 else Blocks(k, LowRank(j))
    return inner if scheme == 0 else Folded(scheme, inner)


def _macs(users: Sequence[Site], form: Form) -> float:
    total = 0
    for user in users:
        kernels = form.kernels(user.shape, user.geometry)
        macs = kernel_macs(kernels)
        total += kernel_weights(kernels) if macs is None else macs
    return float(total)
