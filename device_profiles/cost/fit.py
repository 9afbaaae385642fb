"""Fitting a roofline to times of whole networks.

argmin over θ of Σ (log t̂(θ) − log t)² / σ² + Σ (log θ − log θ₀)² / τ², inside what physics
allows. θ₀ are values that a data sheet suggests; τ = log 2 says that they are right to a
factor of two, σ = 0.1 that the model is right to ten percent. Both are the same everywhere.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from ..errors import MeasureError
from .fused import FusedKernel, KernelClass
from .roofline import WINOGRAD, Roofline, padded_flops

Vector = npt.NDArray[np.float64]
Parameter = Literal[
    "launch_us", "bandwidth_gbs", "peak_gflops", "rates.3x3", "rates.1x1", "traffic.depthwise"
]
"""What a fit may move; moving `peak_gflops` alone moves all classes with it."""
ALL: tuple[Parameter, ...] = get_args(Parameter)
ANCHORED: tuple[Parameter, ...] = ("launch_us", "bandwidth_gbs", "peak_gflops")

MODEL_SPREAD = 0.1
PRIOR_SPREAD = math.log(2.0)
HARNESS_MS = 1.0
"""What a harness in Python is thought to add to every inference, before rows say better."""
LAUNCH_US = (0.1, 1000.0)
_CLASSES: tuple[KernelClass, ...] = get_args(KernelClass)
_STARTS = (0.0, 0.3, -0.3)


@dataclass(frozen=True)
class Limits:
    """What a device's data sheet allows.

    Args:
        peak_gflops: of its arithmetic, two a multiply-add.
        bandwidth_gbs: of its memory, 10⁹ bytes/s.
    """

    peak_gflops: float
    bandwidth_gbs: float


@dataclass(frozen=True)
class Sample:
    """A network's measured time.

    Args:
        name: for people.
        kernels: what it launches.
        seconds: measured.
        group: rows of one group are held out together: an architecture.
        harness: whoever measured adds a constant of their own to every row; "" adds none.
    """

    name: str
    kernels: tuple[FusedKernel, ...]
    seconds: float
    group: str
    harness: str = ""

    @property
    def flops(self) -> int:
        """Of the whole network."""
        return sum(kernel.flops for kernel in self.kernels)


@dataclass(frozen=True)
class Fit:
    """A fitted roofline.

    Args:
        roofline: of the device alone.
        harness_ms: constant that every harness adds to a measured time.
        at_limit: parameters that physics holds.
    """

    roofline: Roofline
    harness_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    at_limit: tuple[str, ...] = ()

    def seconds(self, sample: Sample) -> float:
        """What the harness of a sample would measure."""
        added = self.harness_ms.get(sample.harness, 0.0) * 1e-3
        return sum(self.roofline.seconds(kernel) for kernel in sample.kernels) + added

    def error(self, sample: Sample) -> float:
        """Relative error of the predicted time, negative where it is too low."""
        return self.seconds(sample) / sample.seconds - 1.0


def classes_of(samples: Iterable[Sample]) -> frozenset[KernelClass]:
    """Kernel classes that occur in samples."""
    return frozenset(kernel.kind for sample in samples for kernel in sample.kernels)


def least_seconds(flops: float, limits: Limits) -> float:
    """The least time at these limits: the peak, with Winograd's gain on everything."""
    return flops / (WINOGRAD * limits.peak_gflops * 1e9)


def refuse_impossible(roofline: Roofline, limits: Limits, where: str = "") -> None:
    """Holds a roofline against the data sheet.

    Raises:
        MeasureError: memory faster than its theoretical bandwidth, or a class faster than the
            theoretical peak (2.25 times that for 3 × 3, by Winograd).
    """
    slack = 1 + 1e-9
    if roofline.bandwidth_gbs > limits.bandwidth_gbs * slack:
        raise MeasureError(
            f"{roofline.bandwidth_gbs:.1f} GB/s is physically impossible: the memory's"
            f" theoretical rate is {limits.bandwidth_gbs:.1f}",
            where=where,
            hint="look for rows that are too fast",
        )
    for kind in _CLASSES:
        rate = roofline.peak_gflops * roofline.rate(kind)
        most = limits.peak_gflops * (WINOGRAD if kind == "3x3" else 1.0)
        if rate > most * slack:
            raise MeasureError(
                f"{rate:.0f} GFLOP/s of {kind} kernels is physically impossible: at most"
                f" {most:.0f}",
                where=where,
                hint="look for rows that are too fast",
            )


def fitted(
    samples: Sequence[Sample], prior: Roofline, limits: Limits,
    free: Sequence[Parameter] = ALL, harness_ms: Mapping[str, float] | None = None,
) -> Fit:  # fmt: skip
    """The most probable roofline given measured rows; deterministic.

    Args:
        samples: measured rows.
        prior: θ₀, and the shape that stays: tile, bytes, and rates that are not free.
        limits: bounds of the fit.
        free: parameters that move.
        harness_ms: constants of harnesses that are known; those of others are fitted too.

    Raises:
        MeasureError: no rows, or a row or prior faster than the data sheet allows.
    """
    from scipy.optimize import least_squares

    if not samples:
        raise MeasureError("there are no rows to fit", hint="give at least one")
    refuse_impossible(prior, limits, "prior")
    for sample in samples:
        if sample.seconds < (least := least_seconds(sample.flops, limits)):
            raise MeasureError(
                f"{sample.seconds * 1e3:g} ms is physically impossible: {WINOGRAD} times the"
                f" peak does its {sample.flops / 1e9:.1f} GFLOP in {least * 1e3:.1f} ms",
                where=sample.name,
                hint="leave the row out",
            )
    known = dict(harness_ms or {})
    open_harnesses = sorted({s.harness for s in samples if s.harness} - known.keys())
    counted = [_Counted.of(sample, prior) for sample in samples]
    measured = np.log([sample.seconds for sample in samples])
    low, start, high = _box(prior, limits, free, len(open_harnesses))

    def residuals(x: Vector) -> Vector:
        fit = _unpack(x, prior, free, known, open_harnesses)
        predicted = np.log([c.seconds(fit) for c in counted])
        away = (x - start) / PRIOR_SPREAD
        return np.concatenate([(predicted - measured) / MODEL_SPREAD, away])

    small = np.full(len(start), 1e-4)
    best: Vector | None = None
    least = math.inf
    for step in _STARTS:
        x0 = np.clip(start + step, low + 1e-6, high - 1e-6)
        found = least_squares(residuals, x0, bounds=(low, high), diff_step=small, xtol=1e-10)
        if found.cost < least:
            best, least = cast(Vector, found.x), float(found.cost)
    assert best is not None, "least squares has a solution in a box"
    fit = _unpack(best, prior, free, known, open_harnesses)
    held = tuple(
        name
        for name, x, most in zip(free, best, high, strict=False)
        if most - x < 1e-3 and name != "launch_us"
    )
    seen = replace(fit.roofline, classes_seen=classes_of(samples))
    refuse_impossible(seen, limits, "fit")
    return Fit(seen, fit.harness_ms, held)


def leave_one_out(
    samples: Sequence[Sample], prior: Roofline, limits: Limits, free: Sequence[Parameter] = ALL
) -> list[float]:
    """Relative errors of rows whose whole group was left out of the fit, in their order."""
    errors = [0.0] * len(samples)
    for group in sorted({sample.group for sample in samples}):
        fit = fitted([s for s in samples if s.group != group], prior, limits, free)
        for i, sample in enumerate(samples):
            if sample.group == group:
                errors[i] = fit.error(sample)
    return errors


def flops_only(samples: Sequence[Sample]) -> list[float]:
    """Leave-one-group-out errors of t = a · FLOPs + b: what a count of FLOPs can predict.

    a and b minimise the squared relative error.
    """
    errors = [0.0] * len(samples)
    for group in sorted({sample.group for sample in samples}):
        rest = [s for s in samples if s.group != group]
        t = np.array([s.seconds for s in rest])
        relative = np.array([[s.flops, 1.0] for s in rest]) / t[:, None]
        (a, b), *_ = np.linalg.lstsq(relative, np.ones(len(rest)), rcond=None)
        for i, sample in enumerate(samples):
            if sample.group == group:
                errors[i] = float(a * sample.flops + b) / sample.seconds - 1.0
    return errors


def scaled(shape: Roofline, own: Limits, other: Limits) -> Roofline:
    """A roofline carried to another device by the ratios of data-sheet rates.

    The launch overhead stays, and the result has seen no class: all of it is extrapolated.
    """
    return replace(
        shape,
        peak_gflops=shape.peak_gflops * other.peak_gflops / own.peak_gflops,
        bandwidth_gbs=shape.bandwidth_gbs * other.bandwidth_gbs / own.bandwidth_gbs,
        classes_seen=frozenset[KernelClass](),
    )


def refit_anchors(
    shape: Roofline, own: Limits, anchors: Sequence[Sample], limits: Limits,
    harness_ms: Mapping[str, float] | None = None,
) -> Fit:  # fmt: skip
    """A roofline of another device, or another precision, from a few measured nets.

    The shape stays (rates and traffic of the classes, tile); launch, P and B move.

    Args:
        shape: fitted on many rows of a device whose limits are `own`.
        own: see shape.
        anchors: rows of the other device; two suffice.
        limits: of the other device.
        harness_ms: constants of harnesses, from the fit of the shape.
    """
    start = scaled(shape, own, limits)
    fit = fitted(anchors, start, limits, ANCHORED, harness_ms)
    seen = shape.classes_seen & classes_of(anchors)
    return replace(fit, roofline=replace(fit.roofline, classes_seen=seen))


@dataclass(frozen=True)
class _Counted:
    """A sample as arrays, one entry a kernel: the same sum as `Fit.seconds`, quickly."""

    flops: Vector
    bytes: Vector
    kind: npt.NDArray[np.intp]
    harness: str

    @classmethod
    def of(cls, sample: Sample, shape: Roofline) -> "_Counted":
        kernels = sample.kernels
        return cls(
            np.array([padded_flops(k, shape.tile) for k in kernels]),
            np.array([float(k.elements * shape.element_bytes) for k in kernels]),
            np.array([_CLASSES.index(shape.computed_as(k)) for k in kernels]),
            sample.harness,
        )

    def seconds(self, fit: Fit) -> float:
        roof = fit.roofline
        rate = np.array([roof.peak_gflops * 1e9 * roof.rate(k) for k in _CLASSES])
        wide = np.array(
            [roof.bandwidth_gbs * 1e9 / roof.traffic.get(k, 1.0) for k in _CLASSES]
        )
        arithmetic, moved = self.flops / rate[self.kind], self.bytes / wide[self.kind]
        busy = float(np.maximum(arithmetic, moved).sum())
        added = fit.harness_ms.get(self.harness, 0.0) * 1e-3
        return roof.launch_us * 1e-6 * len(self.flops) + busy + added


def _box(
    prior: Roofline, limits: Limits, free: Sequence[Parameter], harnesses: int
) -> tuple[Vector, Vector, Vector]:
    """Logarithms of the least, prior and greatest values of what moves."""
    base, peak = prior.peak_gflops, limits.peak_gflops
    kept = [
        (WINOGRAD if kind == "3x3" else 1.0) * peak / prior.rate(kind)
        for kind in _CLASSES
        if f"rates.{kind}" not in free and not (kind in _PRODUCTS and "rates.1x1" in free)
    ]
    rows: dict[Parameter, tuple[float, float, float]] = {
        "launch_us": (LAUNCH_US[0], prior.launch_us, LAUNCH_US[1]),
        "bandwidth_gbs": (
            0.01 * limits.bandwidth_gbs,
            prior.bandwidth_gbs,
            limits.bandwidth_gbs,
        ),
        "peak_gflops": (0.01 * peak, base, min([peak, *kept])),
        "rates.3x3": (0.01 * peak, base * prior.rate("3x3"), WINOGRAD * peak),
        "rates.1x1": (0.01 * peak, base * prior.rate("1x1"), peak),
        "traffic.depthwise": (1.0, prior.traffic.get("depthwise", 1.0), 100.0),
    }
    chosen = [rows[name] for name in free] + [(0.01, HARNESS_MS, 100.0)] * harnesses
    low, start, high = np.log(np.array(chosen)).T
    return low, start, high


_PRODUCTS = ("gemm", "gemv")


def _unpack(
    x: Vector, prior: Roofline, free: Sequence[Parameter], known: Mapping[str, float],
    harnesses: Sequence[str],
) -> Fit:  # fmt: skip
    """What a vector of logarithms stands for."""
    at = dict(zip(free, np.exp(x), strict=False))
    base = float(at.get("peak_gflops", prior.peak_gflops))
    rates, traffic = dict(prior.rates), dict(prior.traffic)
    if "rates.3x3" in at:
        rates["3x3"] = float(at["rates.3x3"]) / base
    if "rates.1x1" in at:
        rates["1x1"] = float(at["rates.1x1"]) / base
    if "traffic.depthwise" in at:
        traffic["depthwise"] = float(at["traffic.depthwise"])
    roofline = replace(
        prior,
        launch_us=float(at.get("launch_us", prior.launch_us)),
        peak_gflops=base,
        bandwidth_gbs=float(at.get("bandwidth_gbs", prior.bandwidth_gbs)),
        rates=rates,
        traffic=traffic,
    )
    extra = np.exp(x[len(free) :])
    added = {name: float(ms) for name, ms in zip(harnesses, extra, strict=True)}
    return Fit(roofline, {**known, **added})
