"""FoldBatchNorm: a BatchNormalization becomes part of the weight and bias before it.

y = γ (W x + b − μ) / √(σ² + ε) + β = (s W) x + ((b − μ) s + β), with s = γ / √(σ² + ε) per
output channel. Done in float64 and rounded once to the weight's own type.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .constants import Array, constant, is_only_read_by, new_initialiser

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class _Linear:
    """A linear layer whose one reader is a BatchNormalization.

    Args:
        node: the layer.
        add: the node that adds the bias of a MatMul, None elsewhere.
        axis: output axis of the weight.
        groups: of a ConvTranspose, whose output axis counts within a group.
        W: the weight.
        b: the bias, scaled as the layer scales it; None where there is none.
    """

    node: ir.Node
    add: ir.Node | None
    axis: int
    groups: int
    W: Array
    b: Array | None


def fold_batchnorm(model: ir.Model) -> bool:
    """Folds where the weights are constant and nothing else reads them or the layer."""
    changed = False
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx"):
                changed |= _fold(graph, node)
    return changed


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    affine = _affine(norm)
    layer = _layer_before(norm)
    if affine is None or layer is None:
        return False
    s, mean, shift = affine
    channels = layer.W.shape[layer.axis] * layer.groups
    if s.shape != (channels,):
        return False
    W = layer.W.astype(np.float64)
    if layer.groups == 1:
        W = W * s.reshape([-1 if axis == layer.axis else 1 for axis in range(W.ndim)])
    else:  # (inputs, outputs / groups, …): the first axis runs through the groups
        g, (inputs, outputs, *kernel) = layer.groups, W.shape
        by_group = W.reshape(g, inputs // g, outputs, *kernel)
        W = (by_group * s.reshape(g, 1, outputs, *[1] * len(kernel))).reshape(W.shape)
    b = np.zeros(channels) if layer.b is None else layer.b.astype(np.float64)
    b = (b - mean) * s + shift
    weight = layer.node.inputs[1]
    assert weight is not None
    with np.errstate(over="ignore"):
        W, b = W.astype(layer.W.dtype), b.astype(layer.W.dtype)
    if not (np.isfinite(W).all() and np.isfinite(b).all()):
        return False  # half precision would overflow
    _put(graph, norm, layer, W, b, weight)
    return True


def _affine(norm: ir.Node) -> tuple[Array, Array, Array] | None:
    """(s, μ, β) of a normalisation in inference with constant statistics, float64."""
    training = norm.attributes.get("training_mode")
    spatial = norm.attributes.get("spatial")  # opset 7 and 8
    if len(norm.outputs) > 1 or (training is not None and training.as_int() != 0):
        return None
    if spatial is not None and spatial.as_int() != 1:
        return None
    arrays = [constant(value) for value in norm.inputs[1:5]]
    found = [array.astype(np.float64) for array in arrays if array is not None]
    if len(found) != 4 or any(a.shape != found[0].shape or a.ndim != 1 for a in found):
        return None
    gamma, beta, mean, variance = found
    epsilon = norm.attributes.get("epsilon")
    eps = 1e-5 if epsilon is None else epsilon.as_float()
    if not (variance + eps > 0).all():
        return None
    return gamma / np.sqrt(variance + eps), mean, beta


def _layer_before(norm: ir.Node) -> _Linear | None:
    value = norm.inputs[0]
    node = None if value is None else value.producer()
    if value is None or node is None or node.graph is not norm.graph:
        return None
    if not is_only_read_by(value, norm) or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Add":
        return _matmul_add(node)
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    W = _own_weight(node)
    if W is None:
        return None
    if node.op_type == "MatMul":
        return _Linear(node, None, 1, 1, W, None) if W.ndim == 2 else None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    b = constant(bias)
    if bias is not None and b is None:
        return None
    if node.op_type == "Gemm":
        return _gemm(node, W, b)
    groups = node.attributes.get("group")
    g = 1 if groups is None else groups.as_int()
    if node.op_type == "Conv":
        return _Linear(node, None, 0, 1, W, b)
    return _Linear(node, None, 1, g, W, b) if W.shape[0] % g == 0 else None


def _gemm(node: ir.Node, W: Array, b: Array | None) -> _Linear | None:
    transposed = node.attributes.get("transB")
    axis = 0 if transposed is not None and transposed.as_int() else 1
    outputs = W.shape[axis]
    if b is not None:
        if b.size not in (1, outputs) or (b.ndim == 2 and b.shape[0] != 1) or b.ndim > 2:
            return None
        beta = node.attributes.get("beta")
        scale = 1.0 if beta is None else beta.as_float()
        b = np.broadcast_to(b.reshape(-1).astype(np.float64) * scale, (outputs,))
    return _Linear(node, None, axis, 1, W, b)


def _matmul_add(add: ir.Node) -> _Linear | None:
    """MatMul(x, W) + b, of rank 2, where both results are read once."""
    for value, other in (add.inputs, reversed(add.inputs)):
        node = None if value is None else value.producer()
        if value is None or node is None or node.op_type != "MatMul":
            continue
        W, b = _own_weight(node), constant(other)
        if W is None or W.ndim != 2 or b is None or b.shape not in ((W.shape[1],), (1,), ()):
            continue
        if node.graph is add.graph and is_only_read_by(value, add):
            full = np.broadcast_to(b.reshape(-1), (W.shape[1],))
            return _Linear(node, add, 1, 1, W, full)
    return None


def _own_weight(node: ir.Node) -> Array | None:
    """The constant weight of a node that alone reads it, in a float type."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or weight.dtype not in _FLOATS or not is_only_read_by(weight, node):
        return None
    return constant(weight)


def _put(
    graph: ir.Graph, norm: ir.Node, layer: _Linear, W: Array, b: Array, like: ir.Value
) -> None:
    """Writes the new weight and bias and takes the normalisation out."""
    node = layer.node
    node.replace_input_with(1, new_initialiser(graph, f"{like.name}", W, like))
    bias = new_initialiser(graph, f"{like.name}_bias", b, like)
    last = node
    if layer.add is not None:
        last = layer.add
        last.replace_input_with(0, node.outputs[0])
        last.replace_input_with(1, bias)
    elif node.op_type == "MatMul":
        last = ir.node("Add", [node.outputs[0], bias], name=f"{norm.name or node.name}.bias")
        graph.insert_after(node, last)
        last.outputs[0].type = node.outputs[0].type
    else:
        node.resize_inputs(3)
        node.replace_input_with(2, bias)
        node.attributes.pop("beta", None)
    _take_over(graph, norm, last)


def _take_over(graph: ir.Graph, norm: ir.Node, last: ir.Node) -> None:
    """The layer's result takes the name and the readers of the normalisation's."""
    y, x = norm.outputs[0], last.outputs[0]
    name, shape, type_ = y.name, y.shape, y.type
    y.replace_all_uses_with(x, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    x.name, x.shape, x.type = name, shape, type_ or x.type
