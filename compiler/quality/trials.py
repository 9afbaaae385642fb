"""Trials: what a level comes to, as a model that is built, judged and written down."""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ... import __version__
from ..allocation.budget import codes_are_asked, is_given
from ..allocation.planned import Planned
from ..allocation.planning import SAFE_ERRORS
from ..allocation.recipes import fits_in_its_way
from ..build import NOT_PROVEN, Built, assembled, chosen, in_half
from ..clock import Clock
from ..events import Event
from ..keeping.restore import Sources
from ..options import CompileOptions
from .gate import Verdict
from .journal import Journal, Record, digest_of
from .judge import Judge
from .levels import at_level
from .metric import Score
from .restore import Rest, by_harm, plan_without, ready_without, surveys_without
from .search import Trial, best

BEST = "best"
"""Folder of the best model so far; the files of the others are replaced by the next."""


def options_at(sources: Sources, level: float) -> CompileOptions:
    """The options of a level."""
    found = sources.found
    ms = None if found is None else found.reference.seconds * 1e3
    return at_level(sources.options, level, sources.profile, ms)


def planned_at(sources: Sources, level: float, dense: frozenset[str], clock: Clock) -> Planned:
    """The plan of a level in which some layers stay dense, and others pay for them."""
    options = options_at(sources, level)
    ready, surveys = sources.ready, sources.surveys
    rest = Rest(ready.sites, dense)
    if codes_are_asked(options):
        ready, options = ready_without(ready, dense), rest.asked(options)
    elif not is_given(options):
        surveys = surveys_without(surveys, dense)
    made = chosen(
        ready,
        surveys,
        sources.moments,
        sources.found,
        sources.profile,
        options,
        sources.work,
        clock,
        SAFE_ERRORS[0],
    )
    wanted = options_at(sources, level).macs
    if options.macs != wanted and options.size is None and options.bits is None:
        made = rest.counted(made, wanted)
    return plan_without(made, sources.ready.sites, dense)


def built_at(sources: Sources, level: float, plan: Planned, clock: Clock) -> Built:
    """The model of a plan, as the target is given it."""
    options = options_at(sources, level)
    ready, profile, work = sources.ready, sources.profile, sources.work
    fitted = fits_in_its_way(ready, plan.plan, sources.moments, options, clock)
    made = assembled(ready, plan, fitted, profile, options, work, clock)
    return in_half(ready, made, profile, work, clock)


@dataclass
class Trials:
    """Makes and judges models, each once, and holds the best.

    Args:
        sources: what they are made from; its options as they were asked.
        judge: what they are judged by.
    """

    sources: Sources
    judge: Judge
    journal: Journal = field(init=False)
    seen: list[Trial] = field(default_factory=list[Trial])
    _best: tuple[str, Built] | None = None
    _last: tuple[str, Built] | None = None

    def __post_init__(self) -> None:
        folder = self.sources.work.path / "trials"
        self.journal = Journal(folder, _request(self.sources, self.judge))

    def attempt(self, level: float, dense: frozenset[str]) -> Trial:
        """The trial of a level, built and judged unless that was done before."""
        start, name = time.perf_counter(), f"trial {len(self.seen) + 1}"
        clock = self._told_as(name)
        plan = planned_at(self.sources, level, dense, clock)
        text = plan.plan.dumps()
        record = self.journal.find(text)
        if record is None:
            result = built_at(self.sources, level, plan, clock)
            verdict = self.judge.verdict(result, clock)
            self._last = (text, result)
            self.journal.keep(_record(text, verdict, result, time.perf_counter() - start))
        else:
            verdict = self._verdict(record)
        trial = Trial(
            level=level,
            dense=dense,
            plan=text,
            kept=_kept(plan, len(self.sources.ready.sites)),
            is_met=plan.budget_met,
            is_changed=bool(plan.plan.changed),
            budget=plan.budget,
            verdict=verdict,
            undone=plan.undone,
        )
        self.seen.append(trial)
        if best(self.seen) is trial and self._last is not None and self._last[0] == text:
            apart = _kept_apart(self._last[1], self.sources.work.path / BEST)
            self._best = self._last = (text, apart)
        self.sources.clock.on_event(Event(name, 0, 0, line(trial)))
        return trial

    def harmful(self, trial: Trial) -> Sequence[str]:
        """The layers of a trial by the harm they do for what they save."""
        known = self.journal.find_order(trial.plan)
        if known is not None:
            return known
        start, clock = time.perf_counter(), self._told_as("harm")
        if self._last is None or self._last[0] != trial.plan:
            self._last = (trial.plan, self._built(trial, clock))
        held, options = self.sources, options_at(self.sources, trial.level)
        found = by_harm(held.ready, self._last[1], held.moments, held.found, options, clock)
        self.journal.keep_order(trial.plan, found)
        self.journal.spent += time.perf_counter() - start
        return found

    def is_over(self) -> bool:
        """Whether the time is spent, that of earlier trials of the same search included."""
        limit = self.sources.options.time_budget
        return limit is not None and self.journal.spent >= limit

    def result(self, trial: Trial) -> Built:
        """The model of a trial; built again where its files are gone."""
        for held in (self._best, self._last):
            if held is not None and held[0] == trial.plan:
                return held[1]
        return self._built(trial, self.sources.clock)

    def _built(self, trial: Trial, clock: Clock) -> Built:
        plan = planned_at(self.sources, trial.level, trial.dense, clock)
        return built_at(self.sources, trial.level, plan, clock)

    def _verdict(self, record: Record) -> Verdict:
        score = Score(math.nan if record.score is None else record.score, record.n)
        fidelity = replace(NOT_PROVEN, top1_agreement=record.top1, cosine=record.cosine)
        return self.judge.gate.verdict(self.judge.quality(score), fidelity)

    def _told_as(self, name: str) -> Clock:
        """A clock whose stages are steps of one: a line a trial is enough for a person."""
        tell = self.sources.clock.on_event

        def told(event: Event) -> None:
            tell(Event(name, event.done, event.total, event.stage))

        return Clock(self.sources.clock.seconds, told)


def line(trial: Trial) -> str:
    """A trial for people: what was asked, what it came to, and the verdict."""
    asked = trial.budget or f"level {trial.level:g}"
    if trial.dense:
        count = len(trial.dense)
        asked += f", {count} layer{'s' if count != 1 else ''} put back"
    said = "passes" if trial.verdict.passes else f"fails: {trial.verdict.failed}"
    reached = "" if trial.is_met else " (not reached)"
    return f"{asked}{reached}: {trial.verdict.text}: {said}"


def _record(text: str, verdict: Verdict, result: Built, seconds: float) -> Record:
    score = None if verdict.quality is None else verdict.quality.compressed
    cosine = result.fidelity.cosine
    return Record(
        plan=text,
        score=None if score is None or math.isnan(score) else score,
        n=None if verdict.quality is None else verdict.quality.n,
        cosine=cosine,
        top1=result.fidelity.top1_agreement,
        seconds=seconds,
    )


def _kept(plan: Planned, sites: int) -> float:
    """What is left of the budgeted quantity; of a given plan, the share of dense layers.

    Of two budgets the geometric mean, as levels scale both by the same factor.
    """
    if plan.budget_used is not None:
        return plan.budget_used
    if plan.both_used:
        return math.prod(plan.both_used) ** (1 / len(plan.both_used))
    return 1 - len(plan.plan.changed) / sites if sites else 1.0


def _kept_apart(result: Built, folder: Path) -> Built:
    """The model with its files in a folder where no other trial writes."""
    if result.compiled.parent == folder:
        return result
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in {result.compiled, result.judged}:
        for file in (path, path.with_name(path.name + ".data")):
            if file.exists():
                shutil.move(file, folder / file.name)
    rounded = result.rounded
    return replace(
        result,
        compiled=folder / result.compiled.name,
        rounded=None if rounded is None else folder / rounded.name,
    )


def _request(sources: Sources, judge: Judge) -> str:
    """What a score depends on, but the plan."""
    metric = judge.metric
    words = [
        __version__,
        sources.ready.model.sha256,
        sources.profile.name,
        "" if sources.found is None else sources.found.basis,
        "" if metric is None else f"{metric.spec} {metric.digest} {metric.higher_is_better}",
        str(codes_are_asked(options_at(sources, 1.0))),
        sources.options.recipe,
        sources.options.objective,
        str(sources.options.seed),
    ]
    return digest_of(words, [*sources.ready.feeds, *sources.ready.fit_feeds])
