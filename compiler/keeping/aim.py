"""Aim: a budget in time that the clock missed is asked of the cost model more boldly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..allocation.planned import OF_THE_BUDGET
from ..build import Built
from ..costs import predicted
from ..events import Event
from ..measure import Measured
from ..options import CompileOptions
from ..outcome import Paired, Predicted
from ..work import Work
from .decide import reaches
from .keep import is_wanted, kept
from .restore import Sources
from .settle import NOTHING_FASTER, fractions, of_the_clock
from .spent import Spent

MOST = 3
"""Models that are built and timed for one budget, the first included."""
NOTHING_MORE = "the cost model knows no faster plan"
STANDS = "what the quality gate has chosen stands"
ALL = "no more are made"
CUT = "--time-budget ended the tries"

Option = Literal["speedup", "latency"]
Again = Callable[[CompileOptions, Work], Built]
"""Builds the model of other options, in a folder of its own."""


@dataclass(frozen=True)
class Try:
    """A model that was built for a prediction, and timed.

    Args:
        asked: of the cost model, in the unit of the option.
        chosen: the model as it was planned, before anything went back.
        predicted: its times.
        result: what is left of it.
        latency: the measurement.
        is_within: whether budgets of other quantities hold.
    """

    asked: float
    chosen: Built
    predicted: Predicted
    result: Built
    latency: Measured
    is_within: bool = True

    def reaches(self, options: CompileOptions) -> bool:
        """Whether the clock says that the budget in time may hold."""
        paired = self.latency.paired
        needed = None if paired is None else of_the_clock(paired, options)
        return paired is not None and needed is not None and reaches(paired, needed)


def aimed(
    first: Built, sources: Sources, asked: CompileOptions, again: Again | None
) -> tuple[Built, Measured]:
    """The model that holds its budget in time by the clock, or the best of `MOST` tries.

    Each is `kept`. Given what was measured, which the work folder keeps for --resume, the
    tries are always the same.

    Args:
        first: the model that was built for the budget.
        sources: of it.
        asked: the options as they were given; those of `sources` may be a gate's own.
        again: builds bolder models; None where a gate has chosen, and its choice stands.
    """
    spent = Spent(sources.work.path / "tries.json")
    result, latency = spent.on(lambda: kept(first, sources))
    option, found = _option(asked), sources.found
    if option is None or found is None or latency.paired is None:
        return result, latency
    if not is_wanted(first, sources.profile, asked):
        return result, latency
    said = predicted(found, sources.ready.sites, first.plan.plan, first.left)
    tries = [Try(getattr(asked, option), first, said, result, latency)]
    sources, why = replace(sources, options=asked), ""
    while not why and not tries[-1].reaches(asked):
        why = _end(tries, spent, asked, again)
        if not why and again is not None:
            made = _bolder(tries, option, sources, again, spent)
            tries += [] if made is None else [made]
            why = NOTHING_MORE if made is None else ""
    return _told(tries, option, asked, why)


def _option(options: CompileOptions) -> Option | None:
    if options.latency is not None:
        return "latency"
    return None if options.speedup is None else "speedup"


def _end(
    tries: Sequence[Try], spent: Spent, asked: CompileOptions, again: Again | None
) -> str:
    """Why no bolder model is built; "" where one is."""
    if again is None:
        return STANDS
    if not tries[-1].chosen.plan.budget_met:
        return NOTHING_MORE
    if tries[-1].latency.paired is None:
        return f"of the last one {NOTHING_FASTER}"
    if len(tries) == MOST:
        return ALL
    return CUT if spent.is_over(asked.time_budget) else ""


def _bolder(
    tries: Sequence[Try], option: Option, sources: Sources, again: Again, spent: Spent
) -> Try | None:
    """The next model, built for a bolder prediction and timed; None where it is no other."""
    options, found = sources.options, sources.found
    assert found is not None, "a time was predicted"
    last, name = tries[-1], f"try {len(tries) + 1}"
    value = next_asked(getattr(options, option), option, last)
    aim = f"asked of the cost model: {_said(option, value)}"
    sources.clock.on_event(Event(name, 0, 0, f"{_missed(option, options, last)}; {aim}"))
    folder = sources.work.path / name.replace(" ", "-")
    folder.mkdir(exist_ok=True)
    work = replace(sources.work, path=folder)

    def timed() -> Try | None:
        made = again(options.model_copy(update={option: value}), work)
        if any(made.plan.plan == other.chosen.plan.plan for other in tries):
            return None
        here = replace(sources, work=work)
        result, latency = kept(_as_asked(made, option, value, here), here)
        said = predicted(found, sources.ready.sites, made.plan.plan, made.left)
        others = [u for name, u in fractions(result, here).items() if name != option]
        return Try(value, made, said, result, latency, all(map(_holds, others)))

    return spent.on(timed)


def next_asked(asked: float, option: Option, last: Try) -> float:
    """What to ask of the cost model next, as if it erred by one factor for every plan.

    Of a speed-up s = asked · predicted / measured, of a latency likewise: bolder than what
    was asked before, since that was predicted to hold and measured not to.
    """
    paired = last.latency.paired
    assert paired is not None, "it was timed"
    if option == "speedup":
        factor = last.predicted.speedup / paired.speedup
    else:
        factor = last.predicted.compressed_ms / _measured_ms(paired)
    return float(f"{asked * factor:.4g}")


def _as_asked(made: Built, option: Option, value: float, sources: Sources) -> Built:
    """A bolder model judged by what a person asked for."""
    used = fractions(made, sources)
    met = all(map(_holds, used.values()))
    plan, asked = made.plan, getattr(sources.options, option)
    text = plan.budget.replace(_said(option, value), _said(option, asked))
    undone = tuple(said for said in plan.undone if not said.startswith(OF_THE_BUDGET))
    part = next(iter(used.values()))[0] if len(used) == 1 else None
    return replace(
        made,
        plan=replace(plan, budget=text, budget_met=met, budget_used=part, undone=undone),
    )


def _holds(used: tuple[float, float]) -> bool:
    """Whether no more is left than may be left."""
    return used[0] <= used[1] * (1 + 1e-9)


def _told(
    tries: Sequence[Try], option: Option, asked: CompileOptions, why: str
) -> tuple[Built, Measured]:
    """The first try that holds, else the fastest; and what it took, or what it lacks."""
    best = min(tries, key=lambda t: _order(t, asked))
    result, latency = best.result, best.latency
    if best.reaches(asked):
        if len(tries) > 1 and latency.paired is not None:
            note = (
                f"the prediction had to be {_said(option, best.asked)}: {_each(tries, option)}"
            )
            latency = replace(latency, note=note)
        return result, latency
    note = _missed(option, asked, best)
    if len(tries) > 1:
        note += f"; the best of {len(tries)} tries: {_each(tries, option)}"
    note += f"; {why}" if why != ALL else ""
    if why in (STANDS, CUT) and best.chosen.plan.budget_met:
        value = next_asked(getattr(asked, option), option, best)
        note += f"; ask for about --{option} {_said(option, value).replace(' ', '')}"
    plan = replace(result.plan, budget_met=False, undone=(*result.plan.undone, note))
    return replace(result, plan=plan), latency


def _order(tried: Try, asked: CompileOptions) -> tuple[bool, bool, float]:
    """Timed and within the other budgets, then what holds, then the fastest comes first."""
    paired = tried.latency.paired
    speed = 0.0 if paired is None else paired.speedup
    is_out = paired is None or not tried.is_within
    return is_out, not tried.reaches(asked), -speed


def _missed(option: Option, options: CompileOptions, tried: Try) -> str:
    """Asked, predicted and measured, in a line."""
    paired = tried.latency.paired
    assert paired is not None, "it was timed"
    low, high = paired.speedup_ci
    if option == "speedup":
        measured = f"{paired.speedup:.2f} x ({low:.2f} to {high:.2f})"
        said = tried.predicted.speedup
    else:
        before = paired.reference.trimmed_mean_ms
        measured = f"{_measured_ms(paired):.3g} ms ({before / high:.3g} to {before / low:.3g})"
        said = tried.predicted.compressed_ms
    name = "speed-up" if option == "speedup" else "latency"
    asked = _said(option, getattr(options, option))
    told = f"predicted {said:.2f} x" if option == "speedup" else f"predicted {said:.3g} ms"
    return f"the {name} of {asked} by the clock: asked {asked}, {told}, measured {measured}"


def _each(tries: Sequence[Try], option: Option) -> str:
    """What was asked of the cost model in every try, and what the clock said."""
    parts: list[str] = []
    for tried in tries:
        paired = tried.latency.paired
        if paired is None:
            said = "nothing that was faster"
        elif option == "speedup":
            said = f"{paired.speedup:.2f} x"
        else:
            said = f"{_measured_ms(paired):.3g} ms"
        parts.append(f"{_said(option, tried.asked)} came to {said}")
    return ", ".join(parts)


def _said(option: Option, value: float) -> str:
    """A value of the option for people."""
    return f"{value:g} x" if option == "speedup" else f"{value:g} ms"


def _measured_ms(paired: Paired) -> float:
    """Time of the compiled model, by the ratio within rounds."""
    return paired.reference.trimmed_mean_ms / paired.speedup
