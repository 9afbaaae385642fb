"""`nncc forms`: the compression forms, what they take and what they become."""

import json
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
app = typer.Typer(help="The compression forms: what --form and a plan may say.")


@app.command("list")
def list_forms(as_json: AsJson = False) -> int:
    """How every form is written, and what it is."""
    from ..form_pages import pages

    found = pages()
    if as_json:
        _json([{"name": p.name, "usage": p.usage, "title": p.title} for p in found])
        return 0
    from rich.markup import escape
    from rich.table import Table

    from .console import console, printable

    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("form", overflow="fold")
    table.add_column("what it is", overflow="fold")
    for p in found:
        table.add_row(escape(printable(p.usage)), escape(printable(p.title)))
    console().print(table)
    _line("add them up and nest them: quantize(k=2) + prune(1%); see `nncc forms show NAME`")
    return 0


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A form, see `forms list`.")],
    as_json: AsJson = False,
) -> int:
    """A form's parameters, equations, what it stores and what a device runs."""
    from ..form_pages import page

    found = page(name)
    if as_json:
        _json(found.to_json())
        return 0
    _line(found.usage)
    for paragraph in (found.title, *found.about):
        _line(paragraph)
    for p in found.parameters:
        default = f" (default: {p.default})" if p.default else ""
        _line(f"  {p.name}: {p.takes}{default}. {p.meaning}", indent=2)
    example = found.example
    if example is None:
        return 0
    _line(f"example: {example.text} on 32 filters of 16 x 3 x 3")
    stored = "; ".join(f"{part} {what}" for part, what in example.stored.items())
    _line(
        f"  stores: {stored}; {example.bits:.3g} bits a weight as the papers count", indent=2
    )
    how = "one dense layer, as before" if example.is_folded else "; then ".join(example.runs)
    _line(f"  runs: {how}", indent=2)
    if example.filed:
        _line(f"  file: {example.filed}", indent=2)
    return 0


def _json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def _line(text: str, *, indent: int = 0) -> None:
    """A line of a result; texts of installed forms cannot drive the terminal."""
    from .console import printable

    typer.echo(" " * indent + " ".join(printable(text).split()))
