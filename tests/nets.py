"""Published architectures as ONNX, with weights that need no download.

For structure, allocation and speed only: no accuracy, error or ratio measured on them says
anything about a trained net. BatchNormalization is folded already (every convolution carries
a bias of zeros); nodes are named like the torch modules.

The weights of "he" and "decay" are a fixed function of (shape, index, spec): the bars of the
allocation benchmarks are stated for exactly these arrays.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
IR_VERSION = 7


def weights(shape: Shape, idx: int, spec: str, seed: int = 0) -> NDArray[np.float32]:
    """The weights of the layer at position `idx` among convolutions and linears.

    "he": N(0, 2 / fan_in). "decay": U diag(i^-0.7) V^T scaled to the He Frobenius norm.
    "noise": as "he", drawn in float32 (quick; for speed and structure only).
    """
    a, b = shape[0], math.prod(shape[1:])
    rng, std = np.random.default_rng([seed, idx]), math.sqrt(2 / b)
    if spec == "noise":
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)
    if spec == "he":
        W = rng.standard_normal((a, b)) * std
    elif spec == "decay":
        r = min(a, b)
        U, _ = np.linalg.qr(rng.standard_normal((a, r)))
        V, _ = np.linalg.qr(rng.standard_normal((b, r)))
        W = (U * np.arange(1, r + 1) ** -0.7) @ V.T
        W *= std * math.sqrt(a * b) / np.linalg.norm(W)
    else:
        raise ValueError(f"unknown weights {spec!r}; choose he, decay or noise")
    return W.reshape(shape).astype(np.float32)


@dataclass
class Draft:
    """A graph being written down: nodes, and the layers in module registration order."""

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    layers: list[tuple[str, Shape]] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append one node; its output carries its name."""
        out = f"{name}:0"
        self.nodes.append(helper.make_node(op, inputs, [out], name=name, **attributes))
        return out

    def conv(
        self, x: str, name: str, cin: int, cout: int, k: int, stride: int = 1,
        pad: int | None = None, groups: int = 1,
    ) -> str:  # fmt: skip
        """A k x k convolution with bias, "same" padding unless told."""
        pad = k // 2 if pad is None else pad
        self.layers.append((name, (cout, cin // groups, k, k)))
        return self.node(
            "Conv", [x, f"{name}.weight", f"{name}.bias"], name, kernel_shape=[k, k],
            strides=[stride] * 2, pads=[pad] * 4, group=groups,
        )  # fmt: skip

    def linear(self, x: str, name: str, cin: int, cout: int) -> str:
        """A fully connected layer, Gemm with transB = 1 as torch exports it."""
        self.layers.append((name, (cout, cin)))
        return self.node("Gemm", [x, f"{name}.weight", f"{name}.bias"], name, transB=1)

    def relu(self, x: str, name: str) -> str:
        return self.node("Relu", [x], name)

    def relu6(self, x: str, name: str) -> str:
        if self.opset < 11:
            return self.node("Clip", [x], name, min=0.0, max=6.0)
        if not self.constants:
            self.constants += [
                numpy_helper.from_array(np.array(0, np.float32), "zero"),
                numpy_helper.from_array(np.array(6, np.float32), "six"),
            ]
        return self.node("Clip", [x, "zero", "six"], name)

    def pool(self, x: str, name: str, k: int, stride: int, pad: int = 0) -> str:
        return self.node(
            "MaxPool", [x], name, kernel_shape=[k, k], strides=[stride] * 2, pads=[pad] * 4
        )

    def head(self, x: str, name: str, cin: int, cout: int) -> str:
        """Global average pooling and the classifier."""
        x = self.node("GlobalAveragePool", [x], "avgpool")
        return self.linear(self.node("Flatten", [x], "flatten"), name, cin, cout)


def _basic_block(d: Draft, x: str, name: str, cin: int, cout: int, stride: int) -> str:
    y = d.relu(d.conv(x, f"{name}.conv1", cin, cout, 3, stride), f"{name}.relu1")
    y = d.conv(y, f"{name}.conv2", cout, cout, 3)
    if stride != 1 or cin != cout:
        x = d.conv(x, f"{name}.downsample.0", cin, cout, 1, stride)
    return d.relu(d.node("Add", [y, x], f"{name}.add"), f"{name}.relu2")


def _bottleneck(d: Draft, x: str, name: str, cin: int, cout: int, stride: int) -> str:
    mid = cout // 4
    y = d.relu(d.conv(x, f"{name}.conv1", cin, mid, 1), f"{name}.relu1")
    y = d.relu(d.conv(y, f"{name}.conv2", mid, mid, 3, stride), f"{name}.relu2")
    y = d.conv(y, f"{name}.conv3", mid, cout, 1)
    if stride != 1 or cin != cout:
        x = d.conv(x, f"{name}.downsample.0", cin, cout, 1, stride)
    return d.relu(d.node("Add", [y, x], f"{name}.add"), f"{name}.relu3")


Block = Callable[[Draft, str, str, int, int, int], str]


def _stages(
    d: Draft, x: str, block: Block, cin: int, widths: list[int], depths: list[int]
) -> str:
    """ResNet stages: the first block of every stage but the first halves the picture."""
    for s, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for i in range(depth):
            stride = 2 if s > 0 and i == 0 else 1
            x = block(d, x, f"layer{s + 1}.{i}", cin, width, stride)
            cin = width
    return x


def _resnet20(d: Draft, x: str) -> str:
    x = d.relu(d.conv(x, "conv1", 3, 16, 3), "relu")
    return d.head(_stages(d, x, _basic_block, 16, [16, 32, 64], [3, 3, 3]), "fc", 64, 10)


def _imagenet_stem(d: Draft, x: str) -> str:
    return d.pool(d.relu(d.conv(x, "conv1", 3, 64, 7, 2), "relu"), "maxpool", 3, 2, 1)


def _resnet18(d: Draft, x: str) -> str:
    x = _stages(d, _imagenet_stem(d, x), _basic_block, 64, [64, 128, 256, 512], [2] * 4)
    return d.head(x, "fc", 512, 1000)


def _resnet50(d: Draft, x: str) -> str:
    widths = [256, 512, 1024, 2048]
    x = _stages(d, _imagenet_stem(d, x), _bottleneck, 64, widths, [3, 4, 6, 3])
    return d.head(x, "fc", 2048, 1000)


def _vgg16_features(d: Draft, x: str) -> str:
    """The 13 convolutions and five poolings of VGG16, numbered as torchvision's."""
    at, cin = 0, 3
    for width, depth in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(depth):
            x = d.relu(d.conv(x, f"features.{at}", cin, width, 3), f"features.{at + 1}")
            at, cin = at + 2, width
        x = d.pool(x, f"features.{at}", 2, 2)
        at += 1
    return x


def _vgg16(d: Draft, x: str) -> str:
    x = d.node("Flatten", [_vgg16_features(d, x)], "flatten")
    x = d.relu(d.linear(x, "classifier.0", 512 * 7 * 7, 4096), "classifier.1")
    x = d.relu(d.linear(x, "classifier.3", 4096, 4096), "classifier.4")
    return d.linear(x, "classifier.6", 4096, 1000)


def _vgg16_cifar(d: Draft, x: str) -> str:
    x = d.node("Flatten", [_vgg16_features(d, x)], "flatten")
    return d.linear(x, "classifier", 512, 10)


def _alexnet(d: Draft, x: str) -> str:
    x = d.relu(d.conv(x, "features.0", 3, 64, 11, 4, 2), "features.1")
    x = d.pool(x, "features.2", 3, 2)
    x = d.relu(d.conv(x, "features.3", 64, 192, 5), "features.4")
    x = d.pool(x, "features.5", 3, 2)
    x = d.relu(d.conv(x, "features.6", 192, 384, 3), "features.7")
    x = d.relu(d.conv(x, "features.8", 384, 256, 3), "features.9")
    x = d.relu(d.conv(x, "features.10", 256, 256, 3), "features.11")
    x = d.node("Flatten", [d.pool(x, "features.12", 3, 2)], "flatten")
    x = d.relu(d.linear(x, "classifier.1", 256 * 6 * 6, 4096), "classifier.2")
    x = d.relu(d.linear(x, "classifier.4", 4096, 4096), "classifier.5")
    return d.linear(x, "classifier.6", 4096, 1000)


def _mobilenet_v2(d: Draft, x: str) -> str:
    x = d.relu6(d.conv(x, "features.0.0", 3, 32, 3, 2), "features.0.2")
    at, cin = 1, 32
    for expand, cout, depth, stride in [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ]:  # fmt: skip
        for i in range(depth):
            x = _inverted_residual(
                d, x, f"features.{at}.conv", cin, cout, stride if i == 0 else 1, expand
            )
            at, cin = at + 1, cout
    x = d.relu6(d.conv(x, f"features.{at}.0", cin, 1280, 1), f"features.{at}.2")
    return d.head(x, "classifier.1", 1280, 1000)


def _inverted_residual(
    d: Draft, x: str, name: str, cin: int, cout: int, stride: int, expand: int
) -> str:
    y, mid, i = x, cin * expand, 0
    if expand != 1:
        y = d.relu6(d.conv(y, f"{name}.0.0", cin, mid, 1), f"{name}.0.2")
        i = 1
    y = d.conv(y, f"{name}.{i}.0", mid, mid, 3, stride, groups=mid)
    y = d.conv(d.relu6(y, f"{name}.{i}.2"), f"{name}.{i + 1}", mid, cout, 1)
    return d.node("Add", [x, y], f"{name}.add") if stride == 1 and cin == cout else y


NETS: dict[str, tuple[Callable[[Draft, str], str], int, int]] = {
    "resnet20": (_resnet20, 32, 10),
    "resnet18": (_resnet18, 224, 1000),
    "resnet50": (_resnet50, 224, 1000),
    "vgg16": (_vgg16, 224, 1000),
    "vgg16-cifar": (_vgg16_cifar, 32, 10),
    "alexnet": (_alexnet, 224, 1000),
    "mobilenet-v2": (_mobilenet_v2, 224, 1000),
}


def layers(name: str) -> list[tuple[str, Shape]]:
    """Name and weight shape of every convolution and linear, in registration order."""
    draft = Draft(opset=13)
    NETS[name][0](draft, "input")
    return draft.layers


def build(
    name: str, spec: str = "he", *, batch: int | str = 1, opset: int = 13
) -> onnx.ModelProto:
    """The architecture `name` as a model with input "input" and output "output".

    Args:
        name: a key of `NETS`.
        spec: weights, see `weights`.
        batch: first dimension, a number or a symbol.
        opset: version of the default operator set, 7 or newer.
    """
    write, side, classes = NETS[name]
    draft = Draft(opset)
    last = write(draft, "input")
    for node in draft.nodes:
        node.output[:] = ["output" if out == last else out for out in node.output]
    initializers = list(draft.constants)
    for idx, (layer, shape) in enumerate(draft.layers):
        W, bias = weights(shape, idx, spec), np.zeros(shape[0], np.float32)
        initializers.append(numpy_helper.from_array(W, f"{layer}.weight"))
        initializers.append(numpy_helper.from_array(bias, f"{layer}.bias"))
    graph = helper.make_graph(
        draft.nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, classes])],
        initializers,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
        producer_name="nncc-tests",
    )
