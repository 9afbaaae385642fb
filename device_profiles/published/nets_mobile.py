"""Networks of depthwise convolutions: MobileNetV2 and V3, EfficientNet-B0.

Hard-swish, swish and the products of squeeze-and-excitation are launches of their own: they
read the convolution's output twice, which TensorRT does not fuse into it.
"""

from typing import Literal

from .draft import Draft, Feature, Net

Activation = Literal["Relu", "HardSwish", "Swish"]


def _activated(
    d: Draft, x: Feature, outputs: int, kernel: int, act: Activation,
    stride: int = 1, groups: int = 1,
) -> Feature:  # fmt: skip
    """A convolution and its activation, inside it or after it."""
    inside = act == "Relu"
    x = d.conv(x, outputs, kernel, stride, groups=groups, act="Relu" if inside else "")
    return x if inside else d.pointwise(x, act)


def _excited(d: Draft, x: Feature, squeezed: int, *, act: Activation) -> Feature:
    """Squeeze-and-excitation: a scale for every channel from the channels' averages."""
    inside = act == "Relu"
    mean = d.adaptive_pool(x)
    y = d.conv(mean, squeezed, 1, norm=False, act="Relu" if inside else "")
    y = y if inside else d.pointwise(y, act)
    d.conv(y, x.channels, 1, norm=False, act="")
    return d.pointwise(x, "Mul")


def _inverted(
    d: Draft, x: Feature, outputs: int, kernel: int, stride: int, *,
    expanded: int, act: Activation, squeezed: int = 0, gate: Activation = "Relu",
) -> Feature:  # fmt: skip
    """An inverted residual block."""
    y = x if expanded == x.channels else _activated(d, x, expanded, 1, act)
    y = _activated(d, y, expanded, kernel, act, stride, groups=expanded)
    y = _excited(d, y, squeezed, act=gate) if squeezed else y
    is_residual = stride == 1 and x.channels == outputs
    return d.conv(y, outputs, 1, act="", residual=is_residual)


def mobilenet_v2(side: int, classes: int) -> Net:
    """MobileNetV2, width 1."""
    d = Draft()
    x = d.conv(Feature(3, side, side), 32, 3, 2)
    for expand, outputs, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for i in range(count):
            step = 1 if i else stride
            x = _inverted(d, x, outputs, 3, step, expanded=expand * x.channels, act="Relu")
    d.linear(d.adaptive_pool(d.conv(x, 1280, 1)), classes)
    return d.done()


# kernel, expanded, outputs, excited, hard-swish, stride
_V3_LARGE = (
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)  # fmt: skip
_V3_SMALL = (
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)  # fmt: skip


def mobilenet_v3(side: int, classes: int, size: Literal["large", "small"]) -> Net:
    """MobileNetV3."""
    rows, last, hidden = (_V3_LARGE, 960, 1280) if size == "large" else (_V3_SMALL, 576, 1024)
    d = Draft()
    x = _activated(d, Feature(3, side, side), 16, 3, "HardSwish", 2)
    for kernel, expanded, outputs, excited, hard, stride in rows:
        x = _inverted(
            d, x, outputs, kernel, stride, expanded=expanded,
            act="HardSwish" if hard else "Relu",
            squeezed=_eighths(expanded // 4) if excited else 0,
        )  # fmt: skip
    x = d.adaptive_pool(_activated(d, x, last, 1, "HardSwish"))
    x = d.pointwise(d.linear(x, hidden), "HardSwish")
    d.linear(x, classes)
    return d.done()


def efficientnet_b0(side: int, classes: int) -> Net:
    """EfficientNet-B0."""
    d = Draft()
    x = _activated(d, Feature(3, side, side), 32, 3, "Swish", 2)
    for expand, kernel, stride, outputs, count in (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
    ):  # fmt: skip
        for i in range(count):
            x = _inverted(
                d, x, outputs, kernel, 1 if i else stride, expanded=expand * x.channels,
                act="Swish", squeezed=max(1, x.channels // 4), gate="Swish",
            )  # fmt: skip
    d.linear(d.adaptive_pool(_activated(d, x, 1280, 1, "Swish")), classes)
    return d.done()


def _eighths(count: float) -> int:
    """The nearest multiple of 8 that is no more than a tenth smaller."""
    rounded = max(8, int(count + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count else rounded
