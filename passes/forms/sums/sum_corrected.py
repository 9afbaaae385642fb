"""Levels and corrections together in the metric of a layer's input."""

from dataclasses import replace

import numpy as np

from ...geometry import Weights
from ..codes.feedback import Rounded
from ..codes.feedback_fit import LevelsOf, Mask, Problem, alternated, posed
from ..codes.quantize_levels import Levels
from ..codes.quantize_term import CodedTerm
from ..metric import Metric, Moments
from ..sparse.prune_metric import fit_support
from ..sparse.prune_select import Floats, largest
from ..sparse.prune_term import PruneTerm, prune_term

_TRIMS = 4
"""Times that the corrected weights and the levels of the others are chosen, at first."""
_MOVES = 3
"""Times that corrections may move to where they lower the output error most."""
_GAIN = 1e-3


def fit_corrected(
    W: Weights, levels_of: LevelsOf, count: int, moments: Moments
) -> tuple[CodedTerm, PruneTerm]:
    """argmin of tr(R H Rᵀ), R = W − Q − P, over levels, codes and `count` corrections.

    Corrections begin where h_jj r_ij² is largest, with levels fitted to the *uncorrected*
    weights (LC part V, section 4, in the diagonal of H). A corrected weight may then have any
    value: error feedback gives it the one that takes up the errors of those before it, as
    SpQR does (Dettmers et al. 2024), descent its own best, and it pulls no level. Then
    corrections are chosen anew by their true reduction of the error Q leaves, for as long as
    it falls.

    Args:
        W: (g, m, c, *kernel).
        levels_of: fits levels in a diagonal metric; a weight of 0 is left out.
        count: number of corrections.
        moments: H, (g, n, n).
    """
    problem = posed(W, moments)
    flat = W.reshape(problem.W.shape)
    heights = problem.heights
    levels = levels_of(flat, heights)
    free = np.full(flat.shape, count >= W.size)
    is_choice = 0 < count < W.size
    for _ in range(_TRIMS if is_choice else 0):
        scores = np.square(flat - levels.values(levels.nearest(flat))) * heights
        chosen = _mask(scores, count)
        if np.array_equal(chosen, free):
            break
        free = chosen
        levels = levels_of(flat, np.where(free, np.float32(0), heights))
    best = _terms(W, *alternated(replace(problem, free=free), levels), free)
    least = metric_error(W, best, moments)
    for _ in range(_MOVES if is_choice and not problem.is_large else 0):
        free = _moved(problem, best[0], count)
        new = _terms(W, *alternated(replace(problem, free=free), best[0].levels), free)
        error = metric_error(W, new, moments)
        if error < least:
            best = new
        if error >= least * (1 - _GAIN):
            break
        least = error
    return best


def metric_error(W: Weights, terms: tuple[CodedTerm, PruneTerm], moments: Moments) -> float:
    """‖(W − Q − P) H^½‖² with terms as they are stored."""
    return Metric(moments).squared(W - terms[0].decompress() - terms[1].decompress())


def _moved(problem: Problem, coded: CodedTerm, count: int) -> Mask:
    """Where corrections lower the error that Q leaves most."""
    g, n = problem.H.shape[:2]
    left = (problem.W - coded.levels.values(coded.codes)).reshape(g, -1, n)
    S = fit_support(left, Metric(problem.H), lambda scores: _mask(scores, count), None)
    return _mask(np.abs(S).reshape(problem.W.shape), count)


def _terms(
    W: Weights, found: Rounded, levels: Levels, free: Mask
) -> tuple[CodedTerm, PruneTerm]:
    coded = CodedTerm(W.shape, found.codes, levels)
    index = np.flatnonzero(free)
    values = found.values - levels.values(found.codes)
    return coded, prune_term(W.shape, index, values.reshape(-1)[index])


def _mask(scores: Floats, count: int) -> Mask:
    mask = np.zeros(scores.size, bool)
    mask[largest(scores, count)] = True
    return mask.reshape(scores.shape)
