"""Plan: the form of every site, as a value and as plan.json."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from ..device_profiles.errors import PlanError
from .forms import Dense, Form, Json, from_json, to_json
from .sites import Site


@dataclass(frozen=True)
class Plan:
    """Which form every site takes; a site that is not named stays dense.

    Args:
        forms: site name to form.
    """

    forms: Mapping[str, Form]

    def form(self, site: str) -> Form:
        """The form of a site."""
        return self.forms.get(site, Dense())

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the sites that do not stay dense."""
        return tuple(n for n, form in self.forms.items() if not isinstance(form, Dense))

    def dumps(self) -> str:
        """The text of plan.json: same plan, same bytes."""
        layers = {name: to_json(form) for name, form in self.forms.items()}
        return json.dumps({"schema": 1, "layers": layers}, indent=1, ensure_ascii=False) + "\n"

    def checked(self, sites: Iterable[Site]) -> "Plan":
        """The plan, once every entry names a site and fits its weight.

        Raises:
            PlanError: an entry names no site, or sites that share a weight differ.
            RankError: a form does not fit a weight.
        """
        table = {site.name: site for site in sites}
        for name, form in self.forms.items():
            site = table.get(name)
            if site is None:
                known = ", ".join(list(table)[:5])
                raise PlanError(
                    f"the plan names layer {name!r}, which the model does not have",
                    where="plan",
                    hint=f"layers are {known}{', …' if len(table) > 5 else ''}",
                )
            try:
                form.kernels(site.shape, site.geometry)
            except PlanError as error:
                raise type(error)(
                    error.what, where=f"layer {name!r}", hint=error.hint
                ) from error
            for other in site.shares:
                if self.form(other) != form:
                    raise PlanError(
                        f"layers {name!r} and {other!r} share one weight but take two forms",
                        where="plan",
                        hint="give both the same form",
                    )
        return self


def loads(text: str, *, where: str = "plan") -> Plan:
    """The plan that `Plan.dumps` wrote.

    Raises:
        PlanError: not a plan of schema 1.
        UnknownForm: a form that nncc does not have.
    """
    try:
        data = cast(Json, json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise PlanError(f"not JSON: {error}", where=where) from error
    if not isinstance(data, dict) or data.get("schema") != 1:
        raise PlanError('expected {"schema": 1, "layers": {…}}', where=where)
    layers = data.get("layers")
    if not isinstance(layers, dict):
        raise PlanError('expected "layers" to map layer names to forms', where=where)
    return Plan(
        {
            name: from_json(form, where=f"{where}: layer {name!r}")
            for name, form in layers.items()
        }
    )
