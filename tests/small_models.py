"""Small models that run: written in ONNX's text format, or a residual net with known nodes."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser


def write(path: Path, text: str, *, opset: int = 17, ir_version: int = 8, **tensors) -> Path:
    """The graph `text` (onnx.parser) as a file, with `tensors` as initialisers."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    model = parser.parse_model(f"{header} {text}")
    for name, array in tensors.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    onnx.save(model, path)
    return path


def residual_net(path: Path, channels: int = 32, side: int = 32) -> Path:
    """A file of a net with every kind of fusion the runtime does.

    Convolutions "stem" (then Relu), "block/conv1/v" and "block/conv1/u" (a factored one), and
    "block/conv2" (its sum with the input and a Relu follow), "depthwise" (then SiLU), and
    "head" (MatMul, Add, Relu) and "classes" (Gemm).
    """
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def weight(name, *shape):
        scale = np.sqrt(2 / np.prod(shape[1:]))
        array = (rng.standard_normal(shape) * scale).astype(np.float32)
        tensors.append(numpy_helper.from_array(array, name))

    def node(op, name, *inputs, **attributes):
        output = f"{name}:0"
        nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def conv(name, x, cin, cout, kernel, groups=1):
        weight(f"{name}.weight", cout, cin // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        return node("Conv", name, x, f"{name}.weight", pads=pads, group=groups)

    c = channels
    x = node("Relu", "relu", conv("stem", "x", 3, c, 7))
    y = conv("block/conv1/u", conv("block/conv1/v", x, c, c // 2, 1), c // 2, c, 3)
    y = conv("block/conv2", node("Relu", "block/relu", y), c, c, 3)
    x = node("Relu", "block/out", node("Add", "block/sum", y, x))
    y = conv("depthwise", x, c, c, 3, groups=c)
    x = node("Mul", "silu", y, node("Sigmoid", "sigmoid", y))
    x = node("Flatten", "flat", node("GlobalAveragePool", "pool", x))
    weight("head.weight", c, 64)
    weight("head.bias", 64)
    x = node("Add", "head/bias", node("MatMul", "head", x, "head.weight"), "head.bias")
    weight("classes.weight", 10, 64)
    x = node("Gemm", "classes", node("Relu", "head/relu", x), "classes.weight", transB=1)
    nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        tensors,
    )
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=7), path)
    return path


def image(side: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    """An input of `residual_net`."""
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((1, 3, side, side)).astype(np.float32)}
