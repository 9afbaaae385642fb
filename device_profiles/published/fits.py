"""The shipped cost parameters of boards, made again from the published rows.

A Jetson Nano has 26 rows in fp16, which fit every parameter. Its fp32 and the other Jetsons
have a few rows each, which refit launch, P and B while the Nano's shape stays. A board without
rows takes a sibling's roofline by the ratios of data-sheet rates, and nothing of it counts as
calibrated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

from ..cost.fit import (
    Fit,
    Limits,
    Sample,
    fitted,
    flops_only,
    leave_one_out,
    refit_anchors,
    scaled,
)
from ..cost.fused import KernelClass
from ..cost.roofline import Calibration, Roofline
from ..errors import UsageError
from .rows import Row, possible, read_rows

NANO = "jetson-nano"
MEASURED_ON: Mapping[str, str] = {
    NANO: NANO,
    "jetson-nano-jp44": NANO,
    **{
        name: name
        for name in (
            "jetson-tx2", "jetson-xavier-nx", "jetson-agx-xavier", "jetson-orin-nano",
            "jetson-agx-orin",
        )
    },
}  # fmt: skip
"""Profile to the board whose rows calibrate it."""
SCALED_FROM: Mapping[str, str] = {
    "jetson-orin-nano-jp6": "jetson-orin-nano",
    "jetson-orin-nx": "jetson-orin-nano",
    "jetson-orin-nx-jp6": "jetson-orin-nano",
    "jetson-agx-orin-jp6": "jetson-agx-orin",
}
"""Profile without rows of its own to the sibling that it is scaled from."""
TILE = 32
DIGITS = 4
LimitsOf = Callable[[str, str], Limits]
"""Limits of a profile in a precision."""


@dataclass(frozen=True)
class Line:
    """One row held against the model.

    Args:
        name: of the row.
        role: "left out" with its architecture, "fitted" (an anchor), or "predicted".
        measured_ms, predicted_ms: with what the harness adds.
        flops_only: error of a · FLOPs + b with the architecture left out; None where not run.
    """

    name: str
    role: str
    measured_ms: float
    predicted_ms: float
    flops_only: float | None = None

    @property
    def error(self) -> float:
        """Relative, negative where the prediction is too low."""
        return self.predicted_ms / self.measured_ms - 1.0


@dataclass(frozen=True)
class Calibrated:
    """A roofline as shipped, with the rows that speak for and against it.

    Args:
        roofline: rounded to `DIGITS` significant digits.
        calibration: for the profile.
        lines: of the table.
        harness_ms: what harnesses add to their rows; no part of the device.
        at_limit: parameters that the data sheet held.
        refused: rows that cannot be, with the reason.
    """

    roofline: Roofline
    calibration: Calibration
    lines: tuple[Line, ...] = ()
    harness_ms: Mapping[str, float] | None = None
    at_limit: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


def known() -> list[str]:
    """Profiles whose cost parameters come from published rows, sorted."""
    return sorted({*MEASURED_ON, *SCALED_FROM})


def calibrated(name: str, limits_of: LimitsOf) -> dict[str, Calibrated]:
    """The calibrations of a profile, by precision.

    Args:
        name: of a profile.
        limits_of: what the data sheets of the boards allow.

    Raises:
        UsageError: no published rows stand behind that profile.
    """
    if name in SCALED_FROM:
        return {"fp16": _from_sibling(name, limits_of)}
    board = MEASURED_ON.get(name)
    if board is None:
        raise UsageError(
            f"{name!r} has no cost parameters from published rows",
            hint=f"known: {', '.join(known())}",
        )
    nano = limits_of(NANO, "fp16")
    if board != NANO:
        return {"fp16": _anchored(board, "fp16", limits_of(name, "fp16"), nano)}
    single = _anchored(NANO, "fp32", limits_of(NANO, "fp32"), nano)
    return {"fp16": _whole(nano), "fp32": single}


def prior(limits: Limits) -> Roofline:
    """What data sheets suggest of an fp16 TensorRT engine on a small GPU, before any row.

    Convolutions reach 0.6 of the peak, 3 × 3 ones half as much again by Winograd; memory half
    its rate; a launch 30 µs. A depthwise convolution loads an input and a weight a
    multiply-add, and a Maxwell multiprocessor loads 32 numbers a clock: 29 GFLOP/s, which for
    3 × 3 and 5 × 5 windows is 2.0 and 5.4 times the time of its bytes at half the memory's
    rate; 3.5 lies between.
    """
    return Roofline(
        launch_us=30.0,
        peak_gflops=0.6 * limits.peak_gflops,
        bandwidth_gbs=0.5 * limits.bandwidth_gbs,
        element_bytes=2,
        tile=TILE,
        rates={"1x1": 1.0, "3x3": 1.5},
        traffic={"depthwise": 3.5},
    )


@cache
def nano_fit(limits: Limits) -> Fit:
    """The Nano's fp16 fit: the shape that all others keep."""
    rows, _ = possible(_rows(NANO, "fp16"), limits)
    return fitted([row.sample for row in rows], prior(limits), limits)


def _whole(limits: Limits) -> Calibrated:
    """The Nano's fp16: every parameter, architectures left out in turn."""
    rows, refused = possible(_rows(NANO, "fp16"), limits)
    samples = [row.sample for row in rows]
    fit = nano_fit(limits)
    errors = leave_one_out(samples, prior(limits), limits)
    baseline = flops_only(samples)
    lines = tuple(
        Line(s.name, "left out", 1e3 * s.seconds, 1e3 * s.seconds * (1 + e), b)
        for s, e, b in zip(samples, errors, baseline, strict=True)
    )
    groups = len({sample.group for sample in samples})
    protocol = f"leave one architecture out ({groups} architectures)"
    return _result(fit, rows, lines, protocol, refused)


def _anchored(board: str, precision: str, limits: Limits, nano: Limits) -> Calibrated:
    """A board or precision of few rows: the Nano's shape, anchors fitted, others predicted."""
    shape = nano_fit(nano)
    rows, refused = possible(_rows(board, precision), limits)
    anchors = [row for row in rows if row.role == "fit"]
    size = 4 if precision == "fp32" else 2
    start = replace(shape.roofline, element_bytes=size)
    samples = [row.sample for row in anchors]
    fit = refit_anchors(start, nano, samples, limits, shape.harness_ms)
    lines = tuple(_line(fit, row.sample, row.role) for row in rows)
    names = ", ".join(row.net for row in anchors)
    protocol = f"launch, P and B refitted on {names}; the other rows predicted"
    return _result(fit, anchors, lines, protocol, refused)


def _from_sibling(name: str, limits_of: LimitsOf) -> Calibrated:
    """A board without rows, by ratios of data-sheet rates."""
    sibling = SCALED_FROM[name]
    own, other = limits_of(sibling, "fp16"), limits_of(name, "fp16")
    first = calibrated(sibling, limits_of)["fp16"].roofline
    roofline = scaled(first, own, other)
    source = (
        f"NOT CALIBRATED: no row was measured on it; the roofline of {sibling} with P times"
        f" {other.peak_gflops / own.peak_gflops:.3g} and B times"
        f" {other.bandwidth_gbs / own.bandwidth_gbs:.3g}, the ratios of data-sheet rates; see"
        " docs/cost-model.md for how far off that rule was between boards that have rows"
    )
    return Calibrated(
        rounded(roofline), Calibration(source, 0, "none: scaled from a sibling, unmeasured")
    )


def _line(fit: Fit, sample: Sample, role: str) -> Line:
    told = "fitted" if role == "fit" else "predicted"
    return Line(sample.name, told, 1e3 * sample.seconds, 1e3 * fit.seconds(sample))


def _result(
    fit: Fit, fitted_rows: Sequence[Row], lines: tuple[Line, ...], protocol: str,
    refused: Sequence[tuple[Row, str]],
) -> Calibrated:  # fmt: skip
    held_out = [abs(line.error) for line in lines if line.role != "fitted"]
    harness_ms = {
        name: ms
        for name, ms in fit.harness_ms.items()
        if any(row.sample.harness == name for row in fitted_rows)
    }
    where = "; ".join(sorted({row.source for row in fitted_rows}))
    calibration = Calibration(
        f"{where}; `nncc targets fit` makes it again from device_profiles/published/rows.csv",
        len(fitted_rows),
        protocol,
        round(median(held_out), DIGITS) if held_out else None,
        round(max(held_out), DIGITS) if held_out else None,
    )
    return Calibrated(
        rounded(fit.roofline), calibration, lines, harness_ms, fit.at_limit,
        tuple((f"{row.net} {row.side} ({row.harness})", why) for row, why in refused),
    )  # fmt: skip


def rounded(roofline: Roofline) -> Roofline:
    """The roofline with `DIGITS` significant digits, as a file holds it."""

    def short(value: float) -> float:
        return float(f"{value:.{DIGITS}g}")

    def each(values: Mapping[KernelClass, float]) -> dict[KernelClass, float]:
        return {kind: short(value) for kind, value in sorted(values.items())}

    return replace(
        roofline,
        launch_us=short(roofline.launch_us),
        peak_gflops=short(roofline.peak_gflops),
        bandwidth_gbs=short(roofline.bandwidth_gbs),
        rates=each(roofline.rates),
        traffic=each(roofline.traffic),
    )


def _rows(board: str, precision: str) -> list[Row]:
    return [r for r in read_rows() if r.device == board and r.precision == precision]
