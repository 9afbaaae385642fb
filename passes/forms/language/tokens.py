"""Tokens: the words of a form's text, each with its column."""

import json
import re
from dataclasses import dataclass
from typing import Literal

from ....device_profiles.errors import BadExpression

MOST_CHARACTERS = 4096
SHOWN = 72
"""Columns of the text around a mistake that are shown."""

Kind = Literal["name", "whole", "number", "string", "mark", "end"]

_PATTERN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<number>[-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?%?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:[-.:][A-Za-z0-9_]+)*)
    |(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*"|'[^'\\\x00-\x1f]*')
    |(?P<mark>[(),=+])""",
    re.VERBOSE,
)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[-.:][A-Za-z0-9_]+)*")


@dataclass(frozen=True)
class Token:
    """One word of a text.

    Args:
        kind: what it is.
        text: as it was written.
        at: its position, from 0.
        value: of a number or a string.
    """

    kind: Kind
    text: str
    at: int
    value: int | float | str | None = None

    @property
    def said(self) -> str:
        """The token in a message."""
        return "the end" if self.kind == "end" else repr(self.text[:40])


def tokens(text: str, where: str) -> list[Token]:
    """The words of a text, and its end.

    Raises:
        BadExpression: a character that means nothing, a number or a string that is none, or
            more than 4096 characters.
    """
    if len(text) > MOST_CHARACTERS:
        raise BadExpression(
            f"a text of {len(text)} characters; {MOST_CHARACTERS} are enough", where=where
        )
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _PATTERN.match(text, at)
        if match is None:
            raise mistake(text, at, _stray(text[at]), where)
        if match.lastgroup != "space":
            found.append(_token(match, text, at, where))
        at = match.end()
    return [*found, Token("end", "", len(text))]


def mistake(text: str, at: int, what: str, where: str, hint: str = "") -> BadExpression:
    """The error at a position: its column in the message, a caret below the text."""
    start = 0 if len(text) <= SHOWN else max(0, min(at - SHOWN // 2, len(text) - SHOWN))
    clean = "".join(c if c.isprintable() else " " for c in text[start : start + SHOWN])
    return BadExpression(
        f"column {at + 1}: {what}",
        where=where,
        hint=hint,
        excerpt=(clean, " " * (at - start) + "^"),
    )


def _stray(character: str) -> str:
    if character in "\"'":
        return "the string that begins here does not end"
    return f"nothing is written with {character!r}"


def _token(match: re.Match[str], text: str, at: int, where: str) -> Token:
    word = match.group()
    match match.lastgroup:
        case "name":
            return Token("name", word, at)
        case "mark":
            return Token("mark", word, at)
        case "string":
            return Token("string", word, at, _string(word, text, at, where))
        case _:
            return _number(word, text, at, where)


def _string(word: str, text: str, at: int, where: str) -> str:
    if word.startswith("'"):
        return word[1:-1]
    try:
        return str(json.loads(word))
    except ValueError:
        what = "a string with an escape that JSON does not have"
        raise mistake(text, at, what, where) from None


def _number(word: str, text: str, at: int, where: str) -> Token:
    """A whole number, a number, or a percentage as the fraction it is."""
    if re.match("[A-Za-z0-9_.]", text[at + len(word) : at + len(word) + 1]):
        raise mistake(text, at, f"expected a number, found {text[at : at + 12]!r}", where)
    if word.lstrip("-").isdigit():
        if len(word) > 18:
            raise mistake(text, at, "a number beyond every size", where)
        return Token("whole", word, at, int(word))
    digits, _, power = word.rstrip("%").lower().partition("e")
    percent = 2 if word.endswith("%") else 0
    return Token("number", word, at, float(f"{digits}e{int(power or 0) - percent}"))
