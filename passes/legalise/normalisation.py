"""Normalisations in plain arithmetic: deviations first, then the mean of their squares.

Half precision loses E[x²] − E[x]² to cancellation and to overflow; the mean of squared
deviations it does not. Where a definition asks for float32 inside (stash_type), it is kept.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from .known import Refused, dtype_of, first_of, input_of, is_used, known, rank_of
from .lowering import Builder, Lowering

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_LEAST_DEVIATION = {ir.DataType.FLOAT16: 1e-7}
"""What is added to a deviation where half precision would make 10⁻⁹ zero."""


def layer_normalization(node: ir.Node, b: Builder) -> Sequence[ir.Value | None]:
    """LayerNormalization: (x − mean) / √(variance + ε) · scale + bias, over the last axes."""
    x, scale, bias = first_of(node), first_of(node, 1), input_of(node, 2)
    axes = _last_axes(x, node.attributes.get_int("axis", -1))
    wide = _stashed(node, b, x)
    mean = b.reduce("ReduceMean", wide, axes)
    centred = b.op("Sub", wide, mean)
    spread = _root_mean_square(b, centred, axes, node.attributes.get_float("epsilon", 1e-5))
    y = b.cast(b.op("Div", centred, spread), dtype_of(x))
    y = b.op("Mul", y, scale)
    y = b.op("Add", y, bias) if bias is not None else y
    inverse = b.op("Div", b.constant(1.0, like=spread), spread) if is_used(node, 2) else None
    return y, mean, inverse


def rms_normalization(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """RMSNormalization: x / √(mean(x²) + ε) · scale, over the last axes."""
    x, scale = first_of(node), first_of(node, 1)
    axes = _last_axes(x, node.attributes.get_int("axis", -1))
    wide = _stashed(node, b, x)
    spread = _root_mean_square(b, wide, axes, node.attributes.get_float("epsilon", 1e-5))
    y = b.cast(b.op("Div", wide, spread), dtype_of(x))
    return (b.op("Mul", y, scale),)


def group_normalization(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """GroupNormalization: each group of channels as one row of an InstanceNormalization.

    Scale and bias are one a group until opset 20 and one a channel from 21 on.
    """
    x, scale, bias = first_of(node), first_of(node, 1), first_of(node, 2)
    groups = node.attributes.get_int("num_groups", 0)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    wide = _stashed(node, b, x) if b.opset >= 21 else x
    rows = b.reshape(wide, [0, groups, -1])
    if b.opset >= 21:
        axes = range(1, rank_of(x) - 1)
        y = b.reshape(_instances(b, rows, groups, epsilon), b.shape_of(x))
        y = b.cast(y, dtype_of(x))
        y = b.op("Mul", y, _trailing(b, scale, axes))
        return (b.op("Add", y, _trailing(b, bias, axes)),)
    if known(scale) is not None and known(bias) is not None:
        y = b.op("InstanceNormalization", rows, scale, bias, epsilon=epsilon)
    else:
        y = b.op("Mul", _instances(b, rows, groups, epsilon), _trailing(b, scale, [1]))
        y = b.op("Add", y, _trailing(b, bias, [1]))
    return (b.reshape(y, b.shape_of(x)),)


def instance_normalization(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """InstanceNormalization whose scale or bias is computed: every sample by itself."""
    x, scale, bias = first_of(node), first_of(node, 1), first_of(node, 2)
    axes = range(2, rank_of(x))
    centred = b.op("Sub", x, b.reduce("ReduceMean", x, axes))
    spread = _root_mean_square(b, centred, axes, node.attributes.get_float("epsilon", 1e-5))
    around = [axis - 1 for axis in axes]
    y = b.op("Mul", b.op("Div", centred, spread), _trailing(b, scale, around))
    return (b.op("Add", y, _trailing(b, bias, around)),)


def mean_variance_normalization(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """MeanVarianceNormalization: (x − mean) / (σ + 10⁻⁹) over `axes`."""
    x = first_of(node)
    axes = tuple(node.attributes.get_ints("axes", (0, 2, 3)) or ())
    centred = b.op("Sub", x, b.reduce("ReduceMean", x, axes))
    variance = b.reduce("ReduceMean", b.op("Mul", centred, centred), axes)
    least = _LEAST_DEVIATION.get(dtype_of(x), 1e-9)
    return (b.op("Div", centred, b.op("Add", b.op("Sqrt", variance), least)),)


def _last_axes(x: ir.Value, axis: int) -> tuple[int, ...]:
    """The axes from `axis` on, counted from the end; the rank is asked for only if needed."""
    return tuple(range(axis if axis < 0 else axis - rank_of(x), 0))


def _stashed(node: ir.Node, b: Builder, x: ir.Value) -> ir.Value:
    """`x` in the type that statistics are computed in: float32 unless told otherwise."""
    stash = node.attributes.get_int("stash_type", 1)
    return b.cast(x, ir.DataType.FLOAT) if stash == 1 and dtype_of(x) in _NARROW else x


def _root_mean_square(
    b: Builder, x: ir.Value, axes: Sequence[int], epsilon: float
) -> ir.Value:
    """√(mean(x²) + ε), the reduced axes kept."""
    mean = b.reduce("ReduceMean", b.op("Mul", x, x), axes)
    return b.op("Sqrt", b.op("Add", mean, epsilon))


def _instances(b: Builder, rows: ir.Value, groups: int, epsilon: float) -> ir.Value:
    """(n, groups, size), every row normalised."""
    if groups <= 0:
        raise Refused("its num_groups is missing", "re-export it with the number of groups")
    ones, zeros = (b.constant(np.full(groups, fill), like=rows) for fill in (1.0, 0.0))
    return b.op("InstanceNormalization", rows, ones, zeros, epsilon=epsilon)


def _trailing(b: Builder, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """A vector with axes of size 1 after it; a constant stays one."""
    if not axes:
        return x
    array = known(x)
    if array is None:
        return b.unsqueeze(x, list(axes))
    return b.constant(array.reshape(*array.shape, *(1 for _ in axes)), like=x)


LOWERINGS: Mapping[str, tuple[Lowering, ...]] = {
    "GroupNormalization": (group_normalization,),
    "InstanceNormalization": (instance_normalization,),
    "LayerNormalization": (layer_normalization,),
    "MeanVarianceNormalization": (mean_variance_normalization,),
    "RMSNormalization": (rms_normalization,),
}
