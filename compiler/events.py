"""What a compile says while it runs: one small value per step, for whoever listens."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A step of a stage.

    Args:
        stage: the stage's name, e.g. "survey".
        done, total: finished and expected steps; total is 0 where it is not known.
        message: what was just done or found, one line; may be empty.
    """

    stage: str
    done: int
    total: int
    message: str = ""


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that hears nothing."""
    del event
