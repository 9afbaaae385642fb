"""How nodes that are no layers pass channels on: activations, pooling, sums, joins."""

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ..constants import Array, constant
from .flow import (
    Channels,
    Doubles,
    Flow,
    varying,
)
from .layers import is_padded, linear
from .shapes import (
    concat,
    cut,
    flatten,
    gather,
    hold,
    mean,
    pad,
    pass_on,
    reshape,
    resize,
    squeeze,
)

Handler = Callable[[Flow, ir.Node], None]


def _leaky(node: ir.Node, x: Doubles) -> Doubles:
    return np.where(x < 0, x * node.attributes.get_float("alpha", 0.01), x)


def _hard_sigmoid(node: ir.Node, x: Doubles) -> Doubles:
    alpha = node.attributes.get_float("alpha", 0.2)
    return np.clip(alpha * x + node.attributes.get_float("beta", 0.5), 0.0, 1.0)


def _elu(node: ir.Node, x: Doubles) -> Doubles:
    alpha = node.attributes.get_float("alpha", 1.0)
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0.0)), x)


_ACTIVATIONS: dict[str, Callable[[ir.Node, Doubles], Doubles]] = {
    "Relu": lambda _, x: np.maximum(x, 0.0),
    "LeakyRelu": _leaky,
    "Sigmoid": lambda _, x: 1 / (1 + np.exp(-x)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda _, x: x * np.clip(x / 6 + 0.5, 0.0, 1.0),
    "Elu": _elu,
    "Tanh": lambda _, x: np.tanh(x),
    "Softplus": lambda _, x: np.logaddexp(x, 0.0),
    "Identity": lambda _, x: x,
    "Abs": lambda _, x: np.abs(x),
    "Neg": lambda _, x: -x,
    "Exp": lambda _, x: np.exp(x),
    "Erf": lambda _, x: np.array([math.erf(v) for v in x]),
}
_ARITHMETIC: dict[str, Callable[[Doubles, Doubles], Doubles]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}


def follow(flow: Flow, node: ir.Node) -> None:
    """What a node does to the channels of what it reads."""
    op = node.op_type if node.domain in ("", "ai.onnx") else ""
    if op not in _ARITHMETIC and op != "Concat":
        for value in node.inputs[1:]:
            flow.hold(value, f"{node.op_type} {node.name!r} reads it as a parameter")
    if op in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        linear(flow, node)
    elif any(flow.of(value) is not None for value in node.inputs):
        with np.errstate(all="ignore"):
            if op in _ACTIVATIONS:
                pass_on(flow, node, lambda x: _ACTIVATIONS[op](node, x))
            elif op in _ARITHMETIC:
                _arithmetic(flow, node)
            else:
                _HANDLERS.get(op, hold)(flow, node)


def _clip(flow: Flow, node: ir.Node) -> None:
    bounds = [
        node.attributes.get_float("min", -np.inf),
        node.attributes.get_float("max", np.inf),
    ]
    for at, value in enumerate(node.inputs[1:3]):
        given = constant(value)
        if value is not None and given is None:
            return hold(flow, node)
        if given is not None:
            bounds[at] = float(given.reshape(-1)[0])
    return pass_on(flow, node, lambda x: np.clip(x, bounds[0], bounds[1]))


def _dropout(flow: Flow, node: ir.Node) -> None:
    is_training = len(node.inputs) > 2 and node.inputs[2] is not None
    if is_training or any(output.uses() for output in node.outputs[1:]):
        return hold(flow, node)
    return pass_on(flow, node, lambda x: x)


def _pool(flow: Flow, node: ir.Node) -> None:
    found = flow.of(node.inputs[0])
    if found is None or not found.is_image or any(y.uses() for y in node.outputs[1:]):
        return hold(flow, node)
    counted = node.op_type == "AveragePool" and node.attributes.get_int("count_include_pad", 0)
    if counted and is_padded(node):  # a constant would not stay one at the borders
        return pass_on(flow, node, lambda x: np.where(x == 0, 0.0, np.nan))
    return pass_on(flow, node, lambda x: x)


def _normalise(flow: Flow, node: ir.Node) -> None:
    given = [constant(value) for value in node.inputs[1:5]]
    found = flow.of(node.inputs[0])
    known = [v.astype(np.float64) for v in given if v is not None]
    is_training = node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1
    if is_training or len(known) < 4 or found is None or not found.is_image:
        return hold(flow, node)
    scale, shift, mean, variance = known
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    pass_on(flow, node, lambda x: (x - mean) * factor + shift)
    for at in range(1, 5):
        flow.shrinks(node, at, 0, node.outputs[0])
    return None


def _prelu(flow: Flow, node: ir.Node) -> None:
    slope = constant(node.inputs[1])
    if slope is None or not _with_constant(
        flow, node, 0, slope, lambda x, s: np.where(x < 0, x * s, x)
    ):
        hold(flow, node)


def _arithmetic(flow: Flow, node: ir.Node) -> None:
    combine = _ARITHMETIC[node.op_type]

    def turned(x: Doubles, c: Doubles) -> Doubles:
        return combine(c, x)

    for at in (0, 1):
        other = constant(node.inputs[1 - at])
        if other is not None:
            if not _with_constant(flow, node, at, other, turned if at else combine):
                hold(flow, node)
            return
    _join(flow, node, combine)


def _join(flow: Flow, node: ir.Node, combine: Callable[[Doubles, Doubles], Doubles]) -> None:
    """Two branches whose channels meet: both lose the same ones."""
    (a, b), y = node.inputs, node.outputs[0]
    left, right = flow.of(a), flow.of(b)
    if a is None or b is None or left is None or right is None or node.op_type == "Div":
        for value in (a, b):
            flow.hold(value, f"{node.op_type} {node.name!r} joins it with another branch")
        return
    if left.count != right.count or left.rank != right.rank:
        hold(flow, node)
        return
    values = combine(left.values, right.values)
    nothing = np.zeros(left.count, bool)
    of_left, of_right = nothing, nothing
    if node.op_type == "Mul":
        of_left, of_right = right.values == 0, left.values == 0
        values = np.where(of_left | of_right, 0.0, values)
    flow.channels[y] = Channels(values, left.rank)
    flow.link(a, y, void=of_left)
    if b is not a:
        flow.link(b, y, void=of_right)


def _with_constant(
    flow: Flow,
    node: ir.Node,
    at: int,
    other: Array,
    combine: Callable[[Doubles, Doubles], Doubles],
) -> bool:
    """Whether a constant is one a channel, or the same for all: it is followed then.

    Args:
        flow: of the graph.
        node: the operation.
        at: the input that is not constant; the other one is 1 − at.
        other: the constant.
        combine: (channels, constants) → channels.
    """
    x, y = node.inputs[at], node.outputs[0]
    found = flow.of(x)
    if x is None or found is None or (found.is_image and other.ndim > found.rank):
        return False
    behind = found.rank - 2 if found.is_image else 0
    axis = other.ndim - 1 - behind
    width = other.shape[axis] if axis >= 0 else 1
    if width not in (1, found.count):
        return False
    if other.size == width:
        values = combine(found.values, other.astype(np.float64).reshape(-1))
    else:
        values = varying(found.count)
    flow.channels[y] = Channels(np.broadcast_to(values, (found.count,)), found.rank)
    flow.link(x, y)
    if width > 1:
        flow.shrinks(node, 1 - at, axis, y)
    return True


_HANDLERS: dict[str, Handler] = {
    "AveragePool": _pool,
    "BatchNormalization": _normalise,
    "Clip": _clip,
    "Concat": concat,
    "Dropout": _dropout,
    "Flatten": flatten,
    "Gather": gather,
    "GlobalAveragePool": _pool,
    "GlobalMaxPool": _pool,
    "MaxPool": _pool,
    "PRelu": _prelu,
    "Pad": pad,
    "ReduceMax": mean,
    "ReduceMean": mean,
    "Reshape": reshape,
    "Resize": resize,
    "Slice": cut,
    "Squeeze": squeeze,
    "Upsample": resize,
}
