"""Normalise: the same function, written so that weights are easy to find.

A pipeline of small passes, each of which changes a model in place and says whether it did.
MatMul followed by Add is left as it is and not made a Gemm: MatMul takes any rank, and its
factors and low-bit kernels are the ones that run fast (a bias is one node ahead).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import onnx_ir as ir
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
)

from ..device_profiles.profile import Runtime
from .fold_batchnorm import fold_batchnorm
from .fold_bias import fold_bias
from .fold_constants import fold_constants
from .fold_scale import fold_scale, fold_shift
from .fuse_hard_sigmoid import fuse_hard_sigmoid
from .model import Model
from .names import name_nodes
from .no_ops import remove_no_ops
from .quiet import quiet_libraries


class Pass(Protocol):
    """A change to a model that keeps its function."""

    @property
    def name(self) -> str:
        """A verb phrase."""
        ...

    def __call__(self, model: ir.Model) -> bool:
        """Changes the model in place; whether anything changed."""
        ...


class _Named:
    """A function as a pass."""

    def __init__(self, name: str, change: Callable[[ir.Model], bool]) -> None:
        self.name = name
        self.change = change

    def __call__(self, model: ir.Model) -> bool:
        with quiet_libraries():
            return self.change(model)


def lift_constants(model: ir.Model) -> bool:
    """Constant nodes become initialisers of the graph they stand in, bodies included."""
    lift = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    return lift(model).modified


def drop_dead_code(model: ir.Model) -> bool:
    """Nodes that lead to no output and weights that nothing reads are dropped."""
    changed = RemoveUnusedNodesPass()(model).modified
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                del graph.initializers[name]
                changed = True
    return changed


def sort_nodes(model: ir.Model) -> bool:
    """Nodes in an order in which each comes after what it reads."""
    before = list(model.graph)
    model.graph.sort()
    return before != list(model.graph)


PIPELINE: tuple[Pass, ...] = (
    _Named("LiftConstants", lift_constants),
    _Named("FoldConstants", fold_constants),
    _Named("RemoveNoOps", remove_no_ops),
    _Named("LiftFoldedConstants", lift_constants),
    _Named("FoldBatchNorm", fold_batchnorm),
    _Named("FoldScale", fold_scale),
    _Named("FoldBias", fold_bias),
    _Named("FuseHardSigmoid", fuse_hard_sigmoid),
    _Named("FoldShift", fold_shift),
    _Named("DropDeadCode", drop_dead_code),
)
"""What a model goes through; any of them may be left out."""

LEFT_BY_RUNTIME: Mapping[Runtime, frozenset[str]] = {
    "onnxruntime": frozenset({"FoldScale", "FoldShift", "FuseHardSigmoid"}),
    "tensorrt": frozenset(),
}
"""Of the pipeline, what a runtime does not do by itself when it loads a model."""

ALWAYS: tuple[Pass, ...] = (
    _Named("SortNodes", sort_nodes),
    _Named("NameNodes", name_nodes),
)
"""What the stages after this one rely on; neither can change a result."""


def as_it_runs(model: Model, runtime: Runtime) -> Model:
    """The model as a runtime makes it while loading: what it is compared with in time."""
    left = LEFT_BY_RUNTIME[runtime]
    return normalise(model, [change for change in PIPELINE if change.name not in left])


def normalise(model: Model, passes: Sequence[Pass] = PIPELINE) -> Model:
    """The model after `passes` and the ones that always run; the given one is kept.

    Opset, precision, metadata, and names, types and order of inputs and outputs stay.
    """
    copy = model.copied()
    declared = [value.shape for value in copy.graph_model.graph.outputs]
    names = [value.name for value in copy.graph_model.graph.outputs]
    types = [value.type for value in copy.graph_model.graph.outputs]
    for value in copy.graph_model.graph.outputs:
        value.shape = None  # inference inside the passes must not lean on a declaration
    for change in (*passes, *ALWAYS):
        change(copy.graph_model)
    outputs = copy.graph_model.graph.outputs
    assert [value.name for value in outputs] == names, "a pass renamed an output"
    for value, shape, type_ in zip(outputs, declared, types, strict=True):
        value.shape = shape
        value.type = type_ if type_ is not None else value.type
    return copy
