"""Elementwise operators, written with older ones."""

import numpy as np
import onnx_ir as ir

from .known import Refused, dtype_of, first_of, input_of, is_used, known, rank_of
from .lowering import Builder

Values = tuple[ir.Value, ...]
_BOOL = ir.DataType.BOOL


def reciprocal(node: ir.Node, builder: Builder) -> Values:
    """1 / x."""
    x = first_of(node)
    return (builder.op("Div", builder.constant(1, like=x), x),)


def mod(node: ir.Node, builder: Builder) -> Values:
    """a mod b: a - b floor(a / b), and with fmod a - b trunc(a / b).

    Integer Div truncates, so a remainder of the other sign than b gets b added. The same is
    done for floats unless b is a constant: then a divisor may be infinite, and a its own rest.
    """
    a, b = first_of(node), first_of(node, 1)
    dtype = dtype_of(a)
    truncates = node.attributes.get_int("fmod", 0) == 1
    divisor = known(b)
    quotient = builder.op("Div", a, b)
    floating = dtype.is_floating_point()
    zero = builder.constant(0, like=a)
    if floating and divisor is not None and not truncates:
        whole = builder.op("Floor", quotient)
        return (builder.op("Sub", a, builder.op("Mul", whole, b)),)
    whole = _truncated(builder, quotient) if floating else quotient
    remainder = builder.op("Sub", a, builder.op("Mul", whole, b))
    if floating and builder.goal.opset >= 11:
        remainder = builder.op("Where", builder.op("Equal", whole, zero), a, remainder)
    if truncates or (not floating and not dtype.is_signed()):
        return (remainder,)
    if divisor is not None and np.all(divisor > 0):
        other_sign = builder.op("Less", remainder, zero)
    else:
        other_sign = builder.op("Less", builder.op("Mul", remainder, b), zero)
    return (builder.op("Where", other_sign, builder.op("Add", remainder, b), remainder),)


def _truncated(builder: Builder, x: ir.Value) -> ir.Value:
    """x rounded towards zero."""
    negative = builder.op("Less", x, builder.constant(0, like=x))
    return builder.op("Where", negative, builder.op("Ceil", x), builder.op("Floor", x))


def greater_or_equal(node: ir.Node, builder: Builder) -> Values:
    """a > b or a = b (opset 12); both are false for NaN."""
    return _or_equal(node, builder, "Greater")


def less_or_equal(node: ir.Node, builder: Builder) -> Values:
    """a < b or a = b (opset 12); both are false for NaN."""
    return _or_equal(node, builder, "Less")


def _or_equal(node: ir.Node, builder: Builder, strict: str) -> Values:
    a, b = first_of(node), first_of(node, 1)
    dtype = dtype_of(a)
    if not dtype.is_floating_point():
        opposite = "Less" if strict == "Greater" else "Greater"
        return (builder.op("Not", builder.op(opposite, a, b)),)
    if builder.goal.opset < 11:
        raise Refused("Equal takes no floats there", "re-export with opset 11 or newer")
    return (builder.op("Or", builder.op(strict, a, b), builder.op("Equal", a, b)),)


def xor(node: ir.Node, builder: Builder) -> Values:
    """One of both, but not both."""
    return (_unequal(builder, first_of(node), first_of(node, 1)),)


def _unequal(builder: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    both = builder.op("And", a, b)
    return builder.op("And", builder.op("Or", a, b), builder.op("Not", both))


def equal(node: ir.Node, builder: Builder) -> Values | None:
    """Equal of booleans where a parser takes numbers only: not unequal."""
    a, b = first_of(node), first_of(node, 1)
    if a.dtype != ir.DataType.BOOL:
        return None
    return (builder.op("Not", _unequal(builder, a, b)),)


def where(node: ir.Node, builder: Builder) -> Values | None:
    """Where of booleans where a parser takes numbers only: (c and a) or (not c and b)."""
    condition, a, b = (first_of(node, at) for at in range(3))
    if a.dtype != ir.DataType.BOOL:
        return None
    first = builder.op("And", condition, a)
    second = builder.op("And", builder.op("Not", condition), b)
    return (builder.op("Or", first, second),)


def sign(node: ir.Node, builder: Builder) -> Values:
    """[x > 0] - [x < 0]."""
    x = first_of(node)
    dtype = dtype_of(x)
    zero = builder.constant(0, like=x)
    positive = builder.cast(builder.op("Greater", x, zero), dtype)
    if not dtype.is_floating_point() and not dtype.is_signed():
        return (positive,)
    negative = builder.cast(builder.op("Less", x, zero), dtype)
    return (builder.op("Sub", positive, negative),)


def round_half_even(node: ir.Node, builder: Builder) -> Values:
    """floor(x), plus 1 where the rest is above a half, or a half and floor(x) is odd."""
    x = first_of(node)
    below = builder.op("Floor", x)
    rest = builder.op("Sub", x, below)
    half = builder.constant(0.5, like=x)
    pairs = builder.op("Floor", builder.op("Mul", below, half))
    parity = builder.op("Sub", below, builder.op("Mul", pairs, builder.constant(2, like=x)))
    is_odd = builder.op("Greater", parity, half)
    ties_up = builder.op("And", builder.op("Equal", rest, half), is_odd)
    up = builder.op("Or", builder.op("Greater", rest, half), ties_up)
    return (builder.op("Add", below, builder.cast(up, dtype_of(x))),)


def is_nan(node: ir.Node, builder: Builder) -> Values:
    """Every number is below 1 or above 0; NaN is neither."""
    x = first_of(node)
    below = builder.op("Less", x, builder.constant(1, like=x))
    above = builder.op("Greater", x, builder.constant(0, like=x))
    return (builder.op("Not", builder.op("Or", below, above)),)


def is_inf(node: ir.Node, builder: Builder) -> Values:
    """Beyond the largest finite number, on either side or on the one that is asked for."""
    x = first_of(node)
    if dtype_of(x) == ir.DataType.DOUBLE:  # what float32 does not hold is infinite in it
        x = builder.cast(x, ir.DataType.FLOAT)
    largest = builder.constant(float(np.finfo(dtype_of(x).numpy()).max), like=x)
    positive = node.attributes.get_int("detect_positive", 1) == 1
    negative = node.attributes.get_int("detect_negative", 1) == 1
    if not positive and not negative:
        return (builder.op("Less", builder.op("Abs", x), builder.constant(0, like=x)),)
    size = builder.op("Abs", x) if positive and negative else x
    if not positive:
        size = builder.op("Neg", x)
    return (builder.op("Greater", size, largest),)


def celu(node: ir.Node, builder: Builder) -> Values:
    """α elu(x / α) = max(0, x) + min(0, α (exp(x / α) - 1))."""
    x = first_of(node)
    alpha = builder.constant(node.attributes.get_float("alpha", 1.0), like=x)
    y = builder.op("Elu", builder.op("Div", x, alpha), alpha=1.0)
    return (builder.op("Mul", y, alpha),)


def dropout(node: ir.Node, builder: Builder) -> Values:
    """Dropout of a trained model: its input; the mask keeps everything."""
    mode = input_of(node, 2)
    training = False if mode is None else known(mode)
    ratio_input = input_of(node, 1)
    ratio = 0.5 if ratio_input is None else known(ratio_input)
    if training is None or (np.any(training) and (ratio is None or np.any(ratio))):
        raise Refused("it is in training mode", "export the model in evaluation mode")
    x = first_of(node)
    if not is_used(node, 1):
        return (x,)
    shape = builder.shape_of(x)
    return x, builder.op("ConstantOfShape", shape, value=ir.tensor([True]), dtype=_BOOL)


def batch_normalization(node: ir.Node, builder: Builder) -> Values | None:
    """Training mode: y = scale (x - mean) / sqrt(var + ε) + bias over the batch itself.

    The running statistics are blended: old momentum + now (1 - momentum).
    """
    if node.attributes.get_int("training_mode", 0) != 1:
        return None
    x, scale, bias, old_mean, old_var = (first_of(node, at) for at in range(5))
    rank = rank_of(x)
    axes = [axis for axis in range(rank) if axis != 1]
    momentum = node.attributes.get_float("momentum", 0.9)
    mean = builder.reduce("ReduceMean", x, axes)
    centred = builder.op("Sub", x, mean)
    var = builder.reduce("ReduceMean", builder.op("Mul", centred, centred), axes)
    epsilon = builder.constant(node.attributes.get_float("epsilon", 1e-5), like=x)
    deviation = builder.op("Sqrt", builder.op("Add", var, epsilon))
    behind = list(range(1, rank - 1))
    wide = [builder.unsqueeze(v, behind) if behind else v for v in (scale, bias)]
    y = builder.op("Mul", builder.op("Div", centred, deviation), wide[0])
    results = [builder.op("Add", y, wide[1])]
    for old, now in ((old_mean, mean), (old_var, var)):
        if not is_used(node, len(results)):
            results.append(old)
            continue
        kept = builder.op("Mul", old, builder.constant(momentum, like=old))
        flat = builder.squeeze(now, axes)
        new = builder.op("Mul", flat, builder.constant(1 - momentum, like=flat))
        results.append(builder.op("Add", kept, new))
    return tuple(results)
