"""The versions of ONNX that nncc reads, and how a model from outside them comes to run."""

import onnx
import onnx.version_converter
import onnx_ir as ir

from ...device_profiles.errors import ModelError, UnsupportedOp
from ...device_profiles.host import newest_readable
from ...passes.opset_change import change, stamp

OLDEST_OPSET = 7
OLDEST_IR = 3
WRITTEN_IR = 4
"""Oldest IR version that is written: in IR 3 every initialiser had to be an input as well."""


def check_versions(model: onnx.ModelProto, where: str) -> None:
    """Refuses a model whose IR or operator set is outside what nncc reads.

    Raises:
        ModelError: too old, too new, or not said.
    """
    newest = onnx.defs.onnx_opset_version()
    if not model.HasField("graph") or (not model.ir_version and not model.opset_import):
        raise ModelError(
            "this is not an ONNX model: there is no graph in it",
            where=where,
            hint="check that it is the right file",
        )
    if not OLDEST_IR <= model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"IR version {model.ir_version} is outside {OLDEST_IR} to {onnx.IR_VERSION}",
            where=where,
            hint="export the model again",
        )
    if not model.opset_import:
        raise ModelError(
            "no operator set is named", where=where, hint="export the model again"
        )
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and not 1 <= entry.version <= newest:
            raise ModelError(
                f"opset {entry.version} is outside 1 to {newest}",
                where=where,
                hint=f"export with opset {OLDEST_OPSET} or newer",
            )


def raise_to_oldest(model: onnx.ModelProto, where: str) -> tuple[onnx.ModelProto, list[str]]:
    """The model at opset 7 where it is older, and a warning; as it is elsewhere.

    Broadcasting was an attribute before opset 7. onnx's own converter knows that step exactly.

    Raises:
        ModelError: an operator that it cannot convert, or weights in external data.
    """
    opset = next((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), 0)
    if not 0 < opset < OLDEST_OPSET:
        return model, []
    try:
        # The converter is native code that trusts its input.
        onnx.checker.check_model(model)  # pyright: ignore[reportUnknownMemberType]
        _spread_prelu_slopes(model)
        raised = onnx.version_converter.convert_version(model, OLDEST_OPSET)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"opset {opset} cannot be raised to {OLDEST_OPSET}:"
            f" {' '.join(str(error).split())[:200]}",
            where=where,
            hint=f"export with opset {OLDEST_OPSET} or newer",
        ) from error
    raised.metadata_props.extend(() if raised.metadata_props else model.metadata_props)
    return raised, [f"opset {opset} written as {OLDEST_OPSET}: older ones do not run"]


def _spread_prelu_slopes(model: onnx.ModelProto) -> None:
    """Slopes (C,) become (C, 1, …): before opset 7 they ran along the channels of (N, C, …).

    onnx's converter has no step for PRelu; left alone they would run along the last axis.

    Raises:
        ValueError: a slope that is no weight, or an input of unknown rank.
    """
    slopes = {tensor.name: tensor for tensor in model.graph.initializer}
    ranks = {
        info.name: len(info.type.tensor_type.shape.dim)
        for info in (
            *onnx.shape_inference.infer_shapes(model).graph.value_info,
            *model.graph.input,
        )
    }
    for node in model.graph.node:
        if node.op_type != "PRelu":
            continue
        slope, rank = slopes.get(node.input[1]), ranks.get(node.input[0])
        if slope is None or rank is None:
            raise ValueError(f"PRelu '{node.name}' has a slope that is no weight")
        if len(slope.dims) == 1 and slope.dims[0] > 1 and rank > 2:
            slope.dims.extend([1] * (rank - 2))
            for info in model.graph.input:
                if info.name == slope.name:
                    for _ in range(rank - 2):
                        info.type.tensor_type.shape.dim.add(dim_value=1)


def lower_to_runtime(model: ir.Model, where: str) -> list[str]:
    """Stamps the newest versions that ONNX Runtime takes, where the model means the same.

    IR 3 becomes IR 4, where initialisers need not be inputs.

    Returns:
        Warnings: what was stamped.

    Raises:
        UnsupportedOp: an operator that is newer than the runtime.
    """
    said: list[str] = []
    readable, newest_ir = newest_readable()
    model.ir_version = max(model.ir_version, WRITTEN_IR)
    if model.ir_version > newest_ir:
        said.append(
            f"IR version {model.ir_version} written as {newest_ir}: the newest that runs"
        )
        model.ir_version = newest_ir
    opset = model.opset_imports.get("", 0)
    if opset <= readable:
        return said
    for graph in model.graphs():
        for node in graph:
            if node.domain not in ("", "ai.onnx"):
                continue
            why = change(node, opset, readable)
            if why is not None:
                raise UnsupportedOp(
                    f"{node.op_type} {why}; ONNX Runtime takes opset {readable}",
                    where=f"{where}: node '{node.name}'",
                    hint=f"export with opset {readable}",
                )
    said.append(f"opset {opset} written as {readable}: no operator differs between them")
    stamp(model, readable)
    return said
