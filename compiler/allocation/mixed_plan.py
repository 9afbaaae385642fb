"""Mixed plan: the form of every layer, of all families, under one or two budgets.

The recipe behind `auto` with a budget: candidates of every family (`mixed_draft`), a few of
each measured in the net (`mixed_probes`), and the choice of least divergence that the budgets
allow (`solve`). What is chosen is fitted once more before it counts: estimates are
replaced by what the fits come to, and the choice is made again, until nothing was estimated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...device_profiles.profile import DeviceProfile
from ...passes.plan import Plan
from ..clock import Clock
from ..costs import Costs
from ..events import Event
from ..fitting.moments import Moments
from ..fitting.ranks_fit import moved, nearest_fit
from ..options import CompileOptions
from ..prepare import Ready
from .alternatives import Taken
from .budget import TIME
from .considered import of_mixed
from .mixed_draft import Layer, Prices, drafted
from .mixed_filters import Credits, Savings, ties
from .mixed_limits import Limit, limits, wanted
from .mixed_probes import Told, measured
from .mixed_row import MixedRow, Quantity
from .planned import Planned
from .solve import minimise_sum_of
from .solve_infeasible import BudgetsInfeasible
from .solve_table import Choices, Solved, totals
from .solve_tied import jointly
from .survey import Search, Survey, survey

ROUNDS = 6
"""Times that a choice is fitted and made again; then it is taken as it is, if it holds."""
REST = 0.995
"""Share of a budget below which a person is told that some is left."""
PROXY = (
    "measuring what each candidate does to the outputs: without --calib the sum of the "
    "layers' relative squared errors on white inputs is minimised, and the task may feel it"
)


def mixed_plan(
    ready: Ready,
    moments: Mapping[str, Moments],
    costs: Costs | None,
    profile: DeviceProfile,
    options: CompileOptions,
    clock: Clock,
) -> Planned:
    """The plan of `auto` for its budgets.

    Args:
        ready: with sites, and `fit_feeds` where there is calibration.
        moments: of what the sites read; empty where there is none.
        costs: predicted times, where the target has a cost model.
        profile: the target.
        options: with a budget or two.
        clock: hears every step.

    Raises:
        UsageError: a latency on a target without a cost model.
    """
    layers = mixed_layers(ready, moments, costs, profile, options, clock)
    with clock.stage("allocate"):
        asked = limits(ready, [layer.row for layer in layers], options, profile, costs)
        savings = Savings({site.name: site for site in ready.sites}, costs)
        found = _chosen(layers, asked, savings, is_free=_may_slow(options))
        if moments and _has_filters(found):
            plain = [_whole(layer) for layer in layers]
            other = _chosen(plain, asked, savings, is_free=_may_slow(options))
            found = _nearer(ready, found, other, moments, options)
        return _planned(ready, found, asked, is_measured=bool(moments))


def mixed_layers(
    ready: Ready,
    moments: Mapping[str, Moments],
    costs: Costs | None,
    profile: DeviceProfile,
    options: CompileOptions,
    clock: Clock,
) -> list[Layer]:
    """The candidates of every weight, measured where there is calibration."""
    wants = wanted(options)
    by_name = {site.name: site for site in ready.sites}
    prices = Prices(by_name, costs)
    with clock.stage("survey", f"{len(ready.sites)} layers"):
        search = Search(profile.lattice, exact=False)
        surveys: list[Survey] = survey(
            ready.sites,
            search,
            moments=moments,
            jobs=options.jobs,
            on_done=lambda done, total: clock.on_event(
                Event("survey", done, total, "spectra")
            ),
        )
        layers = drafted(
            surveys,
            prices,
            moments,
            profile,
            wants,
            tied=ties(ready.model, ready.sites) if moments and wants.is_run else {},
            jobs=options.jobs,
            on_done=_teller(clock, "survey"),
        )
    layers = _free(layers)
    if moments and ready.fit_feeds:
        with clock.stage("sensitivity", f"{len(layers)} layers"):
            layers = measured(ready, layers, moments, wants, _teller(clock, "sensitivity"))
    return layers


def _free(layers: Sequence[Layer]) -> list[Layer]:
    """The layers; channels that a depthwise layer passes on may go where it stays dense."""
    bound = {layer.site.name for layer in layers if len(layer.row.candidates) > 1}
    made: list[Layer] = []
    for layer in layers:
        if layer.tie is not None and bound & set(layer.tie.passed):
            layer = _whole(layer)
        made.append(layer)
    return made


def _whole(layer: Layer) -> Layer:
    """The layer with all its channels."""
    kept = tuple(c for c in layer.row.candidates if c.family != "filters")
    at = {id(c): i for i, c in enumerate(kept)}
    bases = {at[id(layer.row.candidates[i])]: b for i, b in layer.bases.items()}
    return replace(layer, row=layer.row.with_candidates(kept), bases=bases, tie=None)


def _nearer(
    ready: Ready,
    one: "_Choice",
    other: "_Choice",
    moments: Mapping[str, Moments],
    options: CompileOptions,
) -> "_Choice":
    """Of two choices that hold the budgets the one that moves the outputs less as a whole.

    What filters do in several layers together is more than the sum of what each does alone.
    """
    if one.refused is not None or other.refused is not None:
        return one if other.refused is not None else other
    quiet = Clock()
    with TemporaryDirectory(prefix="nncc-plans-") as folder:
        ways = [
            moved(ready, plan, fitted, Path(folder) / "model.onnx")
            for plan in (_plan(ready, one), _plan(ready, other))
            for fitted in [nearest_fit(ready, plan, moments, quiet, jobs=options.jobs)]
        ]
    return one if ways[0] <= ways[1] else other


def _has_filters(choice: "_Choice") -> bool:
    return any(
        layer.row.candidates[at].family == "filters"
        for layer, at in zip(choice.layers, choice.solved.choice, strict=True)
    )


def _plan(ready: Ready, choice: "_Choice") -> Plan:
    """Its plan, in graph order."""
    forms = {
        name: layer.row.candidates[at].form
        for layer, at in zip(choice.layers, choice.solved.choice, strict=True)
        for name in (layer.site.name, *layer.site.shares)
    }
    return Plan({site.name: forms[site.name] for site in ready.sites if site.name in forms})


def _teller(clock: Clock, stage: str) -> Told:
    def tell(done: int, total: int, name: str) -> None:
        clock.on_event(Event(stage, done, total, name))

    return tell


def _may_slow(options: CompileOptions) -> bool:
    """Whether work has a budget of its own, so that a single layer may become slower."""
    return any(getattr(options, name) is not None for name in TIME)


@dataclass(frozen=True)
class _Choice:
    """A candidate of every layer, and what stands in the way where budgets are not held."""

    layers: Sequence[Layer]
    solved: Solved
    refused: BudgetsInfeasible | None


def _chosen(
    layers: Sequence[Layer], asked: Sequence[Limit], savings: Savings, *, is_free: bool
) -> _Choice:
    """The choice of least divergence, once everything in it was fitted."""
    made = list(layers)
    if not is_free:
        made = [replace(layer, row=_no_slower(layer.row)) for layer in made]
    for _ in range(ROUNDS):
        found = solved(made, asked, savings)
        guessed = [
            i
            for i, at in enumerate(found.solved.choice)
            if not made[i].row.candidates[at].is_fitted
        ]
        if not guessed:
            return found
        for i in guessed:
            made[i] = _refitted(made[i], found.solved.choice[i])
    # what is left to guess is left out: the budget is held by what is known
    return solved([replace(layer, row=_known(layer.row)) for layer in made], asked, savings)


def solved(layers: Sequence[Layer], asked: Sequence[Limit], savings: Savings) -> _Choice:
    """The choice of least divergence that the budgets allow.

    Where filters may go, what saves together is chosen together (`jointly`). Beside that,
    where it is cut short, stand the choices by credits: of what is saved for sure, and of what
    is saved with the makers of the choice that would be best if all saved the most they can.
    """
    quantities: list[Quantity] = [limit.quantity for limit in asked]
    tied = {layer.site.name: layer.tie for layer in layers if layer.tie is not None}
    credit = Credits([layer.row for layer in layers], tied, savings, quantities)
    if not credit:
        return _once(layers, asked, credit.table)
    fixed = {str(limit.quantity): limit.fixed for limit in asked}
    budgets = {str(limit.quantity): limit.most for limit in asked}
    best = _once(layers, asked, credit.most())
    starts = (credit.at(best.solved.choice), credit.least())
    tried = [_once(layers, asked, table) for table in starts]
    joint = jointly(credit.table, credit.pairs, budgets, fixed)
    if joint.choice is not None:
        value = sum(float(e.value[i]) for e, i in zip(credit.table, joint.choice, strict=True))
        tried.append(_Choice(layers, Solved(joint.choice, {}, value, value, "milp"), None))
    bound = max(joint.bound, best.solved.bound)

    def told(choice: _Choice) -> _Choice:
        was = choice.solved
        costs = totals(credit.at(was.choice), was.choice, fixed)
        return replace(choice, solved=replace(was, costs=costs, bound=min(bound, was.value)))

    def rank(choice: _Choice) -> tuple[float, float]:
        over = max(choice.solved.costs[limit.quantity] / limit.most for limit in asked)
        return (max(over, 1.0), choice.solved.value)

    return min((told(choice) for choice in tried), key=rank)


def _once(
    layers: Sequence[Layer], asked: Sequence[Limit], table: Sequence[Choices]
) -> _Choice:
    budgets = {str(limit.quantity): limit.most for limit in asked}
    fixed = {str(limit.quantity): limit.fixed for limit in asked}
    try:
        return _Choice(layers, minimise_sum_of(table, budgets, fixed), None)
    except BudgetsInfeasible as error:
        return _Choice(layers, error.nearest, error)


def _known(row: MixedRow) -> MixedRow:
    """The row without estimates."""
    return row.with_candidates(tuple(c for c in row.candidates if c.is_fitted))


def _no_slower(row: MixedRow) -> MixedRow:
    """The row without what is predicted to be slower than dense."""
    dense = row.dense
    return row.with_candidates(
        tuple(
            c
            for c in row.candidates
            if c.seconds <= dense.seconds
            and (c.seconds < dense.seconds or c.macs <= dense.macs)
        )
    )


def _refitted(layer: Layer, at: int) -> Layer:
    """The layer with error and bits of a candidate as its fit has them."""
    made = list(layer.row.candidates)
    fit = next(iter(layer.fits.of([made[at].form])), None)
    layer.fits.release()
    if fit is None:  # it does not fit the weight after all
        made[at] = replace(made[at], error=1.0, bits=made[0].bits, is_fitted=True)
    else:
        made[at] = replace(made[at], error=fit.error, bits=float(fit.bits), is_fitted=True)
    return replace(layer, row=layer.row.with_candidates(tuple(made)))


def _planned(
    ready: Ready, found: _Choice, asked: Sequence[Limit], *, is_measured: bool
) -> Planned:
    """The plan in graph order, and why layers stay as they are."""
    reasons = {
        name: layer.row.reason or "left dense by the allocation"
        for layer, at in zip(found.layers, found.solved.choice, strict=True)
        for name in (layer.site.name, *layer.site.shares)
        if at == 0
    }
    used = [limit.used(found.solved.costs[limit.quantity]) for limit in asked]
    undone = () if is_measured else (PROXY,)
    if found.refused is None and len(used) == 1 and used[0] < REST * asked[0].share:
        undone = (
            *undone,
            f"the rest of the budget: it reached {used[0]:.3f}, no finer step is worth it",
        )
    if found.refused is not None:
        undone = (*undone, _nearest(found.refused, asked, used))
    plan = _plan(ready, found)
    considered = of_mixed(
        [layer.row for layer in found.layers],
        found.solved.choice,
        [limit.quantity for limit in asked],
        is_measured=is_measured,
    )
    taken = zip(asked, used, strict=True)
    budgets = tuple(Taken(limit.text, limit.share, part) for limit, part in taken)
    return Planned(
        plan,
        reasons,
        found.solved.value if plan.changed else None,
        _text(asked, used),
        found.refused is None,
        used[0] if len(used) == 1 else None,
        undone,
        considered=replace(considered, budgets=budgets),
        gap=None if found.refused is not None else found.solved.gap,
        both_used=tuple(used) if len(used) > 1 else (),
    )


def _text(asked: Sequence[Limit], used: Sequence[float]) -> str:
    """The budgets, and what was reached of each where there are two."""
    if len(asked) == 1:
        return asked[0].text
    return ", ".join(
        f"{limit.text} (reached {_share(limit, kept)})"
        for limit, kept in zip(asked, used, strict=True)
    )


def _share(limit: Limit, kept: float) -> str:
    """What was reached, in the unit of the option."""
    if limit.option == "latency":
        return f"{kept * limit.total * 1e3:.4g} ms"
    if limit.option == "speedup":
        return f"{1 / kept:.3f} x" if kept else "all"
    return f"{32 * kept:.3f}" if limit.option == "bits" else f"{kept:.4f}"


def _nearest(refused: BudgetsInfeasible, asked: Sequence[Limit], used: Sequence[float]) -> str:
    """What stands in the way of the budgets, and what would be within reach."""
    words: list[str] = []
    for at, limit in enumerate(asked):
        reached = refused.instead[limit.quantity]
        if reached is not None:
            others = " and ".join(other.text for i, other in enumerate(asked) if i != at)
            beside = f" beside {others}" if others else ""
            words.append(f"--{limit.option} {_enough(limit, reached)}{beside}")
    best = _text(asked, used) if len(asked) > 1 else f"reached {_share(asked[0], used[0])}"
    hint = f"; within reach: {', or '.join(words)}" if words else ""
    return f"the budget: no plan holds it, the nearest is {best}{hint}"


def _enough(limit: Limit, cost: float) -> str:
    """A value of the option that a plan of that cost holds, rounded to the safe side."""
    kept = limit.used(cost)
    if limit.option == "speedup":
        return f"{np.floor(100 / max(kept, 1e-9)) / 100:g}"
    if limit.option == "latency":
        return f"{np.ceil(kept * limit.total * 1e5) / 100:g}ms"
    if limit.option == "bits":
        return f"{np.ceil(3200 * kept) / 100:g}"
    return f"{np.ceil(1e4 * kept) / 1e4:g}"
