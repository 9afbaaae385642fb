"""Backfitting: each part of a sum refitted to what the others leave."""

from collections.abc import Sequence

import numpy as np

from ...geometry import Weights
from ..form import Form, Term
from ..metric import IDENTITY, Metric
from ..sparse.prune import Prune
from .sum_pair import Levelled, fit_pair, is_pair

_SWEEPS = 30
_SWEEPS_IN_METRIC = 4
_ENOUGH = 1e-5
_ENOUGH_IN_METRIC = 1e-3

Block = tuple[int, ...]


def backfit(
    W: Weights, forms: Sequence[Form], metric: Metric, start: tuple[Term, ...] | None
) -> tuple[Term, ...]:
    """argmin of ‖W − Σ Δᵢ(Θᵢ)‖² in `metric`, a part at a time (LC part V, eqs. 3-4).

    A part is taken over only where the error does not rise: fits of nested forms are no exact
    minimisers, and plain alternation would then climb. Levels and ℓ0 corrections are one step
    (`fit_pair`). Stops when a sweep gains next to nothing.

    Args:
        W: (g, m, c, *kernel).
        forms: of the parts.
        metric: the norm.
        start: terms to improve on; without them the parts are fitted one after the other, in
            their own order and in the opposite one, and the closer of the two goes on.
    """
    if metric.is_round:
        metric = IDENTITY
    blocks = _blocks(forms)
    if start is None:
        terms, error = _started(W, forms, blocks, metric)
        if len(blocks) == 1:
            return terms
    else:
        terms, error = start, _error(W, start, metric)
    plain = metric.is_identity
    for _ in range(_SWEEPS if plain else _SWEEPS_IN_METRIC):
        before = error
        for block in blocks:
            others = [term for i, term in enumerate(terms) if i not in block]
            new = _with(terms, block, _fitted(_left(W, others), forms, block, metric, terms))
            now = _error(W, new, metric)
            if now <= error:
                terms, error = new, now
        enough = _ENOUGH if plain else _ENOUGH_IN_METRIC
        if len(blocks) == 1 or before - error <= enough * before:
            break
    return terms


def _blocks(forms: Sequence[Form]) -> list[Block]:
    """The parts that are fitted in one step."""
    for q, quantised in enumerate(forms):
        for p, corrected in enumerate(forms):
            if is_pair(quantised, corrected):
                return [(q, p), *((i,) for i in range(len(forms)) if i not in (q, p))]
    return [(i,) for i in range(len(forms))]


def _started(
    W: Weights, forms: Sequence[Form], blocks: Sequence[Block], metric: Metric
) -> tuple[tuple[Term, ...], float]:
    """The parts fitted one after the other, the better of two orders.

    In a metric no fit of levels is exact: corrections of the levels found alone are tried too,
    so that a sum is no worse than its levels.
    """
    found: list[tuple[float, tuple[Term, ...]]] = []
    orders = [list(blocks)] if len(blocks) == 1 else [list(blocks), list(blocks)[::-1]]
    if not metric.is_identity and len(blocks) < len(forms):
        orders.append([(i,) for block in blocks for i in block])
    for order in orders:
        terms: dict[int, Term] = {}
        for block in order:
            left = _left(W, list(terms.values()))
            new = _fitted(left, forms, block, metric, None)
            terms |= dict(zip(block, new, strict=True))
        parts = tuple(terms[i] for i in range(len(forms)))
        found.append((_error(W, parts, metric), parts))
    error, best = min(found, key=lambda pair: pair[0])
    return best, error


def _fitted(
    target: Weights,
    forms: Sequence[Form],
    block: Block,
    metric: Metric,
    terms: tuple[Term, ...] | None,
) -> tuple[Term, ...]:
    if len(block) == 1:
        (i,) = block
        start = None if terms is None else terms[i]
        return (forms[i].compress(target, start=start, metric=metric),)
    quantised, corrected = (forms[i] for i in block)
    assert isinstance(quantised, Levelled) and isinstance(corrected, Prune)
    return fit_pair(target, quantised, corrected.kappa, metric)


def _with(terms: tuple[Term, ...], block: Block, new: tuple[Term, ...]) -> tuple[Term, ...]:
    changed = dict(zip(block, new, strict=True))
    return tuple(changed.get(i, term) for i, term in enumerate(terms))


def _left(W: Weights, terms: Sequence[Term]) -> Weights:
    """What the terms leave of W."""
    if not terms:
        return W
    rest = W - terms[0].decompress()
    for term in terms[1:]:
        rest -= term.decompress()
    return rest


def total(terms: Sequence[Term]) -> Weights:
    """Δ₁(Θ₁) + Δ₂(Θ₂) + …, in float32, in order."""
    W = np.array(terms[0].decompress())
    for term in terms[1:]:
        W += term.decompress()
    return W


def _error(W: Weights, terms: Sequence[Term], metric: Metric) -> float:
    return metric.squared(np.subtract(W, total(terms), dtype=np.float64))
