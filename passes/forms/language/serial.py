"""Serial: a form as it stands in a plan (JSON), and back."""

from collections.abc import Mapping
from typing import TypeAlias, cast

from ....device_profiles.errors import NnccError, PlanError, UnknownForm
from ..form import Form
from ..table import forms
from .fields import MOST_NESTED, Field, fields_of, shown, values_of
from .grammar import nearest, parse

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


def to_json(form: Form) -> dict[str, Json]:
    """The form as it stands in a plan; what has its default value is left out.

    Example:
        >>> from nncc.passes.forms import Blocks, LowRank
        >>> to_json(Blocks(4, LowRank(16)))
        {'form': 'blocks', 'k': 4, 'of': {'form': 'lowrank', 'j': 16}}
    """
    words: dict[str, Json] = {"form": form.name}
    for field, value in values_of(form).items():
        if not field.is_default(value):
            words[field.name] = _written(value)
    return words


def from_json(data: Json, *, where: str = "plan") -> Form:
    """The form that `to_json` wrote, or that a text says.

    Raises:
        UnknownForm: no form has that name.
        PlanError: a field is missing, unknown, of the wrong type or out of range.
    """
    return _form(data, where, 0)


def _written(value: object) -> Json:
    if isinstance(value, Form):
        return to_json(value)
    if isinstance(value, tuple):
        return [_written(item) for item in cast("tuple[object, ...]", value)]
    return cast(Json, value)


def _form(data: Json, where: str, depth: int) -> Form:
    if depth > MOST_NESTED:
        raise PlanError(
            f"forms within forms, deeper than {MOST_NESTED}", where=where, hint="nest less"
        )
    if isinstance(data, str):
        return parse(data, where=where)
    if not isinstance(data, dict) or not isinstance(data.get("form"), str):
        raise PlanError(
            f"expected a form such as {{'form': 'lowrank', 'j': 16}} or 'lowrank(j=16)', "
            f"found {shown(data)}",
            where=where,
        )
    table = forms()
    name = cast(str, data["form"])
    if name not in table:
        raise UnknownForm(
            f"unknown form {shown(name)}",
            where=where,
            hint=f"{nearest(name, table)}forms are {', '.join(sorted(table))}",
        )
    kind = table[name]
    fields = {field.name: field for field in fields_of(kind)}
    given = {key: value for key, value in data.items() if key != "form"}
    _check_names(name, fields, given, where)
    values: dict[str, object] = {}
    for key, value in given.items():
        read = _value(value, fields[key], f"{where}.{key}", depth)
        try:
            values[key] = fields[key].accept(read)
        except ValueError as error:
            raise PlanError(f"{key} of form {name!r}: {error}", where=where) from None
    try:
        return kind(**values)
    except NnccError as error:
        if error.where:
            raise
        raise type(error)(error.what, where=where, hint=error.hint) from error


def _check_names(
    name: str, fields: Mapping[str, Field], given: Mapping[str, object], where: str
) -> None:
    missing = [f.name for f in fields.values() if f.is_required and f.name not in given]
    unknown = [key for key in given if key not in fields]
    if missing or unknown:
        raise PlanError(
            f"form {name!r} takes {', '.join(fields) or 'nothing'}, "
            f"found {', '.join(map(str, given)) or 'nothing'}",
            where=where,
            hint=f"give {', '.join(missing)}" if missing else f"leave out {unknown[0]!r}",
        )


def _value(value: Json, field: Field, where: str, depth: int) -> object:
    """Forms in it read; everything else as it is."""
    if isinstance(value, dict):
        return _form(value, where, depth + 1)
    if isinstance(value, str) and field.takes_form and not field.takes(str):
        return _form(value, where, depth + 1)
    if isinstance(value, list):
        is_forms = not field.takes(str)
        return tuple(
            _form(item, f"{where}[{at}]", depth + 1)
            if isinstance(item, dict) or (isinstance(item, str) and is_forms)
            else cast(object, item)
            for at, item in enumerate(value)
        )
    return value
