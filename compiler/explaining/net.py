"""The whole net, explained: what was asked, what came of it, its price and its limits."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ...device_profiles.errors import UsageError
from ..allocation.alternatives import Counted
from ..outcome import Outcome
from ..writing.alternatives import Budget, Candidate, Choice
from ..writing.metrics import finite
from ..writing.verdict import verdict
from .held import Held, held
from .layers import LayerStory, split, stories
from .limits import Limits, limits
from .margins import WORDS, Margins, Step, cost_of, margins
from .phrases import factor, listed, milliseconds, percent, plural

MOST = 4
"""Kinds of time that are named one by one."""
_HALF = 0.5
_SLACK = 1e-9
_BINDS = 0.005
"""Share of a budget below which what is left of it buys nothing."""
_LEAST = 0.005
_TOLD = 1.01
"""Share of the time below which a kind is not named."""


@dataclass(frozen=True)
class Explanation:
    """An artifact, explained.

    Args:
        held: its files.
        limits: what bounds a further speed-up; None where nothing is known of times.
        margins: the price of the budget, where there is one.
        layers: every layer, in the order of the table.
    """

    held: Held
    limits: Limits | None
    margins: Margins
    layers: tuple[LayerStory, ...]

    @property
    def outcome(self) -> Outcome:
        """What the compile found out."""
        return self.held.artifact.outcome

    @property
    def lines(self) -> list[str]:
        """The whole net in words, a line an idea."""
        return [*_asked(self), *_price(self), *_time(self), *_counts(self)]

    def story(self, name: str) -> LayerStory:
        """One layer.

        Raises:
            UsageError: there is none of that name; names the nearest.
        """
        found = next((story for story in self.layers if story.row.name == name), None)
        if found is None:
            names = [story.row.name for story in self.layers]
            near = get_close_matches(name, names, 3, 0.4)
            near = near or [other for other in names if name.lower() in other.lower()][:3]
            known = near or names[:3]
            word = "did you mean" if near else "there are"
            raise UsageError(
                f"there is no layer {name!r}",
                where="--layer",
                hint=f"{word} {listed(known)}" if known else "the artifact has no layers",
            )
        return found

    def to_json(self, layer: str | None = None) -> dict[str, object]:
        """What `nncc explain --json` prints, of all layers or of one."""
        chosen = self.layers if layer is None else (self.story(layer),)
        o, found = self.outcome, self.limits
        return {
            "artifact": str(self.held.artifact.path),
            "model": o.model_name,
            "target": o.target,
            "recipe": o.recipe,
            "summary": self.lines,
            "limits": None if found is None else limits_json(found),
            "margins": {
                "saving": step_json(self.margins.saving),
                "gaining": step_json(self.margins.gaining),
            },
            "layers": [story_json(story) for story in chosen],
            "note": self.held.note,
        }


def explained(folder: Path) -> Explanation:
    """The artifact in a folder, explained.

    Raises:
        UsageError: there is none.
        ModelError: it is damaged.
    """
    found = held(folder)
    price = Margins(None, None) if found.weighed is None else margins(found.weighed)
    return Explanation(found, limits(found), price, stories(found))


def _asked(e: Explanation) -> Iterator[str]:
    o = e.outcome
    yield (
        f"{o.model_name} for {o.target}, recipe {o.recipe}: changed "
        f"{o.changed} of {plural(len(o.layers), 'layer')}"
        + (f", {o.reverted} put back since they lost" if o.reverted else "")
    )
    yield f"verdict: {verdict(o)[1]}"
    choice = None if e.held.weighed is None else e.held.weighed.choice
    if choice is None:
        yield e.held.note or "nothing was chosen: every form was said, or none was asked"
        return
    yield f"how it was chosen: {_rule(choice, o)}"
    if len(choice.budgets) > 1:
        least = min(budget.left for budget in choice.budgets)
        yield f"budgets: {', '.join(_left_of(budget, least) for budget in choice.budgets)}"


def _left_of(budget: Budget, least: float) -> str:
    """Whether a budget binds, and what is left of it.

    Args:
        budget: one of several.
        least: what is left of the one of which least is.

    Example:
        >>> _left_of(Budget(text="size <= 0.25", most=0.25, used=0.2), least=0.01)
        'size <= 0.25 does not bind (20 % of it is left)'
    """
    if budget.left < -_SLACK:
        return f"{budget.text} is not held ({percent(-budget.left)} too much)"
    word = "binds" if budget.left <= max(least, _BINDS) else "does not bind"
    return f"{budget.text} {word} ({percent(max(budget.left, 0.0))} of it is left)"


def _rule(choice: Choice, o: Outcome) -> str:
    budget = o.budget or "no budget"
    used = "" if o.budget_used is None else f", reached {o.budget_used:.4g}"
    if choice.rule == "threshold":
        bound = "" if choice.bound is None else f" {percent(choice.bound)}"
        return (
            "without a budget, in every layer the cheapest form with an error of at most"
            f"{bound} ({choice.error})"
        )
    if not o.budget_met:
        return (
            f"{budget} cannot be held{used}: this is the nearest there is, judged by "
            f"{'divergence of the outputs' if choice.rule == 'sum' else choice.error}"
        )
    if choice.rule == "maximum":
        value = o.objective_value
        least = "" if value is None else f", {value:.3g}"
        return (
            f"under {budget}{used}, the largest error of a layer ({choice.error}) is as small "
            f"as it can be{least}; what is left of the budget lowers the others"
        )
    what = "what each layer does to the model's outputs" if o.calibrated else choice.error
    return f"under {budget}{used}, the least sum over the layers of {what}"


def _price(e: Explanation) -> Iterator[str]:
    weighed = e.held.weighed
    if weighed is None or weighed.choice is None or not weighed.choice.quantities:
        return
    choice = weighed.choice
    first = choice.binding
    counts: list[Counted] = [first, *(c for c in choice.quantities if c != first)]
    for text, step in (
        ("the next saving", e.margins.saving),
        ("the next gain", e.margins.gaining),
    ):
        if step is None or not (told := _costs(step, counts, e)):
            continue
        yield (
            f"{text} is best in {step.layer}, {step.start.form} to {step.end.form}: "
            f"{step.value:+.3g} of divergence for {told}"
        )
    spent = [
        s for s in e.layers if s.divergence_share is not None and s.row.status == "changed"
    ]
    spent.sort(key=lambda s: (-(s.divergence_share or 0.0), s.row.name))
    total, names = 0.0, list[str]()
    for story in spent:
        total += story.divergence_share or 0.0
        names.append(story.row.name)
        if total >= _HALF:
            break
    if len(spent) > 1 and total >= _HALF:
        yield (
            f"sensitivity: {percent(total)} of the divergence is in "
            f"{plural(len(names), 'layer')} of {len(spent)} that changed: {listed(names)}"
        )


def _costs(step: Step, counts: Sequence[Counted], e: Explanation) -> str:
    """What a step saves or takes of everything that has a budget, in shares of the net's."""
    held = e.held.artifact.metrics
    words: list[str] = []
    for counted in counts:
        whole = {
            "macs": held.ops.macs_reference,
            "latency": held.latency.predicted_ms.reference,
        }.get(counted, held.size.reference_bits)
        before, after = cost_of(step.start, counted), cost_of(step.end, counted)
        if whole and before is not None and after is not None:
            words.append(
                f"{100 * (after - before) / whole:+.2g} % of the net's {WORDS[counted]}"
            )
    return " and ".join(words)


def _time(e: Explanation) -> Iterator[str]:
    found = e.limits
    if found is None:
        yield "time: neither measured nor predicted, so that nothing is said of its limits"
        return
    yield (
        f"time: {milliseconds(found.reference_ms)} to {milliseconds(found.compressed_ms)}, "
        f"{factor(found.speedup)} ({found.basis})"
    )
    predicted = e.outcome.predicted
    if found.basis == "predicted" and predicted is not None and predicted.unseen:
        yield (
            f"the time of {plural(len(predicted.unseen), 'node')} is not known, and in none "
            "of these numbers: a body of If, Loop or Scan, or sizes that no sample shows"
        )
    if found.exact >= _TOLD:
        yield (
            f"exact rewriting alone, which changes no output, is {factor(found.exact)} of it "
            "(predicted)"
        )
    if found.is_storage:
        yield "no form that was weighed changes what runs: they save storage, not time"
    large = [s for s in found.fixed if s.ms >= _LEAST * found.reference_ms]
    if large and not found.is_storage:
        parts = [
            f"{percent(s.ms / found.reference_ms)} {s.what} ({s.count})" for s in large[:MOST]
        ]
        others = math.fsum(s.ms for s in found.fixed) - math.fsum(s.ms for s in large[:MOST])
        if others >= _LEAST * found.reference_ms:
            parts.append(f"{percent(others / found.reference_ms)} others")
        yield (
            f"{percent(found.fixed_share)} of the original's time is in what no form of this "
            f"plan changes, which caps the speed-up at {factor(found.cap)}: {', '.join(parts)}"
        )
    if found.fastest is not None and not found.is_storage:
        yield (
            "with the fastest candidate in every layer, whatever the error: "
            f"{factor(found.fastest)} predicted"
        )
    if found.left is not None:
        yield f"of the time that is left, {split(found.left)}"


def _counts(e: Explanation) -> Iterator[str]:
    """Why dense layers are dense, by kind."""
    kinds: dict[str, list[str]] = {}
    for story in e.layers:
        if story.row.status != "changed":
            kinds.setdefault(story.kind, []).append(story.row.name)
    for kind, names in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])):
        yield f"dense: {plural(len(names), 'layer')}, {kind}: {listed(names)}"


def limits_json(found: Limits) -> dict[str, object]:
    """The limits as JSON; null where a number is not finite."""
    left = found.left
    return {
        "basis": found.basis,
        "reference_ms": found.reference_ms,
        "compressed_ms": finite(found.compressed_ms),
        "speedup": finite(found.speedup),
        "fixed_share": found.fixed_share,
        "cap": finite(found.cap),
        "fixed": [{"what": s.what, "count": s.count, "ms": s.ms} for s in found.fixed],
        "fastest_candidates": finite(found.fastest),
        "exact_rewriting": finite(found.exact),
        "left": None if left is None else left.model_dump(),
    }


def story_json(story: LayerStory) -> dict[str, object]:
    """A layer as JSON."""
    row = story.row
    return {
        "name": row.name,
        "op": row.op,
        "shape": list(row.shape),
        "status": row.status,
        "form": row.form,
        "kind": story.kind,
        "why": story.why,
        "candidate": candidate_json(story.at),
        "cheaper": step_json(story.cheaper),
        "better": step_json(story.better),
        "divergence_share": finite(story.divergence_share),
        "time_share": finite(story.time_share),
        "bounds": list(story.bounds),
    }


def step_json(step: Step | None) -> dict[str, object] | None:
    """A step as JSON; null where there is none."""
    if step is None:
        return None
    return {
        "layer": step.layer,
        "from": step.start.form,
        "to": candidate_json(step.end),
        "value": finite(step.value),
        "cost": finite(step.cost),
    }


def candidate_json(candidate: Candidate | None) -> dict[str, object] | None:
    """A candidate as JSON; null where there is none."""
    return None if candidate is None else candidate.model_dump()
