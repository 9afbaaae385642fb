"""What a compile was asked to do: one typed value behind command line and Python API."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Recipe = Literal[
    "auto",
    "none",
    "low-rank",
    "quantize",
    "additive",
    "tt-sparse",
    "int8",
    "svd",
    "svd-energy",
    "svd-error",
    "l-rank",
    "lc",
    "pca",
    "ft",
    "pfp",
    "alds",
    "alds+",
    "cepd",
]
Objective = Literal["operator", "sqrt-k", "blockwise", "frobenius"]

_UNITS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "": 1.0}


def _milliseconds(value: object) -> object:
    """A time such as 12ms, 0.5s or 800us in milliseconds; a bare number is milliseconds."""
    if not isinstance(value, str):
        return value
    number = value.strip().rstrip("smuµ ")
    unit = value.strip()[len(number) :].strip()
    try:
        return float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        return value


def _times(value: object) -> object:
    """A factor such as 2, 2x or 2×."""
    return value.strip().rstrip("x× ") if isinstance(value, str) else value


_LONG_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}


def _seconds(value: object) -> object:
    """A time such as 90s, 30m or 2h in seconds; a bare number is seconds."""
    if not isinstance(value, str):
        return value
    number = value.strip().rstrip("sminh ")
    unit = value.strip()[len(number) :].strip()
    try:
        return float(number) * _LONG_UNITS[unit]
    except (KeyError, ValueError):
        return value


def _share(value: object) -> object:
    """A drop such as 1% as 0.01."""
    if not isinstance(value, str) or not value.strip().endswith("%"):
        return value
    try:
        return float(value.strip()[:-1]) / 100
    except ValueError:
        return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, lt=1e9)]
Drop = Annotated[float, BeforeValidator(_share), Field(ge=0, lt=1e9)]
Milliseconds = Annotated[float, BeforeValidator(_milliseconds), Field(gt=0, lt=1e9)]
Factor = Annotated[float, BeforeValidator(_times), Field(ge=1, le=1e6)]


class CompileOptions(BaseModel):
    """Every option of `nncc compile`; defaults are written here and nowhere else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Path = Field(default=Path("build"), description="Folder of the artifact.")
    recipe: Recipe = Field(
        default="auto",
        description="auto: what is safe, or the best of all forms for a budget; none; "
        "low-rank: fewer multiply-adds; quantize: codes; additive: codes and corrections; "
        "tt-sparse: trains and corrections; int8; others are published methods.",
    )
    bits: float | None = Field(
        default=None,
        ge=1,
        le=16,
        description="Budget: stored bits of a weight, all in, e.g. 3.4; see --recipe.",
    )
    size: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Budget: kept fraction of what the weights take, e.g. 0.3.",
    )
    macs: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Budget: kept fraction of the multiply-adds, e.g. 0.33.",
    )
    latency: Milliseconds | None = Field(
        default=None, description="Budget: predicted time of an inference, e.g. 12ms or 800us."
    )
    speedup: Factor | None = Field(
        default=None, description="Budget: predicted speed-up over the original, e.g. 2."
    )
    metric: str | None = Field(
        default=None,
        description="The task's own score of a model: package.module:function or "
        "FILE.py:function.",
    )
    lower_is_better: bool = Field(
        default=False, description="Of the metric, less is better: a loss or an error rate."
    )
    max_drop: Drop | None = Field(
        default=None,
        description="Gate: by how much the metric may be worse, in its own unit, e.g. 0.01.",
    )
    min_agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Gate: least agreement of the outputs with the original's; no labels.",
    )
    time_budget: Seconds | None = Field(
        default=None,
        description="Begin no further model after this long, e.g. 30m: of a gate's search, or "
        "of tries for a time that the clock missed.",
    )
    objective: Objective = Field(
        default="operator", description="Layer error whose maximum is minimised."
    )
    shape: tuple[str, ...] = Field(
        default=(),
        description="Input sizes, NAME:1x3x224x224 or NAME:MIN:OPT:MAX; repeatable.",
    )
    calib: str | None = Field(
        default=None, description="Calibration inputs: FILE.npz or package.module:function."
    )
    plan: Path | None = Field(
        default=None, description="Apply this plan.json instead of allocating."
    )
    form: tuple[str, ...] = Field(
        default=(),
        description="The form of every layer it fits, e.g. 'quantize(k=4) + prune(1%)', or of "
        "some: 'layer4.*=lowrank(j=8)'; repeatable; see `nncc forms list`.",
        json_schema_extra={"separator": ";"},
    )
    ranges: Literal["minmax", "percentile", "entropy"] = Field(
        default="minmax",
        description="How int8 takes the ranges of activations from --calib: whole, without "
        "the outermost 0.01 %, or by least divergence.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of every random choice.")
    jobs: int = Field(
        default=0, ge=0, description="Worker threads for spectra; 0: one a core."
    )
    threads: int = Field(
        default=1, ge=1, description="Runtime threads to measure with, and to predict for."
    )
    measure: bool = Field(
        default=True, description="Measure on targets that are this machine."
    )
    revert: bool = Field(
        default=True,
        description="Layers that measure slower on this machine go back to dense.",
    )
    rounds: int = Field(
        default=7, ge=2, le=101, description="ABBA rounds, each in fresh processes."
    )
    seconds: float = Field(
        default=0.5, gt=0, le=60, description="Time spent per model in each round, seconds."
    )
    trim: float = Field(
        default=0.25,
        ge=0,
        lt=0.5,
        description="Trimmed fraction: of each side, or of the highest.",
    )
    trim_side: Literal["both", "high"] = Field(
        default="both",
        description="both: two-sided trim; high: drop the highest (the paper: 0.1).",
    )
    force: bool = Field(
        default=False, description="Replace an output folder that holds something."
    )
    resume: bool = Field(default=False, description="Continue an interrupted compile.")
    dry_run: bool = Field(default=False, description="Say what would be done; write nothing.")
    allow_noop: bool = Field(
        default=False, description="Exit 0 even when no layer was changed."
    )
