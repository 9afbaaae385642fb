"""InHalf: the graph in float16, with float32 inputs, outputs and islands.

For builders that compute what the graph says and have no precision flags (TensorRT-RTX,
TensorRT 11). Weights and activations become float16; a node that float16 would spoil stays in
float32 between casts (`half_islands`). The stock converters (onnxruntime.transformers.float16,
onnxconverter-common) clamp weights in silence, do not follow a mask of −1e9 into the sum, drop
nothing that vanishes below 6e-8, and work on protobuf messages of at most 2 GiB.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from .half_islands import (
    HALF_MAX,
    KEPT,
    OUT_OF_RANGE,
    STANDARD,
    halves,
    is_clamped,
    is_float,
    islands,
    overflows,
)
from .legalise.infer import infer_model
from .legalise.known import tensor_of
from .legalise.narrow import reorder
from .legalise.single import FreeNames
from .model import Model
from .names import SOURCE, legal

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def in_half(model: Model, keep: Collection[str] = ()) -> Model:
    """The model with float16 weights and activations; its inputs and outputs stay as they are.

    Bodies of If, Loop and Scan stay in float32, as do the nodes that `islands` names; each of
    these says why in its metadata. Constants that mean "without end" (a bound of Clip, a fill
    of a mask) are clamped to ±65504. Applied twice, it changes nothing the second time.

    Args:
        model: best normalised and legalised; nothing is rewritten after this.
        keep: names of values whose numbers were seen to leave float16's range.

    Returns:
        The model, with a warning for every weight that float16 cannot hold.
    """
    copy = model.copied()
    graph_model = copy.graph_model
    graph = graph_model.graph
    interface = [(value.type, value.shape) for value in graph.outputs]
    order = list(graph.initializers)  # inference puts large ones last
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph_model)
    infer_model(graph_model, model.opset)
    stays = islands(graph_model, model.opset, keep)
    told = dict.fromkeys((*model.warnings, *_warnings(stays)))
    wanted = {node: halves(node, model.opset) for node in graph if node not in stays}
    done = all(KEPT in node.metadata_props for node in stays)
    if done and not any(inputs or outputs for inputs, outputs in wanted.values()):
        return replace(model, warnings=tuple(told))
    run = _Run(graph, FreeNames(graph_model))
    for node in list(graph):
        if node in stays:
            node.metadata_props[KEPT] = f"float32: {stays[node]}"
            run.stay(node)
            continue
        inputs, outputs = wanted[node]
        for at in inputs:
            value = node.inputs[at]
            assert value is not None
            node.replace_input_with(at, run.half(value, clamped=is_clamped(node, at)))
        for at in outputs:
            run.turn(node.outputs[at])
    for at, (kind, shape) in enumerate(interface):
        run.keep_output(at)
        value = graph.outputs[at]
        value.type, value.shape = kind or value.type, shape
    run.drop_unused()
    reorder(graph, order)
    return replace(copy, warnings=tuple(told))


def _warnings(stays: Mapping[ir.Node, str]) -> list[str]:
    """Islands to tell of: weights and values that do not fit, whole bodies."""
    new = {node: why for node, why in stays.items() if KEPT not in node.metadata_props}
    told = [
        f"{node.name} ({node.op_type}) stays in float32: {why}"
        for node, why in new.items()
        if "beyond float16's" in why or "a graph of its own" in why
    ]
    large = [str(node.name) for node, why in new.items() if why.endswith(OUT_OF_RANGE)]
    if large:
        first = ", ".join(large[:3]) + (", ..." if len(large) > 3 else "")
        told.append(
            f"{len(large)} nodes stay in float32, for their values came near float16's end on "
            f"the samples: {first}"
        )
    return told


class _Run:
    """One conversion in flight: each value's other element type, made at most once."""

    def __init__(self, graph: ir.Graph, names: FreeNames) -> None:
        self._graph, self._names = graph, names
        self._halves: dict[tuple[ir.Value, bool], ir.Value] = {}
        self._floats: dict[ir.Value, ir.Value] = {}
        self._turned: set[ir.Value] = set()

    def turn(self, value: ir.Value) -> None:
        """A node's output is float16 from now on."""
        value.type = ir.TensorType(_HALF)
        self._turned.add(value)

    def half(self, value: ir.Value, *, clamped: bool) -> ir.Value:
        """The value in float16: itself, a converted weight, or a cast."""
        if value.dtype == _HALF:
            return value
        assert is_float(value), value.name
        tensor = tensor_of(value)
        clamped = clamped and tensor is not None and overflows(tensor.numpy()) > 0
        key = (value, clamped)
        if key not in self._halves:
            self._halves[key] = (
                self._cast(_source(value), _HALF, f"{value.name}/half")
                if tensor is None
                else self._weight(value, tensor, clamped)
            )
        return self._halves[key]

    def stay(self, node: ir.Node) -> None:
        """Gives a node float32 wherever it had it before; what its bodies capture as well."""
        readers, bodies = [node], _bodies(node)
        for body in bodies:
            readers += list(body.all_nodes())
        for reader in readers:
            for at, value in enumerate(reader.inputs):
                if value in self._turned:
                    reader.replace_input_with(at, self._float(value))
        for body in bodies:
            for at, value in enumerate(body.outputs):
                if value in self._turned:
                    body.outputs[at] = self._float(value)

    def keep_output(self, at: int) -> None:
        """Casts an output of the graph back, under its own name."""
        value = self._graph.outputs[at]
        if value not in self._turned:
            return
        name = str(value.name)
        cast = self._float(value)
        value.name = self._names.free(f"{legal(name)}/half")
        cast.name = name
        self._graph.outputs[at] = cast

    def drop_unused(self) -> None:
        """Weights that nobody reads in float32 any more; the float16 ones take their names."""
        for (value, _), half in self._halves.items():
            name = str(value.name)
            if tensor_of(value) is None or value.uses() or value.is_graph_output():
                continue
            if self._graph.initializers.get(name) is value:
                del self._graph.initializers[name]
                del self._graph.initializers[str(half.name)]
                half.name = name
                self._graph.register_initializer(half)

    def _float(self, value: ir.Value) -> ir.Value:
        if value not in self._floats:
            self._floats[value] = self._cast(value, _FLOAT, f"{value.name}/float")
        return self._floats[value]

    def _cast(self, value: ir.Value, to: ir.DataType, name: str) -> ir.Value:
        """A cast behind whatever makes the value."""
        if value.dtype == to:
            return value
        name = self._names.free(legal(name))
        producer = value.producer()
        source = (
            name
            if producer is None
            else str(producer.metadata_props.get(SOURCE, producer.name))
        )
        node = ir.node(
            "Cast",
            [value],
            {"to": int(to)},
            name=name,
            metadata_props={"nncc.pass": "InHalf", SOURCE: source},
        )
        made = node.outputs[0]
        made.name, made.type = name, ir.TensorType(to)
        made.shape = None if value.shape is None else value.shape.copy()
        if producer is None:
            first = next(iter(self._graph))
            self._graph.insert_before(first, node)
        else:
            self._graph.insert_after(producer, node)
        return made

    def _weight(self, value: ir.Value, tensor: ir.TensorProtocol, clamped: bool) -> ir.Value:
        """The constant in float16, rounded to nearest even."""
        array = tensor.numpy()
        if clamped:
            array = np.where(np.isfinite(array), np.clip(array, -HALF_MAX, HALF_MAX), array)
        held = array.astype(np.float16)
        name = self._names.free(f"{value.name}/half")
        made = ir.Value(
            name=name,
            shape=ir.Shape(held.shape),
            type=ir.TensorType(_HALF),
            const_value=ir.Tensor(held, name=name),
        )
        self._graph.register_initializer(made)
        return made


def _source(value: ir.Value) -> ir.Value:
    """What a cast to float32 read, where float16 can be had from it directly."""
    producer = value.producer()
    if producer is None or producer.op_type != "Cast" or producer.domain not in STANDARD:
        return value
    x = producer.inputs[0]
    return x if x is not None and x.dtype in (_HALF, ir.DataType.BOOL) else value


def _bodies(node: ir.Node) -> list[ir.Graph]:
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found += attribute.as_graphs()
    return found
