"""Sparse weights of a file, written out: ONNX Runtime does the same, and onnx-ir has none."""

import numpy as np
import onnx
from onnx import numpy_helper

from ...device_profiles.errors import ModelError

LARGEST_DENSE = 1 << 30
"""Bytes; a sparse tensor may declare any size, so growth is bounded."""


def to_dense(model: onnx.ModelProto, where: str) -> list[str]:
    """Turns sparse initialisers and sparse Constants of the model into dense ones, in place.

    Returns:
        A warning, where there were any.

    Raises:
        ModelError: too large when dense, or indices that do not fit.
    """
    count = 0
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse, where))
            count += 1
        del graph.sparse_initializer[:]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)
                if node.op_type == "Constant" and attribute.HasField("sparse_tensor"):
                    dense = _dense(attribute.sparse_tensor, where)
                    node.ClearField("attribute")
                    node.attribute.append(onnx.helper.make_attribute("value", dense))
                    count += 1
                    break
    return [f"{count} sparse weights are written dense"] if count else []


def _dense(sparse: onnx.SparseTensorProto, where: str) -> onnx.TensorProto:
    here = f"{where}: sparse weight '{sparse.values.name}'"
    hint = "export the model again, with dense weights"
    dims = list(sparse.dims)
    count = 1
    for size in dims:
        count *= max(size, 0)
    if min(dims, default=0) < 0 or sparse.values.data_location == onnx.TensorProto.EXTERNAL:
        raise ModelError(f"shape {dims} or its storage is not readable", where=here, hint=hint)
    values = numpy_helper.to_array(sparse.values)
    if count * values.itemsize > LARGEST_DENSE:
        raise ModelError(f"shape {dims} is too large when dense", where=here, hint=hint)
    indices = numpy_helper.to_array(sparse.indices).astype(np.int64)
    flat = np.zeros(count, values.dtype)
    try:
        if indices.ndim == 2:
            indices = np.ravel_multi_index(tuple(indices.T), tuple(dims))
        if indices.size and int(indices.min()) < 0:
            raise IndexError
        flat[indices] = values
    except (IndexError, ValueError) as error:
        raise ModelError(
            f"indices that do not fit its shape {dims}", where=here, hint=hint
        ) from error
    return numpy_helper.from_array(flat.reshape(dims), sparse.values.name)
