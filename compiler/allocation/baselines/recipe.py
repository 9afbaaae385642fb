"""Recipe: the plan of a baseline for a budget of weights or multiply-adds, and its fits."""

from collections.abc import Mapping, Sequence

import numpy as np

from ....passes.forms import Dense, Folded, Form
from ....passes.geometry import fold, scheme_axes
from ....passes.plan import Plan
from ....passes.sites import Site, skipped_weights
from ...clock import Clock
from ...events import Event
from ...fitting.fit import Fitted, metric_of
from ...fitting.moments import Moments
from ...options import CompileOptions
from ...prepare import Ready
from ..planned import Planned
from ..survey import Quantity, Search, Survey, survey
from . import alds, cepd
from .energies import Energies, energies_of
from .filters import Pruned, by_norm, by_sensitivity
from .knob import Rows, rows_of
from .pca import product_of_energies
from .ranks import constant_energy, constant_ratio, joint_cost

_KEPT = "left dense by the recipe"
_UNFIT = "left alone: the recipe has nothing smaller for it"


def baseline_plan(
    ready: Ready, moments: Mapping[str, Moments], options: CompileOptions, clock: Clock
) -> Planned:
    """The plan of a baseline, as its paper chooses it.

    The budget is never exceeded; what the method cannot spend of it stays.

    Args:
        ready: with sites, and the samples of the fit where the method looks at any.
        moments: of what the sites read.
        options: with `recipe`, and `size` or `macs`.
        clock: hears every step.
    """
    name = options.recipe
    quantity, budget, fixed, whole = _asked(ready, options)
    text = f"{quantity} <= {getattr(options, quantity):g}"
    if name in ("ft", "pfp"):
        with clock.stage("allocate"):
            found = _pruned(ready, options, quantity, budget, fixed)
        return _planned(ready.sites, found.plan, found.cost, budget, whole, text)
    if name == "cepd":
        groups = _by_weight(ready.sites)
        with clock.stage("allocate"):
            layers = [cepd.layer_of(users, quantity) for users in groups]
            chosen = cepd.uniform(layers, budget - fixed)
        forms = [form for form, _ in chosen]
        spent = fixed + sum(cost for _, cost in chosen)
        plan = _spread(ready.sites, [users[0] for users in groups], forms)
        return _planned(ready.sites, plan, spent, budget, whole, text)
    with clock.stage("survey", f"{len(ready.sites)} layers"):
        surveys = _surveys(ready, options, clock)
    with clock.stage("allocate"):
        forms, spent = _ranks(ready, surveys, moments, quantity, budget - fixed, options)
    plan = _spread(ready.sites, [entry.site for entry in surveys], forms)
    return _planned(ready.sites, plan, fixed + spent, budget, whole, text)


def pruned_fits(
    ready: Ready, plan: Plan, options: CompileOptions, clock: Clock
) -> Mapping[str, Fitted]:
    """The terms of FT and PFP: the filters that stay, as they were."""
    with clock.stage("fit", f"{len(plan.changed)} layers"):
        found = _pruned(ready, options, *_asked(ready, options)[:3])
        changed = set(plan.changed)
        return {n: entry for n, entry in found.fitted.items() if n in changed}


def _asked(ready: Ready, options: CompileOptions) -> tuple[Quantity, float, float, float]:
    """What is counted, what may be left of it, what no site takes part in, and all of it."""
    quantity: Quantity = "size" if options.size is not None else "macs"
    kept = options.size if options.size is not None else options.macs
    assert kept is not None, "the budget was checked"
    fixed = float(skipped_weights(ready.sites, ready.skipped)) if quantity == "size" else 0.0
    whole = fixed + _whole(ready.sites, quantity)
    return quantity, kept * whole, fixed, whole


def _pruned(
    ready: Ready, options: CompileOptions, quantity: Quantity, budget: float, fixed: float
) -> Pruned:
    prune = by_norm if options.recipe == "ft" else by_sensitivity
    return prune(ready, quantity, budget, fixed)


def _surveys(ready: Ready, options: CompileOptions, clock: Clock) -> list[Survey]:
    """The spectra that a method looks at: every rank, whatever a device likes."""
    every = options.recipe in ("alds", "alds+")
    schemes = {"alds+": (0, 1, 2, 3), "lc": (0, 1)}.get(options.recipe, (0,))
    search = Search(
        schemes=schemes,
        block_schemes=schemes if every else (),
        most_blocks=1 << 30 if every else 1,
        every_divisor=every,
        exact=False,
    )
    found = survey(
        ready.sites,
        search,
        jobs=options.jobs,
        on_done=lambda done, total: clock.on_event(Event("survey", done, total, "spectra")),
    )
    return [_split(entry) for entry in found] if options.recipe == "lc" else found


def _split(entry: Survey) -> Survey:
    """A survey with one folding a layer: the split kernel (scheme 1) where there is one.

    The LC toolkit's second way of reading a convolution as a matrix, n·d × m·d. A layer
    without two kernel axes has only the first.
    """
    keep = [
        at
        for at, form in enumerate(entry.forms)
        if at == 0 or getattr(form, "scheme", 0) == 1 or 1 not in entry.site.schemes
    ]
    return Survey(
        entry.site,
        tuple(entry.forms[at] for at in keep),
        entry.operator[keep],
        entry.blockwise[keep],
        entry.sqrt_k[keep],
        entry.frobenius[keep],
        entry.weights[keep],
        entry.macs[keep],
        entry.slowness[keep],
        entry.energy,
        entry.reason,
    )


def _ranks(
    ready: Ready,
    surveys: Sequence[Survey],
    moments: Mapping[str, Moments],
    quantity: Quantity,
    budget: float,
    options: CompileOptions,
) -> tuple[list[Form], float]:
    """The form of every survey's weight, and what they cost together."""
    name = options.recipe
    if name in ("alds", "alds+", "svd-error"):
        layers = [alds.layer_of(entry, quantity) for entry in surveys]
        rng = np.random.default_rng(options.seed)
        if name == "svd-error":
            pairs = alds.one_block(layers, budget)
        else:
            pairs = alds.alternated(layers, budget, rng)
        forms = [
            entry.forms[int(layer.options[option].at[row])] if row >= 0 else Dense()
            for entry, layer, (option, row) in zip(surveys, layers, pairs, strict=True)
        ]
        costs = [layer.cost(*pair) for layer, pair in zip(layers, pairs, strict=True)]
        return forms, sum(costs)
    rows = [rows_of(entry, quantity) for entry in surveys]
    if name == "svd":
        choice = constant_ratio(rows, budget)
    elif name == "svd-energy":
        choice = constant_energy(rows, budget)
    elif name == "pca":
        choice = product_of_energies(_responses(ready, surveys, rows, moments), budget)
    else:
        choice = joint_cost(_spectra(surveys, rows), budget)
    forms = [
        entry.forms[int(row.at[at])] if at >= 0 else Dense()
        for entry, row, at in zip(surveys, rows, choice, strict=True)
    ]
    return forms, sum(row.total(at) for row, at in zip(rows, choice, strict=True))


def _spectra(surveys: Sequence[Survey], rows: Sequence[Rows]) -> list[Energies]:
    """The squared singular values of every weight, as its candidates fold it."""
    found: list[Energies] = []
    for entry, row in zip(surveys, rows, strict=True):
        values = np.zeros(0)
        if len(row.at):
            form = entry.forms[int(row.at[0])]
            scheme = form.scheme if isinstance(form, Folded) else 0
            values = energies_of(
                fold(entry.site.W(), scheme_axes(scheme, entry.site.shape[3:]))
            )
        found.append(Energies(row, values))
    return found


def _responses(
    ready: Ready,
    surveys: Sequence[Survey],
    rows: Sequence[Rows],
    moments: Mapping[str, Moments],
) -> list[Energies]:
    """The eigenvalues of the covariance of what every layer gives."""
    by_name = {site.name: site for site in ready.sites}
    found: list[Energies] = []
    for entry, row in zip(surveys, rows, strict=True):
        users = [entry.site, *(by_name[other] for other in entry.site.shares)]
        metric = metric_of(users, moments)
        values = np.zeros(0) if metric.is_identity else energies_of(entry.site.W(), metric)
        found.append(Energies(row, values))
    return found


def _planned(
    sites: Sequence[Site],
    plan: Plan,
    spent: float,
    budget: float,
    whole: float,
    text: str,
) -> Planned:
    is_met = spent <= budget * (1 + 1e-9)
    reached = spent / whole if whole else 0.0
    undone: tuple[str, ...] = ()
    if not is_met:
        undone = (
            f"the budget: the recipe reaches {reached:.3f} at least; ask for at least "
            f"{min(np.ceil(reached * 1e4) / 1e4, 1.0):.4f}, or take another recipe",
        )
    elif spent < 0.995 * budget:
        undone = (f"the rest of the budget: it reached {reached:.3f}, no finer step fits",)
    changed = set(plan.changed)
    reasons = {
        site.name: _KEPT if site.name in plan.forms else _UNFIT
        for site in sites
        if site.name not in changed
    }
    return Planned(
        plan,
        reasons,
        None,
        text,
        is_met,
        reached if whole else None,
        undone,
    )


def _spread(sites: Sequence[Site], firsts: Sequence[Site], forms: Sequence[Form]) -> Plan:
    """The forms of weights as those of all sites that read them, in graph order."""
    by_weight = {site.weight_name: form for site, form in zip(firsts, forms, strict=True)}
    return Plan({site.name: by_weight.get(site.weight_name, Dense()) for site in sites})


def _by_weight(sites: Sequence[Site]) -> list[list[Site]]:
    found: dict[str, list[Site]] = {}
    for site in sites:
        found.setdefault(site.weight_name, []).append(site)
    return list(found.values())


def _whole(sites: Sequence[Site], quantity: Quantity) -> float:
    """What all sites cost as they are; a position that is not known counts as one."""
    if quantity == "size":
        return float(sum({site.weight_name: site.weights for site in sites}.values()))
    return float(sum(site.weights if site.macs is None else site.macs for site in sites))
