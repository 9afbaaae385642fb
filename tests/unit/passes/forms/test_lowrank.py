"""Low-rank fits in the metric: optimal, nested, automatic, safe where moments lack rank."""

import numpy as np
import pytest
import scipy.linalg

from form_weights import SHAPE, identity, moments, weight
from nncc.device_profiles.errors import RankError
from nncc.passes.forms import IDENTITY, Blocks, Folded, LowRank, Quantize, squared_error
from nncc.passes.forms.factors.lowrank_auto import LowRankAuto, lost_energies
from nncc.passes.forms.metric import Metric, lower_root

J = 3


def least(W, metric, j=J):
    """Σ of the squared singular values of W H^½ beyond j: no matrix of rank j loses less."""
    total = 0.0
    for A, H in zip(W.reshape(*W.shape[:2], -1).astype(float), metric.H, strict=True):
        values = np.linalg.svd(A @ scipy.linalg.sqrtm(H).real, compute_uv=False)
        total += float((values[j:] ** 2).sum())
    return total


@pytest.mark.parametrize("shape", [SHAPE, (1, 40, 9), (1, 9, 40)])
def test_a_fit_in_the_metric_loses_what_eckart_and_young_say_and_no_more(shape):
    W, metric = weight(shape), moments(shape)
    term = LowRank(J).compress(W, metric=metric)
    # factors in 16 bits may add a hundredth, damping less than that
    assert squared_error(W, term, metric) == pytest.approx(least(W, metric), rel=0.011)
    assert squared_error(W, term, metric) < squared_error(W, LowRank(J).compress(W), metric)


def test_alternating_least_squares_from_the_fit_finds_nothing_better():
    W, metric = weight((1, 20, 12)), moments((1, 20, 12))
    term = LowRank(J).compress(W, metric=metric)
    A, H, U = W[0].astype(float), metric.H[0], term.U[0].astype(float)
    V = term.V[0]
    for _ in range(50):
        V = np.linalg.lstsq(U, A, rcond=None)[0]
        U = A @ H @ V.T @ np.linalg.inv(V @ H @ V.T)
    found = metric.squared((A - U @ V)[None])
    assert squared_error(W, term, metric) <= 1.011 * found


@pytest.mark.parametrize("form", [LowRank(J), Blocks(2, LowRank(2)), Folded(1, LowRank(J))])
def test_the_identity_given_as_moments_changes_nothing(form):
    W = weight()
    plain, same = form.compress(W), form.compress(W, metric=identity())
    np.testing.assert_array_equal(same.decompress(), plain.decompress())


@pytest.mark.parametrize("samples", [0.0, 0.2])
@pytest.mark.parametrize("form", [LowRank(J), Blocks(2, LowRank(2)), Folded(1, LowRank(J))])
def test_moments_of_few_samples_are_safe(form, samples):
    W, metric = weight(), moments(samples=samples)
    term = form.compress(W, metric=metric)
    assert np.isfinite(term.decompress()).all()
    assert squared_error(W, term, metric) <= squared_error(W, form.compress(W), metric)


def test_what_inputs_never_show_is_not_fitted():
    W = weight((1, 20, 12))
    X = np.random.default_rng(1).standard_normal((12, J))
    metric = Metric((X @ X.T)[None])
    term = LowRank(J).compress(W, metric=metric)
    assert squared_error(W, term, metric) <= 1e-6 * metric.energy(W)


def test_moments_of_nothing_at_all_still_give_factors():
    W = weight()
    n = int(np.prod(SHAPE[2:]))
    term = LowRank(J).compress(W, metric=Metric(np.zeros((SHAPE[0], n, n))))
    assert np.isfinite(term.decompress()).all()


def test_a_root_is_had_of_moments_that_rounding_made_indefinite():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 1)) + 1e-5 * rng.standard_normal((200, 60))
    H = (X.T.astype(np.float32) @ X.astype(np.float32)).astype(float)
    H -= 1e-7 * np.trace(H) * np.eye(60)  # below zero by far more than damping adds
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(Metric(H[None]).damped(1e-9).H)
    L = lower_root(H[None])[0]
    np.testing.assert_allclose(L @ L.T, H, atol=1e-5 * np.trace(H))


def test_blocks_and_foldings_are_no_worse_in_the_metric_than_without_it():
    W, metric = weight(), moments()
    for form in (*(Folded(s, LowRank(J)) for s in range(4)), Blocks(4, LowRank(2))):
        fitted, plain = form.compress(W, metric=metric), form.compress(W)
        assert squared_error(W, fitted, metric) <= squared_error(W, plain, metric), form


def test_coded_factors_are_fitted_to_what_the_inputs_see():
    W, metric = weight((1, 24, 32)), moments((1, 24, 32))
    form = LowRank(6, u=Quantize(8), v=Quantize(8))
    term, plain = form.compress(W, metric=metric), form.compress(W)
    dense = LowRank(6).compress(W, metric=metric)
    assert squared_error(W, dense, metric) <= squared_error(W, term, metric)
    assert squared_error(W, term, metric) < squared_error(W, plain, metric)
    assert len(np.unique(term.U)) <= 8
    assert len(np.unique(term.V)) <= 8


@pytest.mark.parametrize("metric", [IDENTITY, moments()], ids=["plain", "metric"])
@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.3, 1e6])
def test_the_automatic_rank_is_the_best_of_all_ranks(alpha, metric):
    """Each rank is fitted, and its error and price added up."""
    W = weight()
    g, m, n = 2, 6, 36
    scale = 1.0 if metric.H is None else np.trace(metric.H, axis1=1, axis2=2).mean() / n
    form = LowRankAuto(alpha)
    prices = {
        j: squared_error(W, LowRank(j).compress(W, metric=metric), metric) / scale
        + alpha * g * j * (m + n)
        for j in range(1, 6)  # 6 · 36 < 5 · 42 + 42: rank 6 saves nothing
    }
    chosen = form.resolved(W, metric).j
    assert prices[chosen] <= 1.01 * min(prices.values())
    assert form.compress(W, metric=metric).U.shape[2] == chosen


def test_positions_make_a_rank_dearer_as_alpha_does():
    W = weight()
    assert LowRankAuto(0.01, 60).resolved(W) == LowRankAuto(0.6).resolved(W)
    assert LowRankAuto(0.01, 60).resolved(W).j < LowRankAuto(0.01).resolved(W).j


def test_energies_that_are_lost_fall_from_all_to_none():
    W = weight()
    lost = lost_energies(W)
    assert lost[0] == pytest.approx(float(np.square(W).sum()))
    assert lost[-1] == 0
    assert (np.diff(lost) <= 0).all()


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"alpha": np.inf}, {"positions": 0}])
def test_a_penalty_that_is_none_is_refused(wrong):
    with pytest.raises(RankError, match="lowrank_auto"):
        LowRankAuto(**{"alpha": 1.0, **wrong})
