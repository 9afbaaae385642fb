"""Margins: at which price the allocation traded what it lost for what it saved.

A budget that is held by the least sum has one price for all layers: nobody gives up a unit of
cost for more than any other layer would ask (the Lagrange multiplier of Everett, Operations
Research 11, 1963). Between the cheapest saving that was not made and the dearest that was
lies that price.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..allocation.alternatives import Counted, Rule
from ..writing.alternatives import Candidate, Choice, Layer, Weighed

WORDS: dict[Counted, str] = {
    "size": "size", "bits": "bits", "macs": "multiply-adds", "latency": "predicted time",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """From one candidate of a layer to another.

    Args:
        layer: name.
        start, end: the candidates.
        value: what the sum or the maximum gains by it; negative where it falls.
        cost: what the budget counts more; negative where it saves.
    """

    layer: str
    start: Candidate
    end: Candidate
    value: float
    cost: float

    @property
    def price(self) -> float:
        """Value for a unit of cost; ≥ 0 on a front."""
        return math.inf if self.cost == 0 else -self.value / self.cost


def value_of(candidate: Candidate, rule: Rule) -> float:
    """What the allocation weighed of it: a divergence, or an error, squared in a sum."""
    if candidate.divergence is not None:
        return candidate.divergence
    error = math.inf if candidate.error is None else candidate.error
    return error**2 if rule == "sum" else error


def cost_of(candidate: Candidate, counted: Counted) -> float | None:
    """What the budget counts of it."""
    if counted == "macs":
        return candidate.macs
    return candidate.predicted_ms if counted == "latency" else candidate.bits


def steps(layer: Layer, choice: Choice, start: Candidate) -> Iterator[Step]:
    """From a candidate of a layer to every other that costs more or less of the budget.

    Of two budgets that which binds.
    """
    counted = choice.binding
    here = cost_of(start, counted)
    if here is None:
        return
    for end in layer.candidates:
        there = cost_of(end, counted)
        if there is None or end == start:
            continue
        value = value_of(end, choice.rule) - value_of(start, choice.rule)
        if math.isfinite(value):
            yield Step(layer.name, start, end, value, there - here)


def cheaper(layer: Layer, choice: Choice, start: Candidate) -> Step | None:
    """The next step that saves: the least that is lost by it, then the most that is saved."""
    saving = [s for s in steps(layer, choice, start) if s.cost < 0]
    return min(saving, key=lambda s: (s.value, s.cost), default=None)


def better(layer: Layer, choice: Choice, start: Candidate) -> Step | None:
    """The next step that loses less: the one that costs least."""
    gaining = [s for s in steps(layer, choice, start) if s.value < 0]
    return min(gaining, key=lambda s: (s.cost, s.value), default=None)


def taken(layer: Layer) -> Candidate | None:
    """What the allocation took."""
    return None if layer.chosen is None else layer.candidates[layer.chosen]


@dataclass(frozen=True)
class Margins:
    """The cheapest saving that was not made, and the best gain that was not bought."""

    saving: Step | None
    gaining: Step | None


def margins(weighed: Weighed) -> Margins:
    """The margins of a net whose sum of divergences was minimised under a budget.

    Of two budgets prices are in units of the one that binds, as steps are.
    """
    choice = weighed.choice
    if choice is None or choice.rule != "sum" or not choice.quantities:
        return Margins(None, None)
    saving: list[Step] = []
    gaining: list[Step] = []
    for layer in weighed.layers:
        at = taken(layer)
        if at is None or at.divergence is None:
            continue
        found = list(steps(layer, choice, at))
        saving += [s for s in found if s.cost < 0 and s.value >= 0]
        gaining += [s for s in found if s.cost > 0 and s.value < 0]
    return Margins(
        min(saving, key=lambda s: (s.price, s.layer), default=None),
        max(gaining, key=lambda s: (s.price, s.layer), default=None),
    )
