"""Forms by name: the closed algebra, its readable text and its plan (JSON) shape.

A new form is one file here and one line in `FORMS`, or an entry point in group `nncc.forms`.
"""

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias, cast, get_args, get_type_hints

from ...device_profiles.errors import PlanError, UnknownForm
from .blocks import Blocks, BlocksTerm
from .dense import Dense, DenseTerm
from .folded import Folded, FoldedTerm
from .form import Cost, Emitter, Form, Shape, Term, kernel_macs, kernel_weights, squared_error
from .lowrank import LowRank, LowRankTerm
from .tucker import Tucker2, Tucker2Term

FORMS: Mapping[str, type[Form]] = {
    form.name: form for form in (Dense, LowRank, Blocks, Folded, Tucker2)
}

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


def forms() -> dict[str, type[Form]]:
    """All forms by name: the table and the installed entry points `nncc.forms`."""
    from importlib.metadata import entry_points

    found = dict(FORMS)
    for point in entry_points(group="nncc.forms"):
        found.setdefault(point.name, cast(type[Form], point.load()))
    return found


def text(form: Form) -> str:
    """The form as a person reads it.

    Example:
        >>> text(Folded(1, Blocks(4, LowRank(16))))
        'folded(scheme=1, blocks(k=4, lowrank(j=16)))'
    """
    words = [
        text(value) if isinstance(value, Form) else f"{name}={value}"
        for name, value in _fields(form)
    ]
    return f"{form.name}({', '.join(words)})" if words else form.name


def to_json(form: Form) -> dict[str, Json]:
    """The form as it stands in a plan.

    Example:
        >>> to_json(Blocks(4, LowRank(16)))
        {'form': 'blocks', 'k': 4, 'of': {'form': 'lowrank', 'j': 16}}
    """
    words: dict[str, Json] = {"form": form.name}
    for name, value in _fields(form):
        words[name] = to_json(value) if isinstance(value, Form) else cast(Json, value)
    return words


def from_json(data: Json, *, where: str = "plan") -> Form:
    """The form that `to_json` wrote.

    Raises:
        UnknownForm: no form has that name.
        PlanError: a field is missing, unknown or of the wrong type.
    """
    if not isinstance(data, dict) or not isinstance(data.get("form"), str):
        raise PlanError(
            f"expected a form such as {{'form': 'lowrank', 'j': 16}}, found {data!r}",
            where=where,
        )
    table = forms()
    name = cast(str, data["form"])
    if name not in table:
        raise UnknownForm(
            f"unknown form {name!r}", where=where, hint=f"forms are {', '.join(sorted(table))}"
        )
    kind = table[name]
    wanted = {f.name: f for f in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    hints = get_type_hints(kind)
    given = {key: value for key, value in data.items() if key != "form"}
    if given.keys() != wanted.keys():
        raise PlanError(
            f"form {name!r} takes {', '.join(wanted) or 'nothing'}, "
            f"found {', '.join(given) or 'nothing'}",
            where=where,
        )
    values: dict[str, object] = {}
    for key, value in given.items():
        if isinstance(value, dict):
            values[key] = from_json(value, where=f"{where}.{key}")
        elif isinstance(value, bool) or not isinstance(value, int):
            raise PlanError(f"{key} must be a whole number, found {value!r}", where=where)
        else:
            values[key] = value
        if not isinstance(values[key], hints[key]):
            takes = get_args(hints[key]) or (hints[key],)
            names = " or ".join(getattr(type_, "name", "a whole number") for type_ in takes)
            found = getattr(values[key], "name", repr(value))
            raise PlanError(
                f"form {name!r} takes {names} as {key}, found {found}", where=where
            )
    return kind(**values)


def _fields(form: Form) -> list[tuple[str, object]]:
    fields = dataclasses.fields(form)  # pyright: ignore[reportArgumentType]
    return [(f.name, getattr(form, f.name)) for f in fields]


__all__ = [
    "FORMS",
    "Blocks",
    "BlocksTerm",
    "Cost",
    "Dense",
    "DenseTerm",
    "Emitter",
    "Folded",
    "FoldedTerm",
    "Form",
    "LowRank",
    "LowRankTerm",
    "Shape",
    "Term",
    "Tucker2",
    "Tucker2Term",
    "forms",
    "from_json",
    "kernel_macs",
    "kernel_weights",
    "squared_error",
    "text",
    "to_json",
]
