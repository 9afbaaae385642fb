"""Planning: from sites and a budget to the form of every site."""

from collections.abc import Mapping, Sequence

import numpy as np

from ...device_profiles.errors import BudgetInfeasible
from ...device_profiles.profile import DeviceProfile
from ...passes.forms import Form
from ...passes.plan import Plan
from ...passes.sites import Site, Skipped, skipped_weights
from ..costs import Costs
from ..events import Event, Listener
from ..fitting.moments import Moments
from ..options import CompileOptions
from ..outcome import Fidelity
from .allocate import Allocation, minimise_maximum, minimise_sum, within
from .budget import Budget, budget, codes_are_asked, is_asked, is_given
from .considered import of_surveys
from .given import given
from .int8_plan import int8_planned
from .planned import Planned
from .survey import Quantity, Search, Survey, are_measured, survey, table

SAFE_ERRORS = (0.01, 0.003, 0.001, 0.0)
"""Relative operator-norm errors of a layer that `auto` tries, until outputs agree."""
SAFE_SQNR_DB = 40.0
"""Agreement of the outputs that `auto` asks for: one percent of the signal.

A small error in every layer proves nothing by itself: silero-vad falls to 12 dB with three
layers within one percent.
"""
ROUNDING = 1e-6
"""Difference of outputs that says nothing: some eps of float32 activations of size one."""


def surveyed(
    sites: Sequence[Site],
    profile: DeviceProfile,
    options: CompileOptions,
    on_event: Listener,
    moments: Mapping[str, Moments] | None = None,
) -> list[Survey]:
    """The candidates that a plan is chosen from; none where it is given or none is wanted."""
    if options.recipe in ("none", "int8") or is_given(options) or codes_are_asked(options):
        return []
    if options.objective == "blockwise":  # ALDS as it was published: one folding, any k
        search = Search(
            profile.lattice, (0,), most_blocks=1 << 30, every_divisor=True, exact=False
        )
    else:
        search = Search(profile.lattice, exact=options.objective == "operator")
    return survey(
        sites,
        search,
        moments=None if options.objective == "blockwise" else moments,
        jobs=options.jobs,
        on_done=lambda done, total: on_event(Event("survey", done, total, "spectra")),
    )


def is_cautious(options: CompileOptions) -> bool:
    """Whether nothing but safety limits the compression: `auto` without a budget."""
    asked = is_asked(options) or is_given(options) or codes_are_asked(options)
    return options.recipe == "auto" and not asked


def needs_times(options: CompileOptions) -> bool:
    """Whether the plan leans on predicted times."""
    return is_cautious(options) or has_time_budget(options)


def has_time_budget(options: CompileOptions) -> bool:
    """Whether a time is asked for."""
    return options.latency is not None or options.speedup is not None


def is_close(fidelity: Fidelity) -> bool:
    """Whether outputs agree as `auto` asks: to 40 dB, or to what rounding moves."""
    return fidelity.sqnr_db >= SAFE_SQNR_DB or fidelity.max_abs_diff <= ROUNDING


def planned(
    sites: Sequence[Site],
    skipped: Sequence[Skipped],
    surveys: Sequence[Survey],
    profile: DeviceProfile,
    options: CompileOptions,
    safe_error: float = SAFE_ERRORS[0],
    costs: Costs | None = None,
) -> Planned:
    """The plan that the options ask for, from the surveys of `surveyed`.

    Args:
        sites: as `find_sites` gives them.
        skipped: likewise.
        surveys: candidates of every site.
        profile: the target.
        options: as resolved.
        safe_error: error that a layer may have when no budget is asked.
        costs: predicted times, where the target has a cost model; in the surveys too.

    Raises:
        PlanError: a given plan does not fit the model.
        UsageError: a given plan cannot be read.
    """
    if options.recipe == "none":
        return Planned(Plan({}), {site.name: "no compression was asked for" for site in sites})
    if is_given(options):
        return given(sites, profile, options)
    if options.recipe == "int8":
        return int8_planned(sites, profile, options)
    if is_asked(options):
        asked = budget(options, profile, costs)
        return _within_budget(surveys, sites, skipped, options, asked, costs)
    return _safely(surveys, sites, safe_error, "macs" if costs is None else "latency")


def _safely(
    surveys: Sequence[Survey], sites: Sequence[Site], threshold: float, quantity: Quantity
) -> Planned:
    """The cheapest plan whose every layer keeps its operator norm within `threshold`."""
    found = within(table(surveys, "operator", quantity), threshold)
    word = "faster" if quantity == "latency" else "smaller"
    plan, reasons = _read(
        surveys,
        sites,
        quantity,
        found,
        f"no {word} form is within {threshold:.1%} of the weight",
    )
    undone = (
        f"compression beyond an error of {threshold:.1%} a layer: ask for it with a budget, "
        "e.g. --macs 0.9 or --size 0.9, and judge the result",
    )
    return Planned(
        plan,
        reasons,
        threshold if plan.changed else None,
        undone=undone,
        considered=of_surveys(
            surveys, _taken(surveys, quantity, found), "operator", quantity, threshold
        ),
    )


def _within_budget(
    surveys: Sequence[Survey],
    sites: Sequence[Site],
    skipped: Sequence[Skipped],
    options: CompileOptions,
    budget: Budget,
    costs: Costs | None,
) -> Planned:
    quantity, asked = budget.quantity, budget.kept
    in_sites = sum(float(s.cost(quantity)[0]) for s in surveys)
    fixed = float(skipped_weights(sites, skipped)) if quantity == "size" else 0.0
    if quantity == "latency" and costs is not None:
        fixed = costs.rewritten.seconds - in_sites
    total = fixed + in_sites
    if quantity == "latency" and costs is not None:
        total = costs.reference.seconds
    entries = table(surveys, options.objective, quantity)
    is_sum = options.objective == "frobenius" or are_measured(surveys)
    solve = minimise_sum if is_sum else minimise_maximum
    undone = _uncounted(sites) if quantity == "macs" else ()
    is_met = True
    try:
        found = solve(entries, asked * total, fixed=fixed)
    except BudgetInfeasible as error:
        found = within(entries, np.inf)
        found = Allocation(found.choice, found.cost + fixed, found.bound)
        least = _least(found.cost, total, error, budget)
        undone, is_met = (*undone, least), False
    reached = found.cost / total if total else 0.0
    if is_met and reached < 0.995 * asked:
        undone = (
            *undone,
            f"the rest of the budget: it reached {reached:.3f}, no finer step fits",
        )
    plan, reasons = _read(surveys, sites, quantity, found, "left dense by the allocation")
    errors = [float(entry.error[at]) for entry, at in zip(entries, found.choice, strict=True)]
    return Planned(
        plan,
        reasons,
        max(errors, default=0.0) if plan.changed else None,
        budget.text,
        is_met,
        reached if total else None,
        undone,
        considered=of_surveys(
            surveys, _taken(surveys, quantity, found), options.objective, quantity
        ),
        gap=found.gap,
    )


def _least(cost: float, total: float, error: BudgetInfeasible, budget: Budget) -> str:
    """What can be reached where the budget cannot."""
    if budget.quantity != "latency":
        return f"{error.what}; {error.hint}"
    factor = total / cost if cost else 0.0
    return (
        f"the budget is below the least that is predicted to be reachable: {cost * 1e3:.3g} "
        f"ms, {factor:.2f} x; ask for at most --speedup {int(factor * 100) / 100:g}"
    )


def _uncounted(sites: Sequence[Site]) -> tuple[str, ...]:
    """What a budget of multiply-adds does not see."""
    unknown = [site.name for site in sites if site.macs is None]
    if not unknown:
        return ()
    return (
        f"counting {len(unknown)} layers whose positions are not known ({unknown[0]} …): each "
        "counts as if it were applied once; --size counts weights alone",
    )


def _read(
    surveys: Sequence[Survey],
    sites: Sequence[Site],
    quantity: Quantity,
    found: Allocation,
    dense: str,
) -> tuple[Plan, dict[str, str]]:
    """The plan in graph order, sites that share a weight included, and why sites are dense."""
    forms: dict[str, Form] = {}
    reasons: dict[str, str] = {}
    for entry, choice in zip(surveys, found.choice, strict=True):
        form = entry.forms[int(entry.useful(quantity)[choice])]
        for name in (entry.site.name, *entry.site.shares):
            forms[name] = form
            if choice == 0:
                reasons[name] = entry.reason or _slower(entry, quantity) or dense
    ordered = {site.name: forms[site.name] for site in sites if site.name in forms}
    return Plan(ordered), reasons


def _taken(surveys: Sequence[Survey], quantity: Quantity, found: Allocation) -> list[int]:
    """Of every survey, which of its forms was taken."""
    pairs = zip(surveys, found.choice, strict=True)
    return [int(entry.useful(quantity)[at]) for entry, at in pairs]


def _slower(entry: Survey, quantity: Quantity) -> str:
    """Why a layer stays dense that could be smaller: nothing is faster."""
    if quantity != "latency" or not len(entry.seconds) or len(entry.useful(quantity)) > 1:
        return ""
    dense, best = entry.seconds[0] * 1e6, entry.seconds[1:].min(initial=np.inf) * 1e6
    if not np.isfinite(best):
        return ""
    return f"no form is faster: {dense:.3g} us dense, {best:.3g} us at best (predicted)"
