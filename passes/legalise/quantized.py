"""Quantizing and dequantizing per axis or block, written out."""

import numpy as np
import onnx_ir as ir

from .known import (
    Refused,
    dtype_of,
    first_of,
    from_front,
    input_of,
    rank_of,
    static_sizes,
    tensor_of,
)
from .lowering import Builder

Values = tuple[ir.Value, ...]
_RANGES = {
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
}
_NARROW = frozenset({ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT2, ir.DataType.UINT2})


def dequantize(node: ir.Node, builder: Builder) -> Values:
    """(x - zero point) · scale, scale along `axis` (opset 13) or by blocks (opset 21)."""
    x, scale, zero = first_of(node), first_of(node, 1), input_of(node, 2)
    wide = ir.DataType.FLOAT
    y = _as_float(builder, x)
    if zero is not None:
        y = builder.op("Sub", y, _along(node, builder, _as_float(builder, zero), x))
    scale_wide = builder.cast(scale, wide)
    y = builder.op("Mul", y, _along(node, builder, scale_wide, x))
    return (builder.cast(y, node.outputs[0].dtype or dtype_of(scale)),)


def quantize(node: ir.Node, builder: Builder) -> Values:
    """x / scale rounded half to even, + zero point, within the range of the type."""
    x, scale, zero = first_of(node), first_of(node, 1), input_of(node, 2)
    asked = node.attributes.get_int("output_dtype", 0)
    to = ir.DataType(asked) if asked else ir.DataType.UINT8
    to = dtype_of(zero) if zero is not None else to
    if to not in _RANGES:
        name = to.name.lower()
        raise Refused(f"{name} has no place in it", "start from the model before quantization")
    wide = ir.DataType.FLOAT
    y = builder.cast(x, wide)
    y = builder.op("Div", y, _along(node, builder, builder.cast(scale, wide), x))
    y = builder.op("Round", y)
    if zero is not None:
        y = builder.op("Add", y, _along(node, builder, _as_float(builder, zero), x))
    low, high = _RANGES[to]
    return (builder.cast(builder.clip(y, low, high), to),)


def _as_float(builder: Builder, x: ir.Value) -> ir.Value:
    """`x` in float32; constants of types that no Cast takes are computed here."""
    dtype = dtype_of(x)
    if dtype in _RANGES or dtype == ir.DataType.INT32:
        return builder.cast(x, ir.DataType.FLOAT)
    tensor = tensor_of(x)
    if tensor is None or dtype not in _NARROW:
        name = dtype.name.lower()
        raise Refused(f"{name} has no place in it", "start from the model before quantization")
    return builder.constant(tensor.numpy().astype(np.float32))


def _along(node: ir.Node, builder: Builder, part: ir.Value, x: ir.Value) -> ir.Value:
    """Scales or zero points so that they broadcast with x."""
    rank = rank_of(x)
    part_rank = rank_of(part)
    axis = from_front((node.attributes.get_int("axis", 1),), max(rank, 1))[0]
    block = node.attributes.get_int("block_size", 0)
    if block:
        sizes = list(static_sizes(part))
        wide = builder.unsqueeze(part, [axis + 1])
        repeated = [*sizes[: axis + 1], block, *sizes[axis + 1 :]]
        wide = builder.op("Expand", wide, builder.constant(repeated))
        whole = sizes.copy()
        whole[axis] = sizes[axis] * block
        wide = builder.reshape(wide, whole)
        return builder.slice(wide, [0], [static_sizes(x)[axis]], [axis])
    if part_rank == 0 or rank <= 1 or (part_rank == 1 and static_sizes(part) == (1,)):
        return part
    behind = list(range(1, rank - axis))
    return builder.unsqueeze(part, behind) if behind else part
