"""The report's two pictures as inline SVG: what happened to each layer, what the clock said.

Sizes are in CSS pixels and never scaled, so that text stays readable on a phone; a wide chart
scrolls in its box. Colours come from the page's style (classes `ref`, `new`, `err`), so both
light and dark work. Every mark carries its numbers as a tooltip; nothing is told by colour
alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from ..outcome import LayerRow, Paired

LEFT, TOP, BARS, GAP, DOTS, FOOT = 64, 26, 170, 34, 70, 26
FLOOR = TOP + BARS
BASE = FLOOR + GAP + DOTS
SLOT_MIN, SLOT_MAX, PANEL = 7, 48, 980


@dataclass(frozen=True)
class _Bar:
    """One layer in the chart: its place in the table, and what it cost before and after."""

    number: int
    row: LayerRow
    before: int
    after: int


def layer_chart(rows: Sequence[LayerRow]) -> str:
    """Bars of each layer's multiply-adds (weights where those are unknown), error below.

    Constants that are left alone are in the table only. Empty where there is no layer.
    """
    kept = [(n, r) for n, r in enumerate(rows, 1) if r.status != "left alone"]
    if not kept:
        return ""
    if all(r.macs_reference is not None for _, r in kept):
        unit = "multiply-adds"
        bars = [_Bar(n, r, r.macs_reference or 0, r.macs_compressed or 0) for n, r in kept]
    else:
        unit = "weights"
        bars = [_Bar(n, r, r.weights_reference, r.weights_compressed) for n, r in kept]
    slot = min(SLOT_MAX, max(SLOT_MIN, PANEL // len(bars)))
    width = LEFT + slot * len(bars) + 8
    top = nice(max(max(bar.before, bar.after) for bar in bars))
    every = max(1, math.ceil(28 / slot))
    marks = [
        *_axis(top, TOP, FLOOR, width, si),
        *_axis(1.0, FLOOR + GAP, BASE, width, lambda v: f"{v:.0%}", steps=2),
        _text(8, 14, unit, "start"),
        _text(8, FLOOR + GAP - 10, "relative error", "start"),
    ]
    for i, bar in enumerate(bars):
        marks += _layer_marks(bar, LEFT + i * slot, slot, top, unit)
        if i % every == 0:
            x = LEFT + (i + 0.5) * slot
            marks.append(_text(x, BASE + FOOT - 8, str(bar.number), "middle"))
    label = (
        f"{len(bars)} layers: {unit} before and after, and the relative operator-norm error"
        " of each changed layer. The table below has the numbers."
    )
    return _svg(width, BASE + FOOT, label, marks)


def _layer_marks(bar: _Bar, left: int, slot: int, top: float, unit: str) -> list[str]:
    """The two bars of a layer, its error, and a tooltip over the whole column."""
    row, wide = bar.row, max(3, round(slot * 0.36))
    x = left + (slot - 2 * wide - 1) // 2
    tip = (
        f"{bar.number}. {row.name} ({row.op}): {row.form}, {row.status}; {unit}"
        f" {bar.before:,} to {bar.after:,}; error op {row.error_op:.3g}, Frobenius"
        f" {row.error_fro:.3g}"
    )
    marks = [
        f"<g><title>{escape(tip)}</title>",
        f'<rect class="hit" x="{left}" y="{TOP}" width="{slot}" height="{BASE - TOP}"/>',
        _bar("ref", x, bar.before / top, wide),
        _bar("new", x + wide + 1, bar.after / top, wide),
    ]
    if row.status == "changed":
        error = min(row.error_op, 1.0) if math.isfinite(row.error_op) else 1.0
        y = BASE - error * DOTS
        marks.append(f'<circle class="err" cx="{x + wide}" cy="{y:.1f}" r="3.5"/>')
    return [*marks, "</g>"]


def latency_chart(paired: Paired) -> str:
    """The trimmed mean of every round, original beside compiled, from zero up."""
    before, after = paired.reference.rounds_ms, paired.compressed.rounds_ms
    n = max(len(before), len(after))
    slot = min(SLOT_MAX, max(16, PANEL // max(n, 1)))
    width, height = LEFT + slot * n + 8, FLOOR + FOOT
    top = nice(max((v for v in (*before, *after) if math.isfinite(v)), default=0.0))
    marks = [
        *_axis(top, TOP, FLOOR, width, lambda v: f"{v:g}"),
        _text(8, 14, "ms per inference", "start"),
    ]
    for i, (a, b) in enumerate(zip(before, after, strict=False)):
        x = LEFT + i * slot + slot / 2
        tip = f"round {i + 1}: original {a:.4g} ms, compiled {b:.4g} ms"
        ya, yb = (FLOOR - v / top * BARS if math.isfinite(v) else TOP for v in (a, b))
        marks += [
            f"<g><title>{escape(tip)}</title>",
            f'<line class="grid" x1="{x}" x2="{x}" y1="{ya:.1f}" y2="{yb:.1f}"/>',
            f'<circle class="ref" cx="{x}" cy="{ya:.1f}" r="5"/>',
            f'<rect class="new" x="{x - 4.5}" y="{yb - 4.5:.1f}" width="9" height="9"/>',
            "</g>",
            _text(x, height - 8, str(i + 1), "middle"),
        ]
    label = f"{n} rounds, original and compiled: trimmed mean in milliseconds of each round"
    return _svg(width, height, label, marks)


def nice(value: float) -> float:
    """The smallest of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten that holds `value`.

    Example:
        >>> nice(37), nice(0), nice(1.2)
        (40.0, 1.0, 1.5)
    """
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        s * power
        for s in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 100)
        if value <= s * power * (1 + 1e-9)
    )


def si(value: float) -> str:
    """A count in few characters.

    Example:
        >>> si(1_500_000), si(999), si(0)
        ('1.5M', '999', '0')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.3g}"


def _axis(
    top: float, y0: int, y1: int, width: int, show: Callable[[float], str], steps: int = 4
) -> list[str]:
    """Grid lines and labels from 0 at y1 up to `top` at y0."""
    marks: list[str] = []
    for i in range(steps + 1):
        y = y1 - i / steps * (y1 - y0)
        marks += [
            f'<line class="grid" x1="{LEFT}" x2="{width}" y1="{y:g}" y2="{y:g}"/>',
            _text(LEFT - 6, y + 4, show(top * i / steps), "end"),
        ]
    return marks


def _bar(kind: str, x: float, share: float, width: int) -> str:
    height = share * BARS
    height = max(height, 1.0) if share > 0 else 0.0  # a layer that exists is seen
    return (
        f'<rect class="{kind}" x="{x}" y="{FLOOR - height:.1f}" width="{width}"'
        f' height="{height:.1f}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, label: str, marks: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label)}" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">' + "".join(marks) + "</svg>"
    )
