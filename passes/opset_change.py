"""Whether a node means the same at an older operator set.

Between two versions an operator usually gains only element types or optional attributes. A
node that uses none of them can be stamped with the older version as it is; the others offend.
"""

import math
from collections.abc import Iterator
from typing import cast

import onnx_ir as ir
from onnx import TypeProto, defs, helper

# Attribute values that came later than the attribute: (operator, attribute) -> value -> opset.
_LATER_VALUES = {
    ("GridSample", "mode"): {"linear": 20, "cubic": 20},
    ("Pad", "mode"): {"wrap": 19},
    ("Resize", "coordinate_transformation_mode"): {"half_pixel_symmetric": 19},
    ("ScatterElements", "reduction"): {"max": 18, "min": 18},
    ("ScatterND", "reduction"): {"max": 18, "min": 18},
}
# Behaviour that changed although the signature fits both: operator -> opset of the change.
_BEHAVIOUR = {"RoiAlign": 16}
# Operators that took all axes from `axis` on as one, and the opset since when they take one.
_ONE_AXIS = {"Hardmax": 13, "LogSoftmax": 13, "Softmax": 13}
# Operators whose scales can have an axis, and the opset that brought it.
_SCALED_AXIS = {"DequantizeLinear": 13, "QuantizeLinear": 13}
_LATE_WINDOWS = 22
"""Since then a MaxPool that rounds up has no window that starts in the padding behind."""
_SINGLE = defs.OpSchema.FormalParameterOption.Single
# The same, but only where this attribute is 1: operator -> (attribute, opset of the change).
_BEHAVIOUR_WHEN = {"AveragePool": ("ceil_mode", 19), "LpPool": ("ceil_mode", 18)}


def schema_of(op_type: str, opset: int, domain: str = "") -> defs.OpSchema | None:
    """The operator's definition at `opset`; None where it does not exist."""
    try:
        return defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return None


def change(node: ir.Node, current: int, target: int) -> str | None:
    """Why `node`, written for opset `current`, is not the same at `target`; None if it is.

    Judged by the definitions of both versions: arity, attributes and their defaults, element
    types of what is connected, and a short list of changes that definitions do not show.

    Example:
        >>> x = ir.Value(name="x")
        >>> change(ir.node("Relu", [x]), 17, 13) is None
        True
        >>> change(ir.node("Gelu", [x]), 20, 13)
        'came with opset 20'
    """
    new = schema_of(node.op_type, current)
    if new is None or new.since_version <= target:
        return None
    old = schema_of(node.op_type, target)
    if old is None:
        return f"came with opset {_first_version(new)}"
    return next(_differences(node, old, new, target), None)


def ill_typed(node: ir.Node, opset: int) -> str | None:
    """An element type of `node` that its operator does not list at `opset`; None if all are.

    Files say so although they must not: torch writes Clip of int64 at opset 11.
    """
    schema = schema_of(node.op_type, opset, node.domain)
    if schema is None:
        return None
    return next(_foreign_types(node, schema, f"after opset {opset}"), None)


def _differences(
    node: ir.Node, old: defs.OpSchema, new: defs.OpSchema, target: int
) -> Iterator[str]:
    since = f"since opset {new.since_version}"
    inputs = _used([value is not None for value in node.inputs])
    outputs = _used([bool(value.name) for value in node.outputs])
    if inputs > old.max_input or outputs > old.max_output:
        yield f"takes more inputs or outputs {since}"
    if inputs < old.min_input:
        yield f"needs fewer inputs {since}"
    for name, attribute in node.attributes.items():
        if name not in old.attributes:
            if not _is_default(attribute, new):
                yield f"has the attribute {name!r} {since}"
        elif old.attributes[name].type != new.attributes[name].type:
            yield f"attribute {name!r} has another type {since}"
        value = attribute.value
        later = _LATER_VALUES.get((node.op_type, name), {})
        if isinstance(value, str) and later.get(value, 0) > target:
            yield f"{name}={value!r} came with opset {later[value]}"
    for at, value in enumerate(node.inputs[: len(old.inputs)]):
        if value is None and old.inputs[at].option == _SINGLE:
            yield f"may leave out {old.inputs[at].name!r} {since}"
    for name, definition in old.attributes.items():
        if name in node.attributes:
            continue
        if definition.required:
            yield f"lost the attribute {name!r} {since}"
        elif name in new.attributes and _default(definition) != _default(new.attributes[name]):
            yield f"attribute {name!r} has another default {since}"
    yield from _foreign_types(node, old, since)
    yield from _silent_change(node, target)


def _silent_change(node: ir.Node, target: int) -> Iterator[str]:
    if _BEHAVIOUR.get(node.op_type, 0) > target:
        yield f"computes differently since opset {_BEHAVIOUR[node.op_type]}"
    name, version = _BEHAVIOUR_WHEN.get(node.op_type, ("", 0))
    if version > target and name in node.attributes and node.attributes[name].value == 1:
        yield f"computes differently with {name}=1 since opset {version}"
    if _ONE_AXIS.get(node.op_type, 0) > target and not _is_last_axis(node):
        yield f"takes one axis only since opset {_ONE_AXIS[node.op_type]}"
    if _SCALED_AXIS.get(node.op_type, 0) > target and _scales(node) != 1:
        yield f"has a scale for each channel since opset {_SCALED_AXIS[node.op_type]}"
    if node.op_type == "MaxPool" and target < _LATE_WINDOWS and _may_start_behind(node):
        yield f"leaves out windows in the padding since opset {_LATE_WINDOWS}"


def _is_last_axis(node: ir.Node) -> bool:
    """Whether Softmax and its kin work along the last axis; unknown ranks are taken not to."""
    axis = node.attributes.get_int("axis", -1)
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _scales(node: ir.Node) -> int:
    """Number of scales; 0 where it is not known."""
    scale = node.inputs[1] if len(node.inputs) > 1 else None
    shape = scale.shape if scale is not None else None
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    return math.prod(sizes) if shape is not None and len(sizes) == len(shape) else 0


def _may_start_behind(node: ir.Node) -> bool:
    """Whether rounding up may place a window wholly behind the input.

    It cannot where padding behind + stride ≤ reach of the window.
    """
    if node.attributes.get_int("ceil_mode", 0) != 1:
        return False
    kernel = list(node.attributes["kernel_shape"].as_ints())
    dims = len(kernel)
    steps = list(node.attributes.get_ints("strides", None) or [1] * dims)
    gaps = list(node.attributes.get_ints("dilations", None) or [1] * dims)
    pads = list(node.attributes.get_ints("pads", None) or [0] * (2 * dims))
    return any(
        pads[dims + at] + steps[at] > gaps[at] * (kernel[at] - 1) + 1 for at in range(dims)
    )


def _foreign_types(node: ir.Node, old: defs.OpSchema, since: str) -> Iterator[str]:
    """Element types of the connected values that the old definition does not list."""
    bound: dict[str, str] = {}
    for values, parameters in ((node.inputs, old.inputs), (node.outputs, old.outputs)):
        for at, value in enumerate(values):
            if value is None or value.dtype is None or not parameters:
                continue
            parameter = parameters[min(at, len(parameters) - 1)]
            name = _type_name(value)
            if name not in parameter.types:
                plain = isinstance(value.type, ir.TensorType)
                told = value.dtype.name.lower() if plain else name
                yield f"takes {told} only {since}"
            elif (
                parameter.is_homogeneous and bound.setdefault(parameter.type_str, name) != name
            ):
                yield f"mixes element types {since}"


def _type_name(value: ir.Value) -> str:
    """The type as definitions write it: tensor(float), seq(tensor(int64))."""
    assert value.dtype is not None
    element = TypeProto.Tensor(elem_type=int(value.dtype))
    name = f"tensor({helper.tensor_dtype_to_string(element.elem_type).split('.')[-1].lower()})"
    kind = value.type
    around: list[str] = []
    while isinstance(kind, ir.SequenceType | ir.OptionalType):
        around.append("seq" if isinstance(kind, ir.SequenceType) else "optional")
        kind = kind.elem_type
    for word in reversed(around):
        name = f"{word}({name})"
    return name


def _is_default(attribute: ir.Attr, schema: defs.OpSchema) -> bool:
    """Whether an attribute says what leaving it out would say."""
    definition = schema.attributes.get(attribute.name)
    if definition is None:
        return False
    default = _default(definition)
    return default is not None and _frozen(attribute.value) == default


def _default(definition: defs.OpSchema.Attribute) -> object:
    if not definition.default_value.name:
        return None
    value: object = helper.get_attribute_value(definition.default_value)
    return _frozen(value.decode() if isinstance(value, bytes) else value)


def _frozen(value: object) -> object:
    """A list as a tuple, so that attributes of either library compare."""
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


def _used(flags: list[bool]) -> int:
    """Length up to the last connected one."""
    return max((at + 1 for at, flag in enumerate(flags) if flag), default=0)


def _first_version(schema: defs.OpSchema) -> int:
    versions = (
        other.since_version
        for other in defs.get_all_schemas_with_history()
        if other.name == schema.name and other.domain == schema.domain
    )
    return min(versions)


def stamp(graph_model: ir.Model, opset: int) -> None:
    """Sets an older operator set and drops the attributes that it does not know.

    Every node must be free of `change`, so that what is dropped says its own default.
    """
    for node in graph_model.graph.all_nodes():
        known = schema_of(node.op_type, opset) if node.domain in ("", "ai.onnx") else None
        for name in [n for n in node.attributes if known and n not in known.attributes]:
            del node.attributes[name]
    graph_model.opset_imports[""] = opset
