"""`nncc targets fit`: shipped cost parameters, made again from the published rows."""

import json
from typing import Annotated

import typer


def fit(
    target: Annotated[
        str | None, typer.Argument(help="A device; all that have rows where left out.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Put the parameters into the device's file.")
    ] = False,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Runtime threads; for this machine only.")
    ] = 1,
) -> int:
    """Fit cost parameters to published latencies, and hold the shipped ones against them.

    For the host: microbenchmark this machine again.

    Exit 8 where the shipped parameters are not those of the rows.
    """
    from ...device_profiles.errors import UsageError
    from ...device_profiles.published.fits import known
    from ...device_profiles.registry import load
    from .fitted_costs import (
        differences,
        recalibrated,
        table,
        to_json,
        verdict,
        write_sections,
    )

    is_host = target is not None and load(target).is_local
    if is_host and write:
        raise UsageError(
            "this machine's calibration is kept by itself",
            where="--write",
            hint="leave it out",
        )
    if threads != 1 and not is_host:
        raise UsageError(
            "published rows say nothing of threads",
            where="--threads",
            hint="leave it out, or fit host",
        )
    if is_host:
        from .host_fit import fit_host

        return fit_host(threads, as_json=as_json)
    names = [load(target).name] if target else known()
    found = {name: recalibrated(name) for name in names}
    if write:
        for name, parts in found.items():
            write_sections(name, parts)
    verdicts = {name: differences(load(name), parts) for name, parts in found.items()}
    same = not any(verdicts.values())
    if as_json:
        told = {
            name: {
                "same": not verdicts[name],
                "differences": verdicts[name],
                **{precision: to_json(part) for precision, part in parts.items()},
            }
            for name, parts in found.items()
        }
        typer.echo(json.dumps(told, indent=2, allow_nan=False))
        return 0 if same else 8
    for name, parts in found.items():
        for precision, part in parts.items():
            typer.echo("\n".join(table(name, precision, part)))
        typer.echo(verdict(name, verdicts[name]))
    return 0 if same else 8
