"""The gate: what a compile may cost the model's quality, and whether a model passes it."""

import math
from dataclasses import dataclass

from ...device_profiles.errors import UsageError
from ..options import CompileOptions
from ..outcome import Fidelity, Quality

SLACK = 1e-9
"""Drops are differences: 0.91 - 0.90 exceeds 0.01 by the rounding of both."""


@dataclass(frozen=True)
class Gate:
    """Bounds on what may be lost; None where there is none.

    Args:
        max_drop: by how much the metric may be worse, in its own unit.
        min_agreement: least agreement of the outputs with the original's.
        metric: the metric's name, "" where there is none.
        is_synthetic: whether the inputs that outputs are compared on were made up.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    metric: str = ""
    is_synthetic: bool = False

    @property
    def text(self) -> str:
        """For people, e.g. "accuracy drop <= 0.01 and agreement >= 0.98"."""
        parts: list[str] = []
        if self.max_drop is not None:
            parts.append(f"{self.metric} drop <= {self.max_drop:g}")
        if self.min_agreement is not None:
            made = " (synthetic inputs)" if self.is_synthetic else ""
            parts.append(f"agreement >= {self.min_agreement:g}{made}")
        return " and ".join(parts)

    def verdict(self, quality: Quality | None, fidelity: Fidelity) -> "Verdict":
        """Whether a model passes.

        Args:
            quality: its metric and the original's; None where there is no metric.
            fidelity: of its outputs.
        """
        failed: list[str] = []
        if self.max_drop is not None:
            drop = math.nan if quality is None else quality.drop
            reference = 0.0 if quality is None else quality.reference
            if math.isnan(drop):
                failed.append(f"{self.metric} is no number")
            elif drop > self.max_drop + SLACK * max(1.0, abs(reference)):
                failed.append(f"drop {drop:.4g} > {self.max_drop:g}")
        agreement, kind = agreement_of(fidelity)
        if self.min_agreement is not None and not agreement >= self.min_agreement:
            failed.append(f"{kind} agreement {agreement:.4g} < {self.min_agreement:g}")
        return Verdict(quality, agreement, kind, "; ".join(failed))


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a model.

    Args:
        quality: its metric and the original's, None where there is no metric.
        agreement: of its outputs with the original's.
        kind: "top-1" or "cosine".
        failed: why it does not pass, "" where it does.
    """

    quality: Quality | None
    agreement: float
    kind: str
    failed: str = ""

    @property
    def passes(self) -> bool:
        """Whether it passes."""
        return not self.failed

    @property
    def text(self) -> str:
        """The numbers, e.g. "accuracy 0.912, drop 0.004, top-1 agreement 0.984"."""
        parts: list[str] = []
        if self.quality is not None:
            q = self.quality
            parts.append(f"{q.name} {q.compressed:.4g}, drop {q.drop:.4g}")
        parts.append(f"{self.kind} agreement {self.agreement:.4g}")
        return ", ".join(parts)


def gate_of(options: CompileOptions) -> Gate | None:
    """The gate that was asked for; None where nothing bounds the quality."""
    if options.max_drop is None and options.min_agreement is None:
        return None
    name = (options.metric or "").rpartition(":")[2]
    return Gate(options.max_drop, options.min_agreement, name, options.calib is None)


def check_gate(options: CompileOptions) -> None:
    """Refuses a gate that lacks what it is measured by, before any work.

    Raises:
        UsageError: --max-drop or --lower-is-better without --metric, or --time-budget without
            anything to search for: no gate, and no time that tries could be made for.
    """
    for name in ("max_drop", "lower_is_better"):
        if getattr(options, name) not in (None, False) and options.metric is None:
            raise UsageError(
                "there is no metric that it could be about",
                where=f"--{name.replace('_', '-')}",
                hint="add --metric package.module:function, or use --min-agreement",
            )
    is_timed = options.speedup is not None or options.latency is not None
    if options.time_budget is not None and gate_of(options) is None and not is_timed:
        raise UsageError(
            "there is no search that it could end",
            where="--time-budget",
            hint="add --max-drop, --min-agreement, or --speedup or --latency of this machine",
        )


def agreement_of(fidelity: Fidelity) -> tuple[float, str]:
    """Agreement of outputs, and its kind: of classes where there are some, else the cosine."""
    if fidelity.top1_agreement is not None:
        return fidelity.top1_agreement, "top-1"
    return (0.0 if fidelity.cosine is None else fidelity.cosine), "cosine"
