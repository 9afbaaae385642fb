"""Mixed filters: inputs that a layer can do without, and the filters that go with them.

Where one layer alone reads what another makes, `columns` of the reader take filters out of the
maker and narrow all that runs between them. What that saves depends on the form of the maker:
for candidates a of the maker and b of the reader the true cost is

    cost(a) + cost(b) − s(a, b),

while solvers add up one number a candidate. With any credit c(b) the sum of cost(b) − c(b) and
cost(a) + max over b of (c(b) − s(a, b))⁺ is never below it, so that no budget is broken by
counting a saving twice or one that is not there. With c(b) = s(a*, b) it is the true cost
wherever the maker takes a*.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...device_profiles.cost.fused import FusedKernel
from ...device_profiles.kernel import Kernel
from ...passes.forms import Columns, Dense, Form, Int8, kernel_macs, kernel_weights
from ...passes.model import Model
from ...passes.removal.left import Left
from ...passes.sites import Site
from ..costs import Costs
from .baselines.channels import channels_of
from .mixed_row import Candidate, MixedRow, Quantity
from .solve_table import Choices, Matrix, Vector
from .solve_tied import Pair

MOST = 6
"""Numbers of channels of a layer that are looked at."""
FEW, WIDE, WIDEST = 3, 1024, 2304
"""The same of a layer with more than `WIDE` inputs, and none beyond `WIDEST`: the choice takes
6 s at 2304 inputs on one core, and grows by their third power."""
HOLDING = frozenset({"codes", "sum", "nested"})
"""Families whose weights are unfolded at load: filters stay in them, and are gathered."""


@dataclass(frozen=True)
class Tie:
    """A layer, the only one that reads what it makes, and the nodes between them.

    Args:
        maker, reader: names of the sites.
        channels: how many there are.
        passed: names of the nodes that pass them on, depthwise layers too.
    """

    maker: str
    reader: str
    channels: int
    passed: tuple[str, ...]

    def left(self, keep: int) -> Left:
        """What is left of the channels of all of them."""
        counts = dict.fromkeys((self.maker, *self.passed), (keep, self.channels))
        return Left(counts)


def ties(model: Model, sites: Sequence[Site]) -> dict[str, Tie]:
    """The ties of a model, by their reader.

    Left out are channels with several makers (sums) or readers (gates, branches), those that
    are spread over features (behind Flatten) and joined with others, and weights that
    something else reads too.

    Args:
        model: normalised; it is left as it is.
        sites: found in it.
    """
    found = channels_of(model, sites)
    by_name = {site.name: site for site in sites}
    made: dict[str, Tie] = {}
    for group in found.groups:
        sets = {int(at) for at in group.sets}
        count = len(sets)
        readers = [name for name, at in found.read.items() if sets & set(at.tolist())]
        if len(group.makers) != 1 or len(readers) != 1:
            continue
        reader, maker = readers[0], group.makers[0]
        site = by_name[reader]
        parts = [found.made[maker], found.read[reader]]
        passed = [n for n, at in found.given.items() if n != maker and sets & set(at.tolist())]
        parts += [found.given[name] for name in passed]
        is_direct = all(len(at) == count and set(at.tolist()) == sets for at in parts)
        if is_direct and not site.is_kept and not site.shares and site.shape[0] == 1:
            made[reader] = Tie(maker, reader, count, tuple(passed))
    return made


def column_forms(site: Site, step: int) -> tuple[Columns, ...]:
    """Numbers of channels on the device's step, fewer than it reads; some of them, evenly."""
    inputs = math.prod(site.shape[2:])
    steps = np.arange(step, site.shape[2] if inputs <= WIDEST else 0, step)
    most = MOST if inputs <= WIDE else FEW
    if len(steps) > most:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))]
    return tuple(Columns(keep) for keep in steps.tolist())


class Savings:
    """What goes with the channels that a reader does not keep, whatever the maker becomes.

    Args:
        sites: by name.
        costs: predicted times; None where the target has no cost model.
    """

    def __init__(self, sites: Mapping[str, Site], costs: Costs | None) -> None:
        self._sites, self._costs = sites, costs
        self._now: dict[tuple[str, int], Costs] = {}
        self._known: dict[tuple[str, int, Form], dict[Quantity, float]] = {}

    def of(self, tie: Tie, maker: Candidate, keep: int) -> Mapping[Quantity, float]:
        """What is saved beside the reader; less than 0 where channels have to be gathered."""
        key = (tie.reader, keep, maker.form)
        if key not in self._known:
            is_held = maker.family in HOLDING
            self._known[key] = (
                self._held(tie, keep) if is_held else self._free(tie, maker.form, keep)
            )
        return self._known[key]

    def _held(self, tie: Tie, keep: int) -> dict[Quantity, float]:
        """A launch that picks the channels, in every run."""
        launch = None if self._costs is None else self._costs.by_site.get(tie.reader)
        if self._costs is None or launch is None:
            return {"bits": 0.0, "macs": 0.0, "seconds": 0.0}
        size = launch.read * keep // tie.channels
        taken = self._costs.model.predict(FusedKernel("Gather", None, size, size))
        return {"bits": 0.0, "macs": 0.0, "seconds": -taken.seconds}

    def _free(self, tie: Tie, form: Form, keep: int) -> dict[Quantity, float]:
        left = tie.left(keep)
        found: dict[Quantity, float] = {"bits": 0.0, "macs": 0.0, "seconds": 0.0}
        for name in (tie.maker, *tie.passed):
            site = self._sites.get(name)
            if site is None:
                continue
            own = form if name == tie.maker else Dense()
            whole = own.kernels(site.shape, site.geometry)
            narrow = left.kernels(name, whole)
            fewer = kernel_weights(whole) - kernel_weights(narrow)
            found["bits"] += _width(own) * fewer
            found["macs"] += _macs(whole) - _macs(narrow)
        found["seconds"] = self._seconds(tie, form, keep)
        return found

    def _seconds(self, tie: Tie, form: Form, keep: int) -> float:
        """Of the maker and of all launches between; what it costs more counts too."""
        before = self._costs
        if before is None:
            return 0.0
        key = (tie.reader, keep)
        if key not in self._now:
            self._now[key] = before.without(tie.left(keep))
        after, saved = self._now[key], 0.0
        for name in (tie.maker, *tie.passed):
            site = self._sites.get(name)
            if site is None:
                continue
            own = form if name == tie.maker else Dense()
            times = before.of(site, own), after.of(site, own)
            if times[0] is not None and times[1] is not None:
                saved += times[0].seconds - times[1].seconds
        for launch, narrow in zip(before.launches, after.launches, strict=True):
            if launch.name in tie.passed and launch.name not in before.by_site:
                pair = before.model.predict(launch), after.model.predict(narrow)
                saved += pair[0].seconds - pair[1].seconds
        return saved


class Credits:
    """The costs of a table whose readers are credited for what they save in their makers.

    `table` is the one without credits, `pairs` what is saved together.

    Args:
        rows: candidates of every weight.
        tied: by reader.
        savings: of every pair.
        quantities: what is counted.
    """

    def __init__(
        self,
        rows: Sequence[MixedRow],
        tied: Mapping[str, Tie],
        savings: Savings,
        quantities: Sequence[Quantity],
    ) -> None:
        self.table = [row.choices(quantities) for row in rows]
        place = {row.site: i for i, row in enumerate(rows)}
        self.pairs: list[Pair] = []
        for reader, tie in tied.items():
            row = rows[place[reader]]
            forms = [(i, c.form) for i, c in enumerate(row.candidates)]
            kept = [(i, int(f.keep)) for i, f in forms if isinstance(f, Columns)]
            if not kept:
                continue
            makers = rows[place[tie.maker]].candidates
            each = [[savings.of(tie, c, keep) for _, keep in kept] for c in makers]
            saved: dict[str, Matrix] = {}
            for quantity in quantities:
                lines = [[found[quantity] for found in line] for line in each]
                saved[quantity] = np.array(lines, np.float64)
            at = np.array([i for i, _ in kept])
            self.pairs.append(Pair(place[tie.maker], place[reader], at, saved))

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def least(self) -> list[Choices]:
        """Credits of what is saved whatever the maker becomes: never below the true cost."""
        return self._with([_each(pair, lambda s: s.min(axis=0)) for pair in self.pairs])

    def most(self) -> list[Choices]:
        """Credits of what may be saved at best: never above the true cost."""
        best = [_each(pair, lambda s: s.max(axis=0)) for pair in self.pairs]
        return self._with(best, is_bound=True)

    def at(self, choice: Sequence[int]) -> list[Choices]:
        """Exact where every maker takes its part of a choice, never below the true cost."""
        return self._with([_each(p, lambda s, at=choice[p.maker]: s[at]) for p in self.pairs])

    def _with(
        self, given: Sequence[Mapping[str, Vector]], *, is_bound: bool = False
    ) -> list[Choices]:
        made = list(self.table)
        for pair, credit in zip(self.pairs, given, strict=True):
            costs = {q: np.array(v) for q, v in made[pair.reader].costs.items()}
            for quantity, saved in credit.items():
                costs[quantity][pair.candidates] -= saved
            made[pair.reader] = replace(made[pair.reader], costs=costs)
            if not is_bound:
                costs = {q: np.array(v) for q, v in made[pair.maker].costs.items()}
                for quantity, saved in credit.items():
                    beyond = saved[None] - pair.saved[quantity]
                    costs[quantity] += np.maximum(beyond, 0.0).max(axis=1)
                made[pair.maker] = replace(made[pair.maker], costs=costs)
        return made


def _each(pair: Pair, of: Callable[[Matrix], Vector]) -> dict[str, Vector]:
    return {quantity: of(saved) for quantity, saved in pair.saved.items()}


def _width(form: Form) -> float:
    """Bits of a number of a form as it is stored."""
    return 32.0 if isinstance(form, Dense) else 8.0 if isinstance(form, Int8) else 16.0


def _macs(kernels: tuple[Kernel, ...]) -> float:
    """Multiply-adds; unknown positions count as one."""
    macs = kernel_macs(kernels)
    return float(kernel_weights(kernels) if macs is None else macs)
