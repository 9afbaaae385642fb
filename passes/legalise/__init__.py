"""Legalisation: from any opset to the operators that a device's runtime reads."""

from .legalise import Change, Legalised, Refusal, legalise
from .lowering import Builder, Goal, Lowering, Refused

__all__ = [
    "Builder",
    "Change",
    "Goal",
    "Legalised",
    "Lowering",
    "Refusal",
    "Refused",
    "legalise",
]
