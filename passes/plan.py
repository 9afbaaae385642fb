"""Plan: the form of every site, as a value and as plan.json."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, cast, get_args

from ..device_profiles.errors import PlanError
from .forms import Dense, Form, Json, from_json, text, to_json
from .sites import Site

Fit = Literal["apart", "in turn", "nearest", "weights"]
"""How terms are fitted where inputs are known: every layer on its own; each behind those
before it; whichever of the two leaves the outputs nearer; or all to their weights alone."""
MOST_LAYERS = 100_000
MOST_PATTERNS = 1000
MOST_LETTERS = 1000


@dataclass(frozen=True)
class Pattern:
    """One form for every layer whose name matches.

    Args:
        match: a name, or a pattern with *, ? and [abc].
        form: what the layers take that it fits; the others stay dense.
    """

    match: str
    form: Form

    def takes(self, name: str) -> bool:
        """Whether a layer's name matches."""
        return name == self.match or fnmatchcase(name, self.match)

    @property
    def is_name(self) -> bool:
        """Whether it means one layer."""
        return not any(c in self.match for c in "*?[")


@dataclass(frozen=True)
class Plan:
    """Which form every site takes; a site that is not named stays dense.

    Args:
        forms: site name to form.
        patterns: forms of the sites that `forms` does not name; the first that matches counts.
        fit: how its terms are fitted.
        halves: whether the other floats, biases and norms, are stored in float16.
    """

    forms: Mapping[str, Form]
    patterns: tuple[Pattern, ...] = ()
    fit: Fit = "apart"
    halves: bool = False

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
        data: dict[str, object] = {"schema": 1, "layers": layers}
        if self.patterns:
            data["patterns"] = [
                {"match": p.match, "form": to_json(p.form)} for p in self.patterns
            ]
        if self.fit != "apart":
            data["fit"] = self.fit
        if self.halves:
            data["halves"] = True
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"

    def checked(self, sites: Iterable[Site]) -> "Plan":
        """The plan by layers, once every entry names a site and fits its weight.

        Raises:
            PlanError: an entry names no site, a pattern matches or fits none, or sites that
                share a weight differ.
            RankError: a form does not fit a weight.
        """
        return self.resolved(sites)[0]

    def resolved(self, sites: Iterable[Site]) -> "tuple[Plan, dict[str, str]]":
        """`checked`, and why a site that a pattern meant stays dense: site name to reason."""
        found = list(sites)
        plan, reasons = self._spread(found)
        table = {site.name: site for site in found}
        for name, form in plan.forms.items():
            site = table.get(name)
            if site is None:
                raise PlanError(
                    f"the plan names layer {name!r}, which the model does not have",
                    where="plan",
                    hint=_near(name, list(table)),
                )
            if (misfit := _misfit(form, site)) is not None:
                raise type(misfit)(
                    misfit.what, where=f"layer {name!r}", hint=misfit.hint
                ) from misfit
            for other in site.shares:
                if plan.form(other) != form:
                    raise PlanError(
                        f"layers {name!r} and {other!r} share one weight but take two forms",
                        where="plan",
                        hint="give both the same form",
                    )
        return plan, reasons

    def _spread(self, sites: Sequence[Site]) -> "tuple[Plan, dict[str, str]]":
        """The plan with its patterns written out, in graph order."""
        if not self.patterns:
            return self, {}
        forms = dict(self.forms)
        reasons: dict[str, str] = {}
        taken: set[int] = set()
        for site in sites:
            at = next((i for i, p in enumerate(self.patterns) if p.takes(site.name)), None)
            if at is None or site.name in self.forms:
                continue
            form = self.patterns[at].form
            misfit = _misfit(form, site)
            if misfit is None:
                forms[site.name] = form
                taken.add(at)
            else:
                reasons[site.name] = f"{text(form)} does not fit: {misfit.what}"
        for at, pattern in enumerate(self.patterns):
            self._check_pattern(pattern, at in taken, sites, reasons)
        for site in sites:  # a weight that two layers share has one form
            for other in site.shares:
                if other not in self.forms and site.name in forms:
                    forms.setdefault(other, forms[site.name])
        ordered = [site.name for site in sites if site.name in forms]
        unknown = [name for name in self.forms if name not in set(ordered)]
        named = {name: forms[name] for name in (*ordered, *unknown)}
        return replace(self, forms=named, patterns=()), reasons

    def _check_pattern(
        self,
        pattern: Pattern,
        is_taken: bool,
        sites: Sequence[Site],
        reasons: Mapping[str, str],
    ) -> None:
        """Raises PlanError where a pattern matches no layer, or fits none that it matches."""
        if is_taken:
            return
        matched = [site.name for site in sites if pattern.takes(site.name)]
        if not matched:
            raise PlanError(
                f"the pattern {pattern.match!r} matches no layer",
                where="plan",
                hint=_near(pattern.match, [site.name for site in sites]),
            )
        refused = next((name for name in matched if name in reasons), None)
        if refused is not None:
            raise PlanError(
                f"fits none of the {len(matched)} layers it is for: {reasons[refused]}",
                where=f"plan: {pattern.match!r}, layer {refused!r}",
                hint="choose another form, or leave the pattern out",
            )


def _misfit(form: Form, site: Site) -> PlanError | None:
    """Why a form cannot stand for a site's weight; None where it can."""
    try:
        form.kernels(site.shape, site.geometry)
    except PlanError as error:
        return error
    return None


def _near(word: str, names: Sequence[str]) -> str:
    """The layers that a wrong name may have meant."""
    bare = word.strip("*?")
    close = [name for name in names if bare and bare.lower() in name.lower()][:3]
    close = close or difflib.get_close_matches(bare[:200], names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"layers are {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"


def loads(text: str, *, where: str = "plan") -> Plan:
    """The plan that `Plan.dumps` wrote; forms may also be texts.

    Raises:
        PlanError: not a plan of schema 1.
        UnknownForm: a form that nncc does not have.
    """
    try:
        data = cast(Json, json.loads(text, object_pairs_hook=partial(_once, where)))
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        raise PlanError(f"not JSON: {error}", where=where) from error
    if not isinstance(data, dict) or data.get("schema") != 1:
        raise PlanError('expected {"schema": 1, "layers": {…}}', where=where)
    unknown = sorted(data.keys() - {"schema", "layers", "patterns", "fit", "halves"})
    if unknown:
        raise PlanError(
            f"a plan has no {unknown[0]!r}",
            where=where,
            hint="it has layers, patterns, fit, halves",
        )
    layers = data.get("layers", {} if "patterns" in data else None)
    if not isinstance(layers, dict):
        raise PlanError('expected "layers" to map layer names to forms', where=where)
    if len(layers) > MOST_LAYERS:
        raise PlanError(f"{len(layers)} layers; {MOST_LAYERS} are enough", where=where)
    forms = {
        name: from_json(form, where=f"{where}: layer {name!r}")
        for name, form in layers.items()
    }
    halves = data.get("halves", False)
    if not isinstance(halves, bool):
        raise PlanError('expected "halves" to be true or false', where=where)
    return Plan(
        forms, _patterns(data.get("patterns", []), where), _fit(data.get("fit"), where), halves
    )


def _fit(data: Json, where: str) -> Fit:
    if data is None:
        return "apart"
    found = next((way for way in get_args(Fit) if way == data), None)
    if found is None:
        known = ", ".join(map(repr, get_args(Fit)))
        raise PlanError(f"there is no fit {str(data)[:80]!r}", where=where, hint=known)
    return cast(Fit, found)


def _once(where: str, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """An object of JSON whose keys all differ.

    Raises:
        PlanError: a key is given twice.
    """
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise PlanError(
                f"{key[:80]!r} is given twice", where=where, hint="leave one of them out"
            )
        found[key] = value
    return found


def _patterns(data: Json, where: str) -> tuple[Pattern, ...]:
    if not isinstance(data, list):
        raise PlanError('expected "patterns" to be a list', where=where)
    if len(data) > MOST_PATTERNS:
        raise PlanError(f"{len(data)} patterns; {MOST_PATTERNS} are enough", where=where)
    found: list[Pattern] = []
    for at, entry in enumerate(data):
        here = f"{where}: pattern {at + 1}"
        match = entry.get("match") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or entry.keys() != {"match", "form"}:
            raise PlanError('expected {"match": "layer4.*", "form": …}', where=here)
        if not isinstance(match, str) or not 0 < len(match) <= MOST_LETTERS:
            raise PlanError(
                f'"match" must be a pattern of 1 to {MOST_LETTERS} letters', where=here
            )
        found.append(Pattern(match, from_json(entry["form"], where=f"{here} ({match!r})")))
    return tuple(found)
