"""FoldBias: a constant added per channel behind a convolution becomes its bias.

PaddlePaddle writes every convolution so. W x + b + c = W x + (b + c), one rounding apart.
"""

import numpy as np
import onnx_ir as ir

from .constants import Array, constant, is_only_read_by, new_initialiser


def fold_bias(model: ir.Model) -> bool:
    """Folds Add behind Conv and ConvTranspose where nothing else reads the convolution."""
    changed = False
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "Add" and node.domain in ("", "ai.onnx"):
                changed |= _fold(graph, node)
    return changed


def _fold(graph: ir.Graph, add: ir.Node) -> bool:
    for value, other in (tuple(add.inputs), tuple(reversed(add.inputs))):
        conv = None if value is None else value.producer()
        if value is None or conv is None or conv.op_type not in ("Conv", "ConvTranspose"):
            continue
        if conv.graph is not graph or not is_only_read_by(value, add):
            continue
        weight = conv.inputs[1]
        added, W = constant(other), constant(weight)
        if weight is None or added is None or W is None or added.dtype != W.dtype:
            continue
        channels = _channels(conv, W)
        c = per_channel(added, channels, W.ndim)
        old = conv.inputs[2] if len(conv.inputs) > 2 else None
        b = constant(old)
        if c is None or (old is not None and b is None):
            continue
        total = c if b is None else c + b
        if not np.isfinite(total.astype(np.float64)).all():
            continue
        conv.resize_inputs(3)
        name = str(old.name) if old is not None else f"{weight.name}_bias"
        conv.replace_input_with(2, new_initialiser(graph, name, total, weight))
        y = add.outputs[0]
        kept, shape, type_ = y.name, y.shape, y.type
        y.replace_all_uses_with(value, replace_graph_outputs=True)
        graph.remove(add, safe=True)
        value.name, value.shape, value.type = kept, shape, type_ or value.type
        return True
    return False


def per_channel(c: Array, channels: int, rank: int) -> Array | None:
    """c as one number a channel, None where it differs along another axis or adds axes.

    Example:
        >>> per_channel(np.ones((1, 3, 1, 1)), 3, 4).shape
        (3,)
        >>> per_channel(np.ones((3,)), 3, 4) is None
        True
    """
    if c.ndim > rank:
        return None
    shape = (1,) * (rank - c.ndim) + c.shape
    if shape[1] not in (1, channels) or any(s != 1 for i, s in enumerate(shape) if i != 1):
        return None
    return np.ascontiguousarray(np.broadcast_to(c.reshape(-1), (channels,)))


def _channels(conv: ir.Node, W: Array) -> int:
    if conv.op_type == "Conv":
        return W.shape[0]
    groups = conv.attributes.get("group")
    return W.shape[1] * (1 if groups is None else groups.as_int())
