"""Levels and corrections together: the C step of quantisation plus pruning."""

from typing import Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from ...geometry import Weights
from ..codes.kmeans import kmeans
from ..codes.quantize import Quantize
from ..codes.quantize_levels import Codes, Levels
from ..codes.quantize_term import CodedTerm
from ..form import Form
from ..metric import IDENTITY, Metric
from ..sparse.prune import Prune
from ..sparse.prune_select import kept_count, largest
from ..sparse.prune_term import PruneTerm, prune_term
from .sum_codebook import signs, trimmed
from .sum_corrected import fit_corrected

_PASSES = 10
_CHUNK = 1 << 18


@runtime_checkable
class Levelled(Protocol):
    """A form whose levels can be fitted to some of the weights alone."""

    def levels(self, W: Weights, weights: Weights | None) -> Levels:
        """The best levels for W (R, n); a weight of 0 is left out."""
        ...


def is_pair(quantised: Form, corrected: Form) -> bool:
    """Whether the two are levels and an ℓ0 constraint, which are fitted together."""
    if not (isinstance(corrected, Prune) and corrected.by == "l0"):
        return False
    return isinstance(quantised, Levelled)


def fit_pair(
    W: Weights, quantised: Levelled, kappa: float, metric: Metric = IDENTITY
) -> tuple[CodedTerm, PruneTerm]:
    """argmin of ‖W − Q − P‖² over levels, codes and κ corrections (in H: `fit_corrected`).

    With given levels every weight takes its nearest one and the κ largest residuals are
    corrected: exact (LC part V, theorem 4.1). Levels that are free are fitted to the
    *uncorrected* weights only and the two steps alternate while the error falls; the one
    codebook of a layer is found on sorted values (`trimmed`).

    Args:
        W: (g, m, c, *kernel).
        quantised: the form of Q.
        kappa: corrections, a count or a share.
        metric: the norm.
    """
    matrix = W.reshape(W.shape[0] * W.shape[1], -1)
    count = kept_count(kappa, W.size)
    if metric.H is not None and not metric.is_round:
        return fit_corrected(W, quantised.levels, count, metric.H)
    if _has_one_codebook(quantised) and count < W.size:
        k = cast(Quantize, quantised).k
        start = signs(W) if k == 2 else kmeans(W, k).centres
        found = trimmed(W, count, start)
        book = found.centres.astype(np.float32)[None, None]
        levels = Levels(book, None, None, matrix.shape[1], k)
        return _completed(W, levels, count, found.reach)
    levels = quantised.levels(matrix, None)
    least = np.inf
    best = levels
    for _ in range(_PASSES):
        residual = np.square(matrix - levels.values(levels.nearest(matrix)), dtype=np.float64)
        worst = largest(residual, count)
        error = float(residual.sum() - residual.reshape(-1)[worst].sum())
        if error >= least * (1 - 1e-7):
            break
        best, least = levels, error
        weights = np.ones(matrix.shape, np.float32)
        weights.reshape(-1)[worst] = 0.0
        levels = quantised.levels(matrix, weights)
    return _completed(W, best, count, 0.0)


def _has_one_codebook(quantised: Levelled) -> bool:
    return (
        isinstance(quantised, Quantize)
        and quantised.per == "layer"
        and quantised.scale == "none"
    )


def _completed(
    W: Weights, levels: Levels, count: int, reach: float
) -> tuple[CodedTerm, PruneTerm]:
    """The nearest codes of all weights and corrections of the `count` worst ones.

    Args:
        W: the weights.
        levels: what the codes stand for.
        count: number of corrections.
        reach: a distance from the levels that about `count` weights are beyond.
    """
    matrix = W.reshape(W.shape[0] * W.shape[1], -1)
    codes: Codes = np.empty(matrix.shape, np.uint8)
    least = np.float32(reach * (1 - 1e-5))
    rows = max(1, _CHUNK // max(matrix.shape[1], 1))
    if levels.codebook.shape[0] > 1 or levels.scale is not None:
        rows = len(matrix)
    found: list[npt.NDArray[np.int64]] = []
    residuals: list[Weights] = []
    for at in range(0, len(matrix), rows):
        part = matrix[at : at + rows]
        codes[at : at + rows] = levels.nearest(part)
        residual = part - levels.values(codes[at : at + rows])
        far = np.flatnonzero(np.abs(residual) >= least)
        found.append(far + at * matrix.shape[1])
        residuals.append(residual.reshape(-1)[far])
    index, values = np.concatenate(found), np.concatenate(residuals)
    if len(index) < count:
        assert least > 0, "every weight is beyond no distance"
        return _completed(W, levels, count, 0.0)
    chosen = largest(np.abs(values), count)
    term = prune_term(W.shape, index[chosen], values[chosen])
    return CodedTerm(W.shape, codes, levels), term
