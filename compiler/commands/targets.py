"""`nncc targets`: the devices that nncc knows, and a person's own beside them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ...device_profiles.errors import UsageError
from ...device_profiles.profile import DeviceProfile
from .targets_fit import fit

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
File = Annotated[Path, typer.Argument(help="A device's TOML file.", metavar="FILE")]
app = typer.Typer(help="The devices that nncc knows, and your own.")


app.command("fit")(fit)


@dataclass(frozen=True)
class Listed:
    """A target as one line of the list.

    Args:
        name: what -t takes.
        profile: its profile; None where its file is not valid.
        error: what is wrong with the file; "" where nothing is.
        is_own: whether the file is the person's.
    """

    name: str
    profile: DeviceProfile | None
    error: str
    is_own: bool

    @property
    def cost(self) -> str:
        """Precisions that have a cost model, with its tier and median error."""
        from .facts import percent

        if self.profile is None:
            return ""
        told = sorted(self.profile.calibration.items())
        if not told and self.profile.is_local:
            return "microbenchmark, on first use"
        errors = [
            percent(held.median_error) if held.rows else "uncalibrated" for _, held in told
        ]
        return "; ".join(
            f"{precision} analytic {error}"
            for (precision, _), error in zip(told, errors, strict=True)
        )

    def to_json(self) -> dict[str, object]:
        """An object of `nncc targets list --json`."""
        p = self.profile
        if p is None:
            return {"name": self.name, "own": self.is_own, "error": self.error}
        return {
            "name": p.name,
            "title": p.title,
            "runtime": p.runtime,
            "runtime_version": p.runtime_version,
            "max_opset": p.max_opset,
            "precisions": list(p.precisions),
            "cost": {
                precision: {
                    "tier": "analytic",
                    "rows": held.rows,
                    "median_error": held.median_error,
                }
                for precision, held in sorted(p.calibration.items())
            },
            "own": self.is_own,
        }


def listed() -> list[Listed]:
    """Every target by name; a broken file of the person's own does not hide the others."""
    from ...device_profiles.registry import load, names, shipped

    known = shipped()
    found: list[Listed] = []
    for name in names():
        try:
            found.append(Listed(name, load(name), "", name not in known))
        except UsageError as error:
            found.append(Listed(name, None, str(error), is_own=True))
    return found


@app.command("list")
def list_targets(as_json: AsJson = False) -> int:
    """Name, runtime, opset, precisions and cost model of every device."""
    rows = listed()
    if as_json:
        _json([row.to_json() for row in rows])
        return 0
    from rich.markup import escape
    from rich.table import Table

    from .console import console, printable, say

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in ("name", "runtime", "opset", "precisions", "cost model"):
        table.add_column(name, overflow="fold", no_wrap=not name.startswith("cost"))
    for row in rows:
        if (p := row.profile) is not None:
            own = " (yours)" if row.is_own else ""
            precisions = " ".join(p.precisions)
            cells = (
                p.name + own,
                p.runtime_title,
                str(p.max_opset),
                precisions,
                row.cost or "-",
            )
            table.add_row(*(escape(printable(cell)) for cell in cells))
    out.print(table)
    for row in rows:
        if row.error:
            say(out, f"left out: {row.error}", "yellow")
    return 0


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A device, see `targets list`.")],
    as_json: AsJson = False,
) -> int:
    """Everything known of a device, and where each fact comes from."""
    from ...device_profiles.registry import load
    from .facts import device_facts

    facts = device_facts(load(name))
    if as_json:
        _json({f.name: {"value": f.value, "source": f.source} for f in facts})
        return 0
    for f in facts:
        _line(f"{f.name}: {f.text}" + (f"   [{f.source}]" if f.source else ""))
    return 0


@app.command()
def validate(file: File, as_json: AsJson = False) -> int:
    """Say whether FILE describes a device. Exit 2 with the key at fault where it does not."""
    from ...device_profiles.registry import from_file

    profile = from_file(file)
    if as_json:
        _json({"ok": True, "file": str(file), "title": profile.title})
    else:
        _line(f"PASS: {file} describes {profile.title} (exit code 0)")
    return 0


@app.command()
def add(
    file: File,
    name: Annotated[
        str | None, typer.Option(help="What -t takes; by default the name of FILE.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace your own of that name.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Put a copy of FILE among your own devices, once it is found valid."""
    from ...device_profiles.registry import free_name, from_text
    from ...device_profiles.toml_file import read_bytes
    from ...device_profiles.user_files import checked_name, save

    text = read_bytes(file)
    profile = from_text(text, file)
    called = checked_name(file.stem if name is None else name)
    free_name(called, profile.aliases, file)
    path = save(text, called, replace=force)
    if as_json:
        _json({"name": called, "path": str(path), "title": profile.title})
    else:
        _line(f"added {called} ({profile.title}): {path}; compile with -t {called}")
    return 0


@app.command()
def schema() -> int:
    """Print the JSON schema of a device's file, for editors and other tools."""
    from ...device_profiles.schema import json_schema

    _json(json_schema())
    return 0


def _json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def _line(text: str) -> None:
    """A line of a result; texts of files cannot drive the terminal."""
    from .console import printable

    typer.echo(" ".join(printable(text).split()))
