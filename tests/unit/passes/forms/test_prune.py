import itertools

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from form_weights import identity, moments, unfolded, weight
from nncc.device_profiles.errors import PlanError, RankError
from nncc.passes.forms.form import squared_error
from nncc.passes.forms.sparse.pattern import Pattern
from nncc.passes.forms.sparse.prune import Prune
from nncc.passes.forms.sparse.prune_metric import refitted
from nncc.passes.forms.sparse.prune_select import ball, largest
from nncc.passes.forms.sparse.prune_term import PruneTerm, gap_bits, prune_term

ALL = [
    Prune(0.1),
    Prune(17),
    Prune(0.3, "l1"),
    Prune(0.5, "l0-penalty"),
    Prune(0.5, "l1-penalty"),
    Pattern(2, 4),
    Pattern(1, 2),
]


def test_a_share_is_rounded_down_and_a_count_is_exact():
    W = weight((1, 10, 33))
    assert len(Prune(0.1).compress(W).index) == 33
    assert len(Prune(7).compress(W).index) == 7
    assert len(Prune(0).compress(W).index) == 0


def test_the_largest_weights_stay_and_are_off_by_a_float16_at_most():
    W = weight()
    S = Prune(0.25).compress(W).decompress()
    kept = np.argsort(-np.abs(W).ravel())[: W.size // 4]
    assert set(np.flatnonzero(S)) == set(kept)
    np.testing.assert_array_equal(S.ravel()[kept], W.ravel()[kept].astype(np.float16))


@pytest.mark.parametrize("scale", [1e-9, 1e6])
def test_weights_beyond_float16_are_kept_in_32_bits(scale):
    W = weight() * np.float32(scale)
    term = Prune(10).compress(W)
    assert term.values.dtype == np.float32
    np.testing.assert_array_equal(
        term.decompress()[term.decompress() != 0], W[term.decompress() != 0]
    )


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0.01, 8))
@settings(max_examples=60, deadline=None)
def test_the_projection_onto_the_l1_ball_is_the_nearest_point(values, radius):
    w = np.array(values)
    s = ball(w, radius)
    assert np.abs(s).sum() <= radius * (1 + 1e-9)
    # Nearest by a general solver: w = s + λ sign(s), split in positive and negative parts.
    n = len(w)
    best = scipy.optimize.minimize(
        lambda x: np.square(w - x[:n] + x[n:]).sum(),
        np.zeros(2 * n),
        bounds=[(0, None)] * (2 * n),
        constraints={"type": "ineq", "fun": lambda x: radius - x.sum()},
        method="SLSQP",
    )
    assert np.square(w - s).sum() <= best.fun + 1e-6 * (1 + best.fun)


def test_penalties_are_hard_and_soft_thresholds():
    W = weight((1, 8, 32))
    hard = Prune(0.49, "l0-penalty").compress(W).decompress()
    soft = Prune(0.5, "l1-penalty").compress(W).decompress()
    np.testing.assert_allclose(hard, np.where(np.abs(W) > 0.7, W, 0), rtol=1e-3)
    np.testing.assert_allclose(
        soft, np.sign(W) * np.maximum(np.abs(W) - 0.25, 0), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("form", ALL, ids=str)
def test_in_the_identity_metric_a_fit_is_the_plain_one(form):
    W = weight()
    plain, metric = form.compress(W), form.compress(W, metric=identity())
    np.testing.assert_array_equal(plain.decompress(), metric.decompress())


@pytest.mark.parametrize("samples", [3, 0.5], ids=["full rank", "rank-deficient"])
@pytest.mark.parametrize("form", ALL, ids=str)
def test_in_the_metric_a_fit_is_never_worse_than_the_plain_one(form, samples):
    W, metric = weight(), moments(samples=samples)
    fitted = form.compress(W, metric=metric)
    assert squared_error(W, fitted, metric) <= squared_error(W, form.compress(W), metric)
    assert np.isfinite(fitted.decompress()).all()


def test_corrections_by_output_error_halve_it_where_inputs_are_correlated():
    W, metric = weight(), moments()
    plain = squared_error(W, Prune(0.2).compress(W), metric)
    assert squared_error(W, Prune(0.2).compress(W, metric=metric), metric) < plain / 2


def test_corrections_by_output_error_are_near_the_best_of_all_choices():
    """Against every support of 3 of 12 entries: within 1.7 of the best, and mostly equal."""
    ratios = []
    for seed in range(12):
        W, metric = weight((1, 1, 12), seed), moments((1, 1, 12), seed)
        H, w = metric.H[0], W[0, 0].astype(np.float64)
        least = np.inf
        for support in itertools.combinations(range(12), 3):
            T = list(support)
            s = np.zeros(12)
            s[T] = np.linalg.solve(H[np.ix_(T, T)], (H @ w)[T])
            least = min(least, (w - s) @ H @ (w - s))
        ratios.append(squared_error(W, Prune(3).compress(W, metric=metric), metric) / least)
    assert np.median(ratios) < 1.01
    assert max(ratios) < 1.7


@pytest.mark.parametrize("wide", [False, True], ids=["solved", "iterated"])
def test_values_are_refitted_to_least_squares_on_the_support(wide):
    n = 300 if wide else 20
    rng = np.random.default_rng(0)
    W = rng.standard_normal((1, 4, n))
    X = rng.standard_normal((1, 4 * n, n)) @ (
        np.eye(n) + 0.3 * rng.standard_normal((n, n)) / n**0.5
    )
    H = np.einsum("gki,gkj->gij", X, X) / X.shape[1]
    mask = rng.random(W.shape) < (0.8 if wide else 0.3)
    S = refitted(W, H, mask)
    for row in range(4):
        T = np.flatnonzero(mask[0, row])
        s = np.zeros(n)
        s[T] = np.linalg.solve(H[0][np.ix_(T, T)], (H[0] @ W[0, row])[T])
        # The ridge of a thousandth, and a few dozen steps of conjugate gradients.
        np.testing.assert_allclose(S[0, row], s, atol=4e-3)


def test_the_pattern_keeps_n_of_every_m_inputs():
    W = weight((2, 6, 8, 3))
    S = Pattern(2, 4).compress(W).decompress()
    kept = np.moveaxis(S, 2, -1).reshape(-1, 4)
    assert ((kept != 0).sum(axis=1) == 2).all()
    dropped = np.moveaxis(W, 2, -1).reshape(-1, 4)
    smallest = np.sort(np.abs(dropped), axis=1)[:, :2].sum()
    np.testing.assert_allclose(np.abs(dropped[kept == 0]).sum(), smallest, rtol=1e-6)
    assert Pattern(2, 4).compress(W).cost().bits == W.size // 2 * 16 + W.size // 4 * 3


@pytest.mark.parametrize("form", ALL, ids=str)
def test_the_stored_arrays_unfold_in_the_runtime(form):
    term = form.compress(weight())
    np.testing.assert_array_equal(unfolded(term), term.decompress().reshape(12, -1))


def test_long_gaps_are_bridged_by_pads_of_value_zero():
    shape = (1, 2, 150_000)
    index = np.array([0, 65_535, 65_536, 299_999])
    term = prune_term(shape, index, np.array([1.0, 2.0, 3.0, 4.0]))
    arrays = term.arrays()
    assert arrays["gaps"].dtype == np.uint16
    assert int(arrays["gaps"].sum(dtype=np.int64)) == 299_999
    assert len(arrays["values"]) == 7  # three pads of 65535 on the way to the last
    np.testing.assert_array_equal(unfolded(term), term.decompress()[0])


@given(st.sets(st.integers(0, 5000), max_size=40))
@settings(max_examples=60, deadline=None)
def test_bits_are_those_of_the_cheapest_gap_width(positions):
    """LC part V, eq. (9), counted pair by pair."""
    index = np.array(sorted(positions), np.int64)

    def pairs(p):
        count, at = 0, 0
        for position in index:
            gap = position - at
            while gap > 2**p - 1:
                gap -= 2**p - 1
                count += 1
            count, at = count + 1, position
        return count

    assert gap_bits(index) == min(pairs(p) * (p + 16) for p in range(1, 17))


def test_equal_scores_are_taken_in_order():
    assert largest(np.ones(5), 2).tolist() == [0, 1]


def test_a_form_that_does_not_fit_says_what_does():
    with pytest.raises(PlanError, match=r"kappa=1\.5 is neither a count nor a share"):
        Prune(1.5)
    with pytest.raises(RankError, match="kappa=500 corrections are more than the 432 weights"):
        Prune(500).compress(weight())
    with pytest.raises(RankError, match="4 input channels are no multiple of m=8"):
        Pattern(4, 8).compress(weight())
    with pytest.raises(PlanError, match="pattern 4:2"):
        Pattern(4, 2)


def test_a_term_is_closed_for_writing():
    term = Prune(3).compress(weight())
    assert isinstance(term, PruneTerm)
    for array in (*term.arrays().values(), term.decompress()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
