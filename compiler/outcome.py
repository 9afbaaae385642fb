"""What a compile found out: the values behind metrics.json, layers.csv and the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..runtime.timing import Paired, Timing

__all__ = [
    "Fidelity",
    "Gated",
    "LayerRow",
    "LayerStatus",
    "Outcome",
    "Paired",
    "Predicted",
    "Quality",
    "Timing",
]

LayerStatus = Literal["changed", "dense", "left alone", "reverted"]


@dataclass(frozen=True)
class LayerRow:
    """One weight of the model and what became of it: a row of layers.csv.

    Errors are relative, ‖W − Ŵ‖ / ‖W‖ in the named norm. Bits are those that LC part V counts
    (appendix B.1), bytes what the weight takes in the file; None where none is written. MACs,
    additions and multiplications are per sample; None where the number of output positions is
    unknown. Times are milliseconds per inference.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    status: LayerStatus
    form: str
    rank: int | None
    blocks: int | None
    scheme: int | None
    reason: str
    weights_reference: int
    weights_compressed: int
    bits_reference: int
    bits_compressed: int
    macs_reference: int | None
    macs_compressed: int | None
    error_op: float
    error_fro: float
    adds_compressed: int | None = None
    mults_compressed: int | None = None
    bytes_compressed: int | None = None
    predicted_reference_ms: float | None = None
    predicted_ms: float | None = None
    reference_ms: float | None = None
    measured_ms: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """How close the compiled model's outputs are to the original's, on inputs no fit saw.

    Args:
        inputs: "calibration" or "synthetic".
        n: number of samples compared.
        sqnr_db: 10 log10(Σ y² / Σ (y − ŷ)²) over all float outputs; inf when equal.
        top1_agreement: share of equal argmax over the last axis of the first float output that
            is at least 2-D with more than one class; None where there is none.
        max_abs_diff: largest absolute difference over all outputs.
        per_output: output name to (sqnr_db, max_abs_diff).
        warnings: outputs that became NaN or infinite, integers that differ, what was not
            compared.
        cosine: the least cosine between a float output and the original's, over all samples;
            None where there is no float output.
    """

    inputs: Literal["calibration", "synthetic"]
    n: int
    sqnr_db: float
    top1_agreement: float | None
    max_abs_diff: float
    per_output: Mapping[str, tuple[float, float]]
    warnings: tuple[str, ...] = ()
    cosine: float | None = None


@dataclass(frozen=True)
class Quality:
    """The task's own metric, before and after.

    Args:
        metric: what named it, "module:function".
        n: samples; None where the function does not say.
        reference, compressed: scores; NaN where the compiled model gave no number.
        higher_is_better: whether more of it is better.
    """

    metric: str
    n: int | None
    reference: float
    compressed: float
    higher_is_better: bool = True

    @property
    def name(self) -> str:
        """The function's name."""
        return self.metric.rpartition(":")[2]

    @property
    def drop(self) -> float:
        """By how much it is worse, in the metric's own unit."""
        lost = self.reference - self.compressed
        return (lost if self.higher_is_better else -lost) + 0.0  # no -0


@dataclass(frozen=True)
class Gated:
    """What the quality gate came to.

    Args:
        text: what was asked, e.g. "accuracy drop <= 0.01".
        is_met: whether what was written passes.
        said: the numbers it was judged by.
        trials: models that were judged, the original not among them.
        reason: what stopped the compression, or why the budget had to give way.
    """

    text: str
    is_met: bool
    said: str
    trials: int
    reason: str = ""


@dataclass(frozen=True)
class Predicted:
    """What the cost model says of the whole net.

    Args:
        reference_ms, compressed_ms: milliseconds an inference, before and after.
        tier: the worst tier of what was added up; "extrapolated" where a kernel in it is of a
            class that was never calibrated.
        extrapolated: those classes.
        basis: what the cost model rests on.
        unseen: nodes whose time is not in it.
        rewritten_ms: milliseconds after exact rewriting alone; None where it is not known.
    """

    reference_ms: float
    compressed_ms: float
    tier: Literal["measured", "lookup", "interpolated", "analytic", "extrapolated"]
    extrapolated: tuple[str, ...] = ()
    basis: str = ""
    unseen: tuple[str, ...] = ()
    rewritten_ms: float | None = None

    @property
    def speedup(self) -> float:
        """Reference over compressed."""
        return self.reference_ms / self.compressed_ms

    @property
    def exact(self) -> float:
        """Speed-up of exact rewriting alone."""
        return 1.0 if self.rewritten_ms is None else self.reference_ms / self.rewritten_ms

    @property
    def label(self) -> str:
        """What stands beside the number."""
        parts = [self.tier]
        if self.extrapolated:
            parts = [f"extrapolated: {', '.join(self.extrapolated)}"]
        if self.unseen:
            parts.append(f"without {len(self.unseen)} nodes of unknown size")
        if self.exact >= 1.01:
            parts.append(f"{self.exact:.2f} x by exact rewriting alone")
        return "; ".join(parts)


@dataclass(frozen=True)
class Outcome:
    """Everything a compile has to tell.

    Args:
        model_name, model_sha256, target, recipe: what was asked.
        calibrated: whether the fit, or the choice of what goes, used calibration inputs.
        layers: one row per weight considered, in graph order.
        reference_bytes, compressed_bytes: ONNX file sizes, external data included.
        nodes_reference, nodes_compressed: node counts, subgraphs included.
        fidelity: output comparison.
        latency: paired measurement, None when not measured.
        latency_note: why there is no measurement, or what limits it.
        compile_seconds: stage name to seconds.
        objective: error that was minimised; objective_value: its optimum over changed layers.
        budget: text of the budget, e.g. "macs <= 0.33"; empty when none was asked.
        budget_met: whether it holds.
        budget_used: reached fraction of the budgeted quantity, None when none was asked.
        undone: what was left undone, and the flag that would allow it.
        warnings: what a person should know.
        exit_code: what the command line returns.
        predicted: the predicted latency, None where the target has no cost model.
        engine: the engine in the artifact, in a line; "" where there is none.
        other_floats: floats that are in no row: biases, norms.
        other_bits: what they take once compiled, biases that fits have added included.
        gap: where a sum of losses was minimised, how far above the least possible it may be,
            as a share of it.
        quality: the task's own metric, None where none was given.
        gate: the quality gate, None where none was asked.
    """

    model_name: str
    model_sha256: str
    target: str
    recipe: str
    calibrated: bool
    layers: tuple[LayerRow, ...]
    reference_bytes: int
    compressed_bytes: int
    nodes_reference: int
    nodes_compressed: int
    fidelity: Fidelity
    latency: Paired | None
    latency_note: str
    compile_seconds: Mapping[str, float]
    objective: str
    objective_value: float | None
    budget: str
    budget_met: bool
    budget_used: float | None
    undone: tuple[str, ...]
    warnings: tuple[str, ...]
    exit_code: int
    predicted: Predicted | None = None
    engine: str = ""
    other_floats: int = 0
    other_bits: int = 0
    gap: float | None = None
    quality: Quality | None = None
    gate: Gated | None = None

    @property
    def changed(self) -> int:
        return sum(row.status == "changed" for row in self.layers)

    @property
    def reverted(self) -> int:
        return sum(row.status == "reverted" for row in self.layers)
