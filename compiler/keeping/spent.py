"""Spent: seconds of a row of tries, on the disk, so that an interrupted one is counted on."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

Done = TypeVar("Done")


@dataclass
class Spent:
    """Seconds of every finished try; one that is gone through again counts as it did.

    Args:
        path: the file; what cannot be read counts as absent.
    """

    path: Path
    now: list[float] = field(default_factory=list[float])
    before: list[float] = field(init=False)

    def __post_init__(self) -> None:
        try:
            held = cast(object, json.loads(self.path.read_bytes()))
        except (OSError, ValueError, RecursionError):
            held = []
        known = cast("list[object]", held) if isinstance(held, list) else []
        self.before = [
            float(value)
            for value in known
            if isinstance(value, int | float) and math.isfinite(value) and value >= 0
        ]

    def on(self, work: Callable[[], Done]) -> Done:
        """The result of the next try; what it took is written down."""
        start, at = time.perf_counter(), len(self.now)
        done = work()
        earlier = self.before[at] if at < len(self.before) else 0.0
        self.now.append(max(time.perf_counter() - start, earlier))
        self.before[: at + 1] = self.now
        fresh = self.path.with_suffix(".part")
        fresh.write_text(json.dumps(self.before))
        fresh.replace(self.path)
        return done

    def is_over(self, limit: float | None) -> bool:
        """Whether no further try may begin; one that was finished before may."""
        is_new = len(self.now) == len(self.before)
        return is_new and limit is not None and sum(self.now) >= limit
