"""An `Outcome` as files, and back: layers.csv, manifest.json, times.json and outputs.json.

metrics.json holds the numbers that tools rely on; these hold the rest, each fact once, so that
`read(write(outcome)) == outcome`. The manifest's `decisions` are the same bytes for the same
input, options and versions; what a clock said stands elsewhere.
"""

import csv
import dataclasses
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import Field, TypeAdapter

from ...device_profiles.profile import DeviceProfile
from ..options import CompileOptions
from ..outcome import (
    Fidelity,
    Gated,
    LayerRow,
    LayerStatus,
    Outcome,
    Paired,
    Predicted,
    Quality,
)
from .metrics import Metrics, Number, Strict, finite

# A spreadsheet runs a cell that begins with one of these; names come from the model file.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
FIELDS = dataclasses.fields(LayerRow)


class Decision(Strict):
    """What became of one weight."""

    name: str
    op: str
    shape: tuple[int, ...]
    status: LayerStatus
    form: str
    rank: int | None
    blocks: int | None
    scheme: int | None
    reason: str


class Decisions(Strict):
    """What was asked and chosen: a function of input, options and versions.

    But for layers that went back since they measured slower: there the clock had its say.
    """

    recipe: str
    seed: int
    calibrated: bool
    objective: str
    objective_value: Number
    budget: str
    budget_met: bool
    budget_used: Number
    gap: Number = None
    nodes_reference: int
    nodes_compressed: int
    layers: tuple[Decision, ...]


class Prediction(Strict):
    """What a predicted latency rests on; the milliseconds stand in metrics.json."""

    extrapolated: tuple[str, ...]
    basis: str
    unseen: tuple[str, ...]
    rewritten_ms: Number = Field(
        default=None, description="After exact rewriting alone, every layer dense."
    )


class Gate(Strict):
    """What the quality gate came to."""

    text: str
    is_met: bool
    said: str
    trials: int = Field(ge=0)
    reason: str


class Notes(Strict):
    """What a person should know."""

    undone: tuple[str, ...]
    warnings: tuple[str, ...]
    latency: str
    prediction: Prediction | None = None
    engine: str = ""
    gate: Gate | None = None
    higher_is_better: bool = Field(default=True, description="Of the quality's metric.")


class Device(Strict):
    """The target, as its profile described it."""

    name: str
    title: str
    runtime: str
    max_opset: int | None
    max_ir_version: int | None


class FileFact(Strict):
    """A file of the artifact or an input: digest and size."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class InputFact(Strict):
    """A file that was read: its name, not its path."""

    name: str
    sha256: str


class Manifest(Strict):
    """manifest.json, schema 1."""

    schema_: Literal[1] = Field(alias="schema")
    nncc: str
    command: str = Field(description="Repeats the compile.")
    inputs: dict[str, InputFact]
    target: Device
    decisions: Decisions
    notes: Notes
    profile: str | None = Field(description="Folder under profiles/ of the measurement.")
    versions: dict[str, str]
    files: dict[str, FileFact]

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def decisions(outcome: Outcome, options: CompileOptions) -> Decisions:
    """The deterministic part of the manifest."""
    keys = list(Decision.model_fields)
    return Decisions(
        recipe=outcome.recipe,
        seed=options.seed,
        calibrated=outcome.calibrated,
        objective=outcome.objective,
        objective_value=finite(outcome.objective_value),
        budget=outcome.budget,
        budget_met=outcome.budget_met,
        budget_used=finite(outcome.budget_used),
        gap=finite(outcome.gap),
        nodes_reference=outcome.nodes_reference,
        nodes_compressed=outcome.nodes_compressed,
        layers=tuple(Decision(**{k: getattr(r, k) for k in keys}) for r in outcome.layers),
    )


def notes(outcome: Outcome) -> Notes:
    """What a person should know of an outcome."""
    found = outcome.predicted
    return Notes(
        undone=outcome.undone,
        warnings=outcome.warnings,
        latency=outcome.latency_note,
        prediction=None
        if found is None
        else Prediction(
            extrapolated=found.extrapolated,
            basis=found.basis,
            unseen=found.unseen,
            rewritten_ms=found.rewritten_ms,
        ),
        engine=outcome.engine,
        gate=None if outcome.gate is None else Gate(**dataclasses.asdict(outcome.gate)),
        higher_is_better=outcome.quality is None or outcome.quality.higher_is_better,
    )


def device(target: DeviceProfile | str) -> Device:
    """The target as the manifest tells it."""
    if isinstance(target, str):
        return Device(
            name=target, title=target, runtime="", max_opset=None, max_ir_version=None
        )
    return Device(
        name=target.name,
        title=target.title,
        runtime=target.runtime,
        max_opset=target.max_opset,
        max_ir_version=target.max_ir_version,
    )


def layers_csv(rows: tuple[LayerRow, ...]) -> str:
    """layers.csv: a row a layer, columns as `LayerRow`; shapes as 64x3x3x3, None empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([f.name for f in FIELDS])
    for row in rows:
        table.writerow([_cell(getattr(row, f.name)) for f in FIELDS])
    return text.getvalue()


def layer_json(row: LayerRow) -> dict[str, object]:
    """The row as a JSON object, null where JSON has no number."""
    return cast(dict[str, object], _finite(dataclasses.asdict(row)))


def read_layers(text: str) -> tuple[LayerRow, ...]:
    """The rows of a layers.csv.

    Raises:
        ValueError: a column is missing or a cell does not fit.
    """
    adapter = TypeAdapter(LayerRow)
    rows: list[LayerRow] = []
    table = csv.DictReader(io.StringIO(text, newline=""))
    if table.fieldnames != [f.name for f in FIELDS]:
        raise ValueError(f"its columns are {table.fieldnames}")
    for cells in table:
        given: dict[str, Any] = {}
        for f in FIELDS:
            cell = cells[f.name]
            if f.name == "shape":
                given[f.name] = tuple(cell.split("x")) if cell else ()
            elif f.type is str:
                given[f.name] = cell[1:] if cell.startswith("'") else cell
            else:
                given[f.name] = cell if cell != "" else None
        rows.append(adapter.validate_python(given))
    return tuple(rows)


def times_json(paired: Paired) -> str:
    """times.json: every raw sample, the summaries and the protocol."""
    return _strict(TypeAdapter(Paired).dump_python(paired, mode="python"))


def outputs_json(fidelity: Fidelity) -> str:
    """outputs.json: the comparison of every output."""
    return _strict(TypeAdapter(Fidelity).dump_python(fidelity, mode="python"))


def fingerprint(target: str, paired: Paired) -> str:
    """The folder name of a measurement: the target and a digest of the protocol.

    Example:
        >>> bool(re.fullmatch("[A-Za-z0-9_.-]+", "x86-cpu-0123456789ab"))
        True
    """
    text = json.dumps(dict(paired.protocol), sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', target)}-{digest}"


def read_outcome(
    metrics: Metrics,
    manifest: Manifest,
    layers: tuple[LayerRow, ...],
    outputs: str,
    times: str | None,
) -> Outcome:
    """The outcome that these files tell of.

    Raises:
        ValueError: a file does not fit its type.
    """
    chosen = manifest.decisions
    other = metrics.size.parameters - sum(row.weights_reference for row in layers)
    left = metrics.size.compressed_bits - sum(row.bits_compressed for row in layers)
    return Outcome(
        model_name=metrics.model.name,
        model_sha256=metrics.model.sha256,
        target=metrics.target,
        recipe=chosen.recipe,
        calibrated=metrics.calibrated,
        layers=layers,
        reference_bytes=metrics.size.reference_bytes,
        compressed_bytes=metrics.size.compressed_bytes,
        nodes_reference=chosen.nodes_reference,
        nodes_compressed=chosen.nodes_compressed,
        fidelity=_fidelity(outputs),
        latency=None if times is None else TypeAdapter(Paired).validate_python(_parse(times)),
        latency_note=manifest.notes.latency,
        compile_seconds=metrics.compile_seconds,
        objective=chosen.objective,
        objective_value=chosen.objective_value,
        budget=chosen.budget,
        budget_met=metrics.verdict.budget_met,
        budget_used=chosen.budget_used,
        gap=chosen.gap,
        undone=manifest.notes.undone,
        warnings=manifest.notes.warnings,
        exit_code=metrics.verdict.exit_code,
        predicted=_prediction(metrics, manifest.notes.prediction),
        engine=manifest.notes.engine,
        other_floats=other,
        other_bits=left,
        quality=_quality(metrics, manifest.notes),
        gate=None
        if manifest.notes.gate is None
        else Gated(**manifest.notes.gate.model_dump()),
    )


def _quality(metrics: Metrics, notes: Notes) -> Quality | None:
    held = metrics.quality
    if held is None:
        return None
    before, after = (math.nan if v is None else v for v in (held.reference, held.compressed))
    return Quality(held.metric, held.n, before, after, notes.higher_is_better)


def _prediction(metrics: Metrics, notes: Prediction | None) -> Predicted | None:
    held = metrics.latency.predicted_ms
    if notes is None or held.reference is None or held.compressed is None or held.tier is None:
        return None
    return Predicted(
        held.reference,
        held.compressed,
        held.tier,
        notes.extrapolated,
        notes.basis,
        notes.unseen,
        notes.rewritten_ms,
    )


def _fidelity(text: str) -> Fidelity:
    """The comparison; infinity, which JSON lacks, comes back where outputs are equal."""
    given = cast(dict[str, Any], json.loads(text))
    given["sqnr_db"], given["max_abs_diff"] = _pair(given["sqnr_db"], given["max_abs_diff"])
    given["per_output"] = {k: _pair(*v) for k, v in given["per_output"].items()}
    return TypeAdapter(Fidelity).validate_python(given)


def _pair(sqnr_db: float | None, diff: float | None) -> tuple[float, float]:
    if diff is None:  # an output of the compiled model alone is not finite
        return (-math.inf if sqnr_db is None else sqnr_db), math.inf
    return (math.inf if sqnr_db is None else sqnr_db), diff


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "x".join(str(v) for v in cast(tuple[int, ...], value))
    if isinstance(value, str):
        return "'" + value if value.startswith(FORMULA) else value
    return repr(value)


def _strict(value: object) -> str:
    """JSON text without NaN or infinity: null in their place."""
    return json.dumps(_finite(value), indent=1, allow_nan=False, sort_keys=True) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        held = cast(Mapping[str, object], value)
        return {str(k): _finite(v) for k, v in held.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in cast(list[object], value)]
    return value


def _parse(text: str) -> object:
    """JSON with null read as NaN (times.json has no other null)."""

    def back(value: object) -> object:
        if value is None:
            return math.nan
        if isinstance(value, dict):
            return {k: back(v) for k, v in cast(dict[str, object], value).items()}
        if isinstance(value, list):
            return [back(v) for v in cast(list[object], value)]
        return value

    return back(json.loads(text))
