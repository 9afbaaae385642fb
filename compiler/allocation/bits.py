"""Bits: the form of every layer under a budget of all-in bits a parameter.

What a candidate does to the outputs is measured, layer by layer; what is chosen is the least
sum of those divergences that the budget allows. All-in means every stored bit of every float
parameter: codes, scales, zero points, codebooks, corrections, and biases and other floats at
the width they are stored in.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...device_profiles.errors import BudgetInfeasible, PlanError
from ...passes.absorb import takes_bias
from ...passes.counts import float_count
from ...passes.forms import IDENTITY, Form, Json, Term, from_json, to_json
from ...passes.model import Model
from ...passes.sites import Site
from ..fitting.fit import metric_of
from ..fitting.moments import Moments
from ..fitting.sensitivity import sensitivity
from ..samples.inputs import Feeds
from .allocate import Allocation, Candidates, minimise_maximum, minimise_sum
from .bits_candidates import Fit, candidates
from .bits_row import Row

Vector = npt.NDArray[np.float64]
Told = Callable[[int, int, str], None]

FormsOf = Callable[[Site], Sequence[Form]]
"""What is tried for a site: forms of codes alone, and sums."""
_EARNED = 0.98
"""Sums are taken where they lower what codes alone would lose to this share."""
HALF, SINGLE = 16, 32
"""Bits of what stays a float."""


def measured_rows(
    model: Model | Path,
    sites: Sequence[Site],
    forms_of: FormsOf,
    feeds: Sequence[Feeds],
    moments: Mapping[str, Moments],
    *,
    folder: Path | None = None,
    on_done: Told | None = None,
) -> list[Row]:
    """The candidates of every site with the divergence that each causes by itself.

    Args:
        model: normalised, or its file.
        sites: as `find_sites` gives them.
        forms_of: what is tried.
        feeds: calibration samples; a few dozen do.
        moments: of what the sites read.
        folder: where finished sites are kept, for a run that is taken up again.
        on_done: told (finished, all, name).
    """
    firsts = _firsts(sites)
    kept = _Kept(folder, digest_of(feeds))
    tried = _Tried(firsts, forms_of, moments, kept)

    def note(name: str, found: Vector) -> None:
        kept.put(tried.row(name, found), tried.digests[name])

    sensitivity(model, sites, tried, feeds, moments=moments, on_found=note, on_done=on_done)
    return [tried.rows[site.name] for site in firsts if site.name in tried.rows]


class _Tried(Mapping[str, Sequence[Term]]):
    """The terms of a site, fitted when they are asked for; none where its row is known."""

    def __init__(
        self,
        firsts: Sequence[Site],
        forms_of: FormsOf,
        moments: Mapping[str, Moments],
        kept: "_Kept",
    ) -> None:
        self._sites = {site.name: site for site in firsts}
        self._forms_of, self._moments, self._kept = forms_of, moments, kept
        self._fits: dict[str, tuple[Fit, ...]] = {}
        self.rows: dict[str, Row] = {}
        self.digests: dict[str, str] = {}

    def __getitem__(self, name: str) -> Sequence[Term]:
        site = self._sites[name]
        forms = self._forms_of(site)
        W = site.W()
        words = [name, *(json.dumps(to_json(form)) for form in forms)]
        self.digests[name] = hashlib.sha256(
            "\n".join(words).encode() + W.tobytes()
        ).hexdigest()
        known = self._kept.get(self.digests[name], name)
        if known is not None:
            self.rows[name] = known
            return ()
        found = candidates(W, forms, metric_of((site,), self._moments), 32 * site.weights)
        self._fits[name] = tuple(fit for fit, _ in found)
        return [term for _, term in found]

    def row(self, name: str, found: Vector) -> Row:
        """The row of a site whose terms were measured."""
        site = self._sites[name]
        users = 1 + len(site.shares)
        scaled = tuple(float(v) for v in found * users)
        self.rows[name] = Row(name, 32 * site.weights, self._fits.pop(name), scaled)
        return self.rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


def plain_rows(
    sites: Sequence[Site], forms_of: FormsOf, on_done: Told | None = None
) -> list[Row]:
    """The candidates of every site with their relative error, where no input is known."""
    rows: list[Row] = []
    firsts = _firsts(sites)
    for done, site in enumerate(firsts, 1):
        found = candidates(site.W(), forms_of(site), IDENTITY, 32 * site.weights)
        tried = tuple(fit for fit, _ in found)
        rows.append(Row(site.name, 32 * site.weights, tried, tuple(f.error for f in tried)))
        if on_done is not None:
            on_done(done, len(firsts), site.name)
    return rows


@dataclass(frozen=True)
class Chosen:
    """The forms that a budget allows.

    Args:
        forms: of the sites that change, by name; those that share a weight included.
        bits: all-in, of a float parameter.
        divergence: sum of the measured ones, or the largest relative squared error where
            nothing was measured.
        is_met: whether the budget is held.
    """

    forms: Mapping[str, Form]
    bits: float
    divergence: float
    is_met: bool = True


def choose(
    model: Model,
    sites: Sequence[Site],
    rows: Sequence[Row],
    bits: float,
    *,
    is_measured: bool,
    halves: int | None = None,
) -> Chosen:
    """The candidate of every site: least divergence within `bits` a float parameter.

    What codes alone would take is taken, unless sums lower its divergence by a real margin.

    Args:
        model: normalised, as the sites were found in it.
        sites: as `find_sites` gives them.
        rows: candidates; sites without a row stay as they are.
        bits: all-in bits a float parameter.
        is_measured: whether divergences were measured and add up; otherwise the largest
            relative error is minimised.
        halves: how many biases and other floats are stored in float16, those that fits give
            to layers without a bias left out; None where the target stores none so.
    """
    fixed = fixed_bits(model, sites, {row.site for row in rows}, halves)
    budget = _Budget(bits, float_count(model), fixed, is_measured)
    chosen = _chosen(sites, [row.without_sums() for row in rows], budget)
    better = [row.with_better_sums() for row in rows]
    if any(row.sums for row in better):
        other = _chosen(sites, better, budget)
        if other.divergence <= _EARNED * chosen.divergence:
            return other
    return chosen


@dataclass(frozen=True)
class _Budget:
    """Bits a float parameter, of so many parameters, some of them spent already."""

    bits: float
    count: int
    fixed: float
    is_measured: bool


def _chosen(sites: Sequence[Site], rows: Sequence[Row], budget: _Budget) -> Chosen:
    """The candidate of every row that one allocation takes."""
    fixed, count, is_measured = budget.fixed, budget.count, budget.is_measured
    table: list[Candidates] = []
    for row in rows:
        weighed = row.weighed() if is_measured else np.array(row.divergence)
        cost = np.array([row.dense_bits, *(fit.bits for fit in row.fits)], dtype=float)
        squared = np.concatenate([[0.0], weighed])
        table.append(Candidates(row.site, np.sqrt(squared), cost, squared, cost))
    solve = minimise_sum if is_measured else minimise_maximum
    is_met = True
    try:
        found = solve(table, budget.bits * count, fixed=fixed)
    except BudgetInfeasible:
        least = [int(np.argmin(entry.cost)) for entry in table]
        cost = fixed + sum(float(e.cost[i]) for e, i in zip(table, least, strict=True))
        found, is_met = Allocation(tuple(least), cost, np.inf), False
    forms: dict[str, Form] = {}
    by_name = {site.name: site for site in sites}
    for row, at in zip(rows, found.choice, strict=True):
        if at:
            for name in (row.site, *by_name[row.site].shares):
                forms[name] = row.fits[at - 1].form
    total = [float(e.squared[i]) for e, i in zip(table, found.choice, strict=True)]
    lost = sum(total) if is_measured else max(total, default=0.0)
    return Chosen(forms, found.cost / count if count else 0.0, lost, is_met)


def all_in(
    model: Model, sites: Sequence[Site], terms: Mapping[str, Term], halves: int | None = None
) -> float:
    """Stored bits of a float parameter once terms stand for weights; see `choose`."""
    bits = fixed_bits(model, sites, set(terms), halves)
    seen = set[str]()
    for site in sites:
        if site.name in terms and site.weight_name not in seen:
            seen.add(site.weight_name)
            bits += terms[site.name].cost().bits
    return bits / max(float_count(model), 1)


def fixed_bits(
    model: Model, sites: Sequence[Site], changed: set[str], halves: int | None
) -> float:
    """Bits of everything but the changed weights, new biases included; see `choose`."""
    names = {site.weight_name: site.weights for site in sites if site.name in changed}
    shared = [site for site in sites if site.weight_name in names]
    gained = sum(gained_floats(site) for site in shared)
    kept = float_count(model) - sum(names.values())
    if halves is None:
        return float(SINGLE * (kept + gained))
    return float(SINGLE * (kept - halves) + HALF * (halves + gained))


def _firsts(sites: Sequence[Site]) -> list[Site]:
    """One site a weight that nothing else keeps in the file."""
    seen = dict[str, Site]()
    for site in sites:
        if not site.is_kept:
            seen.setdefault(site.weight_name, site)
    return list(seen.values())


def gained_floats(site: Site) -> int:
    """Numbers that the bias of a fit adds to a layer that has none."""
    if not takes_bias(site):
        return 0
    m = site.shape[0] * site.shape[1]
    if site.op != "MatMul":
        has = len(site.node.inputs) > 2 and site.node.inputs[2] is not None
        return 0 if has else m
    uses = list(site.node.outputs[0].uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add":
        other = uses[0].node.inputs[1 - uses[0].idx]
        tensor = None if other is None else ir.convenience.get_const_tensor(other)
        if tensor is not None and tensor.size == m:
            return 0
    return m


class _Kept:
    """Rows by key in a folder, or nowhere; what cannot be read counts as absent."""

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder, self._key = folder, key

    def get(self, key: str, name: str) -> Row | None:
        if self._folder is None:
            return None
        try:
            held = cast("dict[str, Json]", json.loads(self._path(key).read_text()))
            words = cast("list[list[Json]]", held["candidates"])
            tried = tuple(
                Fit(from_json(f, where=name), int(cast(int, b)), float(cast(float, e)))
                for f, b, e, _ in words
            )
            lost = tuple(float(cast(float, entry[3])) for entry in words)
            return Row(name, int(cast(int, held["dense_bits"])), tried, lost)
        except (OSError, ValueError, KeyError, TypeError, PlanError):
            return None

    def put(self, row: Row, key: str) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        words = [
            [to_json(fit.form), fit.bits, fit.error, lost]
            for fit, lost in zip(row.fits, row.divergence, strict=True)
        ]
        path = self._path(key)
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps({"dense_bits": row.dense_bits, "candidates": words}))
        fresh.replace(path)

    def _path(self, key: str) -> Path:
        assert self._folder is not None, "only a folder has files"
        name = hashlib.sha256(f"1 {self._key} {key}".encode()).hexdigest()[:32]
        return self._folder / f"{name}.json"


def digest_of(feeds: Sequence[Feeds]) -> str:
    """What tells samples from others."""
    total = hashlib.sha256()
    for feed in feeds:
        for name in sorted(feed):
            total.update(name.encode())
            total.update(np.ascontiguousarray(feed[name]).tobytes())
    return total.hexdigest()
