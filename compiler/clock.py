"""The clock of a compile: seconds of every stage, told as they begin."""

import contextlib
import time
from collections.abc import Generator
from dataclasses import dataclass, field

from .events import Event, Listener, silent


@dataclass
class Clock:
    """Seconds of every stage."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])
    on_event: Listener = silent

    @contextlib.contextmanager
    def stage(self, name: str, message: str = "") -> Generator[None]:
        self.on_event(Event(name, 0, 0, message))
        start = time.perf_counter()
        yield
        spent = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.seconds[name] = round(spent, 3)
