"""Claims as tables: what was measured, the bar beside it, and whether it holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from nncc.runtime import machine


@dataclass(frozen=True)
class Bar:
    """One number and the bar it is held to.

    Args:
        what: what the number is.
        measured: the number.
        limit: the bar.
        is_floor: whether the number must reach the bar; otherwise it must stay at or below.
        note: spread, or whatever else a reader wants beside it.
    """

    what: str
    measured: float
    limit: float
    is_floor: bool = False
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the bar is met; NaN meets none."""
        if self.is_floor:
            return self.measured >= self.limit
        return self.measured <= self.limit

    def row(self) -> tuple[str, ...]:
        """The bar as a line of the table."""
        sign = "≥" if self.is_floor else "≤"
        verdict = "PASS" if self.holds else "FAIL"
        return (
            self.what,
            _number(self.measured),
            sign,
            _number(self.limit),
            verdict,
            self.note,
        )


def check(title: str, bars: Sequence[Bar]) -> None:
    """Prints all the bars as a table, then asserts that they hold."""
    assert bars, f"{title}: nothing was measured"
    print_table(
        title,
        ("", "measured", "", "bar", "", ""),
        [bar.row() for bar in bars],
    )
    missed = [bar.what for bar in bars if not bar.holds]
    assert not missed, f"{title}: {len(missed)} of {len(bars)} bars missed: {missed}"


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A title and a table in plain text, first column left, the rest right."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    print(f"\n{title}")
    for line in lines:
        first, *rest = line
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  " + "  ".join(cells).rstrip())


def conditions() -> str:
    """The machine and its load now, to stand above timings."""
    load, clock, governor = machine.load_average(), machine.clock_mhz(), machine.governor()
    words = [machine.cpu_model(), f"{machine.cores()} cores"]
    words += [] if clock is None else [f"{clock:.0f} MHz"]
    words += [] if governor is None else [governor]
    words += [] if load is None else [f"load {load:.1f}"]
    return ", ".join(words)


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.6g}"
