"""Grammar: the readable text of a form, and back.

```
sum    := form ("+" form)*
form   := NAME [ "(" [ given ("," given)* [","] ] ")" ]  |  "(" sum ")"
given  := [ NAME "=" ] value
value  := sum | NUMBER["%"] | STRING | "none" | "true" | "false"
        | "(" [ value ("," value)* [","] ] ")"
```

A value without a name goes to the first field that is not named. A percentage is a fraction.
A word that a field takes as a word needs no quotes. `parse(text(form)) == form`.
"""

import difflib
import json
from collections.abc import Iterable
from typing import cast

from ....device_profiles.errors import BadExpression, NnccError
from ..form import Form
from ..table import forms
from .fields import MOST_ITEMS, MOST_NESTED, Field, either, fields_of, values_of
from .tokens import NAME, Token, mistake, tokens

SUM = "sum"
"""Name of the form that `+` makes."""
MOST_DEEP = 2 * MOST_NESTED
"""Depth of parentheses: a form within a list of a form opens two."""
_WORDS: dict[str, object] = {"none": None, "true": True, "false": False}


def parse(text: str, *, where: str = "form") -> Form:
    """The form that a text says.

    Args:
        text: e.g. "quantize(k=2) + prune(kappa=1%)".
        where: what the text is, for messages.

    Raises:
        BadExpression: it does not read, or a form refuses its parameters; with the column.

    Example:
        >>> parse("folded(1, blocks(4, lowrank(16)))")
        Folded(scheme=1, of=Blocks(k=4, of=LowRank(j=16, u=None, v=None)))
    """
    return _Reader(text, where).form()


def text(form: Form) -> str:
    """The form as a person reads it, and as `parse` does; defaults are left out.

    Example:
        >>> from nncc.passes.forms import Blocks, Folded, LowRank
        >>> text(Folded(1, Blocks(4, LowRank(16))))
        'folded(scheme=1, blocks(k=4, lowrank(j=16)))'
    """
    parts = _addends(form)
    if parts:
        return " + ".join(f"({text(p)})" if _addends(p) else text(p) for p in parts)
    words: list[str] = []
    for field, value in values_of(form).items():
        if not field.is_default(value):
            written = _written(value, field)
            is_bare = isinstance(value, Form) and field.is_required
            words.append(written if is_bare else f"{field.name}={written}")
    return f"{form.name}({', '.join(words)})" if words else form.name


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint at the start of a list: "did you mean 'lowrank'? ", or nothing."""
    close = difflib.get_close_matches(word[:80], list(words), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def _addends(form: Form) -> tuple[Form, ...]:
    """The parts of a sum that `+` can write: two or more, and nothing else said."""
    if form.name != SUM:
        return ()
    said = [v for field, v in values_of(form).items() if not field.is_default(v)]
    if len(said) != 1 or not isinstance(said[0], tuple):
        return ()
    parts = cast("tuple[object, ...]", said[0])
    found = tuple(part for part in parts if isinstance(part, Form))
    return found if len(found) == len(parts) >= 2 else ()


def _written(value: object, field: Field) -> str:
    if isinstance(value, Form):
        return text(value)
    if isinstance(value, tuple):
        items = [_written(item, field) for item in cast("tuple[object, ...]", value)]
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if isinstance(value, str):
        is_word = NAME.fullmatch(value) and not field.takes_form
        is_plain = is_word and not _is_constant(value, field)
        return value if is_plain else json.dumps(value)
    return repr(value).lower() if value is None or isinstance(value, bool) else repr(value)


def _is_constant(word: str, field: Field) -> bool:
    """Whether a word is none, true or false to a field, and no word of its own."""
    is_one = word in _WORDS and field.takes(type(_WORDS[word]))
    return is_one and word not in field.words


class _Reader:
    """Reads one text from left to right; what a value may be comes from the form's fields."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where
        self._tokens = tokens(text, where)
        self._next = 0
        self._depth = 0
        self._table = forms()

    def form(self) -> Form:
        """The whole text."""
        found = self._sum()
        if self._token.kind != "end":
            raise self._expected("'+' or the end")
        return found

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self, mark: str) -> bool:
        """Whether the next word is `mark`; it is taken then."""
        if self._token.kind == "mark" and self._token.text == mark:
            self._next += 1
            return True
        return False

    def _wrong(self, at: int, what: str, hint: str = "") -> BadExpression:
        return mistake(self._text, at, what, self._where, hint)

    def _expected(self, what: str) -> BadExpression:
        return self._wrong(self._token.at, f"expected {what}, found {self._token.said}")

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MOST_DEEP:
            raise self._wrong(self._token.at, f"parentheses deeper than {MOST_DEEP}")

    def _sum(self) -> Form:
        """form + form + …, which is one form."""
        at = self._token.at
        parts = [self._one()]
        while self._take("+"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else self._added(parts, at)

    def _added(self, parts: list[Form], at: int) -> Form:
        kind = self._table.get(SUM)
        if kind is None:
            raise self._wrong(at, "there is no form that adds")
        field = next(f for f in fields_of(kind) if f.is_required)
        return self._made(kind, {field.name: tuple(parts)}, at)

    def _one(self) -> Form:
        """One form, or a sum in parentheses."""
        if self._take("("):
            self._enter()
            found = self._sum()
            if not self._take(")"):
                raise self._expected("'+' or ')'")
            self._depth -= 1
            return found
        token = self._token
        if token.kind != "name":
            raise self._expected("a form")
        kind = self._table.get(token.text)
        if kind is None:
            close = nearest(token.text, self._table)
            raise self._wrong(
                token.at,
                f"unknown form {token.text[:40]!r}",
                f"{close}forms are {', '.join(sorted(self._table))}",
            )
        self._next += 1
        values = self._arguments(kind) if self._take("(") else {}
        missing = [f for f in fields_of(kind) if f.is_required and f.name not in values]
        if missing:
            what = either([f"{f.name} ({f.expected})" for f in missing])
            raise self._wrong(token.at, f"{kind.name} needs {what}")
        return self._made(kind, values, token.at)

    def _made(self, kind: type[Form], values: dict[str, object], at: int) -> Form:
        """The form, its own checks told at the column it stands in."""
        try:
            return kind(**values)
        except BadExpression:
            raise
        except NnccError as error:
            said = "" if kind.name in error.what else f"{kind.name}: "
            raise self._wrong(at, said + error.what, error.hint) from error

    def _arguments(self, kind: type[Form]) -> dict[str, object]:
        """What stands between a form's parentheses, by field."""
        self._enter()
        fields = fields_of(kind)
        named = self._names_ahead()
        free = [field for field in fields if field.name not in named]
        values: dict[str, object] = {}
        while not self._take(")"):
            token = self._token
            if token.kind == "name" and self._tokens[self._next + 1].text == "=":
                field = next((f for f in fields if f.name == token.text), None)
                if field is None:
                    known = ", ".join(f.name for f in fields) or "nothing"
                    raise self._wrong(
                        token.at,
                        f"{kind.name} has no {token.text[:40]!r}",
                        f"{nearest(token.text, [f.name for f in fields])}it takes {known}",
                    )
                if field.name in values:
                    raise self._wrong(token.at, f"{field.name} is given twice")
                self._next += 2
            elif free:
                field = free.pop(0)
            else:
                what = either([f"{f.name}=…" for f in fields if f.name not in values])
                raise self._expected(f"{what} or ')'" if what != "nothing" else "')'")
            values[field.name] = self._value(field)
            if not self._take(",") and self._token.text != ")":
                raise self._expected("',' or ')'")
        self._depth -= 1
        return values

    def _names_ahead(self) -> set[str]:
        """Fields that are given by name before this parenthesis closes."""
        found: set[str] = set()
        depth = 0
        for at in range(self._next, len(self._tokens) - 1):
            token = self._tokens[at]
            depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "mark" else 0
            if depth < 0:
                break
            if depth == 0 and token.kind == "name" and self._tokens[at + 1].text == "=":
                found.add(token.text)
        return found

    def _value(self, field: Field) -> object:
        """A value that the field takes."""
        token = self._token
        value = self._read(field)
        is_form = isinstance(value, Form | tuple)
        said = "" if is_form else token.said
        try:
            return field.accept(value, said)
        except ValueError as error:
            raise self._wrong(token.at, f"{field.name}: {error}") from None

    def _read(self, field: Field) -> object:
        token = self._token
        if token.kind in ("whole", "number", "string"):
            self._next += 1
            return token.value
        if token.kind == "name":
            is_call = self._tokens[self._next + 1].text == "("
            is_word = field.takes(str) and not field.takes_form
            if (
                not is_call
                and token.text in _WORDS
                and not (is_word and token.text in field.words)
            ):
                self._next += 1
                return _WORDS[token.text]
            if not is_call and (is_word or token.text in field.words):
                self._next += 1
                return token.text
            if field.takes_form or token.text in self._table:
                return self._sum()
        elif token.text == "(" and token.kind == "mark":
            if not self._is_list():
                return self._sum()
            if field.item.options:
                return self._items(field)
        raise self._wrong(
            token.at, f"{field.name}: expected {field.expected}, found {token.said}"
        )

    def _is_list(self) -> bool:
        """Whether the parenthesis that opens here is empty or has a comma of its own."""
        depth = 0
        for at in range(self._next, len(self._tokens) - 1):
            token = self._tokens[at]
            if token.kind == "mark":
                depth += {"(": 1, ")": -1}.get(token.text, 0)
                if depth == 1 and token.text == ",":
                    return True
                if depth == 0:
                    return at == self._next + 1
        return False

    def _items(self, field: Field) -> tuple[object, ...]:
        """Values between parentheses, each as the field's list takes them."""
        self._next += 1
        self._enter()
        item = field.item
        found: list[object] = []
        while not self._take(")"):
            if len(found) >= MOST_ITEMS:
                raise self._wrong(self._token.at, f"more than {MOST_ITEMS} items")
            found.append(self._value(item))
            if not self._take(",") and self._token.text != ")":
                raise self._expected("',' or ')'")
        self._depth -= 1
        return tuple(found)
