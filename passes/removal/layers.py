"""How linear layers pass channels on: what they read, and which of their filters are zeros."""

import numpy as np
import onnx_ir as ir

from ..constants import Array, constant, weight
from .flow import (
    Channels,
    Doubles,
    Flow,
    Gone,
    Made,
    Mask,
    Read,
    put,
    varying,
)


def linear(flow: Flow, node: ir.Node) -> None:
    """A layer with a constant weight: it reads channels, and makes others."""
    x, W = node.inputs[0], weight(node.inputs[1])
    if W is None:
        for value in node.inputs[:2]:
            flow.hold(value, f"it is read by {node.op_type} {node.name!r} without a weight")
    elif node.op_type == "Conv" and node.attributes.get_int("group", 1) > 1:
        _grouped(flow, node, W)
    elif node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) > 1:
        flow.hold(x, f"{node.name!r} reads it in groups")
        _refuse(flow, node, W)
    elif node.op_type in ("Gemm", "MatMul") and W.ndim != 2:
        flow.hold(x, f"{node.name!r} multiplies it with several matrices")
    else:
        axis = _axis(node)
        _read(flow, node, W, axis)
        _make(flow, node, W, 1 - axis)


def _axis(node: ir.Node) -> int:
    """The axis of the weight along which lies what a layer reads."""
    if node.op_type == "Conv":
        return 1
    return node.attributes.get_int("transB", 0) if node.op_type == "Gemm" else 0


def _read(flow: Flow, node: ir.Node, W: Array, axis: int) -> None:
    x = node.inputs[0]
    found = flow.of(x)
    if x is None or found is None:
        return
    if node.attributes.get_int("transA", 0):
        flow.hold(x, f"{node.name!r} reads it transposed")
    elif found.is_image != (W.ndim > 2) or found.count != W.shape[axis]:
        flow.hold(x, f"{node.name!r} reads other features than its channels")
    else:
        flow.reads.append(Read(x, node, axis, _takes_constant(node), flow.counts(node)))


def _takes_constant(node: ir.Node) -> bool:
    """Whether a constant input gives the same everywhere, which the bias can take over."""
    if node.op_type not in ("Conv", "Gemm") or node.attributes.get_float("beta", 1.0) == 0:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return (bias is None or constant(bias) is not None) and not is_padded(node)


def is_padded(node: ir.Node) -> bool:
    """Whether a layer adds zeros around what it reads."""
    said = node.attributes.get_string("auto_pad", "NOTSET")
    return any(node.attributes.get_ints("pads", ())) or said not in ("NOTSET", "VALID", "")


def _make(flow: Flow, node: ir.Node, W: Array, axis: int, groups: int = 1) -> None:
    zero = ~np.any(W, axis=tuple(a for a in range(W.ndim) if a != axis))
    if not flow.counts(node):
        zero[:] = False
    y, count = node.outputs[0], W.shape[axis]
    rank = W.ndim if node.op_type in ("Conv", "ConvTranspose") else 0
    bias = _bias(node, count)
    if bias is None:
        flow.channels[y] = Channels(varying(count), rank)
        flow.hold(y, f"the bias of {node.name!r} is computed at run time, or by row")
    else:
        flow.channels[y] = Channels(np.where(zero, bias, np.nan), rank)
    flow.makers.append(Made(y, node, axis, zero, groups))


def _bias(node: ir.Node, count: int) -> Doubles | None:
    """What a layer adds to every channel; None where that is not known or not one number."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros(count)
    bias = constant(value)
    if bias is None or (bias.size > 1 and bias.shape[-1:] != (bias.size,)):
        return None
    beta = node.attributes.get_float("beta", 1.0)
    return np.broadcast_to(bias.astype(np.float64).reshape(-1) * beta, (count,))


def _grouped(flow: Flow, node: ir.Node, W: Array) -> None:
    """A convolution in groups; a depthwise one passes each channel on."""
    x, found = node.inputs[0], flow.of(node.inputs[0])
    groups = node.attributes.get_int("group", 1)
    if W.shape[1] == 1 and x is not None and found is not None:
        _depthwise(flow, node, W)
        return
    width = groups * W.shape[1]
    if x is not None and found is not None:
        if found.count == width and found.is_image:
            takes = _takes_constant(node)
            flow.reads.append(Read(x, node, 1, takes, flow.counts(node), groups))
        else:
            flow.hold(x, f"{node.name!r} reads other features than its channels")
    _make(flow, node, W, 0, groups)


def _depthwise(flow: Flow, node: ir.Node, W: Array) -> None:
    x, y = node.inputs[0], node.outputs[0]
    found = flow.of(x)
    assert x is not None and found is not None, "the caller knows"
    groups, m = node.attributes.get_int("group", 1), len(W)
    bias = _bias(node, m)
    if bias is None or found.count != groups or not found.is_image:
        flow.hold(x, f"{node.name!r} reads it in {groups} groups")
        return
    at = np.repeat(np.arange(groups), m // groups)
    constants = found.values[at]
    values = constants * W.astype(np.float64).reshape(m, -1).sum(axis=1) + bias
    if is_padded(node):
        values = np.where(constants == 0, bias, np.nan)
    flow.channels[y] = Channels(values, found.rank)
    flow.link(x, y, at, np.arange(m))
    flow.shrinks(node, 1, 0, y)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        flow.shrinks(node, 2, 0, y)

    def regroup(gone: Gone) -> None:
        node.attributes.add(ir.AttrInt64("group", int((~gone[x]).sum())))

    flow.changes.append(regroup)


def _refuse(flow: Flow, node: ir.Node, W: Array) -> None:
    """A layer whose filters stay, though some may be zeros."""
    axis = 0 if node.op_type == "Conv" else 1
    zero = ~np.any(W, axis=tuple(a for a in range(W.ndim) if a != axis))
    y = node.outputs[0]
    if flow.counts(node) and zero.any():
        flow.channels[y] = Channels(varying(len(zero)), W.ndim)
        flow.hold(y, f"the filters of {node.name!r} stand in groups")
        flow.makers.append(Made(y, node, axis, zero))


def without_columns(flow: Flow, read: Read, gone: Mask) -> None:
    """A layer that no longer reads some channels; what they gave it stays."""
    node, found = read.node, flow.channels[read.value]
    W = weight(node.inputs[1])
    assert W is not None, "it was constant when the graph was followed"
    values = np.where(found.constant, found.values, 0.0).reshape(read.groups, -1)
    out = gone.reshape(read.groups, -1)
    wide = np.moveaxis(W.astype(np.float64), read.axis, 0)
    # (channels of a group, all outputs, …): each group's outputs read channels of their own
    blocks = np.split(wide, read.groups, axis=1)
    left: list[Array] = []
    given: list[Array] = []
    for v, lost, block in zip(values, out, blocks, strict=True):
        own = np.array(block)
        constants = np.tensordot(v[lost], block[lost], axes=1)
        if constants.any() and not read.takes_constant:
            at = carrier(found)
            assert read.groups == 1 and not out[0, at], "a carrier stays"
            own[at] += constants / v[at]
        given.append(constants)
        left.append(own[~lost])
    if read.takes_constant and any(constants.any() for constants in given):
        added = np.concatenate(given)
        _add_to_bias(flow, node, added.reshape(len(added), -1).sum(axis=1))
    put(flow.graph, node, 1, np.moveaxis(np.concatenate(left, axis=1), 0, read.axis))


def carrier(found: Channels) -> int:
    """The constant channel that others can be read from: the largest."""
    return int(np.argmax(np.where(found.constant, np.abs(found.values), -1.0)))


def _add_to_bias(flow: Flow, node: ir.Node, added: Doubles) -> None:
    weight = node.inputs[1]
    old = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if node.op_type == "Gemm":
        alpha = node.attributes.get_float("alpha", 1.0)
        added = added * (alpha / node.attributes.get_float("beta", 1.0))
    total = added if old is None else old.astype(np.float64) + added
    put(flow.graph, node, 2, total, like=weight)


def without_rows(flow: Flow, made: Made, gone: Mask) -> None:
    """A layer that no longer makes some channels."""
    node = made.node
    W = weight(node.inputs[1])
    assert W is not None, "it was constant when the graph was followed"
    put(flow.graph, node, 1, np.compress(~gone, W, axis=made.axis))
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and bias.size > 1:
        put(flow.graph, node, 2, np.compress(~gone, bias, axis=bias.ndim - 1))
