"""How nodes that change the shape of what they read pass channels on."""

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ..constants import constant
from .flow import Channels, Doubles, Flow, Gone, Places, joined, put


def hold(flow: Flow, node: ir.Node) -> None:
    """All channels that a node reads stay."""
    for value in node.inputs:
        flow.hold(value, f"it is read by {node.op_type} {node.name!r}")


def pass_on(flow: Flow, node: ir.Node, of: Callable[[Doubles], Doubles]) -> None:
    """Every channel for itself."""
    x, found = node.inputs[0], flow.of(node.inputs[0])
    if x is None or found is None:
        hold(flow, node)
        return
    flow.channels[node.outputs[0]] = Channels(of(found.values), found.rank)
    flow.link(x, node.outputs[0])


def concat(flow: Flow, node: ir.Node) -> None:
    """Channels of several values side by side."""
    found = [flow.of(value) for value in node.inputs]
    known = [part for part in found if part is not None]
    y, axis = node.outputs[0], node.attributes.get_int("axis", 0)
    rank = known[0].rank
    at_channels = {1, 1 - rank} if rank else {-1, _last(node.inputs[0])}
    if len(known) < len(found) or {p.rank for p in known} != {rank} or axis not in at_channels:
        return hold(flow, node)
    flow.channels[y] = Channels(joined([part.values for part in known]), rank)
    first = 0
    for value, part in zip(node.inputs, known, strict=True):
        assert value is not None, "its channels are known"
        at = np.arange(part.count)
        flow.link(value, y, at, at + first)
        first += part.count
    return None


def _last(value: ir.Value | None) -> int:
    """The number of a value's last axis, -1 where its rank is not known."""
    return -1 if value is None or value.shape is None else len(value.shape) - 1


def gather(flow: Flow, node: ir.Node) -> None:
    """A choice of channels, as kept columns make it; the others are not needed."""
    x, y = node.inputs[0], node.outputs[0]
    index, found = constant(node.inputs[1]), flow.of(x)
    if x is None or found is None or index is None or index.ndim != 1:
        return hold(flow, node)
    axis = node.attributes.get_int("axis", 0)
    at_channels = {1, 1 - found.rank} if found.is_image else {-1, _last(x)}
    if axis not in at_channels or not flow.counts(node):
        return hold(flow, node)
    chosen = index.astype(np.int64) % found.count
    flow.channels[y] = Channels(found.values[chosen], found.rank)
    flow.link(x, y, chosen, np.arange(len(chosen)))

    def renumber(gone: Gone) -> None:
        if not gone[x].any():
            return
        numbers = np.cumsum(~gone[x]) - 1
        left: Places = numbers[chosen[~gone[y]]]
        if not y.is_graph_output() and np.array_equal(left, np.arange(int((~gone[x]).sum()))):
            y.replace_all_uses_with(x)
        else:
            put(flow.graph, node, 1, left)

    flow.changes.append(renumber)
    return None


def mean(flow: Flow, node: ir.Node) -> None:
    """A mean or a maximum over spatial axes."""
    found = flow.of(node.inputs[0])
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = node.attributes.get_ints("axes", ()) if given is None else tuple(given.tolist())
    if found is None or not found.is_image:
        return hold(flow, node)
    spatial = {int(axis) % found.rank for axis in axes}
    if not spatial or min(spatial) < 2:
        return hold(flow, node)
    pass_on(flow, node, lambda x: x)
    _drop_axes(flow, node, spatial, is_kept=bool(node.attributes.get_int("keepdims", 1)))
    return None


def squeeze(flow: Flow, node: ir.Node) -> None:
    """An image without some spatial axes of size one."""
    found = flow.of(node.inputs[0])
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = node.attributes.get_ints("axes", ()) if given is None else tuple(given.tolist())
    if found is None or not found.is_image:
        return hold(flow, node)
    spatial = {int(axis) % found.rank for axis in axes}
    if not spatial or min(spatial) < 2:
        return hold(flow, node)
    pass_on(flow, node, lambda x: x)
    _drop_axes(flow, node, spatial, is_kept=False)
    return None


def resize(flow: Flow, node: ir.Node) -> None:
    """An image in another size; where nothing is made up at its borders, constants stay."""
    found = flow.of(node.inputs[0])
    how = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if found is None or not found.is_image or how == "tf_crop_and_resize":
        return hold(flow, node)
    named = node.attributes.get_ints("axes", ())
    axes = [int(axis) % found.rank for axis in named or range(found.rank)]
    is_new = node.op_type == "Resize" and len(node.inputs) > 2
    at = 2 if is_new else 1
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        at = 3
    given = constant(node.inputs[at]) if len(node.inputs) > at else None
    if given is None or given.size != len(axes):
        return hold(flow, node)
    if 1 in axes:
        place = axes.index(1)
        if at < 3 and float(given[place]) != 1.0:
            return hold(flow, node)
        if at == 3 and int(given[place]) != found.count:
            return hold(flow, node)
    pass_on(flow, node, lambda x: x)
    if at == 3 and 1 in axes:
        _resized(flow, node, at, axes.index(1))
    return None


def _resized(flow: Flow, node: ir.Node, at: int, place: int) -> None:
    """One of the sizes that a node is given is that of the channels."""

    def change(gone: Gone) -> None:
        sizes = constant(node.inputs[at])
        assert sizes is not None, "it was constant when the graph was followed"
        left = np.array(sizes)
        left[place] = int((~gone[node.outputs[0]]).sum())
        if gone[node.outputs[0]].any():
            put(flow.graph, node, at, left)

    flow.changes.append(change)


def cut(flow: Flow, node: ir.Node) -> None:
    """A part of an image, all of its channels."""
    found = flow.of(node.inputs[0])
    given = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    axes = node.attributes.get_ints("axes", ()) if given is None else tuple(given.tolist())
    rank = 0 if found is None else found.rank
    if not rank or not axes or min(int(axis) % rank for axis in axes) < 2:
        return hold(flow, node)
    return pass_on(flow, node, lambda x: x)


def pad(flow: Flow, node: ir.Node) -> None:
    """An image with a border: of the same, or of one number."""
    found = flow.of(node.inputs[0])
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    pads = node.attributes.get_ints("pads", ()) if given is None else tuple(given.tolist())
    rank = 0 if found is None else found.rank
    has_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    if not rank or len(pads) != 2 * rank or has_axes:
        return hold(flow, node)
    if any(pads[axis] for axis in (0, 1, rank, rank + 1)):
        return hold(flow, node)
    border = node.attributes.get_float("value", 0.0)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        said = constant(node.inputs[2])
        if said is None:
            return hold(flow, node)
        border = float(said.reshape(-1)[0])
    if node.attributes.get_string("mode", "constant") == "constant":
        return pass_on(flow, node, lambda x: np.where(x == border, x, np.nan))
    return pass_on(flow, node, lambda x: x)


def _drop_axes(flow: Flow, node: ir.Node, axes: set[int], *, is_kept: bool) -> None:
    """The rank of an image without some spatial axes; without all, channels lie last."""
    y = node.outputs[0]
    found = flow.channels[y]
    rank = found.rank if is_kept else found.rank - len(axes)
    flow.channels[y] = Channels(found.values, rank if rank > 2 else 0)


def flatten(flow: Flow, node: ir.Node) -> None:
    """All axes but the first as one."""
    found = flow.of(node.inputs[0])
    is_plain = found is not None and not found.is_image and _last(node.inputs[0]) == 1
    if node.attributes.get_int("axis", 1) != 1:
        return hold(flow, node)
    if is_plain:
        return pass_on(flow, node, lambda x: x)
    return _spread(flow, node)


def reshape(flow: Flow, node: ir.Node) -> None:
    """A Reshape that keeps the first axis and joins the others."""
    sizes, x = constant(node.inputs[1]), node.inputs[0]
    if x is None or sizes is None or sizes.size != 2:
        return hold(flow, node)
    first, last = (int(size) for size in sizes)
    if node.attributes.get_int("allowzero", 0) and 0 in (first, last):
        return hold(flow, node)
    batch = None if x.shape is None else x.shape[0]
    if first not in (0, batch) and not (first == -1 and last == _features(x)):
        return hold(flow, node)
    y = node.outputs[0]
    _spread(flow, node)
    if last == -1 or y not in flow.channels:
        return None

    def shrink(gone: Gone) -> None:
        if gone[y].any():
            smaller = np.array([first, int((~gone[y]).sum())], sizes.dtype)
            put(flow.graph, node, 1, smaller)

    flow.changes.append(shrink)
    return None


def _spread(flow: Flow, node: ir.Node) -> None:
    """An image as features: those of one channel lie side by side."""
    x, y = node.inputs[0], node.outputs[0]
    found = flow.of(x)
    features = _features(y) or _features(x) or _wanted(y)
    if x is None or found is None or not found.is_image or not features:
        return hold(flow, node)
    per, rest = divmod(features, found.count)
    if rest or not per:
        return hold(flow, node)
    at = np.repeat(np.arange(found.count), per)
    flow.channels[y] = Channels(found.values[at])
    flow.link(x, y, at, np.arange(features))
    return None


def _features(value: ir.Value | None) -> int:
    """Product of all sizes but the first; 0 where one is not known."""
    if value is None or value.shape is None:
        return 0
    sizes = [size if isinstance(size, int) else 0 for size in list(value.shape)[1:]]
    return math.prod(sizes)


def _wanted(value: ir.Value) -> int:
    """How many features the product that reads a value takes; 0 where none does."""
    for use in value.uses():
        node, W = use.node, constant(use.node.inputs[1]) if len(use.node.inputs) > 1 else None
        if node.op_type in ("Gemm", "MatMul") and W is not None and W.ndim == 2:
            return W.shape[node.attributes.get_int("transB", 0)]
    return 0
