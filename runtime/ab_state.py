"""Finished rounds of a measurement on disk, so that an interrupted one goes on.

JSON lines: a header that says what is being measured, then one round a line, with every raw
sample. A file of another measurement, or a line torn by a kill, is dropped, never trusted.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

SCHEMA = 1
Identity = Mapping[str, str | int | float]


@dataclass(frozen=True)
class RoundSamples:
    """One ABBA round: for each side its two processes, nanoseconds of each run."""

    reference: tuple[tuple[int, ...], ...]
    compressed: tuple[tuple[int, ...], ...]
    load: float | None = None


def samples_in(value: object) -> tuple[int, ...]:
    """Checked samples: a non-empty list of positive whole nanoseconds below a day.

    Raises:
        ValueError: `value` is anything else.
    """
    if not isinstance(value, list) or not value:
        raise ValueError("no list of samples")
    entries = cast("list[object]", value)
    for entry in entries:
        if type(entry) is not int or not 0 < entry < 86_400_000_000_000:
            raise ValueError(f"{str(entry)[:40]!r} is no time in nanoseconds")
    return tuple(cast("list[int]", entries))


def read_rounds(path: Path, identity: Identity) -> list[RoundSamples]:
    """The rounds finished so far; none where the file is absent or of another measurement."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
    if _parsed(lines[0]) != _header(identity):
        return []
    rounds: list[RoundSamples] = []
    for line in lines[1:-1]:  # what follows the last newline is torn, or empty
        entry = _parsed(line)
        try:
            if entry.get("round") != len(rounds):
                break
            rounds.append(
                RoundSamples(_sides(entry["reference"]), _sides(entry["compressed"]))
            )
        except (KeyError, ValueError):
            break
        load = entry.get("load")
        if isinstance(load, float) and math.isfinite(load):
            rounds[-1] = RoundSamples(rounds[-1].reference, rounds[-1].compressed, load)
    return rounds


def write_rounds(path: Path, identity: Identity, rounds: list[RoundSamples]) -> None:
    """The file, made anew: written beside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_header(identity), sort_keys=True)]
    lines += [_line(index, entry) for index, entry in enumerate(rounds)]
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def append_round(path: Path, index: int, entry: RoundSamples) -> None:
    """One more finished round, on the disk before this returns."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(_line(index, entry) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _header(identity: Identity) -> dict[str, Any]:
    return {"schema": SCHEMA, "measures": dict(identity)}


def _line(index: int, entry: RoundSamples) -> str:
    content = {
        "round": index,
        "reference": entry.reference,
        "compressed": entry.compressed,
        "load": entry.load,
    }
    return json.dumps(content, sort_keys=True)


def _parsed(line: str) -> dict[str, Any]:
    try:
        content: object = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _sides(value: object) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, list) or len(cast("list[object]", value)) != 2:
        raise ValueError("no two processes")
    return tuple(samples_in(entry) for entry in cast("list[object]", value))
