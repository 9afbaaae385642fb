"""Restrictions that an ONNX parser puts on a node, each a rule: node to reasons and remedies.

Only what a graph shows by its structure: constants, attributes, element types and ranks.
`tensorrt_rules` says which release has which.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

Violation = tuple[str, str]  # reason, remedy
Rule = Callable[[ir.Node], Iterator[Violation]]

INTEGERS: Final = frozenset({ir.DataType.INT32, ir.DataType.INT64})
BOOL: Final = frozenset({ir.DataType.BOOL})
_FOLD: Final = "fold constants first (compile does), or re-export with a fixed value"
_EVALUATE: Final = "export the model in evaluation mode"


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The value's tensor if the parser sees weights: an initializer or a Constant's output."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant":
        attribute = producer.attributes.get("value")
        return attribute.as_tensor() if attribute is not None else None
    return None


def given(node: ir.Node, at: int) -> ir.Value | None:
    """The input at a position; None where it is left out."""
    return node.inputs[at] if at < len(node.inputs) else None


def must_be_weights(*at: int, what: str) -> Rule:
    """Inputs that may not be computed."""

    def rule(node: ir.Node) -> Iterator[Violation]:
        for index in at:
            value = given(node, index)
            if value is not None and not _is_weights(value):
                yield f"{what} must be constant, {value.name!r} is computed", _FOLD

    return rule


def not_of(types: Collection[ir.DataType], *at: int) -> Rule:
    """Inputs (all of them where none is named) that may not have these element types."""

    def rule(node: ir.Node) -> Iterator[Violation]:
        for index in at or range(len(node.inputs)):
            value = given(node, index)
            dtype = value.dtype if value is not None else None
            if value is not None and dtype is not None and dtype in types:
                yield (
                    f"{node.op_type} does not take {dtype.name.lower()} ({value.name!r})",
                    "compute it in float: Cast before and after",
                )

    return rule


def spatial(*allowed: int) -> Rule:
    """The numbers of spatial axes of a convolution or pooling."""
    words = " and ".join(f"{n}-D" for n in allowed)

    def rule(node: ir.Node) -> Iterator[Violation]:
        kernel = node.attributes.get("kernel_shape")
        weight = constant(given(node, 1)) if node.op_type.startswith("Conv") else None
        dims = len(kernel.as_ints()) if kernel is not None else None
        if dims is None and weight is not None:
            dims = len(weight.shape) - 2
        if dims is not None and dims not in allowed:
            yield (
                f"a {dims}-D {node.op_type}; the parser documents {words} only",
                "re-export it as 2-D with a height of 1 (Unsqueeze before, Squeeze after)",
            )

    return rule


def rank(*allowed: int) -> Rule:
    """The ranks that the first input may have."""

    def rule(node: ir.Node) -> Iterator[Violation]:
        value = given(node, 0)
        shape = value.shape if value is not None else None
        if shape is not None and len(shape) not in allowed:
            words = " or ".join(map(str, allowed))
            yield (
                f"{node.op_type} of a rank-{len(shape)} tensor; rank {words} is supported",
                "reshape before and after it",
            )

    return rule


def attribute_is(name: str, default: int, allowed: int) -> Rule:
    """An integer attribute that must have one value."""

    def rule(node: ir.Node) -> Iterator[Violation]:
        value = node.attributes.get_int(name, default)
        if value != allowed:
            yield (
                f"{node.op_type} with {name}={value}; {allowed} is supported",
                f"export with {name}={allowed}",
            )

    return rule


def absent(name: str, *harmless: str) -> Rule:
    """A text attribute that may not be given, or only as one of the harmless values."""

    def rule(node: ir.Node) -> Iterator[Violation]:
        value = node.attributes.get_string(name, None)
        if value is not None and value not in harmless:
            yield f"{node.op_type} with {name}={value!r}", f"export without {name}"

    return rule


def undilated(node: ir.Node) -> Iterator[Violation]:
    """Pooling steps over neighbouring positions only."""
    attribute = node.attributes.get("dilations")
    if attribute is not None and any(step != 1 for step in attribute.as_ints()):
        yield f"{node.op_type} with dilations", "pool without dilations"


def first_output_only(what: str) -> Rule:
    """Outputs past the first do not exist."""

    def rule(node: ir.Node) -> Iterator[Violation]:
        if any(value.name for value in node.outputs[1:]):
            yield f"{what} of {node.op_type} is not supported", "remove the second output"

    return rule


def resize(
    transforms: Collection[str],
    nearest: Collection[str],
    *,
    modes: Collection[str] = ("nearest", "linear"),
) -> Rule:
    """Resize in these modes, by constant scales or by sizes.

    Args:
        transforms: coordinate transformation modes.
        nearest: nearest modes, which count where the mode is nearest.
        modes: interpolation modes.
    """

    def rule(node: ir.Node) -> Iterator[Violation]:
        text = node.attributes.get_string
        mode = text("mode", "nearest") or "nearest"
        transform = text("coordinate_transformation_mode", "half_pixel") or "half_pixel"
        rounding = text("nearest_mode", "round_prefer_floor") or "round_prefer_floor"
        if mode not in modes:
            yield (
                f"Resize mode {mode!r}; {' and '.join(modes)} are supported",
                "export with linear",
            )
        if transform not in transforms:
            yield (
                f"Resize coordinate_transformation_mode {transform!r} is not supported",
                f"export with one of {', '.join(transforms)}",
            )
        if mode == "nearest" and rounding not in nearest:
            yield (
                f"Resize nearest_mode {rounding!r} is not supported",
                f"export with one of {', '.join(nearest)}",
            )
        if transform == "tf_half_pixel_for_nn" and rounding != "round_prefer_floor":
            yield (
                f"Resize tf_half_pixel_for_nn with nearest_mode {rounding!r}",
                "export with nearest_mode round_prefer_floor",
            )
        scales = given(node, 1 if len(node.inputs) == 2 else 2)
        if given(node, 3) is not None or scales is None or _is_weights(scales):
            return
        yield f"Resize scales must be constant, {scales.name!r} is computed", _FOLD

    return rule


def symmetric(*types: ir.DataType, implied: bool) -> Rule:
    """A zero point of 0, of one of these element types.

    Args:
        types: element types that it may have.
        implied: whether a DequantizeLinear may leave it out.
    """
    words = " or ".join(dtype.name.lower() for dtype in types)

    def rule(node: ir.Node) -> Iterator[Violation]:
        zero_point = given(node, 2)
        remedy = f"quantize symmetrically: {words}, zero point 0"
        if zero_point is None:
            first = given(node, 0)
            dtype = first.dtype if first is not None else None
            if not implied or node.op_type == "QuantizeLinear":
                yield f"{node.op_type} needs an explicit zero point", remedy
            elif dtype is not None and dtype not in types:
                yield f"{node.op_type} of {dtype.name.lower()}; only {words}", remedy
            return
        tensor = constant(zero_point)
        if tensor is None:
            yield "the zero point must be constant and 0", remedy
        elif tensor.dtype not in types or np.any(tensor.numpy()):
            name = tensor.dtype.name.lower()
            yield f"zero point of type {name}; only {words} with zero point 0", remedy

    return rule


def zero_padding_of_two_axes(node: ir.Node) -> Iterator[Violation]:
    """Pad with zeros, on the last two axes, by constants."""
    mode = node.attributes.get_string("mode", "constant")
    value = constant(given(node, 2))
    if mode != "constant" or (value is not None and bool(np.any(value.numpy()))):
        yield f"Pad mode {mode!r} or a value other than 0", "pad with zeros"
    pads = constant(given(node, 1))
    if pads is None:
        return
    amounts = pads.numpy().ravel()
    half = amounts.size // 2
    if np.any(amounts[: max(half - 2, 0)]) or np.any(amounts[half : max(2 * half - 2, half)]):
        yield "Pad of other than the last two axes", "transpose before and after it"


def dropout_off(node: ir.Node) -> Iterator[Violation]:
    """Dropout that does nothing."""
    mode = given(node, 2)
    tensor = constant(mode)
    if mode is not None and (tensor is None or bool(np.any(tensor.numpy()))):
        yield "Dropout in training mode", _EVALUATE


def inference_statistics(node: ir.Node) -> Iterator[Violation]:
    """BatchNormalization by stored statistics."""
    if node.attributes.get_int("training_mode", 0) == 1:
        yield "BatchNormalization in training mode", _EVALUATE


def plain_einsum(node: ir.Node) -> Iterator[Violation]:
    """Einsum without ellipsis and diagonal."""
    equation = node.attributes.get_string("equation", "") or ""
    terms = equation.split("->")[0].split(",")
    if "..." in equation or any(len(set(t.strip())) < len(t.strip()) for t in terms):
        yield (
            f"Einsum {equation!r}: no ellipsis and no diagonal",
            "write the equation out, or use MatMul and Transpose",
        )


def distinct_branch_outputs(node: ir.Node) -> Iterator[Violation]:
    """Branches that name their outputs apart."""
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for first, second in zip(branches[0].outputs, branches[1].outputs, strict=False):
        if first.name == second.name:
            yield (
                f"both branches of the If name an output {first.name!r}",
                "rename the outputs of one branch",
            )


def same_activations(node: ir.Node) -> Iterator[Violation]:
    """A recurrent layer that activates alike both ways."""
    ways = 2 if node.attributes.get_string("direction", "forward") == "bidirectional" else 1
    attribute = node.attributes.get("activations")
    names = list(attribute.as_strings()) if attribute is not None else []
    if ways == 2 and names[: len(names) // 2] != names[len(names) // 2 :]:
        yield (
            f"a bidirectional {node.op_type} with different activations each way",
            "use the same activations both ways",
        )


def dense_constant(node: ir.Node) -> Iterator[Violation]:
    """A Constant that holds a dense tensor of numbers."""
    for name in ("sparse_value", "value_string", "value_strings"):
        if name in node.attributes:
            yield f"a Constant with {name}", "store it as a dense tensor"


def static_shape(node: ir.Node) -> Iterator[Violation]:
    """A first input whose sizes are all known."""
    value = given(node, 0)
    shape = value.shape if value is not None else None
    if shape is not None and not shape.is_static():
        yield f"{node.op_type} does not take dynamic shapes", "fix the sizes with --shape"


def float_range_of_weights(node: ir.Node) -> Iterator[Violation]:
    """A Range of floats between constants."""
    values = [value for value in node.inputs if value is not None]
    is_float = any(value.dtype is not None and value.dtype not in INTEGERS for value in values)
    if is_float and not all(map(_is_weights, values)):
        yield "Range of floats with computed limits", "count in int32 and Cast afterwards"


def few_largest(most: int) -> Rule:
    """TopK of fewer than `most`, where K is known."""

    def rule(node: ir.Node) -> Iterator[Violation]:
        tensor = constant(given(node, 1))
        if tensor is not None and tensor.size and int(tensor.numpy().max()) >= most:
            yield f"TopK of {int(tensor.numpy().max())}; fewer than {most}", "lower K"

    return rule


def _is_weights(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    is_constant = producer is not None and producer.op_type == "Constant"
    return is_constant or constant(value) is not None
