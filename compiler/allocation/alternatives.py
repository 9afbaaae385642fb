"""Alternatives: what an allocation could have taken in a layer, and what it took.

Any recipe that chooses can tell it: the candidates of a site that no other candidate beats in
all that counts, a bounded number of them, with what each loses.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...passes.forms import Form
from .solve_pareto import pareto

Vector = npt.NDArray[np.float64]

Rule = Literal["sum", "maximum", "threshold"]
"""What was made small over the layers, or held in each."""
Counted = Literal["size", "bits", "macs", "latency"]

MOST = 24
"""Alternatives that are kept of a site."""
_BESIDE = 4
"""Of them, nearest to what was taken on either side, if there are as many."""


@dataclass(frozen=True)
class Alternative:
    """A form that a layer could take.

    Args:
        form: the recipe; the first of a site is Dense.
        error: relative error of the layer, in the norm that `Considered` names.
        divergence: how far the model's outputs move by it alone; None where not measured.
        bits: what is stored for it.
    """

    form: Form
    error: float
    divergence: float | None
    bits: float

    @property
    def value(self) -> float:
        """What an allocation weighs: the divergence, or else the error."""
        return self.error if self.divergence is None else self.divergence


@dataclass(frozen=True)
class Alternatives:
    """What one weight could have become; the sites that share it go with the first.

    Args:
        site: name of the first of them.
        candidates: dense, then the others, closest first.
        chosen: which was taken.
        looked_at: candidates before those that another one beats were left out.
        reason: why there is nothing but dense, where that is so.
    """

    site: str
    candidates: tuple[Alternative, ...]
    chosen: int
    looked_at: int
    reason: str = ""


@dataclass(frozen=True)
class Taken:
    """A budget, and what was taken of it, in shares of what the original has.

    Args:
        text: for people, e.g. "size <= 0.25".
        most: what may be left.
        used: what is.
    """

    text: str
    most: float
    used: float


@dataclass(frozen=True)
class Considered:
    """Everything that an allocation weighed.

    Args:
        rule: the least sum over the layers, the least maximum, or the cheapest within a bound.
        error: what the errors are of, for people.
        quantities: what the budgets count.
        sites: by weight, in graph order.
        bound: that no layer's error may exceed, of rule "threshold".
        budgets: each of several, in the order of `quantities`.
    """

    rule: Rule
    error: str
    quantities: tuple[Counted, ...]
    sites: tuple[Alternatives, ...]
    bound: float | None = None
    budgets: tuple[Taken, ...] = ()


def alternatives(
    site: str,
    candidates: list[Alternative],
    cost: npt.NDArray[np.float64],
    chosen: int,
    reason: str = "",
) -> Alternatives:
    """The front of a site's candidates: dense, the taken one, and those that none beats.

    Args:
        site: name.
        candidates: dense first.
        cost: (n, D) of each in what the budgets count.
        chosen: which was taken.
        reason: why there is nothing but dense.
    """
    value = np.array([c.value for c in candidates], dtype=np.float64)
    table = np.nan_to_num(np.column_stack([value, cost]), nan=1e300, posinf=1e300)
    kept = {0, chosen, *(int(at) for at in pareto(table))}
    order = [0, *sorted(kept - {0}, key=lambda at: (table[at].tolist(), at))]
    order = _thinned(order, table, chosen)
    return Alternatives(
        site,
        tuple(candidates[at] for at in order),
        order.index(chosen),
        len(candidates),
        reason,
    )


def _thinned(order: list[int], table: Vector, chosen: int) -> list[int]:
    """At most `MOST`: the ends, those around the taken one, and the rest evenly."""
    if len(order) <= MOST:
        return order
    place = order.index(chosen)
    kept = {0, 1, len(order) - 1, *range(max(place - _BESIDE, 0), place + _BESIDE + 1)}
    kept |= {int(at) for at in np.argmin(table[order], axis=0)}
    kept = {at for at in kept if at < len(order)}
    rest = [at for at in range(len(order)) if at not in kept]
    spare = MOST - len(kept)
    if spare > 0:
        kept |= {rest[round(i * (len(rest) - 1) / max(spare - 1, 1))] for i in range(spare)}
    return [order[at] for at in sorted(kept)]
