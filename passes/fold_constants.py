"""FoldConstants: what depends on constants only is computed now, unless the file would grow.

onnxscript's folder does the work. It is told what not to fold: a small recipe for a large
tensor (Expand, Tile, a codebook look-up, int8 times a scale, fp16 cast up) stays a recipe,
since it is how a file is kept small; and no tensor is made larger than what it replaces.
"""

import math

import onnx_ir as ir

GROWTH_BYTES = 4 << 10
"""A folded constant may take this much more than the constants it replaces."""
SMALL = 1024
"""Elements; ConstantOfShape is folded up to this size (it is how shapes are computed)."""

_FOLDED_FROM = "pkg.onnxscript.optimizer.folded_from"
_GROWING = frozenset(
    {
        "ConstantOfShape",
        "Expand",
        "EyeLike",
        "Gather",
        "GatherElements",
        "GatherND",
        "OneHot",
        "Pad",
        "Range",
        "Resize",
        "Tile",
        "Upsample",
    }
)
"""Operators whose output may be larger than all their inputs."""


def fold_constants(model: ir.Model) -> bool:
    """Folds to a fixed point of onnxscript's folder, in at most three rounds."""
    from onnxscript import optimizer

    changed = False
    for _ in range(3):
        result = optimizer.fold_constants(  # pyright: ignore[reportUnknownMemberType]
            model, onnx_shape_inference=True, should_fold=should_fold
        )
        if not result.modified:
            break
        changed = True
    for graph in model.graphs():
        for value in graph.initializers.values():
            value.metadata_props.pop(_FOLDED_FROM, None)
        for node in graph:
            for value in node.outputs:
                value.metadata_props.pop(_FOLDED_FROM, None)
    return changed


def should_fold(node: ir.Node) -> bool | None:
    """Whether a node of constant inputs is folded; None leaves it to onnxscript.

    The output's shape has been inferred by the time this is asked.
    """
    if node.op_type in ("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"):
        return None
    made = _bytes(node.outputs[0])
    if made is None:
        return False if node.op_type in _GROWING else None
    if node.op_type == "ConstantOfShape":
        return made <= 8 * SMALL
    freed = sum(_freed(value) for value in set(node.inputs) if value is not None)
    return made - freed <= GROWTH_BYTES


def _bytes(value: ir.Value) -> int | None:
    """Bytes of a value of known shape and type."""
    if value.shape is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return None
    sizes = [size for size in value.shape if isinstance(size, int)]
    if len(sizes) != len(value.shape):
        return None
    return math.prod(sizes) * value.dtype.bitwidth // 8


def _freed(value: ir.Value) -> int:
    """Bytes of a constant that nothing else reads."""
    tensor = value.const_value
    if tensor is None or len(value.uses()) > 1 or value.is_graph_output():
        return 0
    return tensor.nbytes
