"""metrics.json, schema 1: the numbers of a compile, as tools read them.

Every key is always present. A number that does not exist is null: not measured, not known, or
not finite (JSON has no infinity). The one case that matters: `fidelity.sqnr_db` is null beside
a `max_abs_diff` of 0 when the outputs are equal, and null beside a null when they are not
finite.

Counts are those of LC part V, appendix B: rho_s (eq. 6), rho_add (eq. 12), rho_mult (eq. 13)
are reference over compressed. A dense or low-rank layer spends one addition and one
multiplication per multiply-add (B.2.1); a quantised one adds as often and multiplies once a
level (eq. 14). A count is never a speed-up: that stands in `latency.measured_ms` alone.
"""

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from ... import __version__
from .. import outcome as outcomes
from ..outcome import Fidelity, LayerRow, Outcome, Paired

FLOAT_BITS = 32
"""LC part V, eq. (7): a float that stays."""
Number = FiniteFloat | None
Tier = Literal["measured", "lookup", "interpolated", "analytic", "extrapolated"]


class Strict(BaseModel):
    """A frozen JSON object with exactly the keys it names."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=()
    )


class ModelId(Strict):
    """Which model was compiled."""

    name: str
    sha256: str = Field(description="Digest of the source bytes, external data included.")


class LayerCounts(Strict):
    """How many weights were considered, replaced, and put back since they lost."""

    total: int = Field(ge=0)
    changed: int = Field(ge=0)
    reverted: int = Field(ge=0)


class Size(Strict):
    """File bytes, and bits counted as the papers do, of all float parameters."""

    reference_bytes: int = Field(ge=0)
    compressed_bytes: int = Field(ge=0)
    packed_bytes: int | None = Field(ge=0, description="Bytes of the packed container.")
    reference_bits: int = Field(ge=0)
    compressed_bits: int = Field(ge=0)
    rho_s: Number = Field(description="reference_bits / compressed_bits; LC part V, eq. 6.")
    parameters: int = Field(ge=0, description="Weights, and every other float of the model.")
    bits_per_parameter: Number = Field(description="compressed_bits / parameters, all-in.")


class Ops(Strict):
    """Multiply-adds of one sample, over the layers whose output positions are known."""

    macs_reference: int | None = Field(ge=0)
    macs_compressed: int | None = Field(ge=0)
    rho_add: Number = Field(description="LC part V, eq. 12.")
    rho_mult: Number = Field(description="LC part V, eq. 13.")


class Error(Strict):
    """Largest relative error of a layer, ‖W − Ŵ‖ / ‖W‖, in operator and Frobenius norm."""

    max_rel_op: Number
    max_rel_fro: Number


class OutputFidelity(Strict):
    """Outputs of the compiled model against the original's, on inputs that no fit saw."""

    inputs: Literal["calibration", "synthetic"]
    n: int = Field(ge=0)
    sqnr_db: Number = Field(description="null with max_abs_diff 0: equal outputs.")
    top1_agreement: Number
    max_abs_diff: Number


class Quality(Strict):
    """A task metric before and after."""

    metric: str
    n: int | None = Field(ge=0, description="Samples; null where the metric does not say.")
    reference: Number
    compressed: Number
    drop: Number = Field(description="By how much it is worse, in its own unit.")


class Predicted(Strict):
    """Milliseconds by the cost model, and how well it knows; null where there is none."""

    reference: Number
    compressed: Number
    tier: Tier | None


class Measured(Strict):
    """Milliseconds by the clock: trimmed means, and the paired ratio with its interval."""

    reference: Number
    compressed: Number
    speedup: Number
    speedup_ci: tuple[Number, Number]
    protocol: dict[str, str | bool | int | float | None]


class Latency(Strict):
    """What was predicted and what was measured, never mixed."""

    predicted_ms: Predicted
    measured_ms: Measured | None


class Verdict(Strict):
    """Whether the budget holds, and what the command returned."""

    budget_met: bool
    exit_code: int = Field(ge=0, le=255)


class Metrics(Strict):
    """metrics.json, schema 1."""

    schema_: Literal[1] = Field(alias="schema")
    nncc: str = Field(description="Version that wrote this file.")
    model: ModelId
    target: str
    calibrated: bool = Field(
        description="Whether the fit, or the choice of what goes, used calibration inputs."
    )
    layers: LayerCounts
    size: Size
    ops: Ops
    error: Error
    fidelity: OutputFidelity
    quality: Quality | None
    latency: Latency
    compile_seconds: dict[str, FiniteFloat]
    verdict: Verdict

    def to_json(self) -> str:
        """The file's text: strict JSON, two-space indent, keys in the schema's order."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def metrics(outcome: Outcome) -> Metrics:
    """The numbers of `outcome`.

    Example:
        >>> ratio(64, 16), ratio(0, 0), ratio(64, 0)
        (4.0, 1.0, None)
    """
    rows = outcome.layers
    known = macs(rows)
    counted = operations(rows)
    other = FLOAT_BITS * outcome.other_floats
    bits = (
        sum(r.bits_reference for r in rows) + other,
        sum(r.bits_compressed for r in rows) + outcome.other_bits,
    )
    parameters = sum(r.weights_reference for r in rows) + outcome.other_floats
    return Metrics(
        schema=1,
        nncc=__version__,
        model=ModelId(name=outcome.model_name, sha256=outcome.model_sha256),
        target=outcome.target,
        calibrated=outcome.calibrated,
        layers=LayerCounts(
            total=len(rows), changed=outcome.changed, reverted=outcome.reverted
        ),
        size=Size(
            reference_bytes=outcome.reference_bytes,
            compressed_bytes=outcome.compressed_bytes,
            packed_bytes=None,
            reference_bits=bits[0],
            compressed_bits=bits[1],
            rho_s=ratio(*bits),
            parameters=parameters,
            bits_per_parameter=bits[1] / parameters if parameters else None,
        ),
        ops=Ops(
            macs_reference=None if known is None else known[0],
            macs_compressed=None if known is None else known[1],
            rho_add=None if counted is None else ratio(counted[0], counted[1]),
            rho_mult=None if counted is None else ratio(counted[0], counted[2]),
        ),
        error=Error(
            max_rel_op=largest(r.error_op for r in rows),
            max_rel_fro=largest(r.error_fro for r in rows),
        ),
        fidelity=_fidelity(outcome.fidelity),
        quality=None if outcome.quality is None else _quality(outcome.quality),
        latency=Latency(
            predicted_ms=_predicted(outcome),
            measured_ms=None if outcome.latency is None else _measured(outcome.latency),
        ),
        compile_seconds={k: finite(v) or 0.0 for k, v in outcome.compile_seconds.items()},
        verdict=Verdict(budget_met=outcome.budget_met, exit_code=outcome.exit_code),
    )


def _quality(found: outcomes.Quality) -> Quality:
    return Quality(
        metric=found.metric,
        n=found.n,
        reference=finite(found.reference),
        compressed=finite(found.compressed),
        drop=finite(found.drop),
    )


def _predicted(outcome: Outcome) -> Predicted:
    found = outcome.predicted
    if found is None:
        return Predicted(reference=None, compressed=None, tier=None)
    return Predicted(
        reference=finite(found.reference_ms),
        compressed=finite(found.compressed_ms),
        tier=found.tier,
    )


def macs(rows: Iterable[LayerRow]) -> tuple[int, int] | None:
    """Multiply-adds (reference, compressed) of the rows that know both; None: none does."""
    known = [
        (r.macs_reference, r.macs_compressed)
        for r in rows
        if r.macs_reference is not None and r.macs_compressed is not None
    ]
    return (sum(a for a, _ in known), sum(b for _, b in known)) if known else None


def operations(rows: Iterable[LayerRow]) -> tuple[int, int, int] | None:
    """Reference operations of either kind, additions, multiplications; of rows that know."""
    known = [
        (
            r.macs_reference,
            r.macs_compressed if r.adds_compressed is None else r.adds_compressed,
            r.macs_compressed if r.mults_compressed is None else r.mults_compressed,
        )
        for r in rows
        if r.macs_reference is not None and r.macs_compressed is not None
    ]
    if not known:
        return None
    before, adds, mults = zip(*known, strict=True)
    return sum(before), sum(adds), sum(mults)


def ratio(reference: float, compressed: float) -> float | None:
    """Reference over compressed; 1 where both are 0, None where it would be infinite."""
    if compressed == 0:
        return 1.0 if reference == 0 else None
    return reference / compressed


def finite(value: float | None) -> float | None:
    """The value where JSON can hold it, else None."""
    return float(value) if value is not None and math.isfinite(value) else None


def largest(values: Iterable[float]) -> float | None:
    """The maximum; 0 of nothing, None where a value is not finite (max() would hide a NaN)."""
    held = list(values)
    return max(held, default=0.0) if all(map(math.isfinite, held)) else None


def _fidelity(f: Fidelity) -> OutputFidelity:
    return OutputFidelity(
        inputs=f.inputs,
        n=f.n,
        sqnr_db=finite(f.sqnr_db),
        top1_agreement=finite(f.top1_agreement),
        max_abs_diff=finite(f.max_abs_diff),
    )


def _measured(paired: Paired) -> Measured:
    low, high = paired.speedup_ci
    return Measured(
        reference=finite(paired.reference.trimmed_mean_ms),
        compressed=finite(paired.compressed.trimmed_mean_ms),
        speedup=finite(paired.speedup),
        speedup_ci=(finite(low), finite(high)),
        protocol={
            k: finite(v) if isinstance(v, float) else v for k, v in paired.protocol.items()
        },
    )
