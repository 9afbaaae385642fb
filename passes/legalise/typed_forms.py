"""Operators whose element types grew: the same computation in a type that is taken."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx import defs

from ..opset_change import change, schema_of
from ..tensorrt_rules import violations
from .known import Refused, dtype_of, first_of, input_of, known
from .lowering import Builder

Values = tuple[ir.Value, ...]
_D = ir.DataType
_WIDER: dict[ir.DataType, tuple[ir.DataType, ...]] = {
    _D.BOOL: (_D.INT32, _D.FLOAT),
    _D.INT8: (_D.INT32, _D.FLOAT),
    _D.UINT8: (_D.INT32, _D.FLOAT),
    _D.INT16: (_D.INT32, _D.FLOAT),
    _D.UINT16: (_D.INT32, _D.FLOAT),
    _D.UINT32: (_D.INT64, _D.DOUBLE),
    _D.INT32: (_D.INT64, _D.DOUBLE),
    _D.FLOAT16: (_D.FLOAT,),
    _D.BFLOAT16: (_D.FLOAT,),
}
"""Types that hold every value of a type, best first."""
_ON_TENSORRT: dict[ir.DataType, tuple[ir.DataType, ...]] = {
    _D.INT32: (_D.FLOAT,),
    _D.INT64: (_D.INT32, _D.FLOAT),
    _D.UINT32: (_D.INT32, _D.FLOAT),
}
"""TensorRT computes integers in 32 bits or in float, which is exact up to 2^24."""


def in_another_type(node: ir.Node, builder: Builder) -> Values | None:
    """The same operator between casts, where only its element types are not taken.

    Every integer result of at most 16 bits is exact; so is float16 and bfloat16 rounded once
    from float.
    """
    schema = schema_of(node.op_type, builder.goal.opset)
    if schema is None:
        return None
    for choice in _choices(node, schema, builder):
        made = _between_casts(node, schema, choice)
        if _is_taken(made.trial, schema, builder):
            return made.build(builder)
    return None


def numbers_in_another_type(node: ir.Node, builder: Builder) -> Values | None:
    """As `in_another_type`, but not for bool, whose reductions over nothing have a value."""
    return None if first_of(node).dtype == _D.BOOL else in_another_type(node, builder)


@dataclass(frozen=True)
class _Cast:
    """One way to cast: the node with other types, and what was cast."""

    node: ir.Node
    trial: ir.Node
    inputs: tuple[ir.DataType | None, ...]
    outputs: tuple[bool, ...]

    def build(self, builder: Builder) -> Values:
        schema = schema_of(self.node.op_type, builder.goal.opset)
        values = [
            value if value is None or to is None else builder.cast(value, to)
            for value, to in zip(self.node.inputs, self.inputs, strict=True)
        ]
        made = builder.op(
            self.node.op_type,
            *values,
            outputs=len(self.node.outputs),
            more={
                name: a.value
                for name, a in self.node.attributes.items()
                if schema is None or name in schema.attributes
            },
        )
        results = (made,) if isinstance(made, ir.Value) else made
        for result, trial in zip(results, self.trial.outputs, strict=True):
            result.type = result.type or trial.type
        return tuple(
            builder.cast(result, dtype_of(old)) if is_cast and old.dtype else result
            for result, old, is_cast in zip(
                results, self.node.outputs, self.outputs, strict=True
            )
        )


def _choices(
    node: ir.Node, schema: defs.OpSchema, builder: Builder
) -> Iterator[dict[str, ir.DataType]]:
    """Type variables to other types: first of the variables that offend, then of any."""
    on_tensorrt = builder.goal.profile.runtime == "tensorrt"
    bound: dict[str, ir.DataType] = {}
    for parameter, value in _parameters(node, schema):
        if value.dtype is not None and parameter in _variables(schema):
            bound.setdefault(parameter, value.dtype)
    for variable, dtype in bound.items():
        preferred = _ON_TENSORRT.get(dtype, ()) if on_tensorrt else ()
        for other in (*preferred, *_WIDER.get(dtype, ())):
            yield {variable: other}


def _between_casts(
    node: ir.Node, schema: defs.OpSchema, choice: dict[str, ir.DataType]
) -> _Cast:
    inputs = [None if v is None else choice.get(_variable(schema.inputs, at, ""))
              for at, v in enumerate(node.inputs)]  # fmt: skip
    outputs = [_variable(schema.outputs, at, "") in choice for at in range(len(node.outputs))]
    trial_inputs = [_retyped(v, to) for v, to in zip(node.inputs, inputs, strict=True)]
    trial = ir.node(
        node.op_type,
        trial_inputs,
        {name: a.value for name, a in node.attributes.items()},
        num_outputs=len(node.outputs),
    )
    for at, (value, old) in enumerate(zip(trial.outputs, node.outputs, strict=True)):
        to = choice.get(_variable(schema.outputs, at, ""))
        value.name = old.name if old.uses() or old.is_graph_output() else ""
        value.type = old.type if to is None else ir.TensorType(to)
        value.shape = old.shape
    return _Cast(node, trial, tuple(inputs), tuple(outputs))


def _retyped(value: ir.Value | None, to: ir.DataType | None) -> ir.Value | None:
    """A stand-in for a value, constant where it is."""
    if value is None:
        return None
    kind = value.type if to is None else ir.TensorType(to)
    const = value.const_value if to is None else None
    return ir.Value(name=value.name, type=kind, shape=value.shape, const_value=const)


def _is_taken(trial: ir.Node, schema: defs.OpSchema, builder: Builder) -> bool:
    """Whether the node is the same at the written opset, and the device's parser takes it."""
    goal = builder.goal
    if builder.opset > goal.opset and change(trial, builder.opset, goal.opset) is not None:
        return False
    for parameters, values in ((schema.inputs, trial.inputs), (schema.outputs, trial.outputs)):
        for at, value in enumerate(values):
            if value is None or value.dtype is None or not value.name:
                continue
            if _type_text(value.dtype) not in parameters[min(at, len(parameters) - 1)].types:
                return False
    operators = goal.profile.operators
    if operators is not None and trial.op_type not in operators:
        return False
    return next(iter(violations(trial, goal.profile)), None) is None


def _type_text(dtype: ir.DataType) -> str:
    names = {_D.FLOAT: "float", _D.DOUBLE: "double"}
    return f"tensor({names.get(dtype, dtype.name.lower())})"


def _parameters(node: ir.Node, schema: defs.OpSchema) -> Iterator[tuple[str, ir.Value]]:
    for at, value in enumerate(node.inputs):
        if value is not None:
            yield _variable(schema.inputs, at, ""), value
    for at, value in enumerate(node.outputs):
        yield _variable(schema.outputs, at, ""), value


def _variable(
    parameters: Sequence[defs.OpSchema.FormalParameter], at: int, default: str
) -> str:
    """The type variable of a parameter."""
    if not parameters:
        return default
    return parameters[min(at, len(parameters) - 1)].type_str


def _variables(schema: defs.OpSchema) -> set[str]:
    return {constraint.type_param_str for constraint in schema.type_constraints}


def extremum(node: ir.Node, builder: Builder) -> Values | None:
    """Max and Min of integers before opset 12: the larger or smaller of each pair."""
    if schema_takes(node.op_type, dtype_of(first_of(node)), builder):
        return None
    result = first_of(node)
    for other in node.inputs[1:]:
        assert other is not None, "Max and Min have no optional inputs"
        result = pick(builder, node.op_type, result, other)
    return (result,)


def clip(node: ir.Node, builder: Builder) -> Values | None:
    """Clip of integers before opset 12: the smaller of the larger."""
    x = first_of(node)
    if schema_takes("Clip", dtype_of(x), builder):
        return None
    for at, op_type in ((1, "Max"), (2, "Min")):
        limit = input_of(node, at)
        if limit is not None:
            x = pick(builder, op_type, x, limit)
    return (x,)


def pick(builder: Builder, op_type: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """Max or Min of two values; by comparison where the operator does not take the type."""
    dtype = dtype_of(a)
    if schema_takes(op_type, dtype, builder):
        return builder.op(op_type, a, b)
    compare = "Less" if op_type == "Max" else "Greater"
    if dtype == _D.UINT64 or not schema_takes(compare, dtype, builder):
        raise Refused(f"of {dtype.name.lower()}", "export it in another type")
    return builder.op("Where", builder.op(compare, a, b), b, a)


def schema_takes(op_type: str, dtype: ir.DataType, builder: Builder) -> bool:
    """Whether the written opset has the operator for an element type in its first input."""
    schema = schema_of(op_type, builder.goal.opset)
    if schema is None:
        return False
    at = 1 if op_type == "Where" else 0
    return _type_text(dtype) in schema.inputs[at].types


def power(node: ir.Node, builder: Builder) -> Values | None:
    """Pow with a whole constant exponent as products; of mixed types in the base's own.

    An integer base is raised in floating point where the operator takes floats only.
    """
    x, exponent = first_of(node), first_of(node, 1)
    dtype = dtype_of(x)
    constant = known(exponent)
    if constant is not None and constant.size == 1 and constant.ndim == 0:
        value = float(constant)
        if value == 1.0:
            return (x,)
        if value in (2.0, 3.0):
            square = builder.op("Mul", x, x)
            return (square if value == 2.0 else builder.op("Mul", square, x),)
    if not dtype.is_floating_point():
        wide = _D.FLOAT if builder.goal.profile.runtime == "tensorrt" else _D.DOUBLE
        y = builder.op("Pow", builder.cast(x, wide), builder.cast(exponent, wide))
        return (builder.cast(y, dtype),)
    if exponent.dtype == dtype:
        return None
    if constant is not None:
        exponent = builder.constant(np.asarray(constant, dtype=dtype.numpy()))
        return (builder.op("Pow", x, exponent),)
    return (builder.op("Pow", x, builder.cast(exponent, dtype)),)


def cast_like(node: ir.Node, builder: Builder) -> Values:
    """CastLike to the element type that its second input has."""
    return _cast(node, builder, dtype_of(input_of(node, 1)))


def cast(node: ir.Node, builder: Builder) -> Values:
    """Cast without the attributes that only 8-bit floats read."""
    return _cast(node, builder, ir.DataType(node.attributes["to"].as_int()))


def _cast(node: ir.Node, builder: Builder, to: ir.DataType) -> Values:
    schema = schema_of("Cast", builder.goal.opset)
    assert schema is not None, "Cast is in every operator set"
    x = first_of(node)
    for dtype, types in ((dtype_of(x), schema.inputs[0].types), (to, schema.outputs[0].types)):
        if _type_text(dtype) not in types:
            name = dtype.name.lower()
            raise Refused(f"{name} has no place in it", f"export without {name}")
    return (builder.cast(x, to),)


def constant(node: ir.Node, builder: Builder) -> Values:
    """A Constant in any of its forms as an initialiser."""
    tensor = ir.convenience.get_const_tensor(node.outputs[0])
    if tensor is None or tensor.dtype == _D.STRING:
        raise Refused("holds no dense numbers", "store it as a dense tensor")
    return (builder.constant(tensor.numpy(), like=_typed(tensor)),)


def _typed(tensor: ir.TensorProtocol) -> ir.Value:
    return ir.Value(name="", type=ir.TensorType(tensor.dtype))
