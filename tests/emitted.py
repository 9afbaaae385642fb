"""What a compiled file holds in the place of each weight, multiplied out by numpy alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Emitted:
    """What stands for one weight.

    Args:
        dense: float64, as the operator reads it: (outputs, inputs, *kernel) of a convolution,
            (inputs, outputs) of a product with x on the left.
        stored: names of the initialisers it was made of.
        count: numbers in them.
    """

    dense: Matrix
    stored: tuple[str, ...]
    count: int


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for graph in graphs(model.graph) for node in graph.node]


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    found = {
        tensor.name: numpy_helper.to_array(tensor)
        for graph in graphs(model.graph)
        for tensor in graph.initializer
    }
    for node in nodes(model):  # factors of 16 bits that are widened when the model is loaded
        if node.op_type == "Cast" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]].astype(np.float32)
    return found


def stored_numbers(path: Path) -> int:
    """Numbers in all initialisers of a file."""
    return sum(t.size for t in map(numpy_helper.to_array, _tensors(onnx.load(path))))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in graphs(model.graph):
        yield from graph.initializer


def provenance(node: onnx.NodeProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in node.metadata_props}


def emitted(path: Path) -> dict[str, Emitted]:
    """Every Conv, MatMul and Gemm by the name it had; those made for one site multiplied."""
    model = onnx.load(path)
    arrays = initializers(model)
    chains: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes(model):
        constants = [name for name in node.input if name in arrays]
        if node.op_type in ("Conv", "MatMul", "Gemm") and constants:
            told = provenance(node)
            is_made = told.get("nncc.pass") == "CompressWeights"
            chains.setdefault(told["nncc.source"] if is_made else node.name, []).append(node)
    found: dict[str, Emitted] = {}
    for name, chain in chains.items():
        names = [_weight_name(node, arrays) for node in chain]
        dense = _dense(chain[0], arrays[names[0]])
        for node, weight in zip(chain[1:], names[1:], strict=True):
            after = _dense(node, arrays[weight])
            if node.op_type == "MatMul" and node.input[0] == weight:
                dense = after @ dense
            elif node.op_type == "Conv":  # of two kernels one is 1 along each axis
                U, V = (np.moveaxis(W, (0, 1), (-2, -1)) for W in (after, dense))
                dense = np.moveaxis(U @ V, (-2, -1), (0, 1))
            else:
                dense = dense @ after
        count = sum(arrays[weight].size for weight in names)
        found[name] = Emitted(dense, tuple(names), count)
    return found


def put_in_place(path: Path, weights: dict[str, Matrix], to: Path) -> None:
    """The model with the weights of the named nodes replaced, as another file.

    Args:
        path: a file whose nodes read every weight in one way.
        weights: node name to what `Emitted.dense` is.
        to: where to write.
    """
    model = onnx.load(path)
    arrays = initializers(model)
    new: dict[str, NDArray[np.generic]] = {}
    for node in nodes(model):
        if node.name not in weights:
            continue
        name = _weight_name(node, arrays)
        old, W = arrays[name], weights[node.name]
        if node.op_type == "Conv":
            group = _int(node, "group", 1)
            blocks = zip(np.split(W, group), range(group), strict=True)
            W = np.concatenate([np.split(part, group, axis=1)[at] for part, at in blocks])
        elif _int(node, "transB", 0):
            W = W.T
        new[name] = W.reshape(old.shape).astype(old.dtype)
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.name in new:
                tensor.CopyFrom(numpy_helper.from_array(new[tensor.name], tensor.name))
    onnx.save(model, to)


def relative(W: Matrix, W_hat: Matrix) -> tuple[float, float]:
    """‖W − Ŵ‖ / ‖W‖ of the matrix outputs × patch, operator and Frobenius norm."""
    rows = (len(W), -1)
    R, W = (W - W_hat).reshape(rows), W.reshape(rows)
    return (
        float(np.linalg.norm(R, 2) / np.linalg.norm(W, 2)),
        float(np.linalg.norm(R) / np.linalg.norm(W)),
    )


def _weight_name(node: onnx.NodeProto, arrays: dict[str, NDArray[np.generic]]) -> str:
    return next(name for name in node.input[:2] if name in arrays)


def _dense(node: onnx.NodeProto, W: NDArray[np.generic]) -> Matrix:
    """The weight of one node with its groups written out."""
    W = W.astype(np.float64)
    if node.op_type == "Gemm":
        alpha = next((a.f for a in node.attribute if a.name == "alpha"), 1.0)
        return alpha * (W.T if _int(node, "transB", 0) else W)
    if node.op_type == "MatMul":
        if W.ndim == 2:
            return W
        return _diagonal([*W])
    group = _int(node, "group", 1)
    kernel = W.shape[2:]
    parts = [part.reshape(*part.shape[:2], -1) for part in np.split(W, group)]
    taps = [_diagonal([part[..., at] for part in parts]) for at in range(parts[0].shape[2])]
    return np.stack(taps, axis=2).reshape(*taps[0].shape, *kernel)


def _diagonal(blocks: list[Matrix]) -> Matrix:
    """The matrix with the blocks along its diagonal."""
    m, n = blocks[0].shape
    whole = np.zeros((len(blocks) * m, len(blocks) * n))
    for at, block in enumerate(blocks):
        whole[at * m : (at + 1) * m, at * n : (at + 1) * n] = block
    return whole


def _int(node: onnx.NodeProto, name: str, default: int) -> int:
    found = [a for a in node.attribute if a.name == name]
    return int(helper.get_attribute_value(found[0])) if found else default
