"""Float16 numbers in float32 arithmetic: what a card computes, for a runtime without float16.

ONNX Runtime on a CPU has few float16 kernels. It runs a float16 graph in float32 and drops the
roundings between (its own casts count as free of loss), so nothing overflows there. Casts that
stand in the model are kept: here every float16 number is rounded by one.
"""

import onnx_ir as ir

from .legalise.single import FreeNames
from .model import Model
from .names import legal

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def in_float_arithmetic(model: Model) -> Model:
    """The model with every node of the main graph in float32 and every result rounded.

    Sums inside a node (of a convolution, a matrix product) are those of float32, as in the
    tensor kernels of a card. For proofs only: it is slower and larger than either graph.

    Args:
        model: as `in_half` made it; element types are known.
    """
    copy = model.copied()
    graph = copy.graph_model.graph
    names = FreeNames(copy.graph_model)
    wide: dict[ir.Value, ir.Value] = {}

    def cast(value: ir.Value, to: ir.DataType, part: str) -> ir.Node:
        name = names.free(f"{legal(str(value.name))}/{part}")
        node = ir.node("Cast", [value], {"to": int(to)}, name=name)
        made = node.outputs[0]
        made.name, made.type, made.shape = name, ir.TensorType(to), value.shape
        return node

    for node in list(graph):
        if node.op_type == "Cast":
            continue
        for at, value in enumerate(node.inputs):
            if value is None or value.dtype != _HALF:
                continue
            if value not in wide:
                made = cast(value, _FLOAT, "wide")
                producer = value.producer()
                if producer is None:
                    graph.insert_before(next(iter(graph)), made)
                else:
                    graph.insert_after(producer, made)
                wide[value] = made.outputs[0]
            node.replace_input_with(at, wide[value])
        for value in node.outputs:
            if value.dtype != _HALF:
                continue
            value.type = ir.TensorType(_FLOAT)
            rounding = cast(value, _HALF, "rounded")
            value.replace_all_uses_with(rounding.outputs[0], replace_graph_outputs=True)
            rounding.replace_input_with(0, value)
            graph.insert_after(node, rounding)
            name, value.name = str(value.name), rounding.outputs[0].name
            rounding.outputs[0].name = name
    return copy
