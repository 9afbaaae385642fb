"""`nncc explain`: why an artifact is as it is, and what limits a further gain."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ..explaining.layers import LayerStory
    from ..explaining.margins import Step
    from ..explaining.net import Explanation
    from ..writing.alternatives import Candidate, Layer

ROWS = 60
NAME = 44
FORM = 36


def explain(
    folder: Annotated[
        Path,
        typer.Argument(help="An artifact's folder, as compile -o wrote it.", metavar="DIR"),
    ],
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Explain this layer alone, in full.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout.")
    ] = False,
) -> int:
    """Say why every layer has its form, what others would cost, and what limits the gain."""
    from ..explaining.net import explained
    from .console import console

    found = explained(folder)
    if as_json:
        typer.echo(json.dumps(found.to_json(layer), indent=2, allow_nan=False))
    elif layer is None:
        show(found, console())
    else:
        show_layer(found, found.story(layer), console())
    return 0


def show(found: "Explanation", out: "Console") -> None:
    """The whole net, then a row a layer."""
    from rich.markup import escape
    from rich.table import Table

    from .console import WIDE, clip, printable, say

    for index, line in enumerate(found.lines):
        say(out, line, "bold" if index == 0 else "")
    is_wide = out.width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in ("layer", "form", "why"):
        table.add_column(name, overflow="fold")
    for name in ("time", "error", "diverges"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("next cheaper", "next better") if is_wide else ():
        table.add_column(name, justify="right")
    for story in found.layers[:ROWS]:
        cells = (clip(story.row.name, NAME), clip(story.row.form, FORM), story.kind)
        steps = map(_short, (story.cheaper, story.better) if is_wide else ())
        cells = (*cells, *_numbers(story), *steps)
        table.add_row(*(escape(printable(c)) for c in cells))
    out.print(table)
    if len(found.layers) > ROWS:
        say(out, f"... and {len(found.layers) - ROWS} more; --json has every layer")
    say(out, "more of one layer: --layer NAME")


def show_layer(found: "Explanation", story: "LayerStory", out: "Console") -> None:
    """One layer in full, with every candidate that was weighed."""
    from .console import say

    row = story.row
    shape = "x".join(map(str, row.shape))
    say(out, f"{row.name} ({row.op} {shape}): {row.form}, {row.status}", "bold")
    say(out, f"why: {story.why}")
    for text, step in (("next cheaper", story.cheaper), ("next better", story.better)):
        if step is not None:
            say(out, f"{text}{_of(found)}: {_step(step)}")
    for text in story.bounds:
        say(out, f"limit: {text}")
    layer = found.held.layer(row)
    if layer is not None and layer.candidates:
        _candidates(layer, story, out)


def _of(found: "Explanation") -> str:
    """Of two budgets, what the one counts that binds."""
    from ..explaining.margins import WORDS

    choice = None if found.held.weighed is None else found.held.weighed.choice
    if choice is None or len(choice.quantities) < 2:
        return ""
    return f" in {WORDS[choice.binding]}, which binds"


def _candidates(layer: "Layer", story: "LayerStory", out: "Console") -> None:
    from rich.markup import escape
    from rich.table import Table

    from .console import clip, printable, say

    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("candidate", overflow="fold")
    for name in ("error", "diverges", "bits", "MACs", "predicted"):
        table.add_column(name, justify="right", no_wrap=True)
    for candidate in layer.candidates:
        mark = "* " if candidate == story.at else "  "
        form = escape(printable(clip(candidate.form, 2 * FORM)))
        table.add_row(mark + form, *map(escape, _cells(candidate)))
    out.print(table)
    rest = layer.looked_at - len(layer.candidates)
    if rest > 0:
        say(out, f"* is what it has; {rest} more were looked at, each beaten by one of these")


def _cells(candidate: "Candidate") -> tuple[str, ...]:
    from ..explaining.phrases import milliseconds

    ms = candidate.predicted_ms
    return (
        "-" if candidate.error is None else f"{candidate.error:.3g}",
        "-" if candidate.divergence is None else f"{candidate.divergence:.3g}",
        "-" if candidate.bits is None else f"{candidate.bits:,.0f}",
        "-" if candidate.macs is None else f"{candidate.macs:,.0f}",
        "-" if ms is None else milliseconds(ms),
    )


def _numbers(story: "LayerStory") -> tuple[str, ...]:
    from ..explaining.phrases import percent

    at = story.at
    error = story.row.error_fro if at is None or at.error is None else at.error
    moved = None if at is None else at.divergence
    return (
        "-" if story.time_share is None else percent(story.time_share),
        f"{error:.2g}" if story.row.status == "changed" else "-",
        "-" if moved is None or story.row.status != "changed" else f"{moved:.2g}",
    )


def _short(step: "Step | None") -> str:
    """A step in a cell: the form, and what is lost and taken by it."""
    from .console import clip

    if step is None:
        return "-"
    return f"{clip(step.end.form, FORM)} {step.value:+.2g}"


def _step(step: "Step") -> str:
    from ..explaining.phrases import milliseconds, percent

    start, end = step.start, step.end
    what = "divergence" if end.divergence is not None else "error"
    pair = (start.error, end.error)
    if end.divergence is not None:
        pair = (start.divergence, end.divergence)
    told = [f"{end.form}: {what} {_known(pair[0])} to {_known(pair[1])}"]
    if end.divergence is not None:
        told.append(f"relative error {_known(start.error)} to {_known(end.error)}")
    for name, here, there in (
        ("bits", start.bits, end.bits),
        ("multiply-adds", start.macs, end.macs),
    ):
        if here and there is not None:
            told.append(f"{name} {'+' if there > here else ''}{percent(there / here - 1)}")
    if start.predicted_ms is not None and end.predicted_ms is not None:
        times = f"{milliseconds(start.predicted_ms)} to {milliseconds(end.predicted_ms)}"
        told.append(f"{times} predicted")
    return ", ".join(told)


def _known(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"
