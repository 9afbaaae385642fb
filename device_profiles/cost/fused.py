"""What a runtime launches at once: one linear kernel with what is fused into it, or none."""

from dataclasses import dataclass
from typing import Literal

from ..kernel import Kernel

KernelClass = Literal[
    "direct", "3x3", "1x1", "1xk", "depthwise", "grouped", "transposed", "gemm", "gemv",
    "memory",
]  # fmt: skip
"""Kinds of kernel that run at rates of their own.

`3x3` is stride 1 (Winograd), `direct` any other dense convolution, `1xk` has a kernel of more
than one along one axis only, `gemm` a product of many rows, `gemv` of one; `memory` computes
next to nothing: pooling, element-wise, copies.
"""


@dataclass(frozen=True)
class FusedKernel:
    """One launch on the device.

    Args:
        op: operator that gives it its name, e.g. "Conv", "MatMul", "MaxPool", "Add".
        linear: its convolution or matrix product; None for a memory kernel.
        read: activation elements read, of all inputs together.
        written: activation elements written.
        strides: of the convolution; () means 1 everywhere.
        fused: operators that run inside it for free, e.g. ("Add", "Relu").
        name: node that it stands for.
    """

    op: str
    linear: Kernel | None
    read: int
    written: int
    strides: tuple[int, ...] = ()
    fused: tuple[str, ...] = ()
    name: str = ""

    @property
    def flops(self) -> int:
        """Two a multiply-add; 0 for a memory kernel or where positions are unknown."""
        return 0 if self.linear is None else 2 * (self.linear.macs or 0)

    @property
    def elements(self) -> int:
        """Numbers moved: activations read and written, and weights."""
        return self.read + self.written + (self.linear.weights if self.linear else 0)

    @property
    def kind(self) -> KernelClass:
        """Its class, by structure alone.

        Example:
            >>> conv = Kernel("Conv", 1, 64, 64, (3, 3), (1, 56, 56), (1, 56, 56))
            >>> FusedKernel("Conv", conv, 200704, 200704).kind
            '3x3'
        """
        linear = self.linear
        if linear is None:
            return "memory"
        if linear.op == "MatMul":
            return "gemv" if linear.positions == 1 else "gemm"
        if linear.groups > 1:
            return "depthwise" if linear.inputs == 1 and linear.outputs == 1 else "grouped"
        if linear.op == "ConvTranspose":
            return "transposed"
        long_axes = [size for size in linear.kernel if size > 1]
        if not long_axes:
            return "1x1"
        if len(long_axes) == 1:
            return "1xk"
        is_dense = not self.strides or all(step == 1 for step in self.strides)
        return "3x3" if is_dense and set(linear.kernel) == {3} else "direct"
