"""Activations in operators that old parsers list."""

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from .known import first_of
from .lowering import Builder, Lowering


def gelu(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """Gelu: x/2 · (1 + erf(x/√2)), or with tanh(√(2/π) (x + 0.044715 x³)) in place of erf."""
    x = first_of(node)
    if node.attributes.get_string("approximate", "none") == "tanh":
        return (_gelu(b, x, b.op("Tanh", _cubic(b, x))),)
    return (_gelu(b, x, b.op("Erf", b.op("Mul", x, math.sqrt(0.5)))),)


def fast_gelu(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """com.microsoft FastGelu: the tanh form, of x plus a bias."""
    x = first_of(node)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        x = b.op("Add", x, node.inputs[1])
    return (_gelu(b, x, b.op("Tanh", _cubic(b, x))),)


def bias_gelu(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """com.microsoft BiasGelu: the erf form, of x plus a bias."""
    x = b.op("Add", first_of(node), first_of(node, 1))
    return (_gelu(b, x, b.op("Erf", b.op("Mul", x, math.sqrt(0.5)))),)


def _cubic(b: Builder, x: ir.Value) -> ir.Value:
    """√(2/π) · x · (1 + 0.044715 x²): where x² overflows half precision tanh is 1 anyway."""
    square = b.op("Mul", x, x)
    inner = b.op("Add", b.op("Mul", square, 0.044715 * math.sqrt(2 / math.pi)),
                 math.sqrt(2 / math.pi))  # fmt: skip
    return b.op("Mul", x, inner)


def _gelu(b: Builder, x: ir.Value, cdf: ir.Value) -> ir.Value:
    """x/2 · (1 + cdf)."""
    return b.op("Mul", b.op("Mul", x, 0.5), b.op("Add", cdf, 1.0))


def hard_swish(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """HardSwish: x · max(0, min(1, x/6 + 1/2))."""
    x = first_of(node)
    gate = b.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    return (b.op("Mul", x, gate),)


def hard_sigmoid(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """HardSigmoid: max(0, min(1, α x + β))."""
    x = first_of(node)
    alpha = node.attributes.get_float("alpha", 0.2)
    beta = node.attributes.get_float("beta", 0.5)
    return (b.clip(b.op("Add", b.op("Mul", x, alpha), beta), 0.0, 1.0),)


def mish(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """Mish: x · tanh(log(1 + eˣ))."""
    x = first_of(node)
    return (b.op("Mul", x, b.op("Tanh", b.op("Softplus", x))),)


def swish(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """Swish: x · sigmoid(α x); com.microsoft QuickGelu is the same."""
    x = first_of(node)
    quick = node.op_type == "QuickGelu"
    alpha = node.attributes.get_float("alpha", 1.702 if quick else 1.0)
    inner = x if alpha == 1 else b.op("Mul", x, alpha)
    return (b.op("Mul", x, b.op("Sigmoid", inner)),)


def softplus(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """Softplus: log(1 + eˣ) as max(0, x) + log(1 + e^−|x|), which does not overflow."""
    x = first_of(node)
    decay = b.op("Exp", b.op("Neg", b.op("Abs", x)))
    return (b.op("Add", b.op("Relu", x), b.op("Log", b.op("Add", decay, 1.0))),)


def softsign(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """Softsign: x / (1 + |x|)."""
    x = first_of(node)
    return (b.op("Div", x, b.op("Add", b.op("Abs", x), 1.0)),)


def thresholded_relu(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """ThresholdedRelu: x where x > α, else 0."""
    x = first_of(node)
    above = b.op("Greater", x, node.attributes.get_float("alpha", 1.0))
    return (b.op("Where", above, x, b.constant(0.0, like=x)),)


def shrink(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """Shrink: x + bias below −λ, x − bias above λ, else 0."""
    x = first_of(node)
    limit = node.attributes.get_float("lambd", 0.5)
    bias = node.attributes.get_float("bias", 0.0)
    zero = b.constant(0.0, like=x)
    above = b.op("Where", b.op("Greater", x, limit), b.op("Sub", x, bias) if bias else x, zero)
    below = b.op("Less", x, -limit)
    return (b.op("Where", below, b.op("Add", x, bias) if bias else x, above),)


def prelu(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """PRelu: max(0, x) + slope · min(0, x), the last as −slope · max(0, −x)."""
    x, slope = first_of(node), first_of(node, 1)
    negative = b.op("Mul", b.op("Relu", b.op("Neg", x)), slope)
    return (b.op("Sub", b.op("Relu", x), negative),)


LOWERINGS: Mapping[str, tuple[Lowering, ...]] = {
    "Gelu": (gelu,),
    "HardSigmoid": (hard_sigmoid,),
    "HardSwish": (hard_swish,),
    "Mish": (mish,),
    "PRelu": (prelu,),
    "Shrink": (shrink,),
    "Softplus": (softplus,),
    "Softsign": (softsign,),
    "Swish": (swish,),
    "ThresholdedRelu": (thresholded_relu,),
    "com.microsoft::BiasGelu": (bias_gelu,),
    "com.microsoft::FastGelu": (fast_gelu,),
    "com.microsoft::Gelu": (gelu,),
    "com.microsoft::QuickGelu": (swish,),
}
