"""Prefixed: the emitter of a part of a term, whose names begin with the part's."""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from ..geometry import Geometry, Weights
from .form import Emitter, Term


@dataclass(frozen=True)
class Prefixed:
    """An emitter that puts `<part>.` before every name.

    Args:
        to: where the nodes go.
        part: name of the part.
    """

    to: Emitter
    part: str

    def apply(
        self,
        x: ir.Value,
        W: Weights,
        part: str,
        geometry: Geometry,
        term: Term | None = None,
    ) -> ir.Value:
        """See `Emitter`."""
        return self.to.apply(x, W, f"{self.part}.{part}", geometry, term)

    def node(
        self,
        op: str,
        inputs: list[ir.Value | None],
        part: str,
        attributes: dict[str, int | str | tuple[int, ...]] | None = None,
    ) -> ir.Value:
        """See `Emitter`."""
        return self.to.node(op, inputs, f"{self.part}.{part}", attributes)

    def stored(self, array: npt.NDArray[Any], part: str) -> ir.Value:
        """See `Emitter`."""
        return self.to.stored(array, f"{self.part}.{part}")
