"""TOML from a file that nobody vouches for: bounded, and one error that names the file."""

import re
import stat
import tomllib
from pathlib import Path

from .errors import UsageError

MOST_BYTES = 1 << 16
"""A profile is a few KiB; with every operator written out it is below 16."""

# A line that begins with a key of more than nine parts. The reader's time grows with the
# square of their number: one line of 100 kB took it 38 s.
_DEEP_KEY = re.compile(
    r"""^[ \t]*\[{0,2}[ \t]*
    (?:(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*\.[ \t]*){9}""",
    re.MULTILINE | re.VERBOSE,
)


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file of at most `MOST_BYTES`.

    Raises:
        UsageError: there is none, or it is larger; names the file.
    """
    where = str(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UsageError("is not a file", where=where, hint="give a TOML file")
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=where) from error
    except ValueError as error:  # a NUL in the path
        raise UsageError("is not a path", where=repr(where)) from error
    if len(text) > MOST_BYTES:
        raise UsageError(
            f"has {found.st_size:,} bytes, and a profile at most {MOST_BYTES:,}",
            where=where,
            hint="give the TOML of one device",
        )
    return text


def parse_toml(text: bytes, path: Path) -> dict[str, object]:
    """The tables of TOML text.

    Args:
        text: as `read_bytes` returns it.
        path: to name in errors.

    Raises:
        UsageError: it is not TOML; names the file.
    """
    deep = "nested too deeply"
    try:
        told = text.decode("utf-8").replace("\r\n", "\n")
        if _DEEP_KEY.search(told):
            raise UsageError(deep, where=str(path), hint="see docs/targets.md for the layout")
        return tomllib.loads(told)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        said = deep if isinstance(error, RecursionError) else str(error)
        raise UsageError(
            f"not TOML: {said}", where=str(path), hint="see docs/targets.md for the layout"
        ) from error


def read_toml(path: Path) -> dict[str, object]:
    """The tables of a TOML file.

    Raises:
        UsageError: as `read_bytes` and `parse_toml`.
    """
    return parse_toml(read_bytes(path), path)
