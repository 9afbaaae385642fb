"""Operators that a runtime's parser takes: one list a release, shared by the profiles."""

from functools import cache
from pathlib import Path
from typing import cast

from .profile import Parser
from .toml_file import read_toml

FOLDER = Path(__file__).parent / "operators"


@cache
def operator_list(name: Parser) -> tuple[frozenset[str], str]:
    """The operators of a list, and where the list comes from.

    Example:
        >>> operators, source = operator_list("tensorrt-8.2")
        >>> "Resize" in operators, "HardSwish" in operators
        (True, False)
    """
    tables = read_toml(FOLDER / f"{name}.toml")
    return frozenset(cast("list[str]", tables["operators"])), str(tables["source"])
