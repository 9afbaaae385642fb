"""Networks of plain convolutions: AlexNet, SqueezeNet, VGG, ResNet, DenseNet, GoogLeNet.

Sizes are those of torchvision's models unless a function says otherwise.
"""

from collections.abc import Sequence

from .draft import Draft, Feature, Net


def alexnet(side: int, classes: int) -> Net:
    """AlexNet on one GPU (Krizhevsky 2014), as torchvision has it."""
    d = Draft()
    x = d.conv(Feature(3, side, side), 64, 11, 4, 2, norm=False)
    x = d.pool(x, 3, 2)
    x = d.pool(d.conv(x, 192, 5, norm=False), 3, 2)
    for outputs in (384, 256, 256):
        x = d.conv(x, outputs, 3, norm=False)
    x = d.adaptive_pool(d.pool(x, 3, 2), 6)
    x = d.linear(d.linear(x, 4096, act="Relu"), 4096, act="Relu")
    d.linear(x, classes)
    return d.done()


def caffe_alexnet(side: int, classes: int) -> Net:
    """Caffe's bvlc_alexnet: two groups in conv2, conv4 and conv5, and two LRN layers.

    724 million multiply-adds at 227 × 227, the count that papers give for it.
    """
    d = Draft()
    x = d.conv(Feature(3, side, side), 96, 11, 4, 0, norm=False)
    x = d.pool(d.pointwise(x, "LRN"), 3, 2)
    x = d.conv(x, 256, 5, groups=2, norm=False)
    x = d.pool(d.pointwise(x, "LRN"), 3, 2)
    x = d.conv(x, 384, 3, norm=False)
    x = d.conv(x, 384, 3, groups=2, norm=False)
    x = d.pool(d.conv(x, 256, 3, groups=2, norm=False), 3, 2)
    x = d.linear(d.linear(x, 4096, act="Relu"), 4096, act="Relu")
    d.linear(x, classes)
    return d.done()


def low_rank_alexnet(side: int, classes: int, ranks: Sequence[int]) -> Net:
    """Caffe-AlexNet without groups or LRN, every layer two factors, normalised.

    Idelbayev and Carreira-Perpiñán, CVPR 2020, scheme 2: a d × d convolution of rank r is a
    1 × d one with r outputs and a d × 1 one; their released model definition pads conv1 by 2.
    A fully connected layer is two.

    Args:
        side: of the square input.
        classes: of the output.
        ranks: of the five convolutions and three fully connected layers.
    """
    d = Draft()
    x = Feature(3, side, side)
    layers = ((96, 11, 4), (256, 5, 1), (384, 3, 1), (384, 3, 1), (256, 3, 1))
    for i, (outputs, k, step) in enumerate(layers):
        p = 2 if i == 0 else k // 2
        x = d.conv(x, ranks[i], (1, k), (1, step), (0, p), norm=False, bias=False, act="")
        x = d.conv(x, outputs, (k, 1), (step, 1), (p, 0))
        d.parameters += outputs  # a bias beside the normalisation
        x = d.pool(x, 3, 2) if i in (0, 1, 4) else x
    for i, outputs in enumerate((4096, 4096, classes)):
        is_last = i == 2
        x = d.linear(x, ranks[5 + i], bias=False)
        x = d.linear(x, outputs, act="" if is_last else "Relu", norm=not is_last)
    return d.done()


def squeezenet(side: int, classes: int, version: str) -> Net:
    """SqueezeNet 1.0 or 1.1: fire modules, a convolution for a classifier."""
    d, x = Draft(), Feature(3, side, side)
    if version == "1.0":
        x = d.conv(x, 96, 7, 2, 0, norm=False)
        pools = (0, 3, 7)
    else:
        x = d.conv(x, 64, 3, 2, 0, norm=False)
        pools = (0, 2, 4)
    widths = (16, 16, 32, 32, 48, 48, 64, 64)
    for i, squeeze in enumerate(widths):
        x = d.pool(x, 3, 2, ceil=True) if i in pools else x
        x = d.conv(x, squeeze, 1, norm=False)
        d.conv(x, 4 * squeeze, 1, norm=False)
        wide = d.conv(x, 4 * squeeze, 3, norm=False)
        x = Feature(8 * squeeze, wide.height, wide.width)
    d.adaptive_pool(d.conv(x, classes, 1, norm=False))
    return d.done()


_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(side: int, classes: int, depth: int, *, norm: bool = False) -> Net:
    """VGG; a normalisation changes its parameters but not what is launched."""
    d, x = Draft(), Feature(3, side, side)
    for width, count in zip((64, 128, 256, 512, 512), _VGG[depth], strict=True):
        for _ in range(count):
            x = d.conv(x, width, 3, norm=norm)
            d.parameters += width if norm else 0  # a bias beside the normalisation
        x = d.pool(x, 2, 2)
    x = d.adaptive_pool(x, 7)
    x = d.linear(d.linear(x, 4096, act="Relu"), 4096, act="Relu")
    d.linear(x, classes)
    return d.done()


_RESNET = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def resnet(side: int, classes: int, depth: int) -> Net:
    """ResNet v1.5: the stride of a bottleneck is in its 3 × 3 convolution."""
    d = Draft()
    x = d.pool(d.conv(Feature(3, side, side), 64, 7, 2), 3, 2, 1)
    block = _bottleneck if depth >= 50 else _basic
    for stage, count in enumerate(_RESNET[depth]):
        for i in range(count):
            x = block(d, x, 64 << stage, 2 if stage and not i else 1)
    d.linear(d.adaptive_pool(x), classes)
    return d.done()


def fcn_resnet50(side: int, classes: int) -> Net:
    """torchvision's FCN: a ResNet50 that keeps an eighth of the picture, and a dense head."""
    d = Draft()
    x = d.pool(d.conv(Feature(3, side, side), 64, 7, 2), 3, 2, 1)
    for stage, count in enumerate(_RESNET[50]):
        for i in range(count):
            x = _bottleneck(d, x, 64 << stage, 2 if stage == 1 and not i else 1)
    x = d.conv(d.conv(x, 512, 3), classes, 1, norm=False, act="")
    d.moved("Resize", x, Feature(classes, side, side))
    return d.done()


def _basic(d: Draft, x: Feature, width: int, stride: int) -> Feature:
    if stride != 1 or x.channels != width:
        d.conv(x, width, 1, stride, act="")
    return d.conv(d.conv(x, width, 3, stride), width, 3, residual=True)


def _bottleneck(d: Draft, x: Feature, width: int, stride: int) -> Feature:
    if stride != 1 or x.channels != 4 * width:
        d.conv(x, 4 * width, 1, stride, act="")
    inside = d.conv(d.conv(x, width, 1), width, 3, stride)
    return d.conv(inside, 4 * width, 1, residual=True)


_DENSENET = {
    121: (64, 32, (6, 12, 24, 16)),
    169: (64, 32, (6, 12, 32, 32)),
    201: (64, 32, (6, 12, 48, 32)),
    161: (96, 48, (6, 12, 36, 24)),
}


def densenet(side: int, classes: int, depth: int) -> Net:
    """DenseNet: normalisation and ReLU before the 1 × 1 convolutions cannot be folded."""
    width, growth, blocks = _DENSENET[depth]
    d = Draft()
    x = d.pool(d.conv(Feature(3, side, side), width, 7, 2), 3, 2, 1)
    for i, count in enumerate(blocks):
        for _ in range(count):
            inside = d.conv(d.pointwise(x, "ScaleRelu", norm=True), 4 * growth, 1)
            d.conv(inside, growth, 3, norm=False, bias=False, act="")
            x = Feature(x.channels + growth, x.height, x.width)
        x = d.pointwise(x, "ScaleRelu", norm=True)
        if i < len(blocks) - 1:
            x = d.conv(x, x.channels // 2, 1, norm=False, bias=False, act="")
            x = d.pool(x, 2, 2, op="AveragePool")
    d.linear(d.adaptive_pool(x), classes)
    return d.done()


def googlenet(side: int, classes: int) -> Net:
    """GoogLeNet of torchvision: normalised, 3 × 3 instead of 5 × 5, no auxiliary heads."""
    d = Draft()
    x = d.pool(d.conv(Feature(3, side, side), 64, 7, 2), 3, 2, ceil=True)
    x = d.pool(d.conv(d.conv(x, 64, 1), 192, 3), 3, 2, ceil=True)
    for i, (a, b1, b, c1, c, e) in enumerate(_INCEPTION):
        d.conv(x, a, 1)
        d.conv(d.conv(x, b1, 1), b, 3)
        d.conv(d.conv(x, c1, 1), c, 3)
        d.conv(d.pool(x, 3, 1, 1), e, 1)
        x = Feature(a + b + c + e, x.height, x.width)
        if i in (1, 6):
            x = d.pool(x, 3 if i == 1 else 2, 2, ceil=True)
    d.linear(d.adaptive_pool(x), classes)
    return d.done()


_INCEPTION = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
