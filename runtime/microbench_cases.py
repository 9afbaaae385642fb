"""Which kernels calibrate a machine: some of every code path, at the sizes that nets have."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..device_profiles.cost.fused import FusedKernel
from ..device_profiles.kernel import Kernel

FEED_CHANNELS = 16
"""Channels that a case's image is made from."""
RESIDENT = 1 << 18
"""Weights that any core's own cache holds: 1 MiB of them."""
RUN = "Run"
"""What a run costs beside its kernels: the call itself, its inputs and outputs."""
REORDER = "Reorder"
"""What the runtime inserts between its blocked layout and the ordinary one."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One kernel to time.

    Args:
        kernel: what it is.
        pads: of its convolution, begins then ends.
        attributes: of a memory kernel.
        resident: leave the caches as they are.
    """

    kernel: FusedKernel
    pads: tuple[int, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    resident: bool = False


def conv(
    ci: int, co: int, k: Size, size: int, *, stride: int = 1, groups: int = 1,
    transposed: bool = False, resident: bool = False, activation: str = "Relu",
) -> Case:  # fmt: skip
    """A convolution with "same" padding on a square image."""
    strides = tuple(stride if n > 1 or max(k) == 1 else 1 for n in k)
    pads = tuple(n // 2 for n in k) * 2
    if transposed:
        pads, out = (
            (0,) * 4,
            tuple((size - 1) * s + n for s, n in zip(strides, k, strict=True)),
        )
    else:
        out = tuple(-(-size // s) for s in strides)
    op = "ConvTranspose" if transposed else "Conv"
    linear = Kernel(op, groups, co // groups, ci // groups, k, (1, size, size), (1, *out))
    read, written = ci * size * size, co * out[0] * out[1]
    return Case(
        FusedKernel(op, linear, read, written, strides, (activation,)), pads, resident=resident
    )


def product(rows: int, inputs: int, outputs: int, *, resident: bool = False) -> Case:
    """A matrix product with a constant matrix."""
    linear = Kernel("MatMul", 1, outputs, inputs, (), (rows,), (rows,))
    return Case(
        FusedKernel("MatMul", linear, rows * inputs, rows * outputs), resident=resident
    )


def batched(batch: int, rows: int, inputs: int, outputs: int) -> Case:
    """Products of two computed tensors, as in attention."""
    linear = Kernel("MatMul", batch, outputs, inputs, (), (rows,), (rows,))
    read = batch * (rows * inputs + inputs * outputs)
    return Case(
        FusedKernel("MatMul", linear, read, batch * rows * outputs),
        shapes=((1, batch, rows, inputs), (1, batch, inputs, outputs)),
    )


def memory(
    op: str,
    *shapes: tuple[int, ...],
    written: int | None = None,
    **attributes: int | list[int],
) -> Case:
    """An operator that computes next to nothing."""
    read = sum(int(np.prod(shape)) for shape in shapes)
    out = int(np.prod(shapes[0])) if written is None else written
    return Case(FusedKernel(op, None, read, out), (), tuple(attributes.items()), shapes)


def cases(block: int) -> list[Case]:
    """What calibrates a machine whose fast layout has blocks of `block` channels."""
    found = [*_convolutions(), *_unaligned(block), *_products(), *_memory()]
    found.append(Case(FusedKernel(RUN, None, 0, 0)))
    small = [c for c in found if c.kernel.linear is None or c.kernel.linear.weights < RESIDENT]
    return found + [replace(case, resident=True) for case in small]


def _convolutions() -> Iterator[Case]:
    for size, channels in ((56, 64), (28, 128), (14, 256), (7, 512)):
        yield conv(channels, channels, (3, 3), size)
        yield conv(channels, channels // 4, (3, 3), size)
        yield conv(channels // 4, channels, (3, 3), size)
        yield conv(channels, channels, (3, 3), size, stride=2)
        yield conv(channels, channels * 4, (1, 1), size)
        yield conv(channels * 4, channels, (1, 1), size)
        yield conv(channels, channels // 4, (1, 1), size)
        yield conv(channels // 4, channels, (1, 1), size)
        yield conv(channels, channels * 2, (1, 1), size, stride=2)
        yield conv(channels, channels // 2, (3, 1), size)
        yield conv(channels // 2, channels, (1, 3), size)
        yield conv(channels, channels, (3, 3), size, groups=channels)
        yield conv(channels, channels, (3, 3), size, groups=channels, stride=2)
        yield conv(channels, channels, (5, 5), size, groups=channels)
        yield conv(channels, channels, (3, 3), size, groups=channels // 32)
        yield conv(channels, channels // 2, (3, 3), size, groups=2)
        yield conv(channels, channels, (1, 1), size, groups=2)
    yield conv(16, 96, (1, 1), 112)
    yield conv(96, 16, (1, 1), 112)
    yield conv(32, 32, (3, 3), 112, groups=32)
    for ci, co, groups, size in (
        (128, 256, 4, 56), (64, 256, 2, 56), (256, 256, 2, 28), (256, 128, 4, 28),
        (128, 512, 2, 28), (512, 256, 2, 14), (256, 512, 4, 14), (512, 256, 4, 7),
        (512, 1024, 2, 7), (64, 128, 2, 112),
    ):  # fmt: skip
        yield conv(ci, co, (3, 3), size, groups=groups)
    yield conv(512, 512, (3, 3), 2)
    yield conv(512, 128, (3, 3), 4)
    yield conv(64, 32, (3, 3), 112)
    for ci, co, size in ((32, 64, 112), (256, 128, 112), (512, 64, 112), (64, 128, 224)):
        yield conv(ci, co, (1, 1), size)
    yield conv(64, 64, (3, 1), 224)
    yield conv(64, 192, (5, 5), 28)
    yield conv(192, 384, (3, 3), 14)
    yield conv(64, 64, (3, 3), 112)
    yield conv(16, 16, (3, 3), 32)
    for channels, size in ((16, 32), (32, 16), (64, 8)):
        for k in ((3, 3), (3, 1), (1, 3), (1, 1)):
            yield conv(channels, channels, k, size)
    yield conv(16, 96, (1, 1), 112, activation="Clip")
    yield conv(96, 96, (3, 3), 112, groups=96, stride=2, activation="Clip")
    yield conv(192, 192, (3, 3), 28, groups=192, activation="Clip")
    yield conv(32, 192, (1, 1), 28, activation="Clip")
    yield conv(64, 64, (3, 3), 28, activation="Clip")
    yield conv(64, 64, (3, 3), 56, activation="Sigmoid")
    yield conv(64, 64, (3, 3), 56, activation="HardSigmoid")
    yield conv(3, 32, (3, 3), 224, stride=2, activation="Clip")
    for ci, co, k, size, stride in (
        (3, 64, 7, 224, 2), (3, 32, 3, 224, 2), (3, 64, 3, 224, 1), (3, 64, 11, 224, 4),
        (1, 16, 3, 28, 1), (1, 32, 5, 28, 1), (3, 16, 3, 32, 1),
    ):  # fmt: skip
        yield conv(ci, co, (k, k), size, stride=stride)


def _unaligned(block: int) -> Iterator[Case]:
    for size, channels in ((56, 64), (28, 128), (14, 256), (7, 512)):
        odd = channels // 4 + 2 if block > 1 else channels // 4
        yield conv(odd, channels, (1, 1), size)
        yield conv(odd, channels, (3, 3), size)
        yield conv(odd * 2 + 2, channels, (1, 1), size)
        yield conv(odd * 2 + 2, channels, (3, 3), size)
        yield conv(odd, channels, (1, 3), size)
        yield conv(odd * 2 + 2, channels * 2, (1, 1), size)
        yield conv(odd, odd, (3, 3), size, stride=2)
        yield conv(odd, odd * 2, (3, 3), size)
        yield conv(odd * 2 + 2, odd * 2 + 2, (3, 3), size)
        yield conv(channels, channels, (3, 3), size, groups=channels // 8)
        yield conv(odd * 2, odd * 2, (3, 3), size, groups=2)
        yield conv(odd * 4, channels, (1, 1), size, groups=4)
        yield conv(channels // 2, channels, (3, 3), size, groups=channels // 2)
        yield conv(channels, channels // 2, (2, 2), size, stride=2, transposed=True)
        yield conv(channels // 2, channels // 4, (3, 3), size, stride=2, transposed=True)

    for wide, size in ((16, 32), (32, 16), (64, 8)):
        odd = wide + 2 if block > 1 else wide
        yield conv(odd, wide, (3, 3), size)
        yield conv(odd, wide, (1, 1), size)


def _products() -> Iterator[Case]:
    for inputs, outputs in (
        (512, 1000), (1280, 1000), (4096, 4096), (9216, 1024), (256, 4096), (4096, 256),
        (784, 304), (128, 64), (1024, 32), (32, 1024),
    ):  # fmt: skip
        yield product(1, inputs, outputs)
    for rows, inputs, outputs in (
        (196, 192, 768), (196, 768, 192), (64, 512, 512), (40, 120, 6625), (128, 64, 64),
        (8, 1024, 1024), (384, 64, 256), (50, 768, 2304),
    ):  # fmt: skip
        yield product(rows, inputs, outputs)
    yield batched(8, 64, 32, 64)
    yield batched(3, 196, 64, 196)
    yield batched(12, 128, 128, 64)


_BINARY = ("Add", "Mul", "Sub", "Div", "Pow")


def _memory() -> Iterator[Case]:
    for op in ("Add", "Relu", "MaxPool"):
        large = (1, 64, 224, 224)
        pool: dict[str, list[int]] = {"kernel_shape": [2, 2], "strides": [2, 2]}
        yield memory(
            op,
            *([large] * (2 if op in _BINARY else 1)),
            written=64 * (112 if op == "MaxPool" else 224) ** 2,
            **(pool if op == "MaxPool" else {}),
        )
    for c, n in ((64, 56), (256, 14), (32, 28), (64, 112)):
        shape = (1, c, n, n)
        for op in (
            "Add", "Mul", "Sub", "Div", "Relu", "Sigmoid", "Tanh", "Exp", "Erf", "HardSigmoid",
            "Sqrt", "Neg", "LeakyRelu", "Softplus", "Clip", "Pow",
        ):  # fmt: skip
            yield memory(op, *([shape] * (2 if op in _BINARY else 1)))
        half = c * ((n + 1) // 2) ** 2
        yield memory(
            "MaxPool", shape, written=half, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        )
        yield memory("AveragePool", shape, written=half, kernel_shape=[2, 2], strides=[2, 2])
        yield memory("GlobalAveragePool", shape, written=c)
        yield memory("ReduceMean", shape, written=c * n, axes=[3])
        yield memory("Softmax", shape, axis=-1)
        yield memory("Transpose", shape, perm=[0, 2, 3, 1])
        yield memory("Concat", shape, shape, written=2 * c * n * n, axis=1)
        yield memory("BatchNormalization", shape)
        reordered = (FEED_CHANNELS + c) * n * n
        yield Case(FusedKernel(REORDER, None, reordered, reordered), shapes=(shape,))
