"""`nncc targets fit host`: this machine microbenchmarked again, and how well the fit holds."""

import json
import time
from statistics import median

import typer

from ..calibrate import Machine, calibrated


def fit_host(threads: int, *, as_json: bool) -> int:
    """Calibrates this machine and prints the fit's error by code path."""
    start = time.perf_counter()

    def told(done: int, total: int) -> None:
        if done % 50 == 0 and not as_json:
            typer.echo(f"  {done}/{total} microbenchmarks", err=True)

    machine = calibrated(threads, again=True, on_case=told)
    assert machine is not None, "measured now"
    rows = table(machine)
    seconds = time.perf_counter() - start
    if as_json:
        told_rows = [
            {"path": path, "kernels": n, "median_error": middle, "worst_error": worst}
            for path, n, middle, worst in rows
        ]
        about = {"threads": threads, "seconds": seconds, "digest": machine.digest}
        typer.echo(json.dumps({**about, "paths": told_rows}, indent=2, allow_nan=False))
        return 0
    width = max(len(path) for path, *_ in rows)
    typer.echo(f"{'code path':<{width}}  kernels  median error   worst")
    for path, n, middle, worst in rows:
        typer.echo(f"{path:<{width}}  {n:>7}  {middle:>12.1%}  {worst:>6.1%}")
    typer.echo(
        f"PASS: {len(machine.samples)} kernels, {threads} thread(s), {seconds:.0f} s; "
        f"calibration {machine.digest[:12]} is kept for every later compile"
    )
    return 0


def table(machine: Machine) -> list[tuple[str, int, float, float]]:
    """(code path, kernels, median and worst error of the fit on its own samples)."""
    from ...device_profiles.cost.cpu import errors, path

    model = machine.model
    by_path: dict[str, list[float]] = {}
    for sample, error in zip(
        machine.samples, errors(model, machine.samples).tolist(), strict=True
    ):
        by_path.setdefault(path(sample.kernel, model.block), []).append(abs(error))
    return [(p, len(e), median(e), max(e)) for p, e in sorted(by_path.items())]
