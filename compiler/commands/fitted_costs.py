"""Cost parameters fitted to published rows: held against the shipped ones, shown, written."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from ...device_profiles.cost.fit import Limits
from ...device_profiles.cost.roofline import Calibration, Roofline
from ...device_profiles.errors import UsageError
from ...device_profiles.profile import DeviceProfile
from ...device_profiles.published.fits import Calibrated, Line

TOLERANCE = 2e-3
"""Relative: two least-squares libraries agree to this on four significant digits."""


def recalibrated(name: str) -> dict[str, Calibrated]:
    """The calibrations that the rows give a profile, by precision.

    Raises:
        UsageError: the profile has no rows, or a data sheet lacks its limits.
    """
    from ...device_profiles.published.fits import calibrated
    from ...device_profiles.registry import load

    def limits_of(board: str, precision: str) -> Limits:
        profile = load(board)
        peak = profile.peak_gflops.get(precision)
        if peak is None or profile.bandwidth_gbs is None:
            raise UsageError(
                f"no theoretical {precision} peak or no bandwidth", where=board,
                hint="state peak_gflops and bandwidth_gbs in its file",
            )  # fmt: skip
        return Limits(peak, profile.bandwidth_gbs)

    return calibrated(name, limits_of)


def differences(profile: DeviceProfile, parts: dict[str, Calibrated]) -> list[str]:
    """Where the shipped parameters of a profile are not those of the rows."""
    found: list[str] = []
    for precision, part in parts.items():
        cost = profile.cost.get(precision)
        told = profile.calibration.get(precision)
        if cost is None or told is None:
            found.append(f"cost.{precision}: is not in the file")
            continue
        mine, shipped = _numbers(part.roofline), _numbers(cost)
        for key in sorted({*mine, *shipped}):
            a, b = mine.get(key), shipped.get(key)
            if a is None or b is None or abs(a - b) > TOLERANCE * abs(b):
                found.append(f"cost.{precision}.{key}: fitted {a}, shipped {b}")
        if cost.classes_seen != part.roofline.classes_seen:
            found.append(f"cost.{precision}.classes_seen: differs")
        for key in ("median_error", "worst_error"):
            a, b = getattr(part.calibration, key), getattr(told, key)
            if (a is None) != (b is None) or (a is not None and abs(a - b) > TOLERANCE):
                found.append(f"calibration.{precision}.{key}: fitted {a}, shipped {b}")
        found += [
            f"calibration.{precision}.{key}: differs"
            for key in ("rows", "protocol")
            if getattr(part.calibration, key) != getattr(told, key)
        ]
    return found


def table(name: str, precision: str, part: Calibrated) -> list[str]:
    """A calibration for people: parameters, then every row beside its prediction."""
    roof = part.roofline
    rates = ", ".join(f"{kind} {roof.rate(kind):g}" for kind in sorted(roof.rates))
    traffic = ", ".join(f"{kind} {value:g}" for kind, value in sorted(roof.traffic.items()))
    lines = [
        f"{name}, {precision}: launch {roof.launch_us:g} us, P {roof.peak_gflops:g} GFLOP/s,"
        f" B {roof.bandwidth_gbs:g} GB/s, k {rates}, d {traffic}, tile {roof.tile}",
        f"  {part.calibration.protocol}; {part.calibration.rows} rows",
    ]
    if not part.lines:
        return [*lines, f"  {part.calibration.source}"]
    lines += [
        f"  {what} adds {ms:.2f} ms" for what, ms in sorted((part.harness_ms or {}).items())
    ]
    lines += [f"  at the data sheet's limit: {what}" for what in part.at_limit]
    lines += [f"  refused: {what}: {why}" for what, why in part.refused]
    width = max(len(line.name) for line in part.lines)
    with_flops = any(line.flops_only is not None for line in part.lines)
    head = f"  {'':<{width}}  {'measured':>9}  {'predicted':>9}  {'error':>7}"
    lines.append(head + (f"  {'FLOPs only':>10}" if with_flops else ""))
    for line in part.lines:
        text = (
            f"  {line.name:<{width}}  {line.measured_ms:>6.2f} ms"
            f"  {line.predicted_ms:>6.2f} ms  {line.error:>+7.1%}"
        )
        flops = "" if line.flops_only is None else f"  {line.flops_only:>+10.1%}"
        lines.append(f"{text}{flops}  {line.role}")
    return lines + _summary(part.lines)


def _summary(lines: Sequence[Line]) -> list[str]:
    """Median, 90th percentile and greatest error of rows that the fit did not see."""
    held_out = [line for line in lines if line.role != "fitted"]
    if not held_out:
        return []
    told = [f"  held out: {_spread([abs(line.error) for line in held_out])}"]
    flops = [abs(x) for line in held_out if (x := line.flops_only) is not None]
    return told + ([f"  FLOPs only: {_spread(flops)}"] if flops else [])


def _spread(errors: Sequence[float]) -> str:
    ninth = sorted(errors)[min(len(errors) - 1, int(0.9 * len(errors)))]
    return (
        f"median {median(errors):.1%}, p90 {ninth:.1%}, max {max(errors):.1%}"
        f" ({len(errors)} rows)"
    )


def write_sections(name: str, parts: dict[str, Calibrated]) -> Path:
    """Replaces the cost and calibration sections of a shipped profile, in one step.

    Raises:
        UsageError: the file cannot be written.
    """
    from ...device_profiles.registry import FOLDER

    path = FOLDER / f"{name}.toml"
    draft = path.with_name(f".{path.name}.nncc-new")
    try:
        kept = without_sections(path.read_text(encoding="utf-8"))
        made = "\n\n".join(sections(key, part) for key, part in sorted(parts.items()))
        draft.write_text(f"{kept}\n\n{made}\n", encoding="utf-8", newline="\n")
        draft.replace(path)
    except OSError as error:
        raise UsageError(f"cannot be written ({error.strerror})", where=str(path)) from error
    return path


def without_sections(text: str) -> str:
    """A profile's text without its cost and calibration tables."""
    parts = re.split(r"(?m)^(?=\[)", text)
    kept = [p for p in parts if not re.match(r"\[(cost|calibration)\b", p)]
    return "".join(kept).rstrip("\n")


def sections(precision: str, part: Calibrated) -> str:
    """The two tables of a precision, as TOML."""
    return f"{_cost(precision, part.roofline)}\n\n{_told(precision, part.calibration)}"


def _cost(precision: str, roof: Roofline) -> str:
    def table(values: dict[str, float]) -> str:
        return "{ " + ", ".join(f'"{k}" = {v:.10g}' for k, v in sorted(values.items())) + " }"

    seen = ", ".join(f'"{kind}"' for kind in sorted(roof.classes_seen))
    return "\n".join(
        [
            f"[cost.{precision}]",
            f"launch_us = {_float(roof.launch_us)}",
            f"peak_gflops = {_float(roof.peak_gflops)}",
            f"bandwidth_gbs = {_float(roof.bandwidth_gbs)}",
            f"element_bytes = {roof.element_bytes}",
            f"tile = {roof.tile}",
            f"rates = {table({k: float(v) for k, v in roof.rates.items()})}",
            f"traffic = {table({k: float(v) for k, v in roof.traffic.items()})}",
            f"classes_seen = [{seen}]",
        ]
    )


def _told(precision: str, calibration: Calibration) -> str:
    lines = [
        f"[calibration.{precision}]",
        f"source = {json.dumps(calibration.source, ensure_ascii=False)}",
        f"rows = {calibration.rows}",
        f"protocol = {json.dumps(calibration.protocol, ensure_ascii=False)}",
    ]
    if calibration.median_error is not None and calibration.worst_error is not None:
        lines.append(f"median_error = {_float(calibration.median_error)}")
        lines.append(f"worst_error = {_float(calibration.worst_error)}")
    return "\n".join(lines)


def _float(value: float) -> str:
    """A number that TOML reads as a float."""
    return repr(float(value))


def _numbers(roof: Roofline) -> dict[str, float]:
    """Every number of a roofline, by its key in a file."""
    return {
        "launch_us": roof.launch_us,
        "peak_gflops": roof.peak_gflops,
        "bandwidth_gbs": roof.bandwidth_gbs,
        "element_bytes": roof.element_bytes,
        "tile": roof.tile,
        **{f"rates.{kind}": value for kind, value in roof.rates.items()},
        **{f"traffic.{kind}": value for kind, value in roof.traffic.items()},
    }


def verdict(name: str, wrong: Sequence[str]) -> str:
    """Whether the shipped parameters are those of the rows, and where they are not."""
    if not wrong:
        return f"PASS: {name}: the shipped parameters are those of the rows\n"
    return "\n".join([f"FAIL: {name}: {line}" for line in wrong]) + "\n"


def to_json(part: Calibrated) -> dict[str, object]:
    """A calibration as an object of `nncc targets fit --json`."""
    roof = part.roofline
    return {
        "cost": {**_numbers(roof), "classes_seen": sorted(roof.classes_seen)},
        "calibration": {
            "source": part.calibration.source,
            "rows": part.calibration.rows,
            "protocol": part.calibration.protocol,
            "median_error": part.calibration.median_error,
            "worst_error": part.calibration.worst_error,
        },
        "harness_ms": dict(part.harness_ms or {}),
        "at_limit": list(part.at_limit),
        "refused": [{"row": what, "why": why} for what, why in part.refused],
        "rows": [
            {
                "name": line.name,
                "role": line.role,
                "measured_ms": line.measured_ms,
                "predicted_ms": line.predicted_ms,
                "error": line.error,
                "flops_only": line.flops_only,
            }
            for line in part.lines
        ],
    }
