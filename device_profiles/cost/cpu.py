"""The analytic tier of a CPU: time as a sum of what ONNX Runtime's kernels do, by code path.

Each path (blocked convolution, im2col, matrix times vector, …) has a few amounts that its
inner loops are made of: padded arithmetic, loads of inputs, accumulations into the output,
weight bytes from memory. Their unit times are fitted, non-negative, to microbenchmarks of the
machine itself, so that a path is a roofline whose ceilings add up instead of the larger one
counting: on one core, loads that miss the cache are not hidden behind arithmetic.

The paths and their loops are those of MLAS, ONNX Runtime's CPU library: convolutions in blocks
of 16 channels (AVX-512) or 8, four blocks of filters at a time.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import MeasureError
from .fused import FusedKernel
from .model import Prediction

FILTER_BLOCKS = 4
"""Blocks of filters that one pass over the input computes."""
POINTWISE_INPUTS = 128
"""Input channels that a 1 × 1 convolution adds up before it writes."""
NEAR = 1 << 18
"""Elements that a core's own cache holds beside everything else."""
SHARED = 1 << 21
"""Elements that the last cache holds for one core, its neighbours being busy."""
SEPARATE = {"Clip", "Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu"}
"""Activations that a convolution applies in a pass of their own; Relu is in its inner loop."""
FLOAT = 4
_LIKE: Mapping[str, str] = {
    "Cast": "Relu", "Elu": "Exp", "Expand": "Concat", "Gather": "Concat", "Gelu": "Erf",
    "GlobalMaxPool": "GlobalAveragePool", "HardSwish": "HardSigmoid",
    "InstanceNormalization": "Softmax", "LayerNormalization": "Softmax", "Log": "Exp",
    "LogSoftmax": "Softmax", "Mish": "Softplus", "PRelu": "LeakyRelu", "Pad": "Concat",
    "Reciprocal": "Div", "ReduceMax": "ReduceMean", "ReduceMin": "ReduceMean",
    "ReduceSum": "ReduceMean", "Resize": "Transpose", "Selu": "Exp", "Slice": "Concat",
    "Split": "Concat", "Tile": "Concat",
}  # fmt: skip
"""Operators whose loops are like a calibrated one's; they are extrapolated all the same."""
_TELLING = 4
"""Spread of work from which time has to grow with it."""
_BLUR = 0.5e-6
"""Seconds that a measured launch may be off by, however short it is."""
_LEAST = 0.05e-6
"""Seconds that no launch is below."""


@dataclass(frozen=True)
class Sample:
    """One measured launch.

    Args:
        kernel: what ran.
        seconds: for how long.
        resident: whether its weights were in the core's own cache.
    """

    kernel: FusedKernel
    seconds: float
    resident: bool = False


def path(kernel: FusedKernel, block: int) -> str:
    """The code path that a kernel takes.

    Args:
        kernel: what is launched.
        block: channels of a block of the fast layout; 1 where there is none.
    """
    linear = kernel.linear
    if linear is None:
        return f"memory:{kernel.op}"
    if linear.op == "MatMul":
        if linear.groups > 1:
            return "gemm-batched"
        return "gemv" if linear.positions == 1 else "gemm"
    if linear.op == "ConvTranspose":
        return "transposed"
    is_two_dimensional = len(linear.kernel) == 2
    if block > 1 and is_two_dimensional:
        if linear.groups == 1:
            if linear.inputs < block:
                return "stem"
            if linear.inputs % 4 == 0:
                return "pointwise" if max(linear.kernel) == 1 else "blocked"
        elif linear.inputs == linear.outputs == 1:
            return "depthwise"
        elif linear.inputs % block == 0 and linear.outputs % block == 0:
            return "blocked-grouped"
    if linear.groups > 1:
        return "unaligned-depthwise" if linear.inputs == 1 else "unaligned-grouped"
    return "unaligned-pointwise" if max(linear.kernel) == 1 else "unaligned"


def is_blocked(kernel: FusedKernel, block: int) -> bool:
    """Whether a convolution runs in the blocked layout."""
    return path(kernel, block) in (
        "stem", "pointwise", "blocked", "depthwise", "blocked-grouped"
    )  # fmt: skip


def amounts(kernel: FusedKernel, block: int) -> tuple[float, ...]:
    """What a kernel does, in the order of the unit times of its path.

    (launches, multiply-adds, passes · inputs, accumulations, weight bytes, elements moved,
    elements read and written in all passes beyond what the near cache holds, elements beyond
    what the last one holds, elements of an activation that is a pass of its own)
    """
    linear = kernel.linear
    if linear is None:
        moved = float(kernel.read + kernel.written)
        return (1.0, 0.0, 0.0, 0.0, 0.0, moved, *_beyond(moved, moved), 0.0)
    extra = float(kernel.written) if set(kernel.fused) & SEPARATE else 0.0
    which = path(kernel, block)
    groups, wide, deep = linear.groups, linear.outputs, linear.inputs
    positions = float(linear.positions or 1)
    area = _inside(kernel)
    if which == "depthwise":
        channels = _up(groups, block)
        macs = channels * area * positions
        weight_bytes = float(FLOAT * linear.weights)
        read = float(kernel.read)
        written, far = channels * positions, _beyond(read, read + kernel.written)
        return (1.0, macs, 0.0, written, weight_bytes, read, *far, extra)
    if is_blocked(kernel, block):
        wide = _up(wide, block)
        deep = deep if which == "stem" else _up(deep, block)
        step = POINTWISE_INPUTS if which == "pointwise" else block
    else:
        step = max(deep * math.prod(linear.kernel), 1)
    passes = math.ceil(wide / (block * FILTER_BLOCKS))
    macs = groups * wide * deep * area * positions
    inputs = groups * passes * deep * area * positions
    written = groups * wide * positions * math.ceil(deep / step)
    if which.startswith("unaligned") and max(linear.kernel) > 1:
        inputs = groups * deep * area * positions  # the im2col buffer
    moved = float(kernel.read + kernel.written)
    weight_bytes = float(FLOAT * linear.weights)
    # a pass over 1 × 1 positions ends before the next one begins, rows of others stay near
    traffic = moved
    if linear.op == "Conv":
        traffic = inputs / area + (written if which == "pointwise" else kernel.written)
    return (1.0, macs, inputs, written, weight_bytes, moved, *_beyond(traffic, moved), extra)


Units = Mapping[str, tuple[float, ...]]
"""Seconds of each of `amounts`, by path."""


@dataclass(frozen=True)
class CpuModel:
    """Fitted unit times of a machine.

    Args:
        block: channels of a block of the fast layout.
        streamed: unit times where weights come from memory, as in a large net.
        resident: unit times where the whole net stays in the core's own cache.
        share: how far this net is from resident, 0, to streamed, 1; see `for_weights`.
    """

    block: int
    streamed: Units
    resident: Units
    share: float = 1.0

    def for_weights(self, weight_bytes: int, own: int, last: int) -> "CpuModel":
        """The model for a net whose weights take that many bytes.

        Args:
            weight_bytes: of all layers.
            own: bytes of a core's own cache: up to there weights stay in it.
            last: bytes of the last cache: from there all of them come from memory.
        """
        share = min(max((weight_bytes - own) / max(last - own, own, 1), 0.0), 1.0)
        return replace(self, share=share)

    def predict(self, kernel: FusedKernel) -> Prediction:
        """The time of one launch; a path that was not measured takes the nearest one's.

        Raises:
            MeasureError: nothing like it was measured.
        """
        which = path(kernel, self.block)
        found = next((p for p in (which, *_nearest(which)) if p in self.streamed), None)
        if found is None:
            raise MeasureError(
                f"nothing is calibrated for {which}", where=kernel.name, hint="calibrate again"
            )
        amount = amounts(kernel, self.block)
        times = [
            sum(a * u for a, u in zip(amount, units[found], strict=True))
            for units in (self.resident, self.streamed)
        ]
        seconds = (1 - self.share) * times[0] + self.share * times[1]
        name = which.removeprefix("memory:")
        return Prediction(max(seconds, _LEAST), "analytic", () if found == which else (name,))


def fitted(samples: Sequence[Sample], block: int) -> CpuModel:
    """Unit times from measured launches: non-negative least squares of relative errors.

    Args:
        samples: streamed and resident ones of every path.
        block: channels of a block of the fast layout.

    Raises:
        MeasureError: a path came out physically impossible, with no cost for its work.
    """
    streamed = _units([s for s in samples if not s.resident], block)
    resident = _units([s for s in samples if s.resident], block)
    return CpuModel(block, streamed, {**streamed, **resident})


def _units(samples: Sequence[Sample], block: int) -> dict[str, tuple[float, ...]]:
    from scipy.optimize import nnls

    by_path: dict[str, list[Sample]] = {}
    for sample in samples:
        by_path.setdefault(path(sample.kernel, block), []).append(sample)
    units: dict[str, tuple[float, ...]] = {}
    for which, found in sorted(by_path.items()):
        A = np.array([amounts(s.kernel, block) for s in found])  # noqa: N806
        t = np.array([s.seconds for s in found])
        scale = np.where(A.max(axis=0) > 0, A.max(axis=0), 1.0)
        solution, _ = nnls((A / scale) / (t + _BLUR)[:, None], t / (t + _BLUR))
        unit = solution / scale
        work = A[:, 1:].sum(axis=1)
        if not unit[1:].any() and work.max() > _TELLING * work.min():
            raise MeasureError(
                f"the time of {which} does not grow with its work",
                hint="calibrate again on an idle machine",
            )
        units[which] = tuple(float(u) for u in unit)
    return units


def errors(model: CpuModel, samples: Iterable[Sample]) -> npt.NDArray[np.float64]:
    """Relative errors of the model on measured launches."""
    shares = {True: replace(model, share=0.0), False: replace(model, share=1.0)}
    return np.array(
        [shares[s.resident].predict(s.kernel).seconds / s.seconds - 1 for s in samples]
    )


def _beyond(traffic: float, moved: float) -> tuple[float, float]:
    """Elements that leave the near cache, and elements that leave the last one."""
    return max(traffic - NEAR, 0.0), max(moved - SHARED, 0.0)


def _inside(kernel: FusedKernel) -> float:
    """Kernel elements that fall on the input, on average: padding costs nothing.

    Padding is taken to be what the sizes show.
    """
    linear = kernel.linear
    assert linear is not None, "only linear kernels have an area"
    if linear.in_extent is None or linear.out_extent is None or linear.op != "Conv":
        return float(math.prod(linear.kernel))
    area = 1.0
    strides = kernel.strides or (1,) * len(linear.kernel)
    for k, s, n, m in zip(
        linear.kernel, strides, linear.in_extent[1:], linear.out_extent[1:], strict=True
    ):
        before = max((m - 1) * s + k - n, 0) // 2
        hits = sum(min(o * s - before + k, n) - max(o * s - before, 0) for o in range(m))
        area *= max(hits, 1) / m if m else k
    return area


def _nearest(which: str) -> tuple[str, ...]:
    """Paths that stand in for one that was not measured, best first."""
    if which.startswith("memory:"):
        op = which.removeprefix("memory:")
        return (f"memory:{_LIKE.get(op, 'Add')}", "memory:Add")
    return ("unaligned", "gemm", "blocked")


def _up(count: int, step: int) -> int:
    return -(-count // step) * step
