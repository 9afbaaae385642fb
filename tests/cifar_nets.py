"""The CIFAR nets of LC part V (appendix C): ResNets with option-A shortcuts, and its VGG16.

Each convolution is followed by a BatchNormalization, which is kept as a scale and a shift per
channel: two numbers that a quantised weight cannot take up. Shapes and counts are what
matters; weights are noise.
"""

import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from nets import IR_VERSION, Draft, weights
from nncc.passes.model import Model

OPSET = 13


def resnet(depth: int) -> Model:
    """The CIFAR ResNet of `depth` layers (He et al., section 4.2)."""
    d = Draft(OPSET)
    widths, cin, blocks = (16, 32, 64), 16, (depth - 2) // 6
    x = d.relu(_normed(d, d.conv("input", "conv1", 3, 16, 3), "conv1", 16), "relu")
    for s, width in enumerate(widths):
        for i in range(blocks):
            name, stride = f"layer{s + 1}.{i}", 2 if s and not i else 1
            y = _normed(
                d, d.conv(x, f"{name}.conv1", cin, width, 3, stride), f"{name}.conv1", width
            )
            y = d.conv(d.relu(y, f"{name}.relu1"), f"{name}.conv2", width, width, 3)
            y = _normed(d, y, f"{name}.conv2", width)
            if stride == 2:
                x = _option_a(d, x, name, width - cin)
            x = d.relu(d.node("Add", [y, x], f"{name}.add"), f"{name}.relu2")
            cin = width
    return _model(d, d.head(x, "fc", 64, 10), f"resnet{depth}")


def vgg16() -> Model:
    """VGG16 for 32 × 32 pictures: 13 convolutions, two hidden layers of 512 (table 5)."""
    d = Draft(OPSET)
    x, cin = "input", 3
    for s, (width, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        for i in range(depth):
            name = f"conv{s + 1}.{i}"
            x = d.relu(_normed(d, d.conv(x, name, cin, width, 3), name, width), f"{name}.relu")
            cin = width
        x = d.pool(x, f"pool{s + 1}", 2, 2)
    x = d.node("Flatten", [x], "flatten")
    for name in ("fc1", "fc2"):
        x = d.relu(d.linear(x, name, 512, 512), f"{name}.relu")
    return _model(d, d.linear(x, "fc3", 512, 10), "vgg16")


def _normed(d: Draft, x: str, name: str, channels: int) -> str:
    """A scale and a shift behind a convolution, whose own bias is thereby none."""
    d.nodes[-1].input.pop()
    scaled = d.node("Mul", [x, f"{name}.scale"], f"{name}.mul")
    d.constants += [
        numpy_helper.from_array(weights((1, channels, 1, 1), len(d.constants), "noise"), key)
        for key in (f"{name}.scale", f"{name}.shift")
    ]
    return d.node("Add", [scaled, f"{name}.shift"], f"{name}.shifted")


def _option_a(d: Draft, x: str, name: str, channels: int) -> str:
    """Every second position, and zeros for the new channels: a shortcut without weights."""
    for key, value in (
        ("two", [2, 2]),
        ("axes", [2, 3]),
        ("zeros", [0, 0]),
        ("far", [64, 64]),
    ):
        d.constants.append(helper.make_tensor(f"{name}.{key}", TensorProto.INT64, [2], value))
    ends = [0, channels // 2, 0, 0] * 2
    d.constants.append(helper.make_tensor(f"{name}.pads", TensorProto.INT64, [8], ends))
    operands = [f"{name}.{key}" for key in ("zeros", "far", "axes", "two")]
    y = d.node("Slice", [x, *operands], f"{name}.slice")
    return d.node("Pad", [y, f"{name}.pads"], f"{name}.pad")


def _model(d: Draft, last: str, name: str) -> Model:
    initializers = list(d.constants)
    for idx, (layer, shape) in enumerate(d.layers):
        initializers.append(
            numpy_helper.from_array(weights(shape, idx, "noise"), f"{layer}.weight")
        )
        if len(shape) == 2:
            initializers.append(
                numpy_helper.from_array(weights(shape[:1], idx, "noise"), f"{layer}.bias")
            )
    graph = helper.make_graph(
        d.nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 10])],
        initializers,
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return Model(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), name, "0" * 64)
