"""The model as it flows between stages: an onnx-ir graph and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir


@dataclass(frozen=True)
class ShapeRange:
    """The sizes asked for one input: `min:opt:max`, all equal for a fixed shape.

    Example:
        >>> ShapeRange((1, 3), (1, 3), (4, 3)).is_fixed
        False
    """

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    @property
    def is_fixed(self) -> bool:
        return self.minimum == self.maximum


@dataclass(frozen=True)
class Model:
    """An ONNX model in flight.

    Args:
        graph_model: the onnx-ir model. Stages that change it work on a copy (`copied`).
        name: short name for people and reports (the file's stem).
        sha256: digest of the source bytes (external data included), hex.
        shapes: asked input sizes by input name; empty where the model's own shapes are used.
        warnings: what a person should know of the input (repaired shapes, untouched parts).
    """

    graph_model: ir.Model
    name: str
    sha256: str
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict[str, ShapeRange])
    warnings: tuple[str, ...] = ()

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.graph_model.opset_imports.get("", 0)

    def copied(self) -> "Model":
        """The same model with a graph of its own; weight arrays are shared, never copied."""
        return replace(self, graph_model=self.graph_model.clone())

    def warned(self, *messages: str) -> "Model":
        """The same model with more warnings."""
        return replace(self, warnings=(*self.warnings, *messages))
