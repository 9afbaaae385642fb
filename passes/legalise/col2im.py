"""Col2Im as the transposed convolution that it is: every weight 0 or 1."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from .known import Refused, first_of, known_ints, sizes_of
from .lowering import Builder, Lowering


def col2im(node: ir.Node, b: Builder) -> Sequence[ir.Value]:
    """Col2Im: blocks (n, c · block, places) summed where they overlap, (n, c, image).

    Channel c · P + p of a block of P entries adds to its place p of output channel c.
    """
    x = first_of(node)
    image = known_ints(first_of(node, 1), "image sizes")
    block = known_ints(first_of(node, 2), "block sizes")
    channels = (sizes_of(x) or (None, None))[1]
    if channels is None:
        raise Refused("its number of channels is dynamic", "fix the number of channels")
    n = len(block)
    dilations = tuple(node.attributes.get_ints("dilations", None) or (1,) * n)
    strides = tuple(node.attributes.get_ints("strides", None) or (1,) * n)
    pads = tuple(node.attributes.get_ints("pads", None) or (0,) * (2 * n))
    free = [
        size + pads[at] + pads[at + n] - dilations[at] * (block[at] - 1) - 1
        for at, size in enumerate(image)
    ]
    places = [room // stride + 1 for room, stride in zip(free, strides, strict=True)]
    entries = math.prod(block)
    groups = channels // entries
    rest = [room % stride for room, stride in zip(free, strides, strict=True)]
    weight = np.tile(np.eye(entries).reshape(entries, 1, *block), (groups, 1, *(1,) * n))
    y = b.op(
        "ConvTranspose",
        b.reshape(x, [0, channels, *places]),
        b.constant(weight, like=x),
        group=groups,
        kernel_shape=block,
        dilations=dilations,
        strides=strides,
        pads=pads,
        output_padding=rest,
    )
    return (y,)


LOWERINGS: Mapping[str, tuple[Lowering, ...]] = {"Col2Im": (col2im,)}
