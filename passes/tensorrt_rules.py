"""What TensorRT 8.2's ONNX parser refuses although it lists the operator.

From the restrictions in onnx-tensorrt docs/operators.md and the assertions of its importers,
at release 8.2-GA; where the two differ the documented, narrower one holds. Only rules that a
graph shows by its structure are here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir

Violation = tuple[str, str]  # reason, remedy
Rule = Callable[[ir.Node], Iterator[Violation]]

_FOLD: Final = "fold constants first (compile does), or re-export with a fixed value"


def violations(node: ir.Node) -> Iterator[Violation]:
    """Reasons why the parser refuses `node`, each with what to do."""
    if node.domain in ("", "ai.onnx"):
        for rule in _RULES.get(node.op_type, ()):
            yield from rule(node)


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


def _is_weights(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    is_constant = producer is not None and producer.op_type == "Constant"
    return is_constant or constant(value) is not None


def _input(node: ir.Node, at: int) -> ir.Value | None:
    return node.inputs[at] if at < len(node.inputs) else None


def _string(node: ir.Node, name: str, default: str) -> str:
    return node.attributes.get_string(name, default) or default


def _must_be_weights(*at: int, what: str) -> Rule:
    def rule(node: ir.Node) -> Iterator[Violation]:
        for index in at:
            value = _input(node, index)
            if value is not None and not _is_weights(value):
                yield f"{what} must be constant, {value.name!r} is computed", _FOLD

    return rule


def _two_or_three_spatial(node: ir.Node) -> Iterator[Violation]:
    kernel = node.attributes.get("kernel_shape")
    weight = constant(_input(node, 1)) if node.op_type.startswith("Conv") else None
    dims = len(kernel.as_ints()) if kernel is not None else None
    if dims is None and weight is not None:
        dims = len(weight.shape) - 2
    if dims is not None and dims not in (2, 3):
        yield (
            f"a {dims}-D {node.op_type}; the parser documents 2-D and 3-D only",
            "re-export it as 2-D with a height of 1 (Unsqueeze before, Squeeze after)",
        )


def _pool_without_indices(node: ir.Node) -> Iterator[Violation]:
    if len(node.outputs) > 1 and node.outputs[1].name:
        yield "the Indices output of MaxPool is not supported", "remove the second output"


def _resize(node: ir.Node) -> Iterator[Violation]:
    mode = _string(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        yield f"Resize mode {mode!r}; nearest and linear are supported", "export with linear"
    transform = _string(node, "coordinate_transformation_mode", "half_pixel")
    nearest = _string(node, "nearest_mode", "round_prefer_floor")
    known = (
        "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric",
        "align_corners",
    )  # fmt: skip
    if transform not in known:
        yield (
            f"Resize coordinate_transformation_mode {transform!r} is not supported",
            f"export with one of {', '.join(known)}",
        )
    if transform == "tf_half_pixel_for_nn" and nearest != "round_prefer_floor":
        yield (
            f"Resize tf_half_pixel_for_nn with nearest_mode {nearest!r}",
            "export with nearest_mode round_prefer_floor",
        )
    scales = _input(node, 1 if len(node.inputs) == 2 else 2)
    if _input(node, 3) is None and scales is not None and not _is_weights(scales):
        yield f"Resize scales must be constant, {scales.name!r} is computed", _FOLD


def _symmetric(node: ir.Node) -> Iterator[Violation]:
    zero_point = _input(node, 2)
    if zero_point is None:
        yield f"{node.op_type} needs an explicit zero point", "quantize with a zero point of 0"
        return
    tensor = constant(zero_point)
    if tensor is None:
        yield "the zero point must be constant and 0", "quantize symmetrically, int8"
    elif tensor.dtype != ir.DataType.INT8 or np.any(tensor.numpy()):
        yield (
            f"zero point of type {tensor.dtype.name.lower()}; only int8 with zero point 0",
            "quantize symmetrically: int8, zero point 0",
        )


def _dropout_off(node: ir.Node) -> Iterator[Violation]:
    mode = _input(node, 2)
    tensor = constant(mode)
    if mode is not None and (tensor is None or bool(np.any(tensor.numpy()))):
        yield "Dropout in training mode", "export the model in evaluation mode"


def _inference_statistics(node: ir.Node) -> Iterator[Violation]:
    mode = node.attributes.get("training_mode")
    if mode is not None and mode.as_int() == 1:
        yield "BatchNormalization in training mode", "export the model in evaluation mode"


def _einsum(node: ir.Node) -> Iterator[Violation]:
    equation = _string(node, "equation", "")
    terms = equation.split("->")[0].split(",")
    if "..." in equation or any(len(set(t.strip())) < len(t.strip()) for t in terms):
        yield (
            f"Einsum {equation!r}: no ellipsis and no diagonal",
            "write the equation out, or use MatMul and Transpose",
        )


def _distinct_branch_outputs(node: ir.Node) -> Iterator[Violation]:
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for first, second in zip(branches[0].outputs, branches[1].outputs, strict=False):
        if first.name == second.name:
            yield (
                f"both branches of the If name an output {first.name!r}",
                "rename the outputs of one branch",
            )


def _same_activations(node: ir.Node) -> Iterator[Violation]:
    ways = 2 if _string(node, "direction", "forward") == "bidirectional" else 1
    attribute = node.attributes.get("activations")
    names = list(attribute.as_strings()) if attribute is not None else []
    if ways == 2 and names[: len(names) // 2] != names[len(names) // 2 :]:
        yield (
            f"a bidirectional {node.op_type} with different activations each way",
            "use the same activations both ways",
        )


def _plain_constant(node: ir.Node) -> Iterator[Violation]:
    for name in ("sparse_value", "value_string", "value_strings"):
        if name in node.attributes:
            yield f"a Constant with {name}", "store it as a dense tensor"


def _static_shape(node: ir.Node) -> Iterator[Violation]:
    value = _input(node, 0)
    shape = value.shape if value is not None else None
    if shape is not None and not shape.is_static():
        yield f"{node.op_type} does not take dynamic shapes", "fix the sizes with --shape"


_RULES: Mapping[str, tuple[Rule, ...]] = {
    "AveragePool": (_two_or_three_spatial,),
    "BatchNormalization": (_inference_statistics,),
    "Constant": (_plain_constant,),
    "Conv": (_two_or_three_spatial, _must_be_weights(1, 2, what="weights and bias")),
    "ConvTranspose": (_two_or_three_spatial, _must_be_weights(1, 2, what="weights and bias")),
    "CumSum": (_must_be_weights(1, what="axis"),),
    "DequantizeLinear": (_symmetric,),
    "Dropout": (_dropout_off,),
    "Einsum": (_einsum,),
    "EyeLike": (_static_shape,),
    "GRU": (_same_activations,),
    "If": (_distinct_branch_outputs,),
    "InstanceNormalization": (_must_be_weights(1, 2, what="scale and bias"),),
    "LSTM": (_same_activations,),
    "MaxPool": (_two_or_three_spatial, _pool_without_indices),
    "NonMaxSuppression": (_must_be_weights(2, 3, 4, what="limits and thresholds"),),
    "QuantizeLinear": (_symmetric,),
    "RNN": (_same_activations,),
    "Resize": (_resize,),
    "ReverseSequence": (_static_shape,),
    "Slice": (_must_be_weights(3, what="axes"),),
    "Squeeze": (_must_be_weights(1, what="axes"),),
    "TopK": (_must_be_weights(1, what="K"),),
    "Unsqueeze": (_must_be_weights(1, what="axes"),),
    "Upsample": (_must_be_weights(1, what="scales"),),
}
