"""Ingest: whatever holds a trained model becomes a Model, or one clear error.

Everything that is not a file is written to one first: there is one way in, and one guard.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import Error as ProtobufError
from onnx_ir.passes.common import InlinePass, RemoveInitializersFromInputsPass

from ...device_profiles.errors import ModelError, NnccError
from ...passes.model import Model
from ...passes.names import legal
from ...passes.quiet import quiet_libraries
from ..writing.save import write
from . import declared
from .external import digest, lazily
from .shapes import asked_shapes
from .soundness import (
    check_attributes,
    check_depth,
    check_functions,
    check_graph,
    check_names,
)
from .sparse import to_dense
from .tensors import check_tensors
from .torch_source import TorchModule, export
from .versions import check_versions, lower_to_runtime, raise_to_oldest
from .wire import check_wire

logger = logging.getLogger(__name__)

LONGEST_LINE = 400
"""Characters of each part of a message."""

_QUANTISED = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QuantizeLinear",
        # com.microsoft
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulBnb4",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QGemm",
        "QMoE",
    }
)


def ingest(
    source: Path | str | onnx.ModelProto | ir.Model | TorchModule,
    *,
    shapes: Sequence[str] = (),
    example_inputs: tuple[Any, ...] | None = None,
    workdir: Path,
) -> Model:
    """The model in `source`, flat, sorted, and proven to be what it says.

    Initialisers are no longer inputs, local functions are inlined, false declared shapes are
    repaired with a warning. Names, types, order and dynamic axes of the true inputs and
    outputs stay, and so does all metadata. Weights in external data stay on disk.

    Args:
        source: a file, an ONNX or onnx-ir model, or a torch module.
        shapes: --shape options; they choose sizes and are not stamped into the model.
        example_inputs: positional inputs of a torch module.
        workdir: an existing folder for what has to be written on the way.

    Raises:
        UsageError: no such file, an unusable --shape, or a torch module without inputs.
        ModelError: the model is broken, hostile or beyond what nncc reads; one line.
        MissingExtra: a torch module, and torch is not installed.
    """
    if isinstance(source, str | Path):
        return _guarded(Path(source), Path(source).stem, shapes)
    path = workdir / "source.onnx"
    if isinstance(source, onnx.ModelProto):
        name = _name(source.graph.name)
        _write_proto(source, path)
    elif isinstance(source, ir.Model):
        name = _name(source.graph.name)
        _write_ir(source, path)
    else:
        name = export(source, example_inputs, path)
    return _guarded(path, name, shapes)


def _guarded(path: Path, name: str, shapes: Sequence[str]) -> Model:
    """`_read`, with whatever a parser throws at hostile bytes turned into one ModelError."""
    try:
        with quiet_libraries():
            return _read(path, name, shapes)
    except NnccError as error:
        raise type(error)(
            _line(error.what), where=_line(error.where), hint=_line(error.hint)
        ) from error
    except Exception as error:
        logger.debug("ingest of %s failed", path, exc_info=True)
        said = _line(str(error.__cause__ or error))[:200] or type(error).__name__
        raise ModelError(
            f"cannot be understood: {said}",
            where=str(path),
            hint="check it with onnx.checker and export it again",
        ) from error


def _read(path: Path, name: str, shapes: Sequence[str]) -> Model:
    where = str(path)
    check_wire(path)
    try:
        proto = onnx.ModelProto.FromString(path.read_bytes())
    except (ProtobufError, ValueError) as error:
        raise ModelError(
            "not an ONNX file: protobuf cannot parse it",
            where=where,
            hint="export or download it again",
        ) from error
    check_versions(proto, where)
    folder = path.resolve().parent if path.is_symlink() else path.parent
    files = check_tensors(proto, folder, where)
    check_names(proto, where)
    check_attributes(proto, where)
    warnings = to_dense(proto, where)
    proto, raised = raise_to_oldest(proto, where)
    warnings += raised
    if proto.training_info:
        warnings.append("the training graph in the file is left out")
    model = ir.from_proto(proto)
    del proto
    model.opset_imports.update(_default_domain(model))
    _map_external(model, files)
    check_graph(model, where)
    if model.functions:
        check_functions(model, where)
        InlinePass()(model)
        model.functions.clear()
        model.graph.sort()
    warnings += _drop_initialiser_inputs(model)
    warnings += lower_to_runtime(model, where)
    declared.open_negative_sizes(model)
    declared.forget_inner_shapes(model)
    warnings += declared.repair_by_inference(model)
    warnings += _quantised(model)
    return Model(
        graph_model=model,
        name=name,
        sha256=digest(path, set(files.values())),
        shapes=asked_shapes(shapes, model.graph.inputs),
        warnings=tuple(map(_line, warnings)),
    )


def _name(given: str | None) -> str:
    """A short name for reports and files, whatever the graph calls itself."""
    return legal(given or "").replace("/", "_").strip("._")[:60] or "model"


def _line(text: str) -> str:
    """One printable line: a name in a file may hold line breaks or terminal codes."""
    shown = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return shown if len(shown) <= LONGEST_LINE else shown[: LONGEST_LINE - 1] + "…"


def _write_proto(proto: onnx.ModelProto, path: Path) -> None:
    """Serialised as it is, so that the guards see what the caller gave."""
    try:
        data = proto.SerializeToString(deterministic=True)
    except (ProtobufError, ValueError) as error:
        raise ModelError(
            "cannot be serialised: over 2 GiB or nested too deep",
            where="the ModelProto",
            hint="pass a path to a file with external data",
        ) from error
    path.write_bytes(data)


def _write_ir(model: ir.Model, path: Path) -> None:
    check_depth(model.graph, "the onnx-ir model")
    try:
        write(model, path)
    except (RecursionError, ir.serde.SerdeError, ValueError, TypeError) as error:
        raise ModelError(
            "cannot be serialised: nested too deep, or a value without a name",
            where="the onnx-ir model",
            hint="pass a model that onnx_ir.save takes",
        ) from error


def _default_domain(model: ir.Model) -> dict[str, int]:
    """The default operator set under its short name."""
    version = model.opset_imports.pop("ai.onnx", None)
    return {} if version is None else {"": version}


def _map_external(model: ir.Model, files: dict[str, Path]) -> None:
    """External tensors, lazily mapped from the files that were checked."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = lazily(tensor, files[_place(tensor)])
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
                    continue
                tensor = attribute.as_tensor()
                if isinstance(tensor, ir.ExternalTensor):
                    mapped = lazily(tensor, files[_place(tensor)])
                    node.attributes[name] = ir.AttrTensor(name, mapped)


def _place(tensor: ir.ExternalTensor) -> str:
    return os.fspath(tensor.location)  # pyright: ignore[reportUnknownMemberType]


def _drop_initialiser_inputs(model: ir.Model) -> list[str]:
    """IR 3 lists weights as inputs; from IR 4 on it means a caller may replace them."""
    both = [v.name for v in model.graph.inputs if v.is_initializer()]
    RemoveInitializersFromInputsPass()(model)
    if both and model.ir_version > 3:
        return [
            f"{len(both)} inputs had a default value ({both[0]}…); they are constants now"
            if len(both) > 1
            else f"input '{both[0]}' had a default value; it is a constant now"
        ]
    return []


def _quantised(model: ir.Model) -> list[str]:
    count = sum(
        node.op_type in _QUANTISED or node.op_type.startswith("QLinear")
        for graph in model.graphs()
        for node in graph
    )
    if not count:
        return []
    nodes = "1 node passes" if count == 1 else f"{count} nodes pass"
    return [f"the model is already quantised in part: {nodes} through untouched"]
