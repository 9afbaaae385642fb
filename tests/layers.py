"""One-layer models of every kind of site, for contract and property tests."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Layer:
    """A model with one linear layer and an input for it."""

    name: str
    model: onnx.ModelProto
    feeds: dict[str, np.ndarray]


def _model(nodes, inputs, weights, opset=13):
    graph = helper.make_graph(
        nodes,
        "layer",
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape)
            for n, x in inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 7
    return model


def convolution(name, *, m, c, kernel, groups=1, size=9, op="Conv", bias=True, **attributes):
    """A convolution of m filters over c channels."""
    rng = np.random.default_rng(len(name) + m * c)
    shape = (m, c // groups, *kernel) if op == "Conv" else (c, m // groups, *kernel)
    weights = {"W": rng.standard_normal(shape).astype(np.float32)}
    if bias:
        weights["b"] = rng.standard_normal(m).astype(np.float32)
    x = rng.standard_normal((2, c, *([size] * len(kernel)))).astype(np.float32)
    node = helper.make_node(
        op, ["x", *weights], ["y"], name="layer", group=groups, **attributes
    )
    return Layer(name, _model([node], {"x": x}, weights), {"x": x})


def product(name, *, m, n, left=False, rows=(5,), gemm=None):
    """A MatMul (or a Gemm with attributes `gemm`) of an (m, n) weight."""
    rng = np.random.default_rng(m * n)
    W = rng.standard_normal((m, n)).astype(np.float32)
    weights = {"W": W if left else np.ascontiguousarray(W.T)}
    attributes = dict(gemm or {})
    x = rng.standard_normal((n, *rows) if left else (*rows, n)).astype(np.float32)
    if left and len(rows) == 2:
        x = rng.standard_normal((rows[0], n, rows[1])).astype(np.float32)
    operands = ["W", "x"] if left else ["x", "W"]
    if gemm is None:
        node = helper.make_node("MatMul", operands, ["y"], name="layer")
        return Layer(name, _model([node], {"x": x}, weights), {"x": x})
    mine, other = ("transA", "transB") if left else ("transB", "transA")
    if attributes.get(mine):
        weights["W"] = np.ascontiguousarray(weights["W"].T)
    if attributes.get(other):
        x = np.ascontiguousarray(x.T)
    out = (m, *rows) if left else (*rows, m)
    if attributes.pop("bias", True):
        weights["C"] = rng.standard_normal(out[-1]).astype(np.float32)
        operands.append("C")
    node = helper.make_node("Gemm", operands, ["y"], name="layer", **attributes)
    return Layer(name, _model([node], {"x": x}, weights), {"x": x})


def layers() -> list[Layer]:
    """Every kind of site, with every attribute that moves something."""
    return [
        convolution("conv 1-D", m=12, c=8, kernel=(5,), pads=[2, 1], strides=[2]),
        convolution("conv 2-D", m=12, c=8, kernel=(3, 3), pads=[1, 1, 1, 1]),
        convolution("conv 2-D without bias", m=12, c=8, kernel=(3, 3), bias=False),
        convolution("conv strided", m=12, c=8, kernel=(3, 5), strides=[2, 3]),
        convolution("conv dilated", m=12, c=8, kernel=(3, 3), dilations=[2, 1]),
        convolution("conv asymmetric", m=12, c=8, kernel=(3, 2), pads=[0, 1, 2, 3]),
        convolution(
            "conv same-upper", m=12, c=8, kernel=(4, 3), auto_pad="SAME_UPPER", strides=[2, 1]
        ),
        convolution("conv same-lower", m=12, c=8, kernel=(4, 3), auto_pad="SAME_LOWER"),
        convolution("conv valid", m=12, c=8, kernel=(3, 3), auto_pad="VALID"),
        convolution("conv grouped", m=12, c=8, kernel=(3, 3), groups=2, pads=[1, 1, 1, 1]),
        convolution("conv depthwise", m=8, c=8, kernel=(3, 3), groups=8),
        convolution("conv 1x1", m=12, c=8, kernel=(1, 1), strides=[2, 2]),
        convolution("conv 1x5", m=12, c=8, kernel=(1, 5)),
        convolution(
            "conv 3-D",
            m=6,
            c=4,
            kernel=(2, 3, 3),
            size=6,
            strides=[1, 2, 1],
            pads=[1, 0, 1, 0, 1, 1],
        ),
        convolution("transpose 2-D", m=12, c=8, kernel=(3, 3), op="ConvTranspose", size=5),
        convolution(
            "transpose strided",
            m=12,
            c=8,
            kernel=(4, 3),
            op="ConvTranspose",
            size=5,
            strides=[2, 3],
            pads=[1, 0, 2, 1],
            output_padding=[1, 2],
        ),
        convolution(
            "transpose grouped",
            m=12,
            c=8,
            kernel=(3, 3),
            op="ConvTranspose",
            size=5,
            groups=2,
            dilations=[2, 1],
        ),
        convolution(
            "transpose 1-D",
            m=12,
            c=8,
            kernel=(4,),
            op="ConvTranspose",
            size=5,
            strides=[2],
            bias=False,
        ),
        product("matmul right", m=12, n=8),
        product("matmul right 3-D", m=12, n=8, rows=(2, 3)),
        product("matmul left", m=12, n=8, left=True),
        product("matmul left 3-D", m=12, n=8, left=True, rows=(2, 3)),
        product("gemm", m=12, n=8, gemm={}),
        product("gemm transB", m=12, n=8, gemm={"transB": 1}),
        product(
            "gemm transA alpha beta", m=12, n=8, gemm={"transA": 1, "alpha": 0.5, "beta": 2.0}
        ),
        product("gemm left", m=12, n=8, left=True, gemm={"transA": 1, "transB": 1}),
        product("gemm without C", m=12, n=8, gemm={"bias": False, "transB": 1, "alpha": 2.0}),
    ]
