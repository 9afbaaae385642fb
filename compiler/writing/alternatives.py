"""alternatives.json, schema 1: what every layer could have become, and where the time goes.

What the allocation weighed (`Considered`), priced: multiply-adds and predicted milliseconds
are those of all sites that share the weight. Predicted times are split into launches,
computing and memory, of every layer and of what is no layer.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from ... import __version__
from ...device_profiles.cost.parts import Parts, parts, summed
from ...passes.forms import Form, kernel_macs, text
from ...passes.plan import Plan
from ...passes.removal.left import NOTHING_GONE, Left
from ...passes.sites import Site
from ..allocation.alternatives import MOST, Alternative, Considered, Counted, Rule
from ..costs import Costs
from .metrics import Strict, finite

NAME = "alternatives.json"
LIMIT = 64 << 20
"""Bytes of the file that are read back at most."""
_LONGEST = 1_000
"""Letters of a form."""

Text = Annotated[str, Field(max_length=1 << 14)]
Amount = Annotated[FiniteFloat, Field(ge=0, le=1e30)]


class Candidate(Strict):
    """A form that a layer could have taken; null where a number is not known."""

    form: Annotated[str, Field(max_length=_LONGEST)]
    error: Amount | None = Field(description="Relative, of what `choice.error` names.")
    divergence: Amount | None = Field(description="Of the model's outputs, by it alone.")
    bits: Amount | None
    macs: Amount | None
    predicted_ms: Amount | None


class Time(Strict):
    """Predicted milliseconds of some launches, by what limits them."""

    launches: int = Field(ge=0)
    launch_ms: Amount
    compute_ms: Amount
    memory_ms: Amount

    @property
    def ms(self) -> float:
        """All of it."""
        return self.launch_ms + self.compute_ms + self.memory_ms


class Layer(Strict):
    """A weight, what it could have become, and its time in the net."""

    name: Text
    shares: tuple[Text, ...] = Field(description="Sites that read the same weight.")
    chosen: int | None = Field(ge=0, description="Index of what was taken; null: no choice.")
    looked_at: int = Field(ge=0, description="Candidates before those that others beat left.")
    reason: Text = Field(description="Why there is nothing but dense.")
    candidates: tuple[Candidate, ...] = Field(max_length=MOST + 1)
    reference: Time | None
    compressed: Time | None


class Rest(Strict):
    """Launches of one operator that are no layers."""

    op: Text
    time: Time


class Budget(Strict):
    """A budget, and what the choice took of it, in shares of what the original has."""

    text: Text
    most: Amount
    used: Amount

    @property
    def left(self) -> float:
        """What is left of it, as a share of it; negative where it is not held."""
        return 1 - self.used / self.most if self.most > 0 else 0.0


class Choice(Strict):
    """How the forms were chosen."""

    rule: Rule
    error: Text
    quantities: tuple[Counted, ...] = Field(max_length=4)
    bound: Amount | None
    budgets: tuple[Budget, ...] = Field(
        default=(), max_length=4, description="Each of several, as quantities are."
    )

    @property
    def binding(self) -> Counted:
        """What the budget counts of which least is left."""
        pairs = list(zip(self.budgets, self.quantities, strict=False))
        least = min(pairs, key=lambda pair: pair[0].left, default=None)
        if least is not None:
            return least[1]
        return self.quantities[0] if self.quantities else "bits"


class Weighed(Strict):
    """alternatives.json."""

    schema_: Literal[1] = Field(alias="schema")
    nncc: Text
    choice: Choice | None = Field(description="null where nothing was chosen.")
    rest: tuple[Rest, ...] = Field(description="By operator; empty without a cost model.")
    layers: tuple[Layer, ...]

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


def weighed(
    sites: Sequence[Site],
    considered: Considered | None,
    plan: Plan,
    costs: Costs | None,
    left: Left = NOTHING_GONE,
) -> Weighed:
    """What is written down of a choice.

    Args:
        sites: as `find_sites` gives them.
        considered: what the allocation weighed; None where nothing was chosen.
        plan: as it ended, after everything that went back.
        costs: predicted times, where the target has a cost model.
        left: the channels that are left after the plan.
    """
    now = None if costs is None else costs.without(left)
    by_name = {site.name: site for site in sites}
    known = {entry.site: entry for entry in considered.sites} if considered else {}
    layers: list[Layer] = []
    told: set[str] = set()
    for site in sites:
        if site.name in told:
            continue
        users = [site, *(by_name[name] for name in site.shares if name in by_name)]
        told.update(user.name for user in users)
        found = known.get(site.name)
        layers.append(
            Layer(
                name=site.name,
                shares=tuple(user.name for user in users[1:]),
                chosen=None if found is None else found.chosen,
                looked_at=0 if found is None else found.looked_at,
                reason="" if found is None else found.reason,
                candidates=()
                if found is None
                else tuple(_priced(c, users, costs) for c in found.candidates),
                reference=_time(users, None, costs),
                compressed=_time(users, plan.form(site.name), now),
            )
        )
    choice = None
    if considered is not None:
        choice = Choice(
            rule=considered.rule,
            error=considered.error,
            quantities=considered.quantities,
            bound=finite(considered.bound),
            budgets=tuple(
                Budget(text=b.text, most=b.most, used=b.used) for b in considered.budgets
            ),
        )
    return Weighed(
        schema=1, nncc=__version__, choice=choice, rest=_rest(now), layers=tuple(layers)
    )


def read(text: str) -> Weighed:
    """The file's content.

    Raises:
        ValueError: it is none, or of another schema.
    """
    held = Weighed.model_validate_json(text)
    for layer in held.layers:
        if layer.chosen is not None and layer.chosen >= len(layer.candidates):
            raise ValueError(f"{layer.name!r} took candidate {layer.chosen}, which is none")
    return held


def _priced(entry: Alternative, users: Sequence[Site], costs: Costs | None) -> Candidate:
    known = [kernel_macs(entry.form.kernels(u.shape, u.geometry)) for u in users]
    macs = None if None in known else sum(m for m in known if m is not None)
    time = _time(users, entry.form, costs)
    return Candidate(
        form=text(entry.form)[:_LONGEST],
        error=finite(entry.error),
        divergence=finite(entry.divergence),
        bits=finite(entry.bits),
        macs=macs,
        predicted_ms=None if time is None else time.ms,
    )


def _time(users: Sequence[Site], form: Form | None, costs: Costs | None) -> Time | None:
    """Of all sites that share a weight; None where one of them is no launch."""
    if costs is None:
        return None
    each = [costs.launched(user, form) for user in users]
    if not all(each):
        return None
    made = [kernel for launches in each for kernel in launches]
    around = Parts(launch=sum(costs.around(user, form) for user in users))
    return _of(summed([*(parts(costs.model, kernel) for kernel in made), around]), len(made))


def _rest(costs: Costs | None) -> tuple[Rest, ...]:
    """Everything but the sites, by operator, the longest time first."""
    if costs is None:
        return ()
    sites = {id(kernel) for kernel in costs.by_site.values()}
    found: dict[str, list[Parts]] = {}
    for kernel in costs.launches:
        if id(kernel) not in sites:
            found.setdefault(kernel.op, []).append(parts(costs.model, kernel))
    made = [Rest(op=op, time=_of(summed(each), len(each))) for op, each in found.items()]
    return tuple(sorted(made, key=lambda entry: (-entry.time.ms, entry.op)))


def _of(found: Parts, launches: int) -> Time:
    return Time(
        launches=launches,
        launch_ms=found.launch * 1e3,
        compute_ms=found.compute * 1e3,
        memory_ms=found.memory * 1e3,
    )
