"""What a parser or a builder said, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Sizes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Sizes of one input: minimum, optimum, maximum."""

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class ParserFinding:
    """One thing the parser refuses.

    Args:
        node: the node's name; "" for the model as a whole.
        op: its operator; "model" for the whole.
        reason: in words.
        raw: what the parser said.
    """

    node: str
    op: str
    reason: str
    raw: str = ""


@dataclass(frozen=True)
class ParserReport:
    """What a real parser says of a model.

    Args:
        library: name and version of the library whose parser it is.
        findings: everything it refuses, in graph order; empty where it takes the model.
        warnings: what it warned of, without doubles.
    """

    library: str
    findings: tuple[ParserFinding, ...]
    warnings: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the model was taken."""
        return not self.findings


@dataclass(frozen=True)
class EngineFacts:
    """An engine that was built.

    Args:
        path: the file.
        bytes: its size.
        sha256: its digest, hex.
        seconds: time the build took, start of the process included.
        library: project of the builder, e.g. "tensorrt-rtx".
        version: of the builder, as it says itself.
        precision: what was asked; a builder without precision flags takes the graph's own.
        capabilities: compute capabilities it is built for, e.g. ("8.6", "8.9").
        shapes: profile by input name; empty where every input is fixed.
        fingerprint: names model, builder, precision, capabilities and shapes.
        warnings: what the builder warned of, without doubles.
    """

    path: Path
    bytes: int
    sha256: str
    seconds: float
    library: str
    version: str
    precision: Precision
    capabilities: tuple[str, ...]
    shapes: Mapping[str, Sizes] = field(default_factory=dict[str, Sizes])
    fingerprint: str = ""
    warnings: tuple[str, ...] = ()
