"""Ranks: low-rank candidates judged by what they do to the outputs of the model.

Shares of a layer's own output error say little of how much the model needs that output. Here a
few candidates of every layer are fitted to what it reads, put in one at a time, and the
divergence of the model's outputs is measured; the other candidates lie between them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...passes.forms import Term, text
from ...passes.sites import Site
from ..cache import read_arrays, write_arrays
from ..clock import Clock
from ..events import Event
from ..fitting.crossed import crossed_sensitivity, thin
from ..fitting.fit import metric_of
from ..fitting.moments import Moments
from ..fitting.sensitivity import sensitivity
from ..prepare import Ready
from ..samples.inputs import Feeds
from .allocate import Vector
from .survey import Quantity, Survey

Probes = tuple[int, ...]
"""Candidates of a survey, by their place in it."""

PROBES = 6
"""Candidates of a layer that are measured."""
EFFORT = 5e11
"""Multiply-adds that measuring may take; fewer samples are run where it would be more."""
LEAST_SAMPLES = 8
_CACHE_VERSION = 2
_LEAST_ERROR = 1e-12
_LEAST_DIVERGENCE = 1e-12


def measured_surveys(
    ready: Ready,
    surveys: Sequence[Survey],
    moments: Mapping[str, Moments],
    quantity: Quantity,
    clock: Clock,
) -> list[Survey]:
    """The surveys with the divergence of every candidate, in the stage "sensitivity".

    Args:
        ready: the model, its sites and the calibration samples of the fit.
        surveys: in the metric of the moments.
        moments: of what the sites read.
        quantity: what the budget counts: candidates that save none of it are not measured.
        clock: told of every layer.

    Returns:
        The surveys as they are where nothing was calibrated or nothing can be measured.
    """
    if not ready.fit_feeds or not moments:
        return list(surveys)
    probes = {s.site.name: probed(s, quantity) for s in surveys}
    with clock.stage("sensitivity", f"{sum(map(len, probes.values()))} candidates"):
        found = _found(ready, surveys, probes, moments, clock)
    measured = [
        replace(entry, divergence=spread(entry, probes[entry.site.name], found))
        for entry in surveys
        if entry.site.name in found
    ]
    if not measured:
        return list(surveys)
    by_site = {entry.site.name: entry for entry in measured}
    worst = max(_ratio(entry, probes[entry.site.name]) for entry in measured)
    return [
        by_site.get(entry.site.name, replace(entry, divergence=worst * entry.frobenius**2))
        for entry in surveys
    ]


def _found(
    ready: Ready,
    surveys: Sequence[Survey],
    probes: Mapping[str, Probes],
    moments: Mapping[str, Moments],
    clock: Clock,
) -> Mapping[str, Vector]:
    """The measured divergences, by site; kept in the cache by model, samples and forms."""
    feeds = _samples(ready, probes)
    key = _digest(ready, surveys, probes, feeds)
    stored = read_arrays(key, "sensitivity")
    known = {s.site.name: len(probes[s.site.name]) for s in surveys}
    if stored is not None and all(
        array.shape == (known.get(name),) for name, array in stored.items()
    ):
        return {name: np.asarray(a, dtype=np.float64) for name, a in stored.items()}
    by_name = {site.name: site for site in ready.sites}

    def tell(done: int, total: int, name: str) -> None:
        clock.on_event(Event("sensitivity", done, total, name))

    few = [s for s in surveys if len(feeds) > 1 and thin(s.site, moments)]
    many = [s for s in surveys if not any(s is other for other in few)]
    found = dict(
        sensitivity(
            ready.written,
            ready.sites,
            _Terms(many, probes, by_name, moments),
            feeds,
            moments=moments,
            on_done=tell,
        )
    )
    if few:
        found |= crossed_sensitivity(
            ready.written,
            [s.site for s in few],
            lambda half: _Terms(few, probes, by_name, half),
            feeds,
            on_done=tell,
        )
    write_arrays(key, "sensitivity", found)
    return found


def _digest(
    ready: Ready,
    surveys: Sequence[Survey],
    probes: Mapping[str, Probes],
    feeds: Sequence[Feeds],
) -> str:
    total = hashlib.sha256(f"{_CACHE_VERSION} {ready.model.sha256}".encode())
    with ready.written.open("rb") as file:
        total.update(hashlib.file_digest(file, "sha256").digest())
    for entry in surveys:
        forms = [text(entry.forms[at]) for at in probes[entry.site.name]]
        total.update(repr((entry.site.name, forms)).encode())
    # the moments that candidates are fitted in are of all samples, not of the chosen alone
    for at, feed in enumerate((*feeds, *ready.fit_feeds)):
        for name in sorted(feed):
            total.update(f"{at} {name} {feed[name].dtype} {feed[name].shape}".encode())
            total.update(np.ascontiguousarray(feed[name]).data)
    return total.hexdigest()


def probed(entry: Survey, quantity: Quantity, most: int = PROBES) -> Probes:
    """The candidates worth measuring: of those no other beats, some evenly in log cost."""
    useful = entry.useful(quantity)[1:]
    cost = entry.cost(quantity)[useful]
    order = useful[np.lexsort((entry.frobenius[useful], cost))]
    front: list[int] = []
    for at in map(int, order):
        if not front or entry.frobenius[at] < entry.frobenius[front[-1]]:
            front.append(at)
    if len(front) <= most:
        return tuple(front)
    place: Vector = np.log(np.maximum(entry.cost(quantity)[front], 1e-300))
    least, step = float(place[0]), float(place[-1] - place[0]) / (most - 1)
    near = {int(np.argmin(np.abs(place - (least + i * step)))) for i in range(most)}
    return tuple(front[at] for at in sorted(near))


def spread(entry: Survey, probes: Probes, found: Mapping[str, Vector]) -> Vector:
    """The divergence of every candidate from that of the probes, by their squared error.

    Between probes the logarithm of the one is linear in that of the other; beyond them they
    are proportional. More error never counts as less divergence. Dense has none.
    """
    error = np.maximum(entry.frobenius**2, _LEAST_ERROR)
    if not len(probes):
        return np.zeros(len(error))
    at = np.array(probes)
    order = np.argsort(error[at], kind="stable")
    x = np.log(error[at][order])
    y = np.log(np.maximum(found[entry.site.name][order], _LEAST_DIVERGENCE))
    y = np.maximum.accumulate(np.where(np.isfinite(y), y, 1e3))
    place = np.log(error)
    between = np.interp(place, x, y)
    beyond = np.minimum(place - x[0], 0) + np.maximum(place - x[-1], 0)
    result: Vector = np.exp(np.minimum(between + beyond, 700))
    result[0] = 0.0
    return result


def _ratio(entry: Survey, probes: Probes) -> float:
    """The most divergence for an error among the probes."""
    error = np.maximum(entry.frobenius**2, _LEAST_ERROR)
    return max((float(entry.divergence[at] / error[at]) for at in probes), default=0.0)


def _samples(ready: Ready, probes: Mapping[str, Probes]) -> Sequence[Feeds]:
    """As many of the samples as the effort allows, evenly chosen."""
    macs = sum(float(site.macs or site.weights) for site in ready.sites)
    runs = sum(len(at) for at in probes.values()) / 2  # half of the net stands behind a layer
    most = max(int(EFFORT / max(macs * runs, 1.0)), LEAST_SAMPLES)
    feeds = ready.fit_feeds
    if len(feeds) <= most:
        return feeds
    return [feeds[round(i * (len(feeds) - 1) / (most - 1))] for i in range(most)]


class _Terms(Mapping[str, Sequence[Term]]):
    """The fitted probes of a site, made when they are asked for and not kept."""

    def __init__(
        self,
        surveys: Sequence[Survey],
        probes: Mapping[str, Probes],
        sites: Mapping[str, Site],
        moments: Mapping[str, Moments],
    ) -> None:
        self._surveys = {s.site.name: s for s in surveys if len(probes[s.site.name])}
        self._probes, self._sites, self._moments = probes, sites, moments

    def __getitem__(self, name: str) -> Sequence[Term]:
        entry = self._surveys[name]
        users = [entry.site, *(self._sites[other] for other in entry.site.shares)]
        metric, W = metric_of(users, self._moments), entry.site.W()
        forms = [entry.forms[at] for at in self._probes[name]]
        return [form.compress(W, metric=metric) for form in forms]

    def __iter__(self) -> Iterator[str]:
        return iter(self._surveys)

    def __len__(self) -> int:
        return len(self._surveys)
