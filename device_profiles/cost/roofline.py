"""The analytic tier: launch overhead, then whichever of arithmetic and traffic is slower."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .fused import FusedKernel, KernelClass

WINOGRAD = 2.25
"""F(2×2, 3×3) does 36 multiplications as 16: what it can gain over the peak rate at most."""


@dataclass(frozen=True)
class Calibration:
    """What a roofline was fitted on, and how far off it is on rows it did not see.

    Args:
        source: where the rows come from, and how the fit is reproduced.
        rows: number of measured rows.
        protocol: how rows were held out, e.g. "leave one architecture out".
        median_error, worst_error: of held-out rows, relative (0.08 is 8 %); None where no row
            could be held out.
    """

    source: str
    rows: int
    protocol: str
    median_error: float | None = None
    worst_error: float | None = None


@dataclass(frozen=True)
class Roofline:
    """Parameters of one device in one precision.

    t = launch + max(FLOPs · q / (P · k), bytes · d / B), with q = ⌈m / tile⌉ · tile / m of the
    output channels of a group; q = 1 for a depthwise convolution, which has no such tiles.

    Args:
        launch_us: microseconds a kernel costs before it computes.
        peak_gflops: P, GFLOP/s that a direct convolution reaches.
        bandwidth_gbs: B, 10⁹ bytes/s.
        element_bytes: bytes of an activation or weight.
        tile: output channels are computed in multiples of this.
        rates: k, by kernel class; where a class is not listed, see `rate`.
        traffic: d, by kernel class; 1 where it is not listed.
        classes_seen: classes that the fit saw; others are extrapolated.
    """

    launch_us: float
    peak_gflops: float
    bandwidth_gbs: float
    element_bytes: int
    tile: int = 1
    rates: Mapping[KernelClass, float] = field(default_factory=dict[KernelClass, float])
    traffic: Mapping[KernelClass, float] = field(default_factory=dict[KernelClass, float])
    classes_seen: frozenset[KernelClass] = frozenset()

    def rate(self, kind: KernelClass) -> float:
        """k of a class, with a physical default where none was fitted.

        A matrix product is a 1 × 1 convolution in all but name, so it runs at that rate;
        1 × k, transposed and depthwise ones compute as a direct convolution does, k = 1.
        """
        if kind in ("gemm", "gemv"):
            return self.rates.get(kind, self.rates.get("1x1", 1.0))
        return self.rates.get(kind, 1.0)

    def seconds(self, kernel: FusedKernel) -> float:
        """Predicted time of one launch."""
        kind = self.computed_as(kernel)
        rate = self.peak_gflops * 1e9 * self.rate(kind)
        size = kernel.elements * self.element_bytes * self.traffic.get(kind, 1.0)
        arithmetic = padded_flops(kernel, self.tile) / rate
        return self.launch_us * 1e-6 + max(arithmetic, size / (self.bandwidth_gbs * 1e9))

    def computed_as(self, kernel: FusedKernel) -> KernelClass:
        """The class whose rate a kernel runs at: its own, or that of one group of it.

        Every group of a grouped convolution is a convolution of its own, so 3 × 3 groups run
        as 3 × 3 does, unless grouped ones have a rate themselves.
        """
        if kernel.kind != "grouped" or kernel.linear is None or "grouped" in self.rates:
            return kernel.kind
        return replace(kernel, linear=replace(kernel.linear, groups=1)).kind


def padded_flops(kernel: FusedKernel, tile: int) -> float:
    """FLOPs with the output channels of a group rounded up to whole tiles: FLOPs · q."""
    if kernel.linear is None or kernel.kind == "depthwise":
        return float(kernel.flops)
    wide = kernel.linear.outputs
    return kernel.flops * (-(-wide // tile) * tile / wide)
