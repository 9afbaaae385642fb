"""AbsorbBias: the mean of what a fit loses, (W − Ŵ) E[x], becomes part of the layer's bias."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .emitter import SiteEmitter
from .sites import Site

Array = npt.NDArray[Any]


def takes_bias(site: Site) -> bool:
    """Whether a bias per output can be added: all but products of an unknown output axis."""
    geometry = site.geometry
    return not (geometry.weight_is_left and geometry.input_rank is None)


def absorb_bias(site: Site, delta: npt.NDArray[np.float64], emitter: SiteEmitter) -> None:
    """Adds `delta` to the bias of a site's node, or gives it one.

    Constant biases are replaced, never changed in place: others may read them. A product
    without one takes the constant of an Add that alone reads it, or gets an Add behind it.

    Args:
        site: in the model that is changed; its node still stands.
        delta: (g · m,).
        emitter: of the site; its constants and nodes go into the graph later, before the node.
    """
    assert takes_bias(site), "the caller asked"
    if site.op == "MatMul":
        _behind_product(site, delta, emitter)
    elif site.op == "Gemm":
        _in_gemm(site, delta, emitter)
    else:
        node = site.node
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        node.resize_inputs(3)
        node.replace_input_with(2, _sum(bias, delta, emitter))


def _in_gemm(site: Site, delta: npt.NDArray[np.float64], emitter: SiteEmitter) -> None:
    node = site.node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    beta = node.attributes.get_float("beta", 1.0)
    if site.geometry.weight_is_left:
        delta = delta[:, None]
    constant = None if bias is None else ir.convenience.get_const_tensor(bias)
    if bias is not None and beta != 0.0 and constant is None:
        total = _sum(bias, delta / beta, emitter)
    else:
        if constant is not None:
            delta = delta + beta * constant.numpy().astype(np.float64)
        total = emitter.constant(delta.astype(np.float32), "bias")
        node.attributes.pop("beta", None)
    node.resize_inputs(3)
    node.replace_input_with(2, total)


def _behind_product(site: Site, delta: npt.NDArray[np.float64], emitter: SiteEmitter) -> None:
    node = site.node
    graph, y = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph), "a site stands in a graph"
    if site.geometry.weight_is_left and site.geometry.input_rank != 1:
        delta = delta[:, None]
    elif _join_add(y, delta, emitter):
        return
    added = emitter.node("Add", [y, emitter.constant(delta.astype(np.float32), "bias")], "add")
    behind = emitter.nodes.pop()
    graph.insert_after(node, behind)
    added.shape, added.type = y.shape, y.type
    for user, at in list(y.uses()):
        if user is not behind:
            user.replace_input_with(at, added)
    for at, output in enumerate(graph.outputs):
        if output is y:
            graph.outputs[at] = added
    y.name, added.name = added.name, y.name


def _join_add(y: ir.Value, delta: npt.NDArray[np.float64], emitter: SiteEmitter) -> bool:
    """Whether the Add that alone reads the product has a constant that took the delta."""
    uses = list(y.uses())
    if len(uses) != 1 or y.is_graph_output():
        return False
    user, at = uses[0]
    if user.op_type != "Add" or user.domain != "" or len(user.inputs) != 2:
        return False
    other = user.inputs[1 - at]
    constant = None if other is None else ir.convenience.get_const_tensor(other)
    if constant is None or tuple(constant.shape.numpy()) != delta.shape:
        return False
    if user.graph is not y.graph:
        return False
    user.replace_input_with(1 - at, _sum(other, delta, emitter))
    return True


def _sum(
    bias: ir.Value | None, delta: npt.NDArray[np.float64], emitter: SiteEmitter
) -> ir.Value:
    """bias + delta: a constant where the bias is one, else an Add."""
    constant = None if bias is None else ir.convenience.get_const_tensor(bias)
    if bias is not None and constant is None:
        step = emitter.constant(delta.astype(np.float32), "bias")
        return emitter.node("Add", [bias, step], "bias.sum")
    if constant is not None:
        delta = delta + constant.numpy().astype(np.float64)
    return emitter.constant(delta.astype(np.float32), "bias")
