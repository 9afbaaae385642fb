"""Constant values of a graph: reading them, and putting new ones in their place."""

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]


def constant(value: ir.Value | None) -> Array | None:
    """The array of an initialiser that nobody can replace; None for anything else."""
    if value is None or value.const_value is None:
        return None
    if not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value.numpy()


def widening(value: ir.Value | None) -> ir.Node | None:
    """The Cast that makes a value of a stored constant at load; None where it is not one."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Cast" or constant(node.inputs[0]) is None:
        return None
    return node


def weight(value: ir.Value | None) -> Array | None:
    """The array of a constant, or of one that is widened when the model is loaded."""
    wide = widening(value)
    if wide is None or value is None or value.dtype is None:
        return constant(value)
    held = constant(wide.inputs[0])
    return None if held is None else held.astype(value.dtype.numpy())


def is_only_read_by(value: ir.Value, node: ir.Node) -> bool:
    """Whether `node` is the one reader of `value`, and it is no output of a graph."""
    readers = value.uses()
    return (
        len(readers) == 1 and next(iter(readers)).node is node and not value.is_graph_output()
    )


def new_initialiser(graph: ir.Graph, name: str, array: Array, like: ir.Value) -> ir.Value:
    """A new weight of `graph`, of the element type of `like`, under a free name."""
    taken = {str(v.name) for v in graph.inputs} | set(graph.initializers)
    taken |= {str(v.name) for node in graph for v in node.outputs}
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    assert like.dtype is not None
    tensor = ir.Tensor(array, dtype=like.dtype, name=free)
    value = ir.Value(
        name=free,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(like.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
