"""Factors of 16 bits: rounded in the term itself, so that what is counted is stored."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...geometry import Weights
from ..form import Emitter, read_only

FACTOR_BITS = 16
"""LC part V, appendix B.1: factors are stored in half precision."""

_WORTH = 1.01
"""Most that rounding may multiply the squared error by."""


def rounded(
    factors: Sequence[npt.NDArray[Any]], squared: Callable[[tuple[Weights, ...]], float]
) -> tuple[Weights, ...]:
    """The factors in float32, rounded to 16 bits unless that is felt in the fit.

    Rounding moves a weight by about 3 in 10,000, which drowns in the error of any fit that
    compresses. A fit that is all but exact, or whose numbers are outside what 16 bits hold,
    keeps its 32.

    Args:
        factors: as fitted.
        squared: the squared error of the weight that factors stand for.
    """
    exact = tuple(read_only(factor) for factor in factors)
    with np.errstate(over="ignore"):
        halves = tuple(
            read_only(factor.astype(np.float16).astype(np.float32)) for factor in exact
        )
    if not all(np.isfinite(half).all() for half in halves):
        return exact
    return halves if squared(halves) <= _WORTH * squared(exact) else exact


def as_stored(factor: Weights) -> npt.NDArray[Any]:
    """The factor in 16 bits where it loses nothing, else as it is; closed for writing."""
    with np.errstate(over="ignore"):
        half = factor.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), factor):
        return factor
    half.flags.writeable = False
    return half


def decoded(emitter: Emitter, factor: Weights, part: str) -> ir.Value:
    """The factor as a float32 value of the graph, stored as `as_stored` says."""
    stored = as_stored(factor)
    value = emitter.stored(stored, part)
    if stored.dtype == np.float32:
        return value
    return emitter.node("Cast", [value], f"{part}.float", {"to": int(ir.DataType.FLOAT)})


def reshaped(emitter: Emitter, value: ir.Value, sizes: Sequence[int], part: str) -> ir.Value:
    """A Reshape to `sizes`: 0 keeps an axis, -1 takes the rest."""
    target = emitter.stored(np.array(sizes, np.int64), f"{part}.sizes")
    return emitter.node("Reshape", [value, target], part)
