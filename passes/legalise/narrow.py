"""Narrow: no float64, and int64 indices as int32 where a device has no int64.

TensorRT has no float64 and, before version 10, no int64: its parser casts constants silently
and clamps what does not fit. Here the graph says it itself, so that what was proved is what
runs, and a number that does not fit is named before the builder sees it.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from ...device_profiles.profile import DeviceProfile
from ..check import Finding, label
from ..constants import Array
from ..model import Model
from ..tensorrt_rules import CLAMPS_INT64
from .infer import infer_model
from .known import tensor_of
from .single import STANDARD, FreeNames, constants, holds_double, in_single

_DOUBLE, _INT64 = ir.DataType.DOUBLE, ir.DataType.INT64
_INT32_RANGE = np.iinfo(np.int32)
_FLOAT_RANGE = np.finfo(np.float32)

_INDICES: Mapping[str, tuple[int, ...]] = {
    "Gather": (1,),
    "GatherElements": (1,),
    "ScatterElements": (1,),
    "Scatter": (1,),
    "CumSum": (1,),
    "OneHot": (1,),
}
"""Inputs that a definition takes in int32 as well, whatever the other inputs are.

Not the bounds of a Slice: old parsers clamp them themselves, and that of TensorRT-RTX 1.7.1
refuses int32 bounds without steps ("Slice steps length 2 does not equal starts length 1").
"""
_MAY_CLAMP = {("Slice", 1), ("Slice", 2)}
"""Where a number past int32 says "to the end" and still does when a parser clamps it."""


def narrow(model: Model, profile: DeviceProfile) -> tuple[Model, list[Finding]]:
    """The model without float64, and with indices in int32 where there is no int64.

    Constants that the operator's definition wants in int64 (sizes, axes) stay; so do
    types of inputs and outputs: where these are float64, a Cast stands beside them. Constants
    that do not fit keep their type, and the node that reads them is named.

    Args:
        model: best normalised; not changed.
        profile: the device. Nothing is done where it is no TensorRT.

    Returns:
        The model, itself where nothing was to do, and what does not fit.
    """
    if profile.runtime != "tensorrt":
        return model, []
    double = "double" not in profile.dtypes and holds_double(model.graph_model)
    found = list(dict.fromkeys(_unfit(model.graph_model, profile, double=double)))
    integers = profile.parser in CLAMPS_INT64 and _narrowable(model)
    if not double and not integers:
        return model, found
    copy = model.copied()
    interface = [(v.type, v.shape) for v in copy.graph_model.graph.outputs]
    order = list(copy.graph_model.graph.initializers)  # inference puts large ones last
    infer_model(copy.graph_model, model.opset)
    names = FreeNames(copy.graph_model)
    if double:
        in_single(copy.graph_model, names)
    if integers:
        _to_int32(copy.graph_model, names)
    graph = copy.graph_model.graph
    for value, (kind, shape) in zip(graph.outputs, interface, strict=True):
        value.type, value.shape = kind or value.type, shape
    reorder(graph, order)
    return copy, found


def reorder(graph: ir.Graph, order: list[str]) -> None:
    """Puts initialisers in the given order, new ones after them."""
    held = dict(graph.initializers)
    graph.initializers.clear()
    for name in dict.fromkeys((*(n for n in order if n in held), *held)):
        graph.register_initializer(held[name])


def _narrowable(model: Model) -> bool:
    nodes = model.graph_model.graph.all_nodes()
    return any(
        (tensor := tensor_of(node.inputs[at])) is not None and tensor.dtype == _INT64
        for node in nodes
        for at in _INDICES.get(node.op_type, ())
        if at < len(node.inputs)
    )


def _unfit(model: ir.Model, profile: DeviceProfile, *, double: bool) -> Iterator[Finding]:
    """A finding for every constant that the narrower type does not hold, at each reader."""
    for graph in model.graphs():
        for value, tensor in constants(graph):
            if tensor.dtype == _DOUBLE and double:
                lost, kind, to = _lost_as_float(tensor.numpy()), "float64", "float32"
            elif tensor.dtype == _INT64 and profile.parser in CLAMPS_INT64:
                lost, kind, to = _lost_as_int32(tensor.numpy()), "int64", "int32"
            else:
                continue
            for node, at in value.uses() if lost else ():
                if kind == "int64" and (node.op_type, at) in _MAY_CLAMP:
                    continue
                yield Finding(
                    label(node),
                    node.op_type,
                    f"reads {lost} from {value.name!r} ({kind}), which {to} does not hold; "
                    f"{profile.runtime_title} computes in {to}",
                    f"export the model with numbers that {to} holds",
                )


def _lost_as_int32(array: Array) -> str:
    """A number past int32, as text; "" where all fit."""
    if not array.size:
        return ""
    low, high = int(array.min()), int(array.max())
    if low < _INT32_RANGE.min:
        return str(low)
    return str(high) if high > _INT32_RANGE.max else ""


def _lost_as_float(array: Array) -> str:
    """A finite number that float32 makes infinite, or one that it makes 0; "" for none."""
    magnitude = np.abs(array[np.isfinite(array)])
    if magnitude.size and magnitude.max() > float(_FLOAT_RANGE.max):
        return f"{magnitude.max():.6g}"
    gone = magnitude[(magnitude > 0) & (magnitude.astype(np.float32) == 0)]
    return f"{gone.min():.6g}" if gone.size else ""


def _to_int32(model: ir.Model, names: FreeNames) -> None:
    """Constant indices in int32."""
    made: dict[ir.Value, ir.Value] = {}
    homes = {value: graph for graph in model.graphs() for value, _ in constants(graph)}
    for node in model.graph.all_nodes():
        places = _INDICES.get(node.op_type, ()) if node.domain in STANDARD else ()
        places = tuple(at for at in places if at < len(node.inputs) and node.inputs[at])
        values = [value for at in places if (value := node.inputs[at]) is not None]
        if not values or not all(map(_fits, values)):
            continue
        for at, value in zip(places, values, strict=True):
            if value not in made:
                made[value] = _as_int32(value, homes[value], names)
            node.replace_input_with(at, made[value])
    for value, narrowed in made.items():
        if not value.uses() and not value.is_graph_output():
            _take_name(homes[value], value, narrowed)


def _fits(value: ir.Value) -> bool:
    tensor = tensor_of(value)
    if tensor is None or tensor.dtype != _INT64:
        return False
    return not _lost_as_int32(tensor.numpy())


def _as_int32(value: ir.Value, graph: ir.Graph, names: FreeNames) -> ir.Value:
    tensor = tensor_of(value)
    assert tensor is not None
    held = tensor.numpy().astype(np.int32)
    return _new_weight(graph, names.free(f"{value.name}/int32"), held)


def _take_name(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """The narrowed constant under the name of the one it replaces."""
    name = str(old.name)
    producer = old.producer()
    if producer is not None:
        graph.remove(producer, safe=True)
        return
    if graph.initializers.get(name) is old:
        del graph.initializers[name]
        del graph.initializers[str(new.name)]
        new.name = name
        graph.register_initializer(new)


def _new_weight(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
