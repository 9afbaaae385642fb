"""Fields: what a form's dataclass says of its parameters, for plans, texts and pages.

Nothing about a form's parameters is written twice: names, types, defaults and order come from
`dataclasses.fields`; ranges are checked by the form itself, when it is made.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from ..form import Form

MOST_NESTED = 12
"""Depth of forms within forms that is read; deeper is a mistake or an attack."""
MOST_DIGITS = 2**53
"""Whole numbers are exact in every JSON reader up to here."""
MOST_LETTERS = 200
MOST_ITEMS = 256


@dataclass(frozen=True)
class Field:
    """One parameter of a form.

    Args:
        name: as in the dataclass.
        options: the types of its annotation, a union taken apart.
        is_required: whether it has no default.
        default: meaningless where it is required.
    """

    name: str
    options: tuple[object, ...]
    is_required: bool
    default: object = None

    @property
    def expected(self) -> str:
        """What it takes, for people: "a whole number or none"."""
        return either([_word(option) for option in self.options])

    def is_default(self, value: object) -> bool:
        """Whether the value need not be written: 1 and 1.0 are told apart."""
        return not self.is_required and repr(value) == repr(self.default)

    def takes(self, kind: type) -> bool:
        """Whether values of a built-in type are taken."""
        return kind in self.options or (kind is str and bool(self.words))

    @property
    def takes_form(self) -> bool:
        """Whether it is a form."""
        return any(_is_form(option) for option in self.options)

    @property
    def words(self) -> tuple[str, ...]:
        """The strings of a Literal annotation."""
        found = [get_args(o) for o in self.options if get_origin(o) is Literal]
        return tuple(word for words in found for word in words if isinstance(word, str))

    @property
    def item(self) -> "Field":
        """One item of the lists that it takes; of none, a field that takes nothing."""
        lists = [get_args(o) for o in self.options if get_origin(o) is tuple]
        kinds = [kind for kinds in lists for kind in kinds if kind is not Ellipsis]
        return Field(self.name, tuple(o for kind in kinds for o in _options(kind)), True)

    def accept(self, value: object, said: str = "") -> object:
        """The value as the field stores it: whole numbers become floats where it is one.

        Args:
            value: a number, a word, a form, a list of them, or None.
            said: how it was written, for the message.

        Raises:
            ValueError: it is none of the field's types, or no finite number.
        """
        for option in sorted(self.options, key=_precedence):
            try:
                return _accept(value, option)
            except TypeError:
                continue
        raise ValueError(f"expected {self.expected}, found {said or shown(value)}")


def fields_of(kind: "type[Form] | Form") -> tuple[Field, ...]:
    """The parameters of a form, in order."""
    form = kind if isinstance(kind, type) else type(kind)
    hints = get_type_hints(form)
    found: list[Field] = []
    for entry in dataclasses.fields(form):  # pyright: ignore[reportArgumentType]
        if not entry.init:
            continue
        default: object = entry.default
        required = default is dataclasses.MISSING
        if required and entry.default_factory is not dataclasses.MISSING:
            default, required = entry.default_factory(), False
        found.append(Field(entry.name, _options(hints[entry.name]), required, default))
    return tuple(found)


def values_of(form: Form) -> Mapping[Field, object]:
    """Every parameter of a form and its value, defaults too."""
    return {entry: getattr(form, entry.name) for entry in fields_of(form)}


def shown(value: object) -> str:
    """A value in a message, short; a form by its name."""
    if isinstance(value, Form):
        return value.name
    word = repr(value)
    return word if len(word) <= 40 else f"{word[:37]}…"


def either(words: list[str]) -> str:
    """A list for people: "a, b or c"."""
    return (
        " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "nothing"
    )


def _options(hint: object) -> tuple[object, ...]:
    if get_origin(hint) in (Union, UnionType):
        return tuple(o for part in get_args(hint) for o in _options(part))
    return (hint,)


def _is_form(option: object) -> bool:
    if option is Form:
        return True
    return isinstance(option, type) and isinstance(getattr(option, "name", None), str)


def _precedence(option: object) -> int:
    """The most exact type first: 1 stays whole where both kinds of numbers are taken."""
    order: list[object] = [NoneType, bool, int, float]
    return order.index(option) if option in order else len(order)


def _accept(value: object, option: object) -> object:
    """The value as `option`.

    Raises:
        TypeError: it is something else.
        ValueError: it is that, and out of every range.
    """
    if option is NoneType and value is None:
        return None
    if option is bool and isinstance(value, bool):
        return value
    if option is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MOST_DIGITS:
            raise ValueError(f"{shown(value)} is beyond every size")
        return value
    if option is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"expected a finite number, found {value}")
        if abs(value) > MOST_DIGITS and isinstance(value, int):
            raise ValueError(f"{shown(value)} is beyond every size")
        return float(value)
    if option is str and isinstance(value, str):
        if len(value) > MOST_LETTERS:
            raise ValueError(f"a word of {len(value)} letters; {MOST_LETTERS} are enough")
        return value
    if get_origin(option) is Literal and value in get_args(option):
        return value
    if _is_form(option) and isinstance(value, cast(type, option)):
        return value
    if get_origin(option) is tuple and isinstance(value, list | tuple):
        items = cast("list[object] | tuple[object, ...]", value)
        return _items(tuple(items), get_args(option))
    raise TypeError


def _items(values: tuple[object, ...], kinds: tuple[Any, ...]) -> tuple[object, ...]:
    if len(values) > MOST_ITEMS:
        raise ValueError(f"a list of {len(values)} items; {MOST_ITEMS} are enough")
    if kinds and kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(values)
    if len(kinds) != len(values):
        raise ValueError(f"expected {len(kinds)} items, found {len(values)}")
    each = [Field("", _options(kind), True) for kind in kinds]
    return tuple(field.accept(value) for field, value in zip(each, values, strict=True))


def _word(option: object) -> str:
    """A type as a person says it."""
    words: dict[object, str] = {
        NoneType: "none",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a word",
        Form: "a form",
    }
    if option in words:
        return words[option]
    if get_origin(option) is Literal:
        return either([str(word) for word in get_args(option)])
    if get_origin(option) is tuple:
        inner = [kind for kind in get_args(option) if kind is not Ellipsis]
        each = either(list(dict.fromkeys(_word(o) for k in inner for o in _options(k))))
        return f"a list of ({each})" if inner else "an empty list"
    return str(getattr(option, "name", option))
