"""The measured tiers: exact look-up of a kernel, and interpolation between its neighbours."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .fused import FusedKernel
from .model import CostModel, Prediction

Key = tuple[object, ...]
"""Everything about a kernel that its time depends on."""


def key_of(kernel: FusedKernel) -> Key:
    """What tells one kernel from another: structure, sizes, and what is fused into it."""
    linear = kernel.linear
    if linear is None:
        return (kernel.op, kernel.read, kernel.written)
    return (linear.groups, linear.outputs, linear.inputs, *_layer(kernel))


def _layer(kernel: FusedKernel) -> Key:
    linear = kernel.linear
    assert linear is not None, "memory kernels have no channels"
    strides = kernel.strides or (1,) * len(linear.kernel)
    return (
        linear.op,
        linear.kernel,
        strides,
        linear.in_extent,
        linear.out_extent,
        kernel.fused,
    )


@dataclass(frozen=True)
class Measured:
    """Measured kernels first, another model for the rest.

    A layer's time is piecewise linear in its outputs, and in its inputs, on the grid that was
    measured; outside of it nothing is said here.

    Args:
        exact: seconds by key.
        lines: measured (channels, seconds) of layers that differ in one channel count alone,
            in increasing order.
        rest: what answers for everything else.
    """

    exact: Mapping[Key, float]
    lines: Mapping[Key, tuple[tuple[int, float], ...]]
    rest: CostModel

    def predict(self, kernel: FusedKernel) -> Prediction:
        """The time of one launch, from the best tier that knows it."""
        known = self.exact.get(key_of(kernel))
        if known is not None:
            return Prediction(known, "lookup")
        if kernel.linear is not None:
            for key, channels in _lines_through(kernel):
                seconds = _between(self.lines.get(key, ()), channels)
                if seconds is not None:
                    return Prediction(seconds, "interpolated")
        return self.rest.predict(kernel)


def measured(rows: Iterable[tuple[FusedKernel, float]], rest: CostModel) -> Measured:
    """The table of measured kernels before `rest`; of doubles the fastest counts.

    Args:
        rows: kernels and their seconds.
        rest: the model for what was not measured.
    """
    exact: dict[Key, float] = {}
    lines: dict[Key, dict[int, float]] = defaultdict(dict)
    for kernel, seconds in rows:
        key = key_of(kernel)
        exact[key] = min(seconds, exact.get(key, seconds))
        if kernel.linear is not None:
            for line, channels in _lines_through(kernel):
                lines[line][channels] = exact[key]
    ordered = {key: tuple(sorted(points.items())) for key, points in lines.items()}
    return Measured(exact, {k: line for k, line in ordered.items() if len(line) > 1}, rest)


def _lines_through(kernel: FusedKernel) -> tuple[tuple[Key, int], tuple[Key, int]]:
    """The two lines that a kernel lies on: the same layer but for outputs, or for inputs."""
    linear = kernel.linear
    assert linear is not None, "memory kernels have no channels"
    layer = _layer(kernel)
    return (
        (("outputs", linear.groups, linear.inputs, *layer), linear.outputs),
        (("inputs", linear.groups, linear.outputs, *layer), linear.inputs),
    )


def _between(line: tuple[tuple[int, float], ...], channels: int) -> float | None:
    at = bisect_left(line, (channels, 0.0))
    if not 0 < at < len(line):
        return None
    (low, fast), (high, slow) = line[at - 1], line[at]
    return fast + (slow - fast) * (channels - low) / (high - low)
