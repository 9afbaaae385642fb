"""TensorRT on this side of the board: its parser and builder, in processes of their own."""

from .building import build_engine, fingerprint
from .facts import EngineFacts, ParserFinding, ParserReport, Sizes
from .libraries import Library, classic, installed, needed, rtx
from .parsing import parse

__all__ = [
    "EngineFacts",
    "Library",
    "ParserFinding",
    "ParserReport",
    "Sizes",
    "build_engine",
    "classic",
    "fingerprint",
    "installed",
    "needed",
    "parse",
    "rtx",
]
