"""Published latencies: the rows that calibrate and test the cost models of boards.

`rows.csv` holds one measured network a line, with where it was published. A row that no device
of that data sheet could have measured is refused: faster than its arithmetic at the peak rate
with Winograd's gain on every multiplication.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from ..cost.fit import Limits, Sample, least_seconds
from ..cost.roofline import WINOGRAD
from ..errors import UsageError
from .draft import Net
from .nets import NETS, net

Role = Literal["fit", "test"]
SHIPPED = Path(__file__).with_name("rows.csv")
MOST_BYTES = 1 << 20
COLUMNS = (
    "device", "precision", "net", "side", "classes", "latency_ms", "harness", "role", "source",
    "note",
)  # fmt: skip
IN_PYTHON = frozenset({"torch2trt", "kentaroy47"})
"""Harnesses that time a call from Python, which takes a constant beside the network."""


@dataclass(frozen=True)
class Row:
    """One published latency.

    Args:
        device: where it was measured, a name of a profile.
        precision: "fp16" or "fp32".
        net: a key of `nets.NETS`.
        side: of the square input.
        classes: of the output.
        latency_ms: of one image.
        harness: whose program measured it.
        role: whether it calibrates its device or only tests the calibration.
        source: where it was published.
        note: what else a reader should know.
    """

    device: str
    precision: str
    net: str
    side: int
    classes: int
    latency_ms: float
    harness: str
    role: Role
    source: str
    note: str

    @property
    def network(self) -> Net:
        """What was measured."""
        return net(self.net, self.side, self.classes)

    @property
    def architecture(self) -> str:
        """Rows of one architecture are held out together; a normalisation makes no other."""
        return self.net.removesuffix("_bn")

    @property
    def sample(self) -> Sample:
        """The row as a fit takes it."""
        return Sample(
            f"{self.net} {self.side} ({self.harness})",
            self.network.kernels,
            self.latency_ms * 1e-3,
            self.architecture,
            self.harness if self.harness in IN_PYTHON else "",
        )

    def refusal(self, limits: Limits) -> str:
        """Why no device of these limits measured it; "" where one could have."""
        flops = 2 * self.network.macs
        least_ms = 1e3 * least_seconds(flops, limits)
        if self.latency_ms >= least_ms:
            return ""
        return (
            f"{flops / 1e9:.1f} GFLOP in {self.latency_ms:g} ms: at {WINOGRAD} x the peak of"
            f" {limits.peak_gflops:g} GFLOP/s they take {least_ms:.1f} ms"
        )


def read_rows(path: Path = SHIPPED) -> list[Row]:
    """The rows of a file.

    Raises:
        UsageError: not a CSV file with these columns, or a value that cannot be; names the
            line.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"has more than {MOST_BYTES:,} bytes", where=str(path))
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be read ({error})", where=str(path)) from error
    lines = list(csv.reader(text.splitlines(), strict=True))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise UsageError(
            "does not begin with the columns of rows", where=str(path), hint=",".join(COLUMNS)
        )
    return [_row(fields, f"{path}:{i}") for i, fields in enumerate(lines[1:], start=2)]


def possible(rows: Iterable[Row], limits: Limits) -> tuple[list[Row], list[tuple[Row, str]]]:
    """The rows that can be, and the others with the reason."""
    kept: list[Row] = []
    refused: list[tuple[Row, str]] = []
    for row in rows:
        if why := row.refusal(limits):
            refused.append((row, why))
        else:
            kept.append(row)
    return kept, refused


def _row(fields: Sequence[str], where: str) -> Row:
    if len(fields) != len(COLUMNS):
        raise UsageError(f"has {len(fields)} columns of {len(COLUMNS)}", where=where)
    found: dict[str, str] = dict(zip(COLUMNS, fields, strict=True))
    try:
        side, classes = int(found["side"]), int(found["classes"])
        latency_ms = float(found["latency_ms"])
    except ValueError as error:
        raise UsageError(f"is not a number: {error}", where=where) from error
    checks: dict[str, bool] = {
        "net": found["net"] in NETS,
        "precision": found["precision"] in ("fp16", "fp32"),
        "side": 32 <= side <= 4096,
        "classes": 1 <= classes <= 100_000,
        "latency_ms": math.isfinite(latency_ms) and latency_ms > 0,
        "role": found["role"] in ("fit", "test"),
        "source": bool(found["source"]),
    }
    for key, good in checks.items():
        if not good:
            raise UsageError(f"{key} cannot be {found[key]!r}", where=where)
    return Row(
        found["device"], found["precision"], found["net"], side, classes, latency_ms,
        found["harness"], cast(Role, found["role"]), found["source"], found["note"],
    )  # fmt: skip
