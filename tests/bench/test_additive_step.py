"""The C step of 1-bit levels and corrections: objective, passes and processor time."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from bars import Bar, check, conditions, print_table
from nncc.passes.forms import Prune, Quantize, Sum, squared_error
from nncc.passes.forms.sums.sum_codebook import signs, trimmed

KAPPA = 70_778
"""3 % of 512 × 4608."""
PASSES = 3
ALTERNATIONS = 30
"""As LC part V runs in every C step (section 5)."""


class Case(NamedTuple):
    """Weights, and the relative squared error that thirty alternations end at."""

    draw: Callable[[np.random.Generator], np.ndarray[Any, Any]]
    limit: float


SHAPE = (512, 4608)
CASES = {
    "normal": Case(lambda rng: rng.standard_normal(SHAPE), 0.268026),
    "laplace": Case(lambda rng: rng.laplace(size=SHAPE), 0.294932),
}


def drawn(case: Case) -> np.ndarray[Any, Any]:
    """The weights of a layer of 512 × 4608, with the spread that He et al. 2015 begin with."""
    W = case.draw(np.random.default_rng(0)) * np.sqrt(2 / SHAPE[1])
    return W.astype(np.float32)


def alternated(W: np.ndarray[Any, Any]) -> list[float]:
    """Relative squared error after each alternation of k-means and pruning.

    What the LC toolkit does with adaptive levels and ℓ0 corrections: levels fitted to W − S,
    with ten restarts of k-means++ the first time and from the last ones afterwards, then
    S = the κ largest of what they leave.
    """
    from sklearn.cluster import KMeans

    flat = W.reshape(-1)
    total = float(np.vdot(flat.astype(np.float64), flat))
    S = np.zeros_like(flat)
    centres = None
    errors: list[float] = []
    for _ in range(ALTERNATIONS):
        if centres is None:
            fit = KMeans(2, init="k-means++", n_init=10, random_state=0)
        else:
            fit = KMeans(2, init=centres, n_init=1)
        codes = fit.fit_predict((flat - S)[:, None])
        centres = fit.cluster_centers_
        R = flat - centres[codes, 0].astype(np.float32)
        kept = np.argpartition(np.abs(R), R.size - KAPPA)[-KAPPA:]
        S = np.zeros_like(flat)
        S[kept] = R[kept]
        R[kept] = 0
        errors.append(float(np.vdot(R.astype(np.float64), R)) / total)
    return errors


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns and the processor seconds it took, on one thread."""
    with threadpool_limits(1):
        began = time.process_time()
        result = work()
        return result, time.process_time() - began


def test_a_step_beside_thirty_alternations():
    """Half a minute and more: thirty alternations with restarts of k-means, twice."""
    pytest.importorskip("sklearn.cluster")
    print(f"\n{conditions()}")
    bars: list[Bar] = []
    rows: list[tuple[str, ...]] = []
    for name, case in CASES.items():
        W = drawn(case)
        total = float(np.vdot(W.astype(np.float64), W))
        form = Sum((Quantize(2), Prune(KAPPA)))
        term, mine = timed(lambda form=form, W=W: form.compress(W[None]))
        theirs, other = timed(lambda W=W: alternated(W))
        passes = [error / total for error in trimmed(W, KAPPA, signs(W), passes=PASSES).errors]
        for at in range(PASSES):
            ours = f"{passes[at]:.8f}" if at < len(passes) else ""
            rows.append((f"{name}, pass {at + 1}", ours, f"{theirs[at]:.8f}"))
        rows.append((f"{name}, whole", f"{passes[-1]:.8f}", f"{theirs[-1]:.8f}"))
        error = squared_error(W[None], term) / total
        note = f"{mine:.3f} s against {other:.1f} s"
        bars += [
            Bar(f"{name}: corrections", len(term.parts[1].index), KAPPA),
            Bar(f"{name}: objective after {len(passes)} passes", passes[-1], case.limit),
            Bar(f"{name}: objective of the term", error, case.limit),
            Bar(f"{name}: objective, ours / theirs", error / theirs[-1], 1 + 1e-6),
            Bar(f"{name}: processor time, theirs / ours", other / mine, 50, True, note),
        ]
        assert len(term.parts[1].index) == KAPPA
    print_table("relative squared error", ("", "ours", "alternations"), rows)
    check("the C step of 1-bit levels and 3 % corrections", bars)


def test_a_large_layer():
    W = np.random.default_rng(0).standard_normal((1, 4096, 9216)).astype(np.float32)
    print(f"\n{conditions()}")
    _, seconds = timed(lambda: Sum((Quantize(2), Prune(0.03))).compress(W))
    check(
        "the C step of 4096 × 9216 weights", [Bar("processor seconds, one core", seconds, 6.0)]
    )
