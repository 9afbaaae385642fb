"""What a compiled model must keep of the original, and what it must be, without running it."""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.checker

from ...runtime.weight_files import external_locations, inside, read_structure


def structural_checks(
    reference: Path,
    compressed: Path,
    max_opset: int,
    max_ir: int,
    *,
    repaired: Collection[str] = (),
    domains: Collection[str] = (),
) -> list[str]:
    """Problems of the compiled model, one line each; empty if it is sound.

    Inputs and outputs keep names, order, types and which axes are free; metadata is kept;
    opset and IR are within the target's; no new operator domain; node names are present and
    unique; no local functions; external data lies inside the folder; `onnx.checker` agrees
    (unless it refuses the original too).

    Args:
        reference: the original .onnx file.
        compressed: the compiled one.
        max_opset: newest default operator set the target reads.
        max_ir: newest IR version it reads.
        repaired: outputs whose declared shape was false and has been put right.
        domains: operator domains that the target's runtime has beside the standard one.
    """
    before, after = read_structure(reference), read_structure(compressed)
    problems = [
        *_interface("input", _inputs(before), _inputs(after), ()),
        *_interface("output", list(before.graph.output), list(after.graph.output), repaired),
        *_metadata(before, after),
        *_versions(before, after, max_opset, max_ir, domains),
        *_names(after),
        *_external(after, compressed.parent),
    ]
    if after.functions:
        names = ", ".join(sorted(function.name for function in after.functions))
        problems.append(f"local functions are left: {names}")
    del before, after  # weights, where they lie inside the files
    complaint = _checker(compressed)
    if complaint and not _checker(reference):
        problems.append(f"onnx.checker: {complaint}")
    return problems


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What a caller must give: before IR 4 initialisers were listed as inputs too."""
    given = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in given]


def _interface(
    kind: str,
    before: list[onnx.ValueInfoProto],
    after: list[onnx.ValueInfoProto],
    repaired: Collection[str],
) -> Iterator[str]:
    names, found = [value.name for value in before], [value.name for value in after]
    if names != found:
        yield f"{kind}s are {found}, they were {names}"
        return
    for old, new in zip(before, after, strict=True):
        was, now = _type(old.type), _type(new.type)
        if was != now:
            yield f"{kind} {old.name!r} is {now}, it was {was}"
            continue
        if old.name in repaired or not old.type.tensor_type.HasField("shape"):
            continue
        was_shape, now_shape = _dims(old.type.tensor_type), _dims(new.type.tensor_type)
        if not _keeps(was_shape, now_shape):
            now, was = _text(now_shape), _text(was_shape)
            yield f"{kind} {old.name!r} has shape {now}, it was {was}"


def _type(value: onnx.TypeProto) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return "untyped"
    if kind == "sequence_type":
        return f"sequence of {_type(value.sequence_type.elem_type)}"
    if kind == "optional_type":
        return f"optional {_type(value.optional_type.elem_type)}"
    if kind == "map_type":
        return f"map to {_type(value.map_type.value_type)}"
    tensor = value.tensor_type if kind == "tensor_type" else value.sparse_tensor_type
    prefix = "" if kind == "tensor_type" else "sparse "
    return prefix + onnx.TensorProto.DataType.Name(tensor.elem_type).lower()


def _dims(tensor: onnx.TypeProto.Tensor) -> list[int | str] | None:
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]


def _keeps(was: list[int | str] | None, now: list[int | str] | None) -> bool:
    """Whether sizes are equal, free axes still free, and their names, if any, the same."""
    if was is None or now is None or len(was) != len(now):
        return was == now
    return all(
        old == new if isinstance(old, int) else isinstance(new, str) and old in ("", new)
        for old, new in zip(was, now, strict=True)
    )


def _text(shape: list[int | str] | None) -> str:
    return "unknown" if shape is None else f"[{', '.join(str(d or '?') for d in shape)}]"


def _metadata(before: onnx.ModelProto, after: onnx.ModelProto) -> Iterator[str]:
    kept = {entry.key: entry.value for entry in after.metadata_props}
    for entry in before.metadata_props:
        if entry.key not in kept:
            yield f"metadata {entry.key!r} is lost"
        elif kept[entry.key] != entry.value:
            yield f"metadata {entry.key!r} has changed"


def _versions(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    max_opset: int,
    max_ir: int,
    domains: Collection[str],
) -> Iterator[str]:
    known = {opset.domain for opset in before.opset_import} | {"", "ai.onnx", *domains}
    for opset in after.opset_import:
        if opset.domain in ("", "ai.onnx"):
            if opset.version > max_opset:
                yield f"opset {opset.version} is above the target's {max_opset}"
        elif opset.domain not in known:
            yield f"operator domain {opset.domain!r} is new"
    if after.ir_version > max_ir:
        yield f"IR version {after.ir_version} is above the target's {max_ir}"


def _names(model: onnx.ModelProto) -> Iterator[str]:
    names: Counter[str] = Counter()
    graphs = [model.graph]
    while graphs:
        for node in graphs.pop().node:
            names[node.name] += 1
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
                graphs.extend(attribute.graphs)
    unnamed = names.pop("", 0)
    if unnamed:
        yield f"{unnamed} nodes have no name"
    for name, count in names.items():
        if count > 1:
            yield f"{count} nodes are named {name!r}"


def _external(model: onnx.ModelProto, folder: Path) -> Iterator[str]:
    for location in external_locations(model):
        file = inside(folder, location)
        if file is None:
            yield f"external data {location!r} lies outside the model's folder"
        elif not file.is_file():
            yield f"external data {location!r} is missing"


def _checker(path: Path) -> str:
    """The checker's complaint in one line; "" if it has none."""
    checker: Any = onnx.checker  # half typed
    try:
        checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return " ".join(str(error).split())[:300] or type(error).__name__
    return ""
