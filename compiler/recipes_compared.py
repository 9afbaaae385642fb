"""Recipes compared: one model at one budget, built by every recipe, in one table.

Samples, moments and predicted times are made once; every recipe then plans, fits, rewrites and
proves as `nncc compile --recipe` does. Nothing is written but into a folder of work.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..device_profiles.errors import NnccError, UsageError
from ..device_profiles.profile import DeviceProfile
from .allocation.baselines.names import BASELINES
from .allocation.budget import budget, check_budget, codes_are_asked
from .allocation.planning import surveyed
from .allocation.ranks import measured_surveys
from .build import Built, built, in_half, moments_of
from .clock import Clock
from .costs import Costs, costs, predicted, timed
from .events import Event, Listener, silent
from .fitting.moments import Moments
from .options import CompileOptions, Recipe
from .outcome import Fidelity
from .prepare import Ready, Source, prepared
from .quality.metric import Metric
from .work import Work
from .writing.metrics import finite

OURS: Recipe = "low-rank"
"""What the baselines are compared with: our allocation of the same kind of forms."""
_OURS_FROM = "nncc: calibrated fits, ranks by what they do to the outputs"
DEFAULT: tuple[Recipe, ...] = (
    "svd",
    "svd-energy",
    "l-rank",
    "lc",
    "pca",
    "ft",
    "pfp",
    "alds",
    "alds+",
    "cepd",
    OURS,
)


@dataclass(frozen=True)
class Row:
    """What one recipe made of the model.

    Args:
        recipe: its name.
        source: the paper, or what it is.
        reached: fraction of the budgeted quantity that is left; None where nothing was built.
        is_met: whether that is within the budget.
        changed: how many layers are no longer dense.
        fidelity: how close the outputs are; None where nothing was built.
        score: of the metric; None where none was given.
        predicted_ms: of an inference; None where the target has no cost model.
        seconds: that planning, fitting and proving took.
        note: why nothing was built.
        model: the compiled file, as long as the folder of work is there.
    """

    recipe: str
    source: str
    reached: float | None = None
    is_met: bool = False
    changed: int = 0
    fidelity: Fidelity | None = None
    score: float | None = None
    predicted_ms: float | None = None
    seconds: float = 0.0
    note: str = ""
    model: Path | None = None

    def to_json(self) -> dict[str, object]:
        """The row as `--json` prints it."""
        f = self.fidelity
        return {
            "recipe": self.recipe,
            "source": self.source,
            "reached": self.reached,
            "budget_met": self.is_met,
            "changed": self.changed,
            "sqnr_db": None if f is None else finite(f.sqnr_db),
            "top1_agreement": None if f is None else finite(f.top1_agreement),
            "score": finite(self.score),
            "predicted_ms": self.predicted_ms,
            "seconds": round(self.seconds, 3),
            "note": self.note,
        }


@dataclass(frozen=True)
class Compared:
    """All recipes on one model at one budget.

    Args:
        model: name of it.
        target: name of the device profile.
        budget: e.g. "macs <= 0.5".
        samples: how many samples outputs are compared on, and of which kind.
        metric: title of the metric, "" where none was given.
        reference_score: of the original.
        reference_ms: its predicted time.
        rows: a recipe each, in the order that was asked for.
    """

    model: str
    target: str
    budget: str
    samples: str
    metric: str
    reference_score: float | None
    reference_ms: float | None
    rows: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        """0; 4 where no recipe meets the budget."""
        return 0 if any(row.is_met for row in self.rows) else 4

    def to_json(self) -> dict[str, object]:
        """What `nncc compare-recipes --json` prints."""
        return {
            "model": self.model,
            "target": self.target,
            "budget": self.budget,
            "samples": self.samples,
            "metric": self.metric or None,
            "reference": {
                "score": finite(self.reference_score),
                "predicted_ms": self.reference_ms,
            },
            "recipes": [row.to_json() for row in self.rows],
            "exit_code": self.exit_code,
        }


def compared(
    source: Source,
    profile: DeviceProfile,
    options: CompileOptions,
    recipes: Sequence[Recipe] = DEFAULT,
    *,
    metric: Metric | None = None,
    folder: Path | None = None,
    on_event: Listener = silent,
) -> Compared:
    """Every recipe on a model, at the budget of the options.

    A recipe that cannot be built (it needs samples and there are none, or cannot be held to
    this budget) has a row that says so.

    Args:
        source: the model.
        profile: the target.
        options: with one budget; its recipe does not count.
        recipes: which.
        metric: the task's own score.
        folder: where the compiled models stay; none stay where None.
        on_event: hears every step.

    Raises:
        UsageError: no budget, or none of the recipes can be held to it.
        NnccError: the model cannot be prepared.
    """
    options = options.model_copy(update={"objective": "operator"})
    if (options.macs is None) == (options.size is None):
        raise UsageError(
            "needs one budget that all recipes know", hint="add --macs 0.5 or --size 0.5"
        )
    clock = Clock(on_event=on_event)
    place = (
        nullcontext(str(folder))
        if folder is not None
        else TemporaryDirectory(prefix="nncc-recipes-")
    )
    with place as path:
        work = Work(Path(path), False)
        work.path.mkdir(parents=True, exist_ok=True)
        base = options.model_copy(update={"recipe": OURS})
        ready = prepared(source, profile, base, work, None, clock)
        found = _costs(ready, profile, options, clock)
        seen = moments_of(ready, base, work, clock)
        before = None if metric is None else metric.reference(ready.original).value
        rows: list[Row] = []
        for at, name in enumerate(recipes):
            on_event(Event(f"recipe {name}", at, len(recipes)))
            asked = options.model_copy(update={"recipe": name})
            mine = Work(work.path / name, False)
            mine.path.mkdir(exist_ok=True)
            row = _row(ready, asked, seen, found, profile, mine, clock)
            if metric is not None and row.model is not None:
                row = replace(row, score=metric.score(row.model).value)
            rows.append(row if folder is not None else replace(row, model=None))
        return Compared(
            ready.model.name,
            profile.name,
            budget(base, profile, found).text,
            f"{len(ready.feeds)} {ready.kind}",
            "" if metric is None else metric.title,
            before,
            None if found is None else found.reference.seconds * 1e3,
            tuple(rows),
        )


def _costs(
    ready: Ready, profile: DeviceProfile, options: CompileOptions, clock: Clock
) -> Costs | None:
    with clock.stage("predict"):
        return costs(
            ready.model,
            ready.shapes,
            ready.sites,
            profile,
            given=ready.given,
            threads=options.threads,
            measure=False,
        )


def _row(
    ready: Ready,
    options: CompileOptions,
    seen: Mapping[str, Moments],
    found: Costs | None,
    profile: DeviceProfile,
    work: Work,
    clock: Clock,
) -> Row:
    name = options.recipe
    row = Row(name, BASELINES[name].paper if name in BASELINES else _OURS_FROM)
    began = time.perf_counter()
    try:
        check_budget(options)
        result = _built(ready, options, seen, found, profile, work, clock)
    except NnccError as error:
        return replace(row, note=f"{error.what}; {error.hint}".rstrip("; "))
    plan = result.plan
    ms = None
    if found is not None:
        ms = predicted(found, ready.sites, plan.plan, result.left).compressed_ms
    return replace(
        row,
        reached=plan.budget_used,
        is_met=plan.budget_met,
        changed=len(plan.plan.changed),
        fidelity=result.fidelity,
        predicted_ms=ms,
        seconds=time.perf_counter() - began,
        note="" if plan.budget_met else "the budget is out of its reach",
        model=result.compiled,
    )


def _built(
    ready: Ready,
    options: CompileOptions,
    seen: Mapping[str, Moments],
    found: Costs | None,
    profile: DeviceProfile,
    work: Work,
    clock: Clock,
) -> Built:
    """A recipe's model, as the compile makes it."""
    surveys = surveyed(ready.sites, profile, options, clock.on_event, seen)
    if found is not None:
        surveys = timed(surveys, ready.sites, found)
    if surveys and not codes_are_asked(options):
        quantity = budget(options, profile, found).quantity
        surveys = measured_surveys(ready, surveys, seen, quantity, clock)
    result = built(ready, surveys, seen, found, profile, options, work, clock, math.inf)
    return in_half(ready, result, profile, work, clock)
