"""Layers: why a layer has its form, what the next ones would cost, and what limits it."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..outcome import LayerRow
from ..writing.alternatives import Candidate, Choice, Layer, Time
from .held import Held
from .limits import GATED, LOST, fixed_kind
from .margins import WORDS, Margins, Step, better, cheaper, cost_of, margins, taken, value_of
from .phrases import factor, milliseconds, percent, plural, signed

_RANK = re.compile(r"\bj=(\d+)")
_BOUND = 0.5
"""Share of a layer's time from which one thing limits it."""
_CLOSE = 1e-9


@dataclass(frozen=True)
class LayerStory:
    """One layer, explained.

    Args:
        row: what became of it.
        kind: a few words: why it is as it is.
        why: the same in a sentence or more.
        at: the candidate that it has, where it is one of those that were weighed.
        cheaper, better: the next candidates on either side.
        divergence_share: of what all layers do to the outputs, where that was measured.
        time_share: of the compressed net's time.
        bounds: what limits it further.
    """

    row: LayerRow
    kind: str
    why: str
    at: Candidate | None
    cheaper: Step | None
    better: Step | None
    divergence_share: float | None
    time_share: float | None
    bounds: tuple[str, ...]


@dataclass(frozen=True)
class _Net:
    """What a layer is held against.

    Args:
        held: the artifact.
        choice: how forms were chosen; None where they were not.
        margins: the price.
        divergence: of all layers together.
        total_ms: of the compressed net, and `is_measured`, whether by the clock.
    """

    held: Held
    choice: Choice | None
    margins: Margins
    divergence: float
    total_ms: float | None
    is_measured: bool


def stories(held: Held) -> tuple[LayerStory, ...]:
    """Every layer of an artifact, explained, in the order of its table."""
    weighed, o = held.weighed, held.artifact.outcome
    at = [] if weighed is None else [taken(layer) for layer in weighed.layers]
    spent = math.fsum(c.divergence or 0.0 for c in at if c is not None)
    is_measured = o.latency is not None and any(row.measured_ms for row in o.layers)
    total = None
    if is_measured and o.latency is not None:
        total = o.latency.compressed.trimmed_mean_ms
    elif o.predicted is not None:
        total = o.predicted.compressed_ms
    found = Margins(None, None) if weighed is None else margins(weighed)
    choice = None if weighed is None else weighed.choice
    net = _Net(held, choice, found, spent, total, is_measured)
    return tuple(_story(row, net) for row in held.rows)


def _story(row: LayerRow, net: _Net) -> LayerStory:
    layer = net.held.layer(row)
    at = None if layer is None else _present(layer, row)
    step_down = step_up = None
    share = None
    if layer is not None and at is not None and net.choice is not None:
        step_down = cheaper(layer, net.choice, at)
        step_up = better(layer, net.choice, at)
        if at.divergence is not None and net.divergence > 0:
            share = at.divergence / net.divergence
    time = row.measured_ms if net.is_measured else row.predicted_ms
    time_share = None
    if time is not None and net.total_ms is not None and net.total_ms > 0:
        time_share = time / net.total_ms
    kind = _kind(row, layer)
    return LayerStory(
        row,
        kind,
        _why(row, layer, at, step_down, net),
        at,
        step_down,
        step_up,
        share,
        time_share,
        tuple(_bounds(row, layer, at, step_down, share, time_share)),
    )


def _present(layer: Layer, row: LayerRow) -> Candidate | None:
    """The candidate that the layer ended with: not what was taken where it went back."""
    chosen = taken(layer)
    if chosen is not None and chosen.form == row.form:
        return chosen
    return next((c for c in layer.candidates if c.form == row.form), None)


def _kind(row: LayerRow, layer: Layer | None) -> str:
    if row.status == "changed":
        return "chosen" if layer is not None and layer.chosen is not None else "as said"
    fixed = fixed_kind(row, layer)
    if fixed == LOST:
        return "slower when measured"
    if fixed == GATED:
        return "quality gate"
    if row.status == "left alone":
        return "no form for it"
    if layer is not None and layer.reason and len(layer.candidates) < 2:
        return "too small" if row.shape[:1] == (1,) else "groups too narrow"
    if fixed:
        return "nothing is faster"
    return "not worth it" if layer is not None and layer.chosen is not None else "as said"


def _why(
    row: LayerRow, layer: Layer | None, at: Candidate | None, step: Step | None, net: _Net
) -> str:
    """Why the layer has the form that it has."""
    if row.status in ("reverted", "left alone"):
        return row.reason
    choice = net.choice
    if layer is None and choice is not None:  # of a shared weight: the first reader has it
        return row.reason or "it goes with the layer whose weight it shares"
    if layer is None or choice is None or layer.chosen is None:
        said = "the form was said, nothing else was weighed"
        return "; ".join(filter(None, [row.reason, said if row.status == "changed" else ""]))
    if row.status != "changed":
        return "; ".join(filter(None, [row.reason, _too_dear(step, net)]))
    if at is None:
        return "; ".join(
            filter(None, ["it is none of what the allocation weighed", row.reason])
        )
    budget = net.held.artifact.outcome.budget or "the budget"
    many = f"of {plural(layer.looked_at, 'candidate')}"
    saved = _saved(row, layer, at, choice)
    if choice.rule == "threshold":
        bound = "" if choice.bound is None else f" of {percent(choice.bound)}"
        rule = f"{many} the cheapest within an error{bound}, with no budget asked"
    elif choice.rule == "maximum":
        rule = f"{many}, under {budget}: {_against_maximum(at, net)}"
    else:
        what = "divergence of the outputs" if at.divergence is not None else "squared errors"
        rule = f"{many} the one that the least sum of {what} under {budget} takes"
    told = _lost(at, choice, net)
    return "; ".join(filter(None, [rule, told, saved, row.reason]))


def _against_maximum(at: Candidate, net: _Net) -> str:
    bound = net.held.artifact.outcome.objective_value
    error = value_of(at, "maximum")
    if bound is None or not math.isfinite(bound):
        return "the largest error of a layer is made as small as it can be"
    if error >= bound * (1 - _CLOSE):
        return f"its error of {error:.3g} is the largest of all, and sets the bound"
    return (
        f"its error of {error:.3g} is within the least bound that all layers can hold together"
        f" ({bound:.3g})"
    )


def _lost(at: Candidate, choice: Choice, net: _Net) -> str:
    """The error, and what it does to the outputs."""
    if at.error is None:
        return ""
    told = f"relative error {at.error:.3g} ({choice.error})"
    if at.divergence is not None and net.divergence > 0:
        share = percent(at.divergence / net.divergence)
        told += f", divergence {at.divergence:.3g}, {share} of the sum over all layers"
    return told


def _saved(row: LayerRow, layer: Layer, at: Candidate, choice: Choice) -> str:
    """What it saves of what the budgets count."""
    words: list[str] = []
    for counted in choice.quantities:
        before, after = cost_of(layer.candidates[0], counted), cost_of(at, counted)
        if before and after is not None and after < before:
            words.append(f"{percent(1 - after / before)} of its {WORDS[counted]}")
    told = [f"saves {' and '.join(words)}"] if words else []
    if row.reference_ms is not None and row.measured_ms is not None:
        times = f"{milliseconds(row.reference_ms)} to {milliseconds(row.measured_ms)}"
        told.append(f"measured {times}")
    return ", ".join(told)


def _too_dear(step: Step | None, net: _Net) -> str:
    """How much more a dense layer would lose for a saving than the others do."""
    if step is None or net.choice is None:
        return ""
    counted = WORDS[net.choice.binding]
    told = f"its first step, {step.end.form}, would add {step.value:.3g}"
    told += " of divergence" if step.end.divergence is not None else " of error"
    before = cost_of(step.start, net.choice.binding)
    if before:
        told += f" for {percent(-step.cost / before)} of its {counted}"
    best = net.margins.saving
    if best is not None and best.price > 0 and math.isfinite(step.price):
        ratio = step.price / best.price
        if ratio > 1 + _CLOSE:
            told += f": {factor(ratio)} the price of the next step in {best.layer}"
    return told


def _bounds(
    row: LayerRow,
    layer: Layer | None,
    at: Candidate | None,
    step: Step | None,
    lost: float | None,
    time: float | None,
) -> Iterator[str]:
    """What limits a further gain."""
    if layer is not None and layer.compressed is not None:
        yield split(layer.compressed)
    if layer is not None and layer.reason:
        yield f"lattice: {layer.reason}"
    elif step is not None and (told := _next_rank(step)):
        yield told
    elif step is None and at is not None and row.status == "changed":
        yield "nothing cheaper was among the candidates: it is at its end"
    if step is not None and step.end.predicted_ms is not None:
        now = step.start.predicted_ms
        if now is not None and step.end.predicted_ms >= now:
            yield (
                f"the next cheaper form, {step.end.form}, is predicted to take no less time "
                f"({milliseconds(step.end.predicted_ms)} against {milliseconds(now)})"
            )
    if lost is not None and time is not None and lost > 2 * time and lost > 1e-3:
        yield (
            f"sensitivity: {percent(lost)} of what the net loses, "
            f"for {percent(time)} of its time"
        )
    if row.predicted_ms and row.measured_ms and row.status == "changed":
        off = row.measured_ms / row.predicted_ms
        yield f"measured over predicted: {off:.2f}"


def split(time: Time) -> str:
    """A predicted time by what limits it, and what follows from that."""
    ms = time.ms
    if ms <= 0:
        return "it takes no time"
    parts = {
        "launches": time.launch_ms / ms,
        "computing": time.compute_ms / ms,
        "memory": time.memory_ms / ms,
    }
    told = ", ".join(f"{percent(share)} {name}" for name, share in parts.items())
    text = f"{milliseconds(ms)} predicted in {plural(time.launches, 'launch')}: {told}"
    name = max(parts, key=lambda key: parts[key])
    if parts[name] < _BOUND:
        return text
    follows = {
        "launches": "launch overhead bounds it: one more factor is one more launch",
        "computing": "arithmetic bounds it",
        "memory": "memory bandwidth bounds it: fewer bytes help, fewer multiply-adds do not",
    }
    return f"{text}; {follows[name]}"


def _next_rank(step: Step) -> str:
    """The lattice where the next step is the same form with another rank."""
    here, there = _RANK.findall(step.start.form), _RANK.findall(step.end.form)
    is_same = _RANK.sub("", step.start.form) == _RANK.sub("", step.end.form)
    if not (is_same and len(here) == len(there) == 1):
        return ""
    value = signed(step.value)
    return (
        f"lattice: from rank {here[0]} the next that was weighed is {there[0]} ({value} of "
        f"{'divergence' if step.end.divergence is not None else 'error'})"
    )
