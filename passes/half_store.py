"""StoreHalves: biases and other small constants, stored in float16 and widened at load.

All of them lie in one float16 constant; a Cast and a Split give them back. Both depend on
constants alone, so a runtime computes them once, while it loads the model.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from .model import Model

_READERS = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm", "Add", "Sub", "Mul", "PRelu"),
        *("BatchNormalization", "LayerNormalization", "InstanceNormalization"),
    }
)
_LEAST = 2.0**-10
"""Largest magnitude below which an array is left alone: float16 would lose its digits."""
_MOST = 60000.0
SPLIT_FROM_INPUT = 13
"""Opset from which Split takes the sizes as an input."""


def store_halves(model: Model, *, most: int = 1 << 16) -> Model:
    """The model with its biases, norms and other constants of the kind stored in float16.

    Numbers alone (exponents, epsilons) stay, and what float16 does not hold.

    Args:
        model: left as it is.
        most: elements; larger constants are weights, which have forms of their own.
    """
    copy = model.copied()
    graph = copy.graph_model.graph
    picked = list(_picked(graph, most))
    if not picked:
        return model
    taken = {v.name for node in graph.all_nodes() for v in node.outputs}
    taken |= set(graph.initializers) | {v.name for v in graph.inputs}
    prefix = "nncc.half"
    while any((name or "").startswith(prefix) for name in taken):
        prefix += "_"
    arrays = [_array(value) for value in picked]
    flat = np.concatenate([a.reshape(-1) for a in arrays]).astype(np.float16)
    held = _constant(graph, flat, f"{prefix}.stored")
    made = {"nncc.pass": "StoreHalves"}
    wide = ir.node(
        "Cast",
        [held],
        {"to": int(ir.DataType.FLOAT)},
        name=f"{prefix}.wide",
        metadata_props=dict(made),
    )
    sizes = [a.size for a in arrays]
    nodes = [wide]
    parts = [wide.outputs[0]]
    if len(picked) > 1:
        inputs, attributes = [wide.outputs[0]], {"axis": 0, "split": tuple(sizes)}
        if model.opset >= SPLIT_FROM_INPUT:
            inputs.append(_constant(graph, np.array(sizes, np.int64), f"{prefix}.sizes"))
            attributes = {"axis": 0}
        split = ir.node(
            "Split",
            inputs,
            attributes,
            num_outputs=len(picked),
            name=f"{prefix}.split",
            metadata_props=dict(made),
        )
        nodes.append(split)
        parts = list(split.outputs)
    wide.outputs[0].name = f"{prefix}.wide"
    for at, (value, array, part) in enumerate(zip(picked, arrays, parts, strict=True)):
        if part is not wide.outputs[0]:
            part.name = f"{prefix}.{at}"
        part.type = ir.TensorType(ir.DataType.FLOAT)
        if array.ndim != 1:
            shape = _constant(graph, np.array(array.shape, np.int64), f"{prefix}.{at}.shape")
            node = ir.node(
                "Reshape", [part, shape], name=f"{prefix}.{at}.r", metadata_props=dict(made)
            )
            node.outputs[0].name = f"{prefix}.{at}.r"
            nodes.append(node)
            part = node.outputs[0]
        part.type, part.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(array.shape)
        for user, index in list(value.uses()):
            user.replace_input_with(index, part)
        assert value.name is not None, "an initialiser has a name"
        del graph.initializers[value.name]
    graph.insert_before(graph[0], nodes)
    return copy


def half_floats(model: Model) -> int:
    """Number of the model's constants that are stored in float16."""
    values = model.graph_model.graph.initializers.values()
    tensors = [value.const_value for value in values if value.const_value is not None]
    return sum(t.size for t in tensors if t.dtype == ir.DataType.FLOAT16)


def _picked(graph: ir.Graph, most: int) -> Iterator[ir.Value]:
    """The constants to store, in the order of their names."""
    for _, value in sorted(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or value.is_graph_output():
            continue
        if not 2 <= tensor.size <= most:
            continue
        uses = list(value.uses())
        if not uses or not all(_takes(use.node, use.idx, graph) for use in uses):
            continue
        largest = float(np.abs(tensor.numpy()).max())
        if largest == 0 or _LEAST <= largest <= _MOST:
            yield value


def _takes(node: ir.Node, index: int, graph: ir.Graph) -> bool:
    """Whether a constant at this place of a node is a bias, a scale or the like."""
    if node.graph is not graph or node.domain != "" or node.op_type not in _READERS:
        return False
    return index >= 2 or node.op_type not in ("Conv", "ConvTranspose", "Gemm")


def _array(value: ir.Value) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert value.const_value is not None, "an initialiser has a value"
    return np.asarray(value.const_value.numpy(), dtype=np.float32)


def _constant(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
