"""Weights that lie outside the .onnx file, and the digest of a model with all its bytes."""

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from ..device_profiles.errors import ModelError


def read_structure(path: Path) -> onnx.ModelProto:
    """The model at `path`, external data left where it is.

    Raises:
        ModelError: there is no such file, or it is not an ONNX model.
    """
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as pages,
            memoryview(pages) as view,
        ):  # parsed from the page cache: `onnx.load` would hold the bytes a second time
            content: Any = view  # declared as bytes only
            return onnx.ModelProto.FromString(content)
    except OSError as error:
        raise ModelError(
            error.strerror or "cannot be read", where=str(path), hint="check the path"
        ) from error
    except (DecodeError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise ModelError(
            "not an ONNX model, or truncated", where=str(path), hint="export the model again"
        ) from error


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model: initialisers, attributes, also of subgraphs and functions."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            yield from attribute.tensors
            for sparse in attribute.sparse_tensors:
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)


def external_locations(model: onnx.ModelProto) -> list[str]:
    """The files that the model's tensors name, as written, sorted. They may be hostile."""
    return sorted(
        {
            entry.value
            for tensor in tensors(model)
            if tensor.data_location == onnx.TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )


def inside(folder: Path, location: str) -> Path | None:
    """The file that `location` names below `folder`, links followed; None if it is outside."""
    here = folder.resolve()
    try:
        there = (here / location).resolve()
    except (OSError, ValueError, RuntimeError):  # a NUL in the name, a loop of links
        return None
    return there if there.is_relative_to(here) else None


def model_files(path: Path) -> list[Path]:
    """The .onnx file and the external files it names that exist, in order.

    Files that lie outside the model's folder are left out: the runtime refuses them too.
    """
    locations = external_locations(read_structure(path))
    beside = (inside(path.parent, location) for location in locations)
    return [path, *(file for file in beside if file is not None and file.is_file())]


def stored_bytes(path: Path) -> int:
    """Size of the model on disk, external data included."""
    return sum(file.stat().st_size for file in model_files(path))


def digest(path: Path) -> str:
    """SHA-256, in hex, over the model with its external data."""
    total = hashlib.sha256()
    for file in model_files(path):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
