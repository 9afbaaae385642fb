"""What a file says about shapes, and what of it is true.

Optimisers trust declared shapes; runtimes only warn. So sizes between nodes are dropped and
inferred anew from the inputs, and an output's declaration stands until it is contradicted.
"""

import logging
from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

logger = logging.getLogger(__name__)

Size = int | ir.SymbolicDim


def forget_inner_shapes(model: ir.Model) -> None:
    """Drops declared types and shapes between nodes; graph inputs and outputs keep theirs."""
    for graph in model.graphs():
        kept = {id(value) for value in graph.outputs}
        for node in graph:
            for value in node.outputs:
                if id(value) not in kept:
                    value.shape = None
                    value.type = None
                    value.metadata_props.clear()


def open_negative_sizes(model: ir.Model) -> None:
    """Negative sizes become unknown: some exporters write -1 for a dynamic axis."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and any(isinstance(s, int) and s < 0 for s in value.shape):
            value.shape = ir.Shape(
                [None if isinstance(s, int) and s < 0 else s for s in value.shape]
            )


def repair_by_inference(model: ir.Model) -> list[str]:
    """Outputs declared otherwise than follows from the inputs get the inferred shape.

    Returns:
        Warnings, one an output.
    """
    declared = [value.shape for value in model.graph.outputs]
    for value in model.graph.outputs:
        value.shape = None
    inferred = infer(model)
    said: list[str] = []
    for index, (value, shape) in enumerate(zip(model.graph.outputs, declared, strict=True)):
        found = inferred.get(str(value.name))
        if shape is None or found is None:
            value.shape = shape if shape is not None else found
        elif contradicts(shape, found):
            said.append(_false(value, shape, found))
            value.shape = found
        else:
            value.shape = shape
        assert model.graph.outputs[index] is value
    return said


def repair_by_running(
    outputs: Sequence[ir.Value],
    sizes: Mapping[str, tuple[int, ...]],
    axes: Mapping[str, int],
) -> list[str]:
    """Outputs whose declared shape is not what a run gave.

    A fixed size that differs becomes unknown, and so does an axis name that an input binds to
    another size.

    Args:
        outputs: the graph's outputs; their shapes are changed.
        sizes: output name to the shape it had in a run.
        axes: axis name to the size the run's inputs gave it.

    Returns:
        Warnings, one an output.
    """
    said: list[str] = []
    for value in outputs:
        got, shape = sizes.get(str(value.name)), value.shape
        if got is not None and shape is None:
            value.shape = ir.Shape([None] * len(got))  # ONNX wants a rank, at least
        if got is None or shape is None:
            continue
        if len(got) != len(shape):
            true = ir.Shape([None] * len(got))
        else:
            true = ir.Shape(
                [None if _is_false(s, n, axes) else s for s, n in zip(shape, got, strict=True)]
            )
        if true != shape:
            said.append(_false(value, shape, ir.Shape(got)))
            value.shape = true
    return said


def infer(model: ir.Model) -> dict[str, ir.Shape]:
    """Shapes of the main graph's values that follow from its inputs, by name.

    The model is kept. Empty where inference gives up.
    """
    copy = model.clone()
    try:
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(copy)
    except Exception as error:  # noqa: BLE001  (a C++ library: any failure means "not known")
        logger.debug("shape inference gave up: %s", error)
        return {}
    found: dict[str, ir.Shape] = {}
    for node in copy.graph:
        for value in node.outputs:
            if value.shape is not None:
                found[str(value.name)] = value.shape
    return found


def contradicts(declared: ir.Shape, true: ir.Shape) -> bool:
    """Whether two shapes cannot both hold.

    Example:
        >>> contradicts(ir.Shape(["N", 3]), ir.Shape([1, 3]))
        False
        >>> contradicts(ir.Shape([1, 3]), ir.Shape([1, 4]))
        True
    """
    return len(declared) != len(true) or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(declared, true, strict=True)
    )


def _is_false(size: Size, got: int, axes: Mapping[str, int]) -> bool:
    if isinstance(size, int):
        return size != got
    return axes.get(str(size.value), got) != got


def _false(value: ir.Value, declared: ir.Shape, true: ir.Shape) -> str:
    said, is_ = _text(declared), _text(true)
    return f"output '{value.name}' is declared as {said} but is {is_}; repaired"


def _text(shape: ir.Shape) -> str:
    parts = (str(s) if isinstance(s, int) else str(s.value or "?") for s in shape)
    return "[" + ", ".join(parts) + "]"
