"""The fields of a pydantic model as options of a typer command: no option is written twice."""

import inspect as signatures
from typing import Annotated, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .settings import is_fraction, is_list, kebab

SHORT = {"output": "-o", "jobs": "-j"}
WIDE = 20
Signature = signatures.Signature
Parameter = signatures.Parameter


def parameters(model: type[BaseModel]) -> list[Parameter]:
    """A keyword parameter for every field, in order.

    Its value is None where the option is not given, else its text (a bool for a switch, a list
    for a repeatable one): the model reads it, so that flags, variables and files agree.
    """
    return [_option(name, field) for name, field in model.model_fields.items()]


def keyword(name: str, annotation: object, default: object = Parameter.empty) -> Parameter:
    """A parameter of a command that is made by hand."""
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option(name: str, field: FieldInfo) -> Parameter:
    """A field as an option; None where it is not given. The field's type reads the text."""
    kind: object = str | None
    flag = "--" + kebab(name)
    metavar: str | None = _metavar(field)
    if field.annotation is bool:
        kind, flag, metavar = bool | None, f"{flag}/--no-{kebab(name)}", None
    elif is_list(field):
        kind = list[str] | None
    choices = "|".join(_choices(field))
    told = f" One of {choices}." if len(choices) > WIDE else ""
    info = typer.Option(
        *([SHORT[name]] if name in SHORT else []),
        flag,
        help=(field.description or "") + told + _default(field.default),
        metavar=metavar,
        show_default=False,
    )
    return keyword(name, Annotated[kind, info], None)


def _choices(field: FieldInfo) -> tuple[str, ...]:
    parts = (field.annotation, *get_args(field.annotation))
    return next((get_args(part) for part in parts if get_origin(part) is Literal), ())


def _metavar(field: FieldInfo) -> str:
    if choices := _choices(field):
        text = "|".join(choices)
        return text if len(text) <= WIDE else "NAME"
    if is_fraction(field):
        return "FRACTION"
    text = str(field.annotation)
    kinds = (("Path", "PATH"), ("int", "N"), ("float", "NUMBER"))
    return next((shown for word, shown in kinds if word in text), "TEXT")


def _default(value: object) -> str:
    if value is None or value is False or value == ():
        return ""
    return f" (default: {'yes' if value is True else value})"
