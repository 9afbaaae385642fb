"""Factors that are themselves compressed: L → Q + P, fitted in turns."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ...geometry import Weights
from ..form import Form, Term, squared_error
from ..metric import Metric
from ..sparse.prune_term import narrowed
from .lowrank_term import LowRankTerm

Matrix = npt.NDArray[np.float64]
Factor = npt.NDArray[Any]

_SWEEPS = 3
_RIDGE = 1e-9
"""Share of the mean of a diagonal added before it is solved with."""


def nested(
    W: Weights,
    U: Weights,
    V: Weights,
    u: Form | None,
    v: Form | None,
    metric: Metric,
) -> LowRankTerm:
    """The factors as terms of the forms `u` and `v`: each fitted given the other, in turns.

    Given V the error of U is ‖(T − U) S^½‖², S = V H Vᵀ and T = W H Vᵀ S⁻¹: a fit of T in the
    metric S. Given U with orthonormal columns it is ‖(Uᵀ W − V) H^½‖²: a fit in the metric H;
    U is that nearly, so a step is kept only where the whole error falls. Two scalings of the
    factors are tried, equal norms on both sides and all of it in V, since a codebook that all
    rows share sees them differently.

    Args:
        W: (g, m, c, *kernel).
        U: (g, m, j), of the best dense factors.
        V: (g, j, n), likewise.
        u: form of U; None leaves it dense.
        v: form of V; likewise.
        metric: the norm.
    """
    norms = np.linalg.norm(U, axis=1, keepdims=True)
    norms = np.where(norms > 0, norms, 1)
    one_sided = U / norms, V * norms.swapaxes(1, 2)
    terms = [_in_turns(W, *pair, u, v, metric) for pair in ((U, V), one_sided)]
    return min(terms, key=lambda term: squared_error(W, term, metric))


def _in_turns(
    W: Weights, U: Factor, V: Factor, u: Form | None, v: Form | None, metric: Metric
) -> LowRankTerm:
    best = _term(W, U, V, _fit(v, _as_weight(V, W), metric), None)
    if u is None:
        best = _term(W, _given_v(W, best.V, metric)[0], best.V, best.v, None)
    else:
        best = _with_u(W, best, u, metric)
    error = squared_error(W, best, metric)
    for _ in range(_SWEEPS):
        target = _as_weight(_given_u(W, best.U), W)
        new = _term(W, best.U, target, _fit(v, target, metric, best.v), best.u)
        if u is None:
            new = _term(W, _given_v(W, new.V, metric)[0], new.V, new.v, None)
        else:
            new = _with_u(W, new, u, metric)
        fallen = squared_error(W, new, metric)
        if not fallen < error:
            break
        best, error = new, fallen
    return best


def _with_u(W: Weights, term: LowRankTerm, u: Form, metric: Metric) -> LowRankTerm:
    """The term with U fitted anew to what its V leaves to do."""
    T, S = _given_v(W, term.V, metric)
    fitted = u.compress(T.astype(np.float32), term.u, Metric(S))
    return _term(W, T, term.V, term.v, fitted)


def _fit(
    form: Form | None, W: Weights, metric: Metric, start: Term | None = None
) -> Term | None:
    return None if form is None else form.compress(W.astype(np.float32), start, metric)


def _term(
    W: Weights,
    U: Factor,
    V: Factor,
    v: Term | None,
    u: Term | None,
) -> LowRankTerm:
    """The term; a factor without a form is of 16-bit numbers (LC part V, eq. 10)."""
    left = narrowed(U).astype(np.float32) if u is None else u.decompress()
    right = _as_weight(narrowed(V), W) if v is None else v.decompress()
    left.flags.writeable = right.flags.writeable = False
    return LowRankTerm(left, right, u, v)


def _as_weight(V: Factor, W: Weights) -> npt.NDArray[np.float32]:
    return V.reshape(len(V), V.shape[1], *W.shape[2:]).astype(np.float32, copy=False)


def _given_v(W: Weights, V: Weights, metric: Metric) -> tuple[Matrix, Matrix]:
    """The dense optimum T (g, m, j) for V, and the metric S (g, j, j) around it."""
    g, m = W.shape[:2]
    rows = V.reshape(g, V.shape[1], -1).astype(np.float64)
    seen = rows if metric.H is None else rows @ metric.H
    S = seen @ rows.swapaxes(1, 2)
    R = W.reshape(g, m, -1).astype(np.float64) @ seen.swapaxes(1, 2)
    return _solved(S, R.swapaxes(1, 2)).swapaxes(1, 2), S


def _given_u(W: Weights, U: Weights) -> Matrix:
    """The dense optimum (g, j, n) for U, whatever the metric."""
    g, m = W.shape[:2]
    left = U.astype(np.float64).swapaxes(1, 2)
    return _solved(left @ U, left @ W.reshape(g, m, -1))


def _solved(S: Matrix, R: Matrix) -> Matrix:
    """S⁻¹ R with a ridge that a singular S needs."""
    j = S.shape[-1]
    level = np.trace(S, axis1=1, axis2=2) / j
    level = np.where(level > 0, _RIDGE * level, 1.0)
    solved = np.linalg.solve(S + level[:, None, None] * np.eye(j), R)
    return solved.astype(np.float64, copy=False)
