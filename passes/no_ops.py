"""RemoveNoOps: nodes that pass a value on unchanged."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from .constants import constant


def remove_no_ops(model: ir.Model) -> bool:
    """Takes out Identity, Dropout in inference, casts to the same type, + 0 and × 1.

    A node is kept where its output is a graph's output that cannot be renamed onto the node
    before it: when that is an input, a weight, or in another graph.
    """
    changed = False
    for graph in model.graphs():
        for node in list(graph):
            x = _passed_on(node)
            if x is not None:
                changed |= _bypass(graph, node, x)
    return changed


def _passed_on(node: ir.Node) -> ir.Value | None:
    """The input that the node's first output equals, None where it computes something."""
    known = _KINDS.get(node.op_type)
    if known is None or node.domain not in ("", "ai.onnx") or not node.inputs:
        return None
    return known(node)


def _identity(node: ir.Node) -> ir.Value | None:
    return node.inputs[0]


def _dropout(node: ir.Node) -> ir.Value | None:
    mask_is_read = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if mask_is_read:
        return None
    if training is not None:
        flag = constant(training)
        if flag is None or bool(flag.any()):
            return None
    return node.inputs[0]


def _cast(node: ir.Node) -> ir.Value | None:
    x, to = node.inputs[0], node.attributes.get("to")
    if x is None or to is None or to.is_ref() or x.dtype is None:
        return None
    return x if x.dtype.value == to.as_int() else None


def _neutral(neutral: float, commutes: bool) -> Callable[[ir.Node], ir.Value | None]:
    def passed_on(node: ir.Node) -> ir.Value | None:
        if len(node.inputs) != 2:
            return None
        for x, c in (node.inputs, reversed(node.inputs)) if commutes else (node.inputs,):
            if x is not None and _is_all(c, neutral) and _adds_no_axis(x, c):
                return x
        return None

    return passed_on


_KINDS: Mapping[str, Callable[[ir.Node], ir.Value | None]] = {
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "Add": _neutral(0.0, True),
    "Sub": _neutral(0.0, False),
    "Mul": _neutral(1.0, True),
    "Div": _neutral(1.0, False),
}


def _is_all(value: ir.Value | None, neutral: float) -> bool:
    """Whether a value is one constant number."""
    tensor = None if value is None else value.const_value
    if tensor is None or tensor.size != 1:
        return False
    array = constant(value)
    return array is not None and bool(np.all(array == neutral))


def _adds_no_axis(x: ir.Value, scalar: ir.Value | None) -> bool:
    """Whether broadcasting with the one-element constant leaves the shape of x."""
    tensor = None if scalar is None else scalar.const_value
    if tensor is None:
        return False
    rank = len(tensor.shape)
    return rank == 0 or (x.shape is not None and len(x.shape) >= rank)


def _bypass(graph: ir.Graph, node: ir.Node, x: ir.Value) -> bool:
    """Readers of the node's output read x instead; False where the node must stay."""
    y = node.outputs[0]
    if y.is_graph_output():
        producer = x.producer()
        if (
            producer is None
            or producer.graph is not graph
            or x.is_graph_output()
            or sum(output is y for output in graph.outputs) != 1
        ):
            return False
        name, shape, type_ = y.name, y.shape, y.type
        y.replace_all_uses_with(x, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        x.name, x.shape, x.type = name, shape, type_ or x.type
        return True
    if x.type is None:
        x.type = y.type
    y.replace_all_uses_with(x)
    graph.remove(node, safe=True)
    return True
