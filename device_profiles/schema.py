"""The layout of a device's TOML file: every fact stands with its source.

A fact is `{ value = ..., source = "..." }`. Unknown keys, missing sources, values of the wrong
type and costs that physics forbids are refused with the file and the key.
"""

from pathlib import Path
from typing import Annotated, Generic, Literal, Self, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .cost.fused import KernelClass
from .errors import UsageError
from .profile import Parser, Runtime
from .toml_file import read_toml

T = TypeVar("T")
Count = Annotated[int, Field(ge=1, le=1 << 62)]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Word = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.+-]+$")]
Precision = Literal["fp32", "fp16", "int8"]

# Facts that a file either carries or leaves to detection.
DETECTED = ("max_opset", "max_ir_version", "rank_step", "group_width", "memory_bytes")
WINOGRAD = 2.25
"""F(2×2, 3×3) does 36 multiplications as 16: no fp kernel gains more on its peak rate."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Fact(_Table, Generic[T]):
    """One thing that is known of a device, and from where."""

    value: T
    source: Text


class Facts(_Table):
    """What nncc decides by; see `DeviceProfile` for the meaning of each."""

    operators: Fact[Annotated[list[Word], Field(max_length=1000)] | Literal["any"] | Parser]
    dtypes: Fact[Annotated[list[Word], Field(max_length=100)]]
    precisions: Fact[Annotated[list[Precision], Field(min_length=1, max_length=9)]]
    build_weight_copies: Fact[Count]
    build_workspace_bytes: Fact[Annotated[int, Field(ge=0, le=1 << 62)]]
    runtime_version: Fact[Text] | None = None
    parser: Fact[Parser] | None = None
    max_opset: Fact[Annotated[int, Field(ge=7, le=1000)]] | None = None
    max_ir_version: Fact[Annotated[int, Field(ge=3, le=1000)]] | None = None
    rank_step: Fact[Annotated[int, Field(ge=1, le=1 << 16)]] | None = None
    group_width: Fact[Annotated[int, Field(ge=1, le=1 << 16)]] | None = None
    memory_bytes: Fact[Count] | None = None
    sparse: Fact[Literal["none", "2:4"]] | None = None
    compute_capabilities: Fact[Annotated[list[Word], Field(max_length=50)]] | None = None
    bandwidth_gbs: Fact[Positive] | None = None
    peak_gflops: Fact[dict[Precision, Positive]] | None = None


class LoweringTable(_Table):
    """How forms become nodes; see `Lowering`. What is left out has its default."""

    source: Text
    graph_precision: Literal["fp32", "fp16"] | None = None
    quantized: Literal["folded", "u8s8", "s8s8"] | None = None


class ProtocolTable(_Table):
    """How latency is measured; see `Protocol`. What is left out has its default."""

    source: Text
    warmup_ms: Annotated[int, Field(ge=0, le=3_600_000)] | None = None
    iterations: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    rounds: Annotated[int, Field(ge=1, le=1000)] | None = None
    trim: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = None
    trim_side: Literal["high", "both"] | None = None
    cooldown_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None
    round_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None


class CostTable(_Table):
    """A roofline; keys are the fields of `cost.roofline.Roofline`."""

    launch_us: Positive
    peak_gflops: Positive
    bandwidth_gbs: Positive
    element_bytes: Annotated[int, Field(ge=1, le=8)]
    tile: Annotated[int, Field(ge=1, le=4096)] = 1
    rates: dict[KernelClass, Positive] = {}
    traffic: dict[KernelClass, Positive] = {}
    classes_seen: Annotated[list[KernelClass], Field(max_length=50)] = []


class CalibrationTable(_Table):
    """Where a roofline comes from; keys are the fields of `cost.roofline.Calibration`."""

    source: Text
    rows: Annotated[int, Field(ge=0, le=1 << 40)]
    protocol: Text
    median_error: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    worst_error: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None


class ProfileFile(_Table):
    """A whole TOML file. With `detected`, the facts of `DETECTED` are found on the machine."""

    title: Text
    runtime: Runtime
    facts: Facts
    aliases: Annotated[list[Word], Field(max_length=20)] = []
    detected: bool = False
    lowering: LoweringTable | None = None
    protocol: ProtocolTable | None = None
    about: Annotated[dict[Text, Fact[Text]], Field(max_length=100)] = {}
    cost: dict[Precision, CostTable] = {}
    calibration: dict[Precision, CalibrationTable] = {}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """What no field says alone. The first word of a message is the key at fault."""
        for key in DETECTED:
            written = getattr(self.facts, key) is not None
            if self.detected and written:
                raise ValueError(f"facts.{key}: is detected on the machine and written here")
            if not self.detected and not written and key != "memory_bytes":
                raise ValueError(f"facts.{key}: field required")
        if self.runtime == "tensorrt" and self.facts.parser is None:
            known = ", ".join(get_args(Parser))
            raise ValueError(f"facts.parser: field required with tensorrt, one of {known}")
        for precision in {**self.cost, **self.calibration}:
            if precision not in self.facts.precisions.value:
                raise ValueError(f"cost.{precision}: is not in facts.precisions")
            if precision not in self.calibration:
                raise ValueError(f"calibration.{precision}: a cost without its calibration")
            if precision not in self.cost:
                raise ValueError(f"cost.{precision}: a calibration without its cost")
            why = impossible(self.cost[precision], precision, self.facts)
            if why:
                raise ValueError(f"cost.{precision}.{why}")
        return self


def impossible(cost: CostTable, precision: Precision, facts: Facts) -> str:
    """Why no device of these facts runs at that roofline; "" where one could.

    Memory is no faster than its theoretical bandwidth, and arithmetic no faster than the peak
    but for Winograd's factor of `WINOGRAD`.
    """
    most = facts.bandwidth_gbs.value if facts.bandwidth_gbs else None
    if most is not None and cost.bandwidth_gbs > most:
        return (
            f"bandwidth_gbs: physically impossible: {cost.bandwidth_gbs:g} GB/s, "
            f"and the memory's theoretical rate is {most:g}"
        )
    peak = facts.peak_gflops.value.get(precision) if facts.peak_gflops else None
    if peak is None:
        return ""
    kind, factor = max([("", 1.0), *cost.rates.items()], key=lambda item: item[1])
    rate = cost.peak_gflops * factor
    if rate <= WINOGRAD * peak:
        return ""
    what = f" of {kind} kernels" if kind else ""
    return (
        f"peak_gflops: physically impossible: {rate:g} GFLOP/s{what}, "
        f"and {WINOGRAD} times the theoretical peak is {WINOGRAD * peak:g}"
    )


def read(path: Path) -> ProfileFile:
    """The checked content of a device's TOML file, which stands for itself.

    Raises:
        UsageError: not TOML, or a key is missing, unknown or of the wrong type; names the file
            and the key.
    """
    return checked(read_toml(path), path)


def checked(tables: dict[str, object], path: Path) -> ProfileFile:
    """Tables of a TOML file as a profile.

    Args:
        tables: as read from `path`, and what it inherits.
        path: to name in errors.

    Raises:
        UsageError: as `read`.
    """
    try:
        return ProfileFile.model_validate(tables)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        told = first["msg"]
        if first["type"] == "value_error":  # says its own key
            key, _, told = told.removeprefix("Value error, ").partition(": ")
        raise UsageError(
            _short(f"{key}: {told[:1].lower()}{told[1:]}"),
            where=str(path),
            hint='a fact reads key = { value = ..., source = "..." }',
        ) from error
    except RecursionError as error:
        raise UsageError("nested too deeply", where=str(path)) from error


def _short(text: str) -> str:
    """A message without line breaks and no longer than a person reads."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:297]}..."


def json_schema() -> dict[str, object]:
    """The JSON schema of a device's file, for editors and other tools.

    A file that names a base may leave out what the base states.
    """
    schema = cast("dict[str, object]", ProfileFile.model_json_schema())
    definitions = cast("dict[str, dict[str, object]]", schema["$defs"])
    properties = cast("dict[str, object]", schema["properties"])
    properties["base"] = {
        "description": "A shipped device whose facts hold where this file states none.",
        "type": "string",
    }
    whole = {
        "required": schema.pop("required"),
        "properties": {"facts": {"required": definitions["Facts"].pop("required")}},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "if": {"not": {"required": ["base"]}},
        "then": whole,
    }
