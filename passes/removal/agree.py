"""Which channels can go: those that every node that reads or makes them can do without."""

import numpy as np
import onnx_ir as ir

from ..constants import weight
from .flow import Flow, Gone, Mask, Read
from .layers import carrier

Reasons = dict[ir.Value, str]


def agreed(flow: Flow) -> tuple[Gone, Reasons]:
    """The most channels that can go together, and what kept the others of each value.

    A channel can go where it is constant or where nothing needs it. Both sides of a sum lose
    the same ones, so that taking one back takes back what is linked to it; the largest set
    that holds is what remains when nothing more has to be taken back.
    """
    for value in flow.channels:
        if value.is_graph_output():
            flow.hold(value, f"{value.name!r} is an output of the model")
        for use in value.uses():
            if use.node.graph is not flow.graph:
                flow.hold(value, f"it is read inside a body, by {use.node.name!r}")
    unneeded = _unneeded(flow)
    gone: Gone = {}
    reasons: Reasons = {}
    for value, found in flow.channels.items():
        gone[value] = (found.constant | unneeded[value]) & (value not in flow.held)
        if value in flow.held:
            reasons[value] = flow.held[value]
    columns = {id(read): _read_columns(read) for read in flow.reads}
    changed = True
    while changed:
        changed = _linked(flow, gone, reasons)
        changed |= _carried(flow, gone, reasons, columns)
        changed |= _evened(flow, gone, reasons)
        if not changed:
            changed = _left_one(flow, gone, reasons)
    return gone, reasons


def _unneeded(flow: Flow) -> Gone:
    """Channels whose numbers no output depends on, from the readers back to the makers."""
    free: Gone = {
        value: np.full(found.count, value not in flow.held)
        for value, found in flow.channels.items()
    }
    for read in flow.reads:
        free[read.value] &= ~_read_columns(read) & read.is_named
    for link in reversed(flow.links):
        needed = ~(free[link.after][link.target] | link.void)
        free[link.before][link.source[needed]] = False
    return free


def _read_columns(read: Read) -> Mask:
    """Which channels a layer has weights for that are not all zero."""
    W = weight(read.node.inputs[1])
    assert W is not None, "a layer that reads has a weight"
    if read.groups > 1:
        by_group = W.reshape(read.groups, -1, *W.shape[1:])
        return np.any(by_group, axis=(1, *range(3, by_group.ndim))).reshape(-1)
    return np.any(W, axis=tuple(a for a in range(W.ndim) if a != read.axis))


def _linked(flow: Flow, gone: Gone, reasons: Reasons) -> bool:
    """Takes back what is linked to a channel that stays; whether there was any."""
    changed = False
    for link in (*flow.links, *reversed(flow.links)):
        before, after = gone[link.before], gone[link.after]
        ahead, behind = before[link.source], after[link.target]
        if (behind & ~ahead).any():
            after[link.target] &= ahead
            _explain(reasons, link.after, link.before, link.after)
            changed = True
        if (ahead & ~behind).any():
            before[link.source[~behind]] = False
            _explain(reasons, link.before, link.after, link.after)
            changed = True
    return changed


def _explain(reasons: Reasons, value: ir.Value, other: ir.Value, after: ir.Value) -> None:
    """Channels of `value` stay since those of `other` do; a node makes `after` of one."""
    node = after.producer()
    assert node is not None, "a link has a node"
    what = f"{node.op_type} {node.name!r}"
    why = f"their constants are none behind {what}"
    if node.op_type in ("Add", "Sub", "Mul"):
        why = f"the other branch of {what} needs them"
    reasons.setdefault(value, reasons.get(other, why))


def _carried(flow: Flow, gone: Gone, reasons: Reasons, columns: dict[int, Mask]) -> bool:
    """Keeps one constant channel for each layer that its bias cannot stand for."""
    changed = False
    for read in flow.reads:
        if read.takes_constant:
            continue
        found = flow.channels[read.value]
        out = gone[read.value]
        felt = out & found.constant & (found.values != 0) & columns[id(read)]
        if read.groups > 1 and felt.any():
            out[felt] = False
            why = f"their constants meet the padding of {read.node.name!r}"
            reasons.setdefault(read.value, why)
            changed = True
            continue
        at = carrier(found) if felt.any() else -1
        if at >= 0 and out[at]:
            out[at] = False
            why = f"one stays to carry the constants of the others to {read.node.name!r}"
            reasons.setdefault(read.value, why)
            changed = True
    return changed


def _evened(flow: Flow, gone: Gone, reasons: Reasons) -> bool:
    """Lets every group of a convolution lose as many channels; whether one had more."""
    changed = False
    for layer in (*flow.reads, *flow.makers):
        out = gone[layer.value].reshape(layer.groups, -1)
        most = out.sum(axis=1).min()
        beyond = out & (np.cumsum(out, axis=1) > most)
        if beyond.any():
            out[beyond] = False
            why = f"every group of {layer.node.name!r} loses as many"
            reasons.setdefault(layer.value, why)
            changed = True
    return changed


def _left_one(flow: Flow, gone: Gone, reasons: Reasons) -> bool:
    """Keeps a channel where none would be left; whether there was such a value."""
    for made in flow.makers:
        out = gone[made.value].reshape(made.groups, -1)
        if out.all():
            out[:, 0] = False
            reasons.setdefault(made.value, "a layer has at least one filter")
            return True
    return False
