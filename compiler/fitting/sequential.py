"""Sequential fits: layer after layer, each on what the compressed layers before it make.

A layer that is fitted to the inputs of the original model meets other inputs once the layers
before it are compressed. Here it is fitted to those: its form approximates the weight that
makes up for what the layers before have lost, in the metric of what it meets, and its bias
becomes W E[x] − Ŵ E[y], which keeps the mean of its outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...passes.absorb import takes_bias
from ...passes.forms import IDENTITY, Form, Metric, Term
from ...passes.geometry import Weights
from ...passes.model import Model
from ...passes.sites import Site
from ...passes.spectra import relative_errors
from ..samples.inputs import Feeds
from .fit import Fitted
from .moments import reading_of
from .paired import RIDGES, Paired, aimed_at, paired
from .shrink import shrunk
from .stages import MEMORY, Change, Stages, Values

Array = npt.NDArray[np.float64]


def fit_sequentially(
    model: Model | Path,
    sites: Sequence[Site],
    forms: Mapping[str, Form],
    feeds: Sequence[Feeds],
    *,
    ridges: Sequence[float] = RIDGES,
    memory: int = 2 * MEMORY,
    on_done: Callable[[int, int, str], None] | None = None,
) -> Mapping[str, Fitted]:
    """The fitted term of every changed site, in graph order, each behind those before it.

    Sites that share a weight share the term of the first; each has a bias of its own.

    Args:
        model: normalised, or its file.
        sites: as `find_sites` gives them.
        forms: of the sites that change, by name.
        feeds: calibration samples.
        ridges: see `aimed_at`; without any, the weight does not move with what the layer
            meets, only the metric and the bias do.
        memory: bytes that values of all samples may take between layers; fewer samples are
            taken where they would not fit.
        on_done: told (finished, all, name).

    Returns:
        By name; sites that cannot be cut at, and those no sample reaches, are left out.
    """
    stages = Stages(model, sites)
    before = stages.begun(feeds, memory // 2)
    now = list(before)
    fitted: dict[str, Fitted] = {}
    of_weight: dict[str, Term] = {}
    for at, site in enumerate(stages.sites):
        change = None
        if site.name in forms:
            found = _fit(site, forms[site.name], before, now, of_weight, ridges)
            fitted[site.name] = found
            change = Change(found.term.decompress(), found.bias_delta)
        plain = stages.layer(at)
        moved = change is not None or any(a is not b for a, b in zip(before, now, strict=True))
        changed = stages.layer(at, change) if change is not None else plain
        for index, (x, y) in enumerate(zip(before, now, strict=True)):
            before[index] = plain.run(x)
            now[index] = changed.run(y) if moved else before[index]
        if on_done is not None:
            on_done(at + 1, len(stages.sites), site.name)
    for site in sites:  # in a body of If or Loop, beside one that was fitted
        if site.name in forms and site.name not in fitted and site.weight_name in of_weight:
            fitted[site.name] = _fitted(of_weight[site.weight_name], site.W(), None, None)
    return fitted


def _fit(
    site: Site,
    form: Form,
    before: Sequence[Values],
    now: Sequence[Values],
    of_weight: dict[str, Term],
    ridges: Sequence[float],
) -> Fitted:
    has_bias, name = takes_bias(site), site.input_name
    x, y = [v[name] for v in before], [v[name] for v in now]
    reading = reading_of(site)
    # Two halves of the samples where there are two, so that each can judge the other.
    parts = [paired(reading, x[k::2], y[k::2]) for k in range(min(2, len(x)))]
    means = sum(parts[1:], parts[0])
    parts = parts if has_bias else [part.about_zero() for part in parts]
    whole = sum(parts[1:], parts[0])
    W = site.W()
    metric = IDENTITY
    if whole.covariance.size:
        metric = Metric(shrunk(whole.covariance, max(int(whole.count), 1)))
    term = of_weight.get(site.weight_name)
    if term is None:
        target = W
        if len(parts) == 2 and ridges and whole.covariance.size:
            target = aimed_at(W, (parts[0], parts[1]), ridges)
        term = form.compress(target, metric=metric)
        of_weight[site.weight_name] = term
    bias = _bias(means, W, term.decompress()) if has_bias else None
    return _fitted(term, W, metric, bias)


def _fitted(term: Term, W: Weights, metric: Metric | None, bias: Array | None) -> Fitted:
    approximation = term.decompress()
    error = None
    if metric is not None:
        energy = metric.energy(W)
        lost = metric.squared(np.subtract(W, approximation, dtype=np.float64))
        error = float(np.sqrt(max(lost, 0.0) / energy)) if energy > 0 else 0.0
    return Fitted(term, *relative_errors(W, approximation), error_out=error, bias_delta=bias)


def _bias(seen: Paired, W: Weights, approximation: Weights) -> Array:
    """W E[x] − Ŵ E[y], (g · m,)."""
    U, V = (a.reshape(*a.shape[:2], -1).astype(np.float64) for a in (W, approximation))
    gained = np.einsum("gmn,gn->gm", U, seen.mean_before)
    gained -= np.einsum("gmn,gn->gm", V, seen.mean)
    return gained.ravel()
