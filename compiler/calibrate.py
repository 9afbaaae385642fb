"""Calibration of this machine: microbenchmarked once, kept, and read back as a cost model."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..device_profiles.cost.cpu import CpuModel, Sample, fitted
from ..device_profiles.cost.fused import FusedKernel
from ..device_profiles.cost.measured import key_of, measured
from ..device_profiles.cost.model import CostModel
from ..device_profiles.host import channel_block, detect, last_cache_bytes, own_cache_bytes
from ..device_profiles.kernel import Kernel, LinearOp
from ..runtime.machine import cpu_model
from .cache import cache_folder

logger = logging.getLogger(__name__)

_VERSION = 5
"""Of what is measured and how it is stored."""
_LARGEST = 1 << 24
Size = Annotated[int, Field(ge=0, le=1 << 40)]
Sizes = tuple[Size, ...]


class _Row(BaseModel):
    """One measured kernel as it is stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    op: str
    linear: tuple[LinearOp, Size, Size, Size, Sizes, Sizes | None, Sizes | None] | None
    read: Size
    written: Size
    strides: Sizes
    fused: tuple[str, ...]
    seconds: Annotated[float, Field(gt=0, lt=1e3)]
    resident: bool

    def sample(self) -> Sample:
        linear = None if self.linear is None else Kernel(*self.linear)
        kernel = FusedKernel(
            self.op, linear, self.read, self.written, self.strides, self.fused
        )
        return Sample(kernel, self.seconds, self.resident)


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: str
    rows: tuple[_Row, ...]


@dataclass(frozen=True)
class Machine:
    """This machine's cost model, before it knows the size of a net.

    Args:
        samples: what was measured.
        model: what was fitted to it.
        digest: of the samples: plans that lean on it depend on it.
    """

    samples: tuple[Sample, ...]
    model: CpuModel
    digest: str

    def for_weights(self, weight_bytes: int) -> CostModel:
        """The cost model for a net of that size: measured kernels first, then the fit."""
        model = self.model.for_weights(weight_bytes, own_cache_bytes(), last_cache_bytes())
        resident = {key_of(s.kernel): s.seconds for s in self.samples if s.resident}
        rows: list[tuple[FusedKernel, float]] = []
        for sample in self.samples:
            if sample.resident:
                continue
            near = resident.get(key_of(sample.kernel))
            if near is not None:
                seconds = (1 - model.share) * near + model.share * sample.seconds
                rows.append((sample.kernel, seconds))
            elif model.share == 1:
                rows.append((sample.kernel, sample.seconds))
        return measured(rows, model)


def calibrated(
    threads: int,
    *,
    measure: bool = True,
    again: bool = False,
    on_case: Callable[[int, int], None] | None = None,
) -> Machine | None:
    """This machine's cost model: as it was kept, or measured now.

    Args:
        threads: threads inside an operator.
        measure: False returns None where nothing is kept.
        again: measure even so.
        on_case: called with (done, of how many).

    Raises:
        MeasureError: what was measured makes no sense.
    """
    path = _path(threads)
    rows = None if again else _read(path)
    if rows is None:
        if not measure:
            return None
        rows = _measured(threads, on_case)
        _write(path, rows)
    samples = tuple(row.sample() for row in rows)
    digest = hashlib.sha256(repr([r.model_dump() for r in rows]).encode()).hexdigest()
    return Machine(samples=samples, model=fitted(samples, channel_block()[0]), digest=digest)


def _measured(threads: int, on_case: Callable[[int, int], None] | None) -> tuple[_Row, ...]:
    from ..runtime.microbench import measured
    from ..runtime.microbench_cases import cases

    found = measured(cases(channel_block()[0]), threads=threads, on_case=on_case)
    return tuple(_row(sample) for sample in found)


def _row(sample: Sample) -> _Row:
    kernel, linear = sample.kernel, sample.kernel.linear
    return _Row(
        op=kernel.op,
        linear=None
        if linear is None
        else (
            linear.op,
            linear.groups,
            linear.outputs,
            linear.inputs,
            linear.kernel,
            linear.in_extent,
            linear.out_extent,
        ),
        read=kernel.read,
        written=kernel.written,
        strides=kernel.strides,
        fused=kernel.fused,
        seconds=sample.seconds,
        resident=sample.resident,
    )


def _machine(threads: int) -> str:
    """What a calibration holds for."""
    version = detect().runtime_version
    return f"{cpu_model()}, ONNX Runtime {version}, {threads} threads, format {_VERSION}"


def _path(threads: int) -> Path:
    key = hashlib.sha256(_machine(threads).encode()).hexdigest()[:16]
    return cache_folder() / "calibration" / f"{key}.json"


def _read(path: Path) -> tuple[_Row, ...] | None:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        return _Stored.model_validate_json(path.read_bytes()).rows
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        logger.warning(
            "the calibration at %s is unreadable and is made again: %s", path, error
        )
        return None


def _write(path: Path, rows: tuple[_Row, ...]) -> None:
    """Kept for next time; a cache that cannot be written is only a warning."""
    content = {"machine": path.stem, "rows": [row.model_dump() for row in rows]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        logger.warning("the calibration cannot be kept at %s: %s", path, error)
