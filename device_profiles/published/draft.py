"""A network written down as the launches that TensorRT makes of it.

A convolution takes its normalisation, its ReLU and the other side of a residual connection
with it; a concatenation costs nothing, because producers write into the joined tensor; what
cannot be folded (a normalisation before a convolution, a hard-swish, a pooling, the products
of squeeze-and-excitation) is a launch of its own that only moves data.
"""

import math
from dataclasses import dataclass, field

from ..cost.fused import FusedKernel
from ..kernel import Kernel

Pair = int | tuple[int, int]


@dataclass(frozen=True)
class Feature:
    """The size of an activation.

    Args:
        channels, height, width: of one image.
    """

    channels: int
    height: int
    width: int

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Net:
    """A network for one image.

    Args:
        kernels: what is launched, in order.
        parameters: learned numbers, scale and shift of normalisations included, as
            torchvision counts them.
    """

    kernels: tuple[FusedKernel, ...]
    parameters: int

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and matrix products."""
        return sum(kernel.flops for kernel in self.kernels) // 2

    @property
    def weights(self) -> int:
        """Weights of convolutions and matrix products, without biases."""
        return sum(k.linear.weights for k in self.kernels if k.linear is not None)


@dataclass
class Draft:
    """A network being written down: every method appends a launch and gives its output."""

    kernels: list[FusedKernel] = field(default_factory=list[FusedKernel])
    parameters: int = 0

    def conv(
        self, x: Feature, outputs: int, kernel: Pair, stride: Pair = 1,
        pad: Pair | None = None, *, groups: int = 1, norm: bool = True, bias: bool = True,
        act: str = "Relu", residual: bool = False,
    ) -> Feature:  # fmt: skip
        """A convolution with what is fused into it; "same" padding unless told.

        Args:
            x: its input.
            outputs: channels written.
            kernel: height and width, or one number for both.
            stride: as kernel.
            pad: as kernel.
            groups: of channels.
            norm: whether a normalisation follows (and its scale and shift replace the bias).
            bias: whether there is one where nothing is normalised.
            act: activation inside, "" for none.
            residual: whether a tensor of the output's size is added inside.
        """
        k, s = _pair(kernel), _pair(stride)
        p = (k[0] // 2, k[1] // 2) if pad is None else _pair(pad)
        out = Feature(
            outputs,
            (x.height + 2 * p[0] - k[0]) // s[0] + 1,
            (x.width + 2 * p[1] - k[1]) // s[1] + 1,
        )
        linear = Kernel(
            "Conv", groups, outputs // groups, x.channels // groups, k,
            (1, x.height, x.width), (1, out.height, out.width),
        )  # fmt: skip
        read = x.elements + (out.elements if residual else 0)
        fused = (("Add",) if residual else ()) + ((act,) if act else ())
        self.kernels.append(FusedKernel("Conv", linear, read, out.elements, s, fused))
        self.parameters += linear.weights
        self.parameters += 2 * outputs if norm else outputs if bias else 0
        return out

    def linear(
        self, x: Feature, outputs: int, *, act: str = "", bias: bool = True, norm: bool = False
    ) -> Feature:
        """A fully connected layer on the flattened input."""
        product = Kernel("MatMul", 1, outputs, x.elements, (), (1,), (1,))
        fused = (act,) if act else ()
        self.kernels.append(FusedKernel("Gemm", product, x.elements, outputs, (), fused))
        self.parameters += product.weights + (outputs if bias else 0)
        self.parameters += 2 * outputs if norm else 0
        return Feature(outputs, 1, 1)

    def pool(
        self, x: Feature, kernel: int, stride: int, pad: int = 0, *, ceil: bool = False,
        op: str = "MaxPool",
    ) -> Feature:  # fmt: skip
        """A pooling of square windows."""

        def extent(size: int) -> int:
            steps = (size + 2 * pad - kernel) / stride
            count = (math.ceil(steps) if ceil else math.floor(steps)) + 1
            return count - (ceil and (count - 1) * stride >= size + pad)

        return self.moved(op, x, Feature(x.channels, extent(x.height), extent(x.width)))

    def adaptive_pool(self, x: Feature, side: int = 1) -> Feature:
        """The average over a grid of side × side windows; nothing where it is that already."""
        if (x.height, x.width) == (side, side):
            return x
        return self.moved("GlobalAveragePool", x, Feature(x.channels, side, side))

    def pointwise(self, x: Feature, op: str, *, norm: bool = False) -> Feature:
        """An element-wise launch; with `norm` it scales and shifts every channel."""
        self.parameters += 2 * x.channels if norm else 0
        return self.moved(op, x, x)

    def moved(self, op: str, x: Feature, out: Feature) -> Feature:
        """A launch that computes next to nothing."""
        self.kernels.append(FusedKernel(op, None, x.elements, out.elements))
        return out

    def done(self) -> Net:
        """The network as written so far."""
        return Net(tuple(self.kernels), self.parameters)


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
