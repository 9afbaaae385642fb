"""Where an option's value comes from: flag, then NNCC_* variable, then file, then default.

The fields of `CompileOptions` are the only list of options; nothing here names one of them.
A configuration file is TOML with a `[compile]` table; the artifact's config.toml is one.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ...device_profiles.errors import UsageError
from ..options import CompileOptions

Raw = str | bool | int | float | None | list[str] | tuple[str, ...] | Path
ENV_PREFIX = "NNCC_"
TABLE = "compile"
# Where and how to run, not what to make: repeating a compile elsewhere must not carry them.
NOT_KEPT = frozenset({"output", "force", "resume", "dry_run"})


def resolve(
    flags: Mapping[str, object],
    *,
    environ: Mapping[str, str] | None = None,
    table: Mapping[str, object] | None = None,
    file: str = "",
) -> CompileOptions:
    """The options asked for, by precedence flag > environment > file > default.

    Args:
        flags: field name to value; None is "not given".
        environ: variables; NNCC_<FIELD> sets a field.
        table: the file's `[compile]` table, keys in kebab or snake case.
        file: the file's name, for messages.

    Raises:
        UsageError: an unknown key or a value that the field refuses; names its source.
    """
    fields = CompileOptions.model_fields
    values: dict[str, object] = {}
    origin: dict[str, str] = {}
    for key, value in (table or {}).items():
        name = key.replace("-", "_")
        if name not in fields:
            raise UsageError(
                f"there is no option '{key}'",
                where=f"{file}: [{TABLE}]",
                hint=nearest(key, (kebab(f) for f in fields)),
            )
        values[name], origin[name] = value, f"{file}: {TABLE}.{key}"
    for name, field in fields.items():
        variable = ENV_PREFIX + name.upper()
        text = (environ or {}).get(variable)
        if text is not None:
            values[name] = _listed(field, text) if is_list(field) else text
            origin[name] = variable
    for name, value in flags.items():
        if name not in fields:
            raise UsageError(
                f"there is no option '{name}'",
                where="options",
                hint=nearest(name, fields),
            )
        if value is not None:
            values[name], origin[name] = value, "--" + kebab(name)
    read = {name: _fraction(fields[name], value) for name, value in values.items()}
    try:
        return CompileOptions.model_validate(read)
    except ValidationError as error:
        raise _usage(error, origin) from None


def read_config(path: Path) -> dict[str, object]:
    """The `[compile]` table of a configuration file, `target` included.

    Raises:
        UsageError: no such file, not TOML, or a key outside `[compile]`.
    """
    try:
        whole = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror})", where=str(path), hint="check --config"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(
            "is not UTF-8 text", where=str(path), hint="save it as TOML"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not TOML: {error}", where=str(path), hint="fix it") from None
    for key in whole:
        if key != TABLE:
            inside = key.replace("-", "_") in {*CompileOptions.model_fields, "target"}
            raise UsageError(
                f"there is no table or key '{key}'",
                where=str(path),
                hint=f"put it under [{TABLE}]" if inside else nearest(key, [TABLE]),
            )
    table = whole.get(TABLE, {})
    if not isinstance(table, dict):
        raise UsageError(f"'{TABLE}' is not a table", where=str(path), hint=f"write [{TABLE}]")
    return cast(dict[str, object], table)


def to_toml(options: CompileOptions, target: str, *, version: str) -> str:
    """config.toml: the resolved options, such that `--config` on it repeats the compile.

    TOML of this shape (one table of scalars and string lists) needs no library to write: a
    JSON string without surrogates and with DEL escaped is a TOML basic string.
    """
    lines = [
        f"# Resolved options of nncc {version}; nncc compile MODEL --config FILE repeats it.",
        f"[{TABLE}]",
        f"target = {_toml(target)}",
    ]
    for name in CompileOptions.model_fields:
        value = cast(Raw, getattr(options, name))
        if name not in NOT_KEPT and value is not None:
            lines.append(f"{kebab(name)} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def kebab(name: str) -> str:
    """The option's name on the command line."""
    return name.replace("_", "-")


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint: the closest of `words`, or all of them.

    Example:
        >>> nearest("mac", ["macs", "size"])
        "did you mean 'macs'?"
    """
    known = list(words)
    close = difflib.get_close_matches(word.replace("_", "-"), known, n=1)
    close = close or difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def is_list(field: FieldInfo) -> bool:
    """Whether the option may be given several times."""
    return "tuple" in str(field.annotation)


def _listed(field: FieldInfo, text: str) -> list[str]:
    """The values of a list in a variable: between spaces, or the field's own separator."""
    extra = cast("dict[str, str] | None", field.json_schema_extra)
    parts = text.split(None if extra is None else extra.get("separator"))
    return [part.strip() for part in parts if part.strip()]


def is_fraction(field: FieldInfo) -> bool:
    """Whether the field is a float of at most 1, so that 30% reads as 0.3."""
    bounds = (getattr(m, side, None) for m in field.metadata for side in ("le", "lt"))
    tops = [b for b in bounds if isinstance(b, int | float)]
    return "float" in str(field.annotation) and bool(tops) and min(tops) <= 1


def _fraction(field: FieldInfo, value: object) -> object:
    """30% as 0.3 where the field is a fraction; anything else as it came."""
    if isinstance(value, str) and is_fraction(field) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            return value
    return value


def _usage(error: ValidationError, origin: Mapping[str, str]) -> UsageError:
    """The first refusal in one line: where the value came from, what is wrong, the fix."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    shown = repr(first["input"]) if not isinstance(first["input"], dict) else "the table"
    said = first["msg"][:1].lower() + first["msg"][1:]
    return UsageError(
        f"{shown}: {said}",
        where=origin.get(name, "--" + kebab(name)),
        hint=(CompileOptions.model_fields[name].description or "see --help").rstrip("."),
    )


def _toml(value: Raw) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    text = str(value).encode("utf-8", "replace").decode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
