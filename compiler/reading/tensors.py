"""The weights of an ONNX file: each holds what it declares.

Arithmetic on declared sizes only: nothing is allocated, so a tensor may lie about its shape.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from ...device_profiles.errors import ModelError
from .external import external_file
from .soundness import Nodes, graphs

_TYPES = onnx.TensorProto
_AGAIN = "export the model again"

# Typed fields and the element types that may use them (onnx.proto, TensorProto).
_FIELD_OF: dict[int, str] = {
    _TYPES.FLOAT: "float_data",
    _TYPES.COMPLEX64: "float_data",
    _TYPES.DOUBLE: "double_data",
    _TYPES.COMPLEX128: "double_data",
    _TYPES.INT64: "int64_data",
    _TYPES.UINT32: "uint64_data",
    _TYPES.UINT64: "uint64_data",
    _TYPES.STRING: "string_data",
}
_TWO_A_VALUE = (_TYPES.COMPLEX64, _TYPES.COMPLEX128)


def check_tensors(model: onnx.ModelProto, folder: Path, where: str) -> dict[str, Path]:
    """Holds every tensor of the model against its own declaration.

    Args:
        model: a parsed model, external data not read.
        folder: where external data must lie.
        where: the file, for messages.

    Returns:
        External location to its checked file.

    Raises:
        ModelError: negative or impossible sizes, an unknown element type, data of another
            length than declared, or external data that may not be read.
    """
    files: dict[str, Path] = {}
    for tensor, place in _tensors(model):
        here = f"{where}: {place} '{tensor.name}'"
        needed = _declared_bytes(tensor, here)
        if tensor.data_location == _TYPES.EXTERNAL:
            path = external_file(tensor, folder, here, needed)
            files[_location(tensor)] = path
        else:
            _check_payload(tensor, needed, here)
    return files


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    for graph, _ in graphs(model):
        for tensor in graph.initializer:
            yield tensor, "initialiser"
        for sparse in graph.sparse_initializer:
            yield from _sparse(sparse)
        yield from _attribute_tensors(graph.node)
    for function in model.functions:
        yield from _attribute_tensors(function.node)
    for info in model.training_info:
        yield from ((tensor, "training tensor") for tensor in info.algorithm.initializer)


def _attribute_tensors(nodes: Nodes) -> Iterator[tuple[onnx.TensorProto, str]]:
    for node in nodes:
        for attribute in node.attribute:
            place = f"attribute '{attribute.name}' of {node.op_type}"
            if attribute.HasField("t"):
                yield attribute.t, place
            for tensor in attribute.tensors:
                yield tensor, place
            for sparse in (*attribute.sparse_tensors, attribute.sparse_tensor):
                yield from _sparse(sparse)


def _sparse(sparse: onnx.SparseTensorProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    if sparse.HasField("values"):
        yield sparse.values, "sparse values"
        yield sparse.indices, "sparse indices"


def _declared_bytes(tensor: onnx.TensorProto, where: str) -> int:
    """Bytes that the declared shape and type take: Python integers, so no overflow."""
    try:
        kind = ir.DataType(tensor.data_type)
    except ValueError:
        kind = ir.DataType.UNDEFINED
    if kind == ir.DataType.UNDEFINED:
        raise ModelError(
            f"element type {tensor.data_type} does not exist", where=where, hint=_AGAIN
        )
    count = 1
    for size in tensor.dims:
        if size < 0:
            raise ModelError(f"negative size {size}", where=where, hint=_AGAIN)
        count *= size
    if kind == ir.DataType.STRING:
        return count
    return (count * kind.bitwidth + 7) // 8


def _check_payload(tensor: onnx.TensorProto, needed: int, where: str) -> None:
    """Data inside the file: in the field of its type, and as long as declared."""
    if tensor.HasField("raw_data"):
        held = len(tensor.raw_data)
        if tensor.data_type == _TYPES.STRING:
            raise ModelError("text as raw data", where=where, hint=_AGAIN)
        if held != needed:
            raise ModelError(
                f"{held:,} bytes of data for a shape {list(tensor.dims)} of {needed:,} bytes",
                where=where,
                hint=_AGAIN,
            )
        return
    name = _FIELD_OF.get(tensor.data_type, "int32_data")
    held = len(getattr(tensor, name))
    count = 1
    for size in tensor.dims:
        count *= size
    bits = ir.DataType(tensor.data_type).bitwidth if name == "int32_data" else 8
    expected = -(-count * bits // 8) if bits < 8 else count
    if tensor.data_type in _TWO_A_VALUE:
        expected = 2 * count
    if held != expected and not (bits < 8 and held == count):
        raise ModelError(
            f"{held:,} values in {name} for a shape {list(tensor.dims)} of {count:,}",
            where=where,
            hint=_AGAIN,
        )


def _location(tensor: onnx.TensorProto) -> str:
    return next(e.value for e in tensor.external_data if e.key == "location")
