"""Outcomes made by hand, for tests of everything that shows or stores one."""

import dataclasses
import math

from nncc.compiler.outcome import Fidelity, LayerRow, Outcome, Paired, Timing

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}\x1b[2J\n| `x` |"


def row(
    name: str = "/features/0/Conv",
    *,
    changed: bool = True,
    weights: int = 36_864,
    **more: object,
) -> LayerRow:
    """A 3 x 3 convolution, cut to a third or left dense."""
    kept = weights // 3 if changed else weights
    base = LayerRow(
        name=name,
        op="Conv",
        shape=(1, 64, 64, 3, 3),
        status="changed" if changed else "dense",
        form="lowrank(j=16)" if changed else "dense",
        rank=16 if changed else None,
        blocks=1 if changed else None,
        scheme=0 if changed else None,
        reason="" if changed else "no smaller form within the error",
        weights_reference=weights,
        weights_compressed=kept,
        bits_reference=32 * weights,
        bits_compressed=32 * kept,
        macs_reference=weights * 100,
        macs_compressed=kept * 100,
        error_op=0.31 if changed else 0.0,
        error_fro=0.22 if changed else 0.0,
    )
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


def paired(rounds: int = 5) -> Paired:
    """A measurement in which the compiled model takes half the time."""

    def side(ms: float) -> Timing:
        each = tuple(ms + 0.01 * i for i in range(rounds))
        return Timing(
            each, tuple((v, v * 1.02) for v in each), ms + 0.02, ms + 0.02, ms + 0.05
        )

    protocol = {"rounds": rounds, "trim": 0.25, "threads": 1, "cpu": "a CPU", "warm": True}
    return Paired(side(4.0), side(2.0), 1.99, (1.95, 2.03), protocol)


def outcome(*rows: LayerRow, **more: object) -> Outcome:
    """A compile that met its budget; `more` replaces fields."""
    base = Outcome(
        model_name="resnet18",
        model_sha256="a1" * 32,
        target="x86-cpu",
        recipe="low-rank",
        calibrated=False,
        layers=rows or (row(), row("/features/1/Conv", changed=False)),
        reference_bytes=46_800_000,
        compressed_bytes=17_500_000,
        nodes_reference=69,
        nodes_compressed=88,
        fidelity=Fidelity("synthetic", 8, 23.4, 0.875, 0.31, {"logits": (23.4, 0.31)}),
        latency=None,
        latency_note="x86-cpu is not this machine",
        compile_seconds={"ingest": 0.25, "survey": 3.5},
        objective="operator",
        objective_value=0.31,
        budget="macs <= 0.7",
        budget_met=True,
        budget_used=0.6667,
        undone=("1 layer kept dense; --macs would allow it",),
        warnings=("a declared output shape was wrong and was repaired",),
        exit_code=0,
    )
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


EQUAL = Fidelity("synthetic", 2, math.inf, 1.0, 0.0, {"logits": (math.inf, 0.0)})
BROKEN = Fidelity("synthetic", 2, -math.inf, None, math.inf, {"logits": (-math.inf, math.inf)})
