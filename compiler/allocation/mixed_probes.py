"""Mixed probes: some candidates of every family, put into the net one at a time."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...device_profiles.errors import PlanError
from ...passes.forms import Form, Term, text
from ...passes.sites import Site
from ..cache import read_arrays, write_arrays
from ..fitting.crossed import crossed_sensitivity, thin
from ..fitting.fit import metric_of
from ..fitting.moments import Moments
from ..fitting.sensitivity import sensitivity
from ..prepare import Ready
from ..samples.inputs import Feeds
from .mixed_draft import Layer, Wanted
from .mixed_row import Candidate, Family, MixedRow, Vector

PROBES: Mapping[Family, int] = {
    "low-rank": 6, "train": 3, "filters": 3, "nested": 3, "int8": 2,
}  # fmt: skip
"""Candidates of a layer that are measured, by family; of codes and sums all are."""
OF_MANY: Mapping[Family, int] = {
    "low-rank": 4, "train": 2, "filters": 2, "nested": 3, "int8": 2,
}  # fmt: skip
"""The same where two budgets let all families compete."""
EFFORT = 5e11
"""Multiply-adds that measuring may take; fewer samples are run where it would be more."""
LEAST_SAMPLES = 10
_VERSION = 2
_KIND = "divergences"

Told = Callable[[int, int, str], None]


def measured(
    ready: Ready,
    layers: Sequence[Layer],
    moments: Mapping[str, Moments],
    wanted: Wanted,
    on_done: Told | None = None,
) -> list[Layer]:
    """The layers with the divergence of their probes, and errors and bits as fitted.

    What was measured is kept by model, samples, layer and form: a run that is taken up again,
    or asked for another budget, measures only what is new.

    Args:
        ready: the model and the calibration samples of the fit.
        layers: as drafted.
        moments: of what the sites read; without any nothing is measured.
        wanted: what the candidates are for.
        on_done: told (finished, all, name).

    Returns:
        In the same order. A layer where nothing could be measured gets the steepest slope
        that was found elsewhere.
    """
    if not moments or not ready.fit_feeds:
        return list(layers)
    probes = {layer.site.name: probed(layer.row, wanted) for layer in layers}
    feeds = samples(ready, sum(map(len, probes.values())))
    kept = _Kept(ready, feeds, layers)
    few = [layer for layer in layers if len(feeds) > 1 and thin(layer.site, moments)]
    missing = _Missing([x for x in layers if not any(x is y for y in few)], probes, kept)
    if len(missing):
        sensitivity(
            ready.written,
            ready.sites,
            missing,
            feeds,
            moments=moments,
            on_found=missing.note,
            on_done=on_done,
        )
    missing = _Missing(few, probes, kept)
    if len(missing):
        by_name = {site.name: site for site in ready.sites}
        crossed_sensitivity(
            ready.written,
            [by_name[name] for name in missing],
            lambda half: _Halved(missing, by_name, half),
            feeds,
            on_found=missing.note,
            on_done=on_done,
        )
    found = [_filled(layer, probes[layer.site.name], kept) for layer in layers]
    steepest = max(
        (
            c.divergence / c.error
            for layer in found
            for c in layer.row.candidates[1:]
            if c.divergence is not None and c.error > 0
        ),
        default=1.0,
    )
    return [replace(layer, row=replace(layer.row, slope=steepest)) for layer in found]


def probed(row: MixedRow, wanted: Wanted) -> list[int]:
    """The candidates worth measuring: all codes and sums, of other families a few.

    Of those of a family that no other beats, some evenly in the logarithm of their error.
    """
    found = [i for i, c in enumerate(row.candidates) if c.family in ("codes", "sum")]
    for family, most in (OF_MANY if len(wanted.quantities) > 1 else PROBES).items():
        front = [
            i
            for i in row.front(family, wanted.quantities)
            if any(row.candidates[i].cost(q) < row.dense.cost(q) for q in wanted.quantities)
        ]
        found += _evenly(front, [row.candidates[i] for i in front], most)
    return found


def _evenly(at: list[int], of: list[Candidate], most: int) -> list[int]:
    if len(at) <= most:
        return at
    place = np.log(np.maximum([c.error for c in of], 1e-9))
    wanted = np.linspace(float(place.min()), float(place.max()), most)
    near = {int(np.argmin(np.abs(place - w))) for w in wanted}
    return [at[i] for i in sorted(near)]


def samples(ready: Ready, probes: int) -> Sequence[Feeds]:
    """As many of the samples as the effort allows, evenly chosen."""
    macs = sum(float(site.macs or site.weights) for site in ready.sites)
    runs = probes / 2  # half of the net stands behind a layer
    most = max(int(EFFORT / max(macs * runs, 1.0)), LEAST_SAMPLES)
    feeds = ready.fit_feeds
    if len(feeds) <= most:
        return feeds
    return [feeds[round(i * (len(feeds) - 1) / (most - 1))] for i in range(most)]


class _Kept:
    """What was measured, by layer and form, in the cache."""

    def __init__(self, ready: Ready, feeds: Sequence[Feeds], layers: Sequence[Layer]) -> None:
        asked = _digest(ready, feeds)
        self._keys: dict[str, str] = {}
        self._held: dict[str, dict[str, Vector]] = {}
        for layer in layers:
            name = layer.site.name
            words = f"{asked} {name} {layer.fits.digest}"
            self._keys[name] = hashlib.sha256(words.encode()).hexdigest()
            stored = read_arrays(self._keys[name], _KIND) or {}
            self._held[name] = {
                form: np.asarray(a, np.float64)
                for form, a in stored.items()
                if a.shape == (1,)
            }

    def get(self, site: str, form: Form) -> float | None:
        found = self._held[site].get(text(form))
        return None if found is None else float(found[0])

    def put(self, site: str, forms: Sequence[Form], found: Vector) -> None:
        for form, value in zip(forms, found.tolist(), strict=True):
            self._held[site][text(form)] = np.array([value])
        write_arrays(self._keys[site], _KIND, self._held[site])


def _digest(ready: Ready, feeds: Sequence[Feeds]) -> str:
    """What tells one measurement from another: the model and all samples.

    The moments that candidates are fitted in are of all samples, not of the chosen alone.
    """
    total = hashlib.sha256(f"{_VERSION} {ready.model.sha256}".encode())
    with ready.written.open("rb") as file:
        total.update(hashlib.file_digest(file, "sha256").digest())
    for at, feed in enumerate((*feeds, *ready.fit_feeds)):
        for name in sorted(feed):
            total.update(f"{at} {name} {feed[name].dtype} {feed[name].shape}".encode())
            total.update(np.ascontiguousarray(feed[name]).data)
    return total.hexdigest()


class _Missing(Mapping[str, Sequence[Term]]):
    """The fitted probes that are not known yet, made when they are asked for and not kept."""

    def __init__(
        self, layers: Sequence[Layer], probes: Mapping[str, Sequence[int]], kept: _Kept
    ) -> None:
        self._kept = kept
        self._layers = {layer.site.name: layer for layer in layers}
        self._forms: dict[str, list[Form]] = {}
        for name, layer in self._layers.items():
            forms = [layer.row.candidates[i].form for i in probes[name]]
            forms = [form for form in forms if kept.get(name, form) is None]
            if forms:
                self._forms[name] = forms
        self._made: dict[str, list[Form]] = {}

    def note(self, site: str, found: Vector) -> None:
        """Keeps what was found of a layer."""
        users = 1 + len(self._layers[site].site.shares)
        self._kept.put(site, self._made[site], found * users)

    def __getitem__(self, name: str) -> Sequence[Term]:
        terms = self.made(name, self._layers[name].fits.term)
        self._layers[name].fits.forget()
        return terms

    def made(self, name: str, make: Callable[[Form], Term]) -> Sequence[Term]:
        """The terms of the forms of a layer that its weight takes."""
        terms: list[Term] = []
        self._made[name] = []
        for form in self._forms[name]:
            try:
                terms.append(make(form))
            except PlanError:
                continue
            self._made[name].append(form)
        return terms

    def __iter__(self) -> Iterator[str]:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)


class _Halved(Mapping[str, Sequence[Term]]):
    """The same probes, fitted to other moments."""

    def __init__(
        self, missing: _Missing, sites: Mapping[str, Site], moments: Mapping[str, Moments]
    ) -> None:
        self._missing, self._sites, self._moments = missing, sites, moments

    def __getitem__(self, name: str) -> Sequence[Term]:
        site = self._sites[name]
        users = [site, *(self._sites[other] for other in site.shares)]
        metric, W = metric_of(users, self._moments), site.W()
        return self._missing.made(name, lambda form: form.compress(W, metric=metric))

    def __iter__(self) -> Iterator[str]:
        return iter(self._missing)

    def __len__(self) -> int:
        return len(self._missing)


def _filled(layer: Layer, probes: Sequence[int], kept: _Kept) -> Layer:
    """The layer with what is known of its probes; estimates of coded factors follow them."""
    made = list(layer.row.candidates)
    ratios: list[float] = []
    for i in probes:
        lost = kept.get(layer.site.name, made[i].form)
        fit = next(iter(layer.fits.of([made[i].form])), None)
        if fit is None:
            continue
        if i in layer.bases:
            base, _ = layer.bases[i]
            guessed = made[i].error - base
            ratios.append(max(fit.error - base, 1e-9) / max(guessed, 1e-9))
        made[i] = replace(
            made[i], error=fit.error, bits=float(fit.bits), divergence=lost, is_fitted=True
        )
    if ratios:
        ratio = float(np.median(ratios))
        for i, (base, _) in layer.bases.items():
            if not made[i].is_fitted:
                error = min(base + ratio * (made[i].error - base), 1.0)
                made[i] = replace(made[i], error=error)
    return replace(layer, row=layer.row.with_candidates(tuple(made)))
