"""Element types and shapes of values, from the definitions of the nodes that make them."""

import logging

import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ..opset_change import schema_of
from ..quiet import quiet_libraries
from .known import tensor_of
from .results import shape_of_result

logger = logging.getLogger(__name__)

_BROADCAST = frozenset(
    {
        "Add",
        "Div",
        "Equal",
        "Greater",
        "Less",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Pow",
        "Sub",
        "Where",
    }
)
_DATA_BYTES = 4096
"""Constants up to this size are shown to inference: shapes and axes, never weights."""


def infer_model(model: ir.Model, opset: int) -> None:
    """Sets the types and shapes of a whole model, its bodies included, as far as they follow.

    What the file declares of a node's results is not believed: it is kept only for operators
    that have no definition here. Weights are not copied.
    """
    declared: dict[ir.Value, tuple[ir.TypeProtocol | None, ir.Shape | None]] = {}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            declared[value] = (value.type, value.shape)
            if schema_of(node.op_type, opset, node.domain) is not None:
                value.shape = None
    with quiet_libraries():
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    infer_graph(model.graph, opset)
    for value, (kind, shape) in declared.items():
        if value.type is None:
            value.type, value.shape = kind, value.shape or shape


def infer_graph(graph: ir.Graph, opset: int) -> None:
    """Fills in what is missing, node by node in the order they stand in."""
    for node in graph:
        bodies = [a.as_graph() for a in node.attributes.values() if _holds_graph(a)]
        if not bodies:
            infer_node(node, opset)
            continue
        for body in bodies:
            _type_body_inputs(node, body)
            infer_graph(body, opset)
        _type_results(node, bodies)


def infer_node(node: ir.Node, opset: int) -> None:
    """Sets the type and shape of a node's outputs where its inputs decide them."""
    _infer_by_definition(node, opset)
    first = node.outputs[0] if node.outputs else None
    if first is None or (first.shape is not None and node.op_type != "Reshape"):
        return
    refine(first, shape_of_result(node))
    source = node.inputs[0] if node.inputs else None
    if first.type is None and first.shape is not None and source is not None:
        first.type = source.type


def _infer_by_definition(node: ir.Node, opset: int) -> None:
    """What onnx infers; nothing when an input's type is unknown or the definition objects."""
    schema = schema_of(node.op_type, opset, node.domain)
    inputs = [value for value in node.inputs if value is not None]
    if schema is None or any(value.type is None for value in inputs):
        return
    types = {str(v.name): ir.serde.serialize_value(v).type for v in inputs}
    data = {str(v.name): small for v in inputs if (small := _small(v)) is not None}
    try:
        made = onnx.shape_inference.infer_node_outputs(
            schema,
            ir.serde.serialize_node(node),
            types,
            data,
            opset_imports=[onnx.helper.make_opsetid(node.domain, opset)],
        )
    except Exception as error:  # noqa: BLE001  the C++ side raises several unrelated types
        logger.debug("no types for %s %s: %s", node.op_type, node.name, error)
        _type_as_inputs(node, schema)
        return
    for value in node.outputs:
        proto = made.get(str(value.name))
        if proto is None or not proto.WhichOneof("value"):
            continue
        value.type = ir.serde.deserialize_type_proto_for_type(proto) or value.type
        refine(value, ir.serde.deserialize_type_proto_for_shape(proto))


def _type_as_inputs(node: ir.Node, schema: onnx.defs.OpSchema) -> None:
    """Gives an output the type of an input that shares its type variable.

    Elementwise nodes also get the broadcast rank. It serves nodes whose types the definition
    does not list: a lowering of their own will change those.
    """
    bound = {
        parameter.type_str: value.type
        for parameter, value in zip(schema.inputs, node.inputs, strict=False)
        if value is not None
    }
    shapes = [value.shape for value in node.inputs if value is not None]
    elementwise = node.op_type in _BROADCAST and all(shape is not None for shape in shapes)
    for parameter, value in zip(schema.outputs, node.outputs, strict=False):
        value.type = value.type or bound.get(parameter.type_str)
        if elementwise and value.shape is None:
            widest = max((len(shape) for shape in shapes if shape is not None), default=0)
            value.shape = ir.Shape([None] * widest)


def refine(value: ir.Value, shape: ir.Shape | None) -> None:
    """Gives a value the sizes that `shape` knows and its own shape does not."""
    if shape is None:
        return
    if value.shape is None or len(value.shape) != len(shape):
        value.shape = value.shape if value.shape is not None else shape.copy()
        return
    sizes = [
        theirs if isinstance(theirs, int) and not isinstance(own, int) else own
        for own, theirs in zip(value.shape, shape, strict=True)
    ]
    named = [
        theirs if isinstance(own, ir.SymbolicDim) and own.value is None else own
        for own, theirs in zip(sizes, shape, strict=True)
    ]
    value.shape = ir.Shape(named)


def _small(value: ir.Value) -> onnx.TensorProto | None:
    tensor = tensor_of(value)
    if tensor is None or tensor.nbytes > _DATA_BYTES or tensor.dtype == ir.DataType.STRING:
        return None
    return ir.serde.serialize_tensor(tensor)


def _holds_graph(attribute: ir.Attr) -> bool:
    return attribute.type == ir.AttributeType.GRAPH


def _type_body_inputs(node: ir.Node, body: ir.Graph) -> None:
    """Loop: (iteration, condition, carried…); Scan: (states…, slices…)."""
    given: list[ir.Value | None] = []
    if node.op_type == "Loop":
        for value, dtype in zip(body.inputs, (ir.DataType.INT64, ir.DataType.BOOL)):  # noqa: B905
            value.type = value.type or ir.TensorType(dtype)
        given = [None, None, *node.inputs[2:]]
    elif node.op_type == "Scan":
        given = list(node.inputs)
    for value, outer in zip(body.inputs, given):  # noqa: B905  a broken body may have fewer
        if outer is not None and value.type is None:
            value.type = outer.type


def _type_results(node: ir.Node, bodies: list[ir.Graph]) -> None:
    results = list(bodies[0].outputs)
    if node.op_type == "Loop":
        results = results[1:]
    for value, inner in zip(node.outputs, results):  # noqa: B905
        if value.type is None:
            value.type = inner.type
