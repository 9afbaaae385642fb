"""A real parser's word on a model: what TensorRT would refuse, node by node."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from .child import ask, shown
from .facts import ParserFinding, ParserReport
from .libraries import Library, needed, rtx

_UNKNOWN_OPERATOR = "Plugin not found"


def _silent(event: str) -> None:
    del event


def parse(
    path: Path,
    *,
    library: Library | None = None,
    timeout_seconds: float = 300,
    on_event: Callable[[str], None] = _silent,
) -> ParserReport:
    """What the parser of TensorRT-RTX (or of `library`) says of a model.

    It runs in a process of its own and needs no graphics card. Every node that it refuses is
    named, as far as the library tells.

    Args:
        path: the .onnx file; external data lies beside it.
        library: whose parser; TensorRT-RTX where None.
        timeout_seconds: a parser that takes longer is ended.
        on_event: hears every step.

    Raises:
        MissingExtra: the library is not installed.
        EngineBuildFailed: the parser crashed, was killed or took too long.
    """
    held = needed(library or rtx(), "ask its parser")
    answer = ask(
        held,
        {"job": "parse", "model": str(path.resolve())},
        where=str(path),
        timeout_seconds=timeout_seconds,
        on_event=on_event,
    )
    return ParserReport(
        held.title,
        findings(cast("list[dict[str, Any]]", answer.fields.get("errors", []))),
        tuple(shown(str(line)) for line in answer.fields.get("warnings", [])),
    )


def findings(errors: Sequence[dict[str, Any]]) -> tuple[ParserFinding, ...]:
    """The parser's errors in words, in order, without doubles."""
    found = [
        ParserFinding(
            shown(str(error.get("node", ""))),
            shown(str(error.get("op", ""))) or "model",
            reason(str(error.get("desc", "")), str(error.get("code", ""))),
            shown(str(error.get("desc", ""))),
        )
        for error in errors
    ]
    return tuple(dict.fromkeys(found))


def reason(said: str, code: str = "") -> str:
    """The parser's words for people: the message of a C++ assertion, without the assertion.

    Args:
        said: description of an error, e.g. `creator && "Plugin not found, are…"`.
        code: its kind, e.g. "UNSUPPORTED_NODE".

    Example:
        >>> reason('(axis >= 0) && "The axis is negative."')
        'The axis is negative'
        >>> reason("false", "UNSUPPORTED_NODE")
        'is not supported'
    """
    if _UNKNOWN_OPERATOR in said:
        return "is no operator that it knows"
    words = re.findall(r'"([^"]{4,})"', said)
    if words:
        return shown(words[-1]).rstrip(". ")
    bare = re.sub(r"^Assertion failed: .*: (?=\w)", "", shown(said)).strip()
    if bare in ("false", "") and "UNSUPPORTED" in code:
        return "is not supported"
    if re.search(r"[=<>&|!]|\bis_\w+\(|\(\)", bare):
        return f"breaks its rule {bare}"
    return bare.rstrip(". ") or "is refused without a reason"
