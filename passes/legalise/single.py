"""Single: a graph in float32 where it was in float64."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from ..names import SOURCE, legal
from .known import tensor_of

STANDARD = ("", "ai.onnx")
_DOUBLE, _FLOAT = ir.DataType.DOUBLE, ir.DataType.FLOAT
_TYPE_ATTRIBUTES = {
    "Cast": "to", "EyeLike": "dtype", "RandomNormal": "dtype", "RandomUniform": "dtype",
    "RandomNormalLike": "dtype", "RandomUniformLike": "dtype", "Bernoulli": "dtype",
    "SequenceEmpty": "dtype", "BlackmanWindow": "output_datatype",
    "HannWindow": "output_datatype", "HammingWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
}  # fmt: skip
"""Attributes that write an element type as a number."""


class FreeNames:
    """Names that nothing in a model carries yet."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        for graph in model.graphs():
            self._taken.update(str(name) for name in graph.initializers)
            self._taken.update(str(value.name) for value in graph.inputs)
            for node in graph:
                self._taken.add(str(node.name))
                self._taken.update(str(value.name) for value in node.outputs)

    def free(self, wanted: str) -> str:
        """The wanted name, or the first of wanted_2, wanted_3, … that is free."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name


def constants(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Every initialiser and Constant node's value of one graph, with its tensor."""
    made = (v for node in graph if node.op_type == "Constant" for v in node.outputs)
    for value in (*graph.initializers.values(), *made):
        tensor = tensor_of(value)
        if tensor is not None:
            yield value, tensor


def holds_double(model: ir.Model) -> bool:
    """Whether float64 is written anywhere: a type, a constant, an attribute.

    Not where a node is no standard operator: nobody knows what that would make of float32.
    """
    found = False
    for graph in model.graphs():
        values = (*graph.inputs, *graph.outputs)
        found |= any(value.dtype == _DOUBLE for value in values)
        found |= any(tensor.dtype == _DOUBLE for _, tensor in constants(graph))
        for node in graph:
            if node.domain not in STANDARD:
                return False
            found |= any(value.dtype == _DOUBLE for value in node.outputs)
            found |= _written(node) is not None or _filled(node) is not None
    return found


def in_single(model: ir.Model, names: FreeNames) -> None:
    """Turns every float64 into float32, in place; inputs and outputs of the model stay.

    Beside an input or output of float64 stands a Cast. A number that float32 does not hold
    becomes infinite or 0: who calls this has looked.

    Args:
        model: element types are known.
        names: where new names come from.
    """
    main = model.graph
    outputs = [at for at, value in enumerate(main.outputs) if value.dtype == _DOUBLE]
    for graph in model.graphs():
        for value, tensor in list(constants(graph)):
            if tensor.dtype == _DOUBLE and not value.is_graph_output():
                _convert(value, tensor)
        for node in graph:
            _rewrite_attributes(node)
        inner = () if graph is main else graph.inputs
        for value in (*inner, *(v for node in graph for v in node.outputs)):
            if value.dtype == _DOUBLE and not (value.is_graph_output() and _is_fixed(value)):
                value.type = _single(value)
    for value in (*main.inputs, *main.initializers.values()):
        if value.dtype == _DOUBLE and value.uses():
            _cast_after(main, value, names)
    for at in outputs:
        _cast_before(main, at, names)


def _is_fixed(value: ir.Value) -> bool:
    return tensor_of(value) is not None


def _convert(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """A constant in float32, where it stands."""
    with np.errstate(over="ignore"):
        held = ir.Tensor(tensor.numpy().astype(np.float32), name=value.name)
    producer = value.producer()
    if producer is not None:
        producer.attributes.clear()
        producer.attributes["value"] = ir.AttrTensor("value", held)
    value.const_value = held
    value.type = ir.TensorType(_FLOAT)


def _written(node: ir.Node) -> str | None:
    """The attribute in which a node writes float64 as a number; None where it does not."""
    name = _TYPE_ATTRIBUTES.get(node.op_type)
    attribute = node.attributes.get(name) if name else None
    is_double = attribute is not None and attribute.value == int(_DOUBLE)
    return name if is_double else None


def _filled(node: ir.Node) -> ir.TensorProtocol | None:
    """The float64 number that a ConstantOfShape repeats; None where it does not."""
    filled = node.attributes.get("value") if node.op_type == "ConstantOfShape" else None
    if filled is None or filled.type != ir.AttributeType.TENSOR:
        return None
    tensor = filled.as_tensor()
    return tensor if tensor.dtype == _DOUBLE else None


def _rewrite_attributes(node: ir.Node) -> None:
    name, filled = _written(node), _filled(node)
    if name is not None:
        node.attributes[name] = ir.AttrInt64(name, int(_FLOAT))
    if filled is not None:
        held = ir.Tensor(filled.numpy().astype(np.float32))
        node.attributes["value"] = ir.AttrTensor("value", held)


def _single(value: ir.Value) -> ir.TypeProtocol:
    """The type of a value with float32 in the place of float64."""
    tensor = ir.TensorType(_FLOAT)
    return ir.SequenceType(tensor) if isinstance(value.type, ir.SequenceType) else tensor


def _cast_after(graph: ir.Graph, value: ir.Value, names: FreeNames) -> None:
    """All readers of a value of float64 read it through one Cast."""
    node = _cast(value, _FLOAT, names.free(f"{legal(str(value.name))}/float"))
    value.replace_all_uses_with(node.outputs[0])
    node.replace_input_with(0, value)
    graph.insert_before(next(iter(graph)), node)


def _cast_before(graph: ir.Graph, at: int, names: FreeNames) -> None:
    """An output of the graph in float64 again, under its own name."""
    value = graph.outputs[at]
    producer = value.producer()
    if producer is None or value.dtype != _FLOAT:
        return
    name = str(value.name)
    value.name = names.free(f"{legal(name)}/float")
    node = _cast(value, _DOUBLE, names.free(f"{legal(name)}/double"))
    graph.insert_after(producer, node)
    node.outputs[0].name = name
    graph.outputs[at] = node.outputs[0]


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    producer = value.producer()
    told = value.name if producer is None else producer.name
    source = told if producer is None else producer.metadata_props.get(SOURCE, told)
    node = ir.node(
        "Cast",
        [value],
        {"to": int(to)},
        name=name,
        metadata_props={"nncc.pass": "Narrow", SOURCE: str(source)},
    )
    made = node.outputs[0]
    made.name, made.type = name, ir.TensorType(to)
    made.shape = None if value.shape is None else value.shape.copy()
    return node
