"""Normalising with proof: what the passes made runs equal to the original, or is undone."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...device_profiles.errors import ModelError
from ...passes.model import Model
from ...passes.normalise import PIPELINE, Pass, normalise
from ...runtime.session import Session, open_session, run
from ..reading.declared import repair_by_running
from ..reading.shapes import is_named
from ..samples.calibration import Feeds
from ..writing.save import write

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Outputs = dict[str, object]

ORIGINAL = "original.onnx"
NORMALISED = "normalised.onnx"

TOLERANCE: Mapping[str, float] = {
    "float64": 1e-9,
    "float32": 1e-4,
    "float16": 2e-2,
    "bfloat16": 1e-1,
}
"""Largest difference, relative to the output's largest value.

Folding reorders sums and rounds a weight once more: some eps (6e-8, 5e-4 in half precision) a
layer, times the square root of the terms in a sum, over some dozen layers. A wrong fold is off
by the size of the output itself.
"""
QUIET = 1e-2
"""Smaller outputs are compared as if they were this large: a sigmoid of -15 is noise."""
TIES = 1e-3
"""Share of an integer output that may differ: an arg-max may fall the other way on a tie."""


def verified_normalise(
    model: Model, workdir: Path, feeds: Sequence[Feeds]
) -> tuple[Model, list[str]]:
    """The normalised model, equal to `model` in ONNX Runtime on every feed, and warnings.

    `workdir` then holds `original.onnx`, which may be there before, and `normalised.onnx`.
    When the outcome of all passes differs or does not run, they are added one by one and those
    that break it are left out, with a warning. Declared output shapes that a run contradicts
    are repaired in both.

    Raises:
        ModelError: ONNX Runtime does not take the model as it is.
    """
    written = workdir / ORIGINAL
    if not written.exists():
        write(model, written)
    expected, stable = _reference(written, model.name, feeds)
    model, warnings = _with_true_shapes(model, feeds, expected)
    if warnings:
        write(model, written)
    if not stable:
        warnings.append("the model gives another result each run: it is taken as it is")
        return _keep(normalise(model, ()), workdir), warnings
    whole = _attempt(model, PIPELINE, workdir, feeds, expected)
    if isinstance(whole, Model):
        return whole, warnings
    kept: tuple[Pass, ...] = ()
    best = normalise(model, ())
    for candidate in PIPELINE:
        made = _attempt(model, (*kept, candidate), workdir, feeds, expected)
        if isinstance(made, Model):
            kept, best = (*kept, candidate), made
        else:
            warnings.append(f"pass {candidate.name} is left out: {made}")
    return _keep(best, workdir), warnings


def difference(expected: Outputs, got: Outputs) -> str:
    """What differs beyond tolerance between two runs, in words; empty where they agree."""
    for name, want in expected.items():
        said = _compare(want, got[name])
        if said:
            return f"output '{name}' {said}"
    return ""


def _attempt(
    model: Model,
    passes: Sequence[Pass],
    workdir: Path,
    feeds: Sequence[Feeds],
    expected: Sequence[Outputs],
) -> Model | str:
    """The model after `passes`, or why it cannot stand for the original."""
    try:
        made = _keep(normalise(model, passes), workdir)
        session = open_session(workdir / NORMALISED)
        for feed, want in zip(feeds, expected, strict=True):
            said = difference(want, _run(session, feed))
            if said:
                return said
    except Exception as error:
        logger.debug("normalising failed", exc_info=True)
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return made


def _keep(model: Model, workdir: Path) -> Model:
    write(model, workdir / NORMALISED)
    return model


def _reference(path: Path, name: str, feeds: Sequence[Feeds]) -> tuple[list[Outputs], bool]:
    """The original's outputs, and whether a second run gives the same."""
    try:
        session = open_session(path)
        outputs = [_run(session, feed) for feed in feeds]
        again = [_run(session, feed) for feed in feeds[:1]]
    except ModelError as error:
        place = error.where.replace(str(path), name)
        raise ModelError(
            f"does not run: {error.what}", where=place, hint=error.hint
        ) from error
    return outputs, not any(difference(a, b) for a, b in zip(outputs, again, strict=False))


def _run(session: Session, feed: Feeds) -> Outputs:
    return dict(run(session, feed).items())


def _with_true_shapes(
    model: Model, feeds: Sequence[Feeds], expected: Sequence[Outputs]
) -> tuple[Model, list[str]]:
    """The model with its outputs declared as they came out, and what was false before."""
    copy = model.copied()
    sizes, axes = _sizes(model, feeds, expected)
    return copy, repair_by_running(copy.graph_model.graph.outputs, sizes, axes)


def _sizes(
    model: Model, feeds: Sequence[Feeds], expected: Sequence[Outputs]
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Sizes of the outputs and of named input axes in the first run."""
    if not feeds:
        return {}, {}
    outputs = {
        name: cast(Array, value).shape
        for name, value in expected[0].items()
        if isinstance(value, np.ndarray)
    }
    axes: dict[str, int] = {}
    for value in model.graph_model.graph.inputs:
        array = feeds[0].get(str(value.name))
        for axis, size in enumerate(value.shape or ()):
            if array is not None and isinstance(size, ir.SymbolicDim) and is_named(size):
                axes[str(size.value)] = array.shape[axis]
    return outputs, axes


def _compare(want: object, got: object) -> str:
    if isinstance(want, list) and isinstance(got, list):
        ours, theirs = cast(list[object], want), cast(list[object], got)
        if len(ours) != len(theirs):
            return f"has {len(theirs)} items for {len(ours)}"
        return next(
            (s for a, b in zip(ours, theirs, strict=True) if (s := _compare(a, b))), ""
        )
    if isinstance(want, np.ndarray) and isinstance(got, np.ndarray):
        return _compare_arrays(cast(Array, want), cast(Array, got))
    return "" if want is None and got is None else "is there in one run only"


def _compare_arrays(want: Array, got: Array) -> str:
    if want.shape != got.shape or want.dtype != got.dtype:
        return f"has another shape or type: {_kind(got)} for {_kind(want)}"
    if want.size == 0:
        return ""
    limit = TOLERANCE.get(want.dtype.name)
    if limit is None:
        share = float(np.count_nonzero(want != got)) / want.size
        return f"differs in {share:.1%} of its values" if share > TIES else ""
    a, b = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return "is not finite in other places"
    scale = float(np.abs(a[finite]).max(initial=0.0))
    off = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    return f"differs by {off:.2g} of {scale:.2g}" if off > limit * max(scale, QUIET) else ""


def _kind(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"
