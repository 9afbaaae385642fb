"""Gated: a compile whose budget, asked or found, is held to what it may cost in quality."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..allocation.budget import is_given
from ..allocation.planned import OF_THE_BUDGET
from ..build import Built
from ..keeping.restore import Sources
from ..options import CompileOptions
from ..outcome import Gated, Quality
from .judge import Judge
from .levels import has_budget, range_of, resolution
from .search import Found, Trial, fewest_restored, held_to_budget, tightest
from .trials import Trials, options_at

STEP = 1 / 16
"""Halvings between the last level that passes and the first that does not: four percent."""


@dataclass(frozen=True)
class Searched:
    """What a search chose, and why.

    Args:
        built: the model.
        options: of its level: what it is built from once more.
        quality: its metric and the original's, None where there is no metric.
        gate: what the gate came to.
    """

    built: Built
    options: CompileOptions
    quality: Quality | None
    gate: Gated


def searched(sources: Sources, judge: Judge) -> Searched:
    """The most compressed model that passes the gate, or the one that holds the budget.

    The original is what is left where nothing passes: there is always a model.

    Args:
        sources: what models are built from, with the options as they were asked.
        judge: with a gate.

    Raises:
        UsageError: the metric failed.
    """
    trials, options = Trials(sources, judge), sources.options
    found = _found(trials, options)
    first, chosen = found.trials[0], found.best
    if chosen is None and found.is_met and first.verdict.passes:
        chosen = first  # nothing to change, and nothing lost
    is_kept = chosen is not None
    if chosen is None:
        chosen = trials.attempt(0.0, frozenset())
    result = trials.result(chosen)
    is_met = found.is_met and is_kept
    if has_budget(options) or is_given(options):
        asked = first.budget or "the forms as given"
        plan = replace(result.plan, budget=asked, budget_met=is_met)
    else:
        plan = replace(result.plan, budget="", budget_used=None, budget_met=True)
    plan = replace(plan, undone=_undone(first, chosen, options))
    gate = Gated(
        judge.gate.text,
        chosen.verdict.passes,
        chosen.verdict.text,
        len(found.trials),
        _reason(found, chosen, options, judge.gate.text),
    )
    level = options_at(sources, chosen.level)
    return Searched(replace(result, plan=plan), level, chosen.verdict.quality, gate)


def concluded(
    judge: Judge, search: Searched | None, result: Built
) -> tuple[Quality | None, Gated | None]:
    """The metric and the gate of the model that is written: judged again where it is another.

    Args:
        judge: with a metric or a gate.
        search: None where there is no gate.
        result: what is written; layers may have gone back to dense since the search.
    """
    if search is not None and result.plan.plan == search.built.plan.plan:
        return search.quality, search.gate
    verdict = judge.verdict(result)
    if search is None:
        return verdict.quality, None
    gate = replace(search.gate, is_met=verdict.passes, said=verdict.text)
    return verdict.quality, gate


def _found(trials: Trials, options: CompileOptions) -> Found:
    attempt, harmful, is_over = trials.attempt, trials.harmful, trials.is_over
    if is_given(options):
        return fewest_restored(attempt, harmful, is_over)
    if options.recipe == "none":
        return Found((attempt(0.0, frozenset()),), is_met=True)
    if has_budget(options):
        return held_to_budget(attempt, harmful, is_over, resolution(options, STEP))
    at = range_of(options)
    return tightest(attempt, harmful, is_over, STEP, first=at.first, most=at.most)


def _reason(found: Found, chosen: Trial, options: CompileOptions, gate: str) -> str:
    """Why there is no more compression; "" where all that was asked was had."""
    first, nearest = found.trials[0], _nearest(found.trials, chosen)
    best = f"{reached(chosen, options)} at {chosen.verdict.text}"
    cut = "; --time-budget ended the search" if found.is_cut else ""
    if not chosen.is_changed:
        best = "only the original passes"
    failed = f"{reached(nearest, options)}: {nearest.verdict.failed}" if nearest else ""
    if options.recipe == "none" or (found.is_met and is_given(options)):
        return ""
    if is_given(options):
        count = len(chosen.dense)
        back = f"{count} layer{'s' if count != 1 else ''} put back"
        said = back if chosen.is_changed else best
        return f"the forms as given and {gate} cannot both be had: {said}{cut}"
    if has_budget(options):
        if found.is_met and chosen.passes:
            return ""
        both = f"and {gate} cannot both be had"
        if first.verdict.passes and not first.is_met:
            both = "cannot be had"
        if found.is_cut:
            both = f"and {gate} were not found together"
        return f"budget {first.budget} {both}: best is {best}{cut}"
    if not chosen.is_changed:
        return f"no compression passes {gate}; the least that was tried, {failed}{cut}"
    if failed:
        return f"{best}; more would fail, {failed}{cut}"
    return f"{best}{cut or '; there is nothing more to save'}"


def _undone(first: Trial, chosen: Trial, options: CompileOptions) -> tuple[str, ...]:
    """What the plan left undone: of budgets, only what is said of the one that was asked."""
    others = [text for text in chosen.undone if not text.startswith(OF_THE_BUDGET)]
    if not has_budget(options):
        return tuple(others)
    return (*(t for t in first.undone if t.startswith(OF_THE_BUDGET)), *others)


def _nearest(trials: Sequence[Trial], chosen: Trial) -> Trial | None:
    """The failing trial that leaves most, beyond the chosen one."""
    failing = [t for t in trials if t.is_changed and not t.verdict.passes]
    beyond = [t for t in failing if t.kept <= chosen.kept or not chosen.is_changed]
    return max(beyond, key=lambda t: t.kept, default=None)


def reached(trial: Trial, options: CompileOptions) -> str:
    """What a trial came to, in the words of its budget, e.g. "1.62 x"."""
    if "(reached " in trial.budget:  # two budgets say so themselves
        return trial.budget
    if options.bits is not None or "bits" in trial.budget:
        return f"{32 * trial.kept:.2f} bits"
    for name in ("size", "macs"):
        if trial.budget.startswith(name):
            return f"{name} {trial.kept:.3f}"
    return f"{1 / trial.kept:.2f} x" if trial.kept > 0 else "all of it"
