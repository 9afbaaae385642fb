"""Statistics of timings, against numpy, scipy and what must hold for any samples."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nncc.compiler import outcome
from nncc.device_profiles.errors import UsageError
from nncc.runtime import timing
from nncc.runtime.timing import (
    conclusion,
    minimum_detectable,
    paired,
    ratio,
    summarise,
    trimmed_mean,
)

times = st.floats(1e-6, 1e6)
samples = st.lists(times, min_size=1, max_size=60)
sides = st.sampled_from(["both", "high"])
trims = st.floats(0, 0.49)


def single(values):
    """Rounds of one process with one run each."""
    return [[[value]] for value in values]


def measured(reference, compressed):
    return paired(single(reference), single(compressed), 0.25, "both", {})


def test_the_documented_examples_hold():
    assert doctest.testmod(timing).failed == 0


def test_the_values_are_those_of_the_outcome():
    assert outcome.Timing is timing.Timing
    assert outcome.Paired is timing.Paired


@given(st.lists(times, min_size=1, max_size=60), st.sampled_from([0, 0.1, 0.2, 0.25, 0.4]))
def test_two_sided_trim_is_that_of_scipy(values, trim):
    expected = stats.trim_mean(values, trim)

    assert trimmed_mean(values, trim, "both") == pytest.approx(expected, rel=1e-12)


@given(st.lists(times, min_size=1, max_size=60))
def test_the_papers_protocol_drops_the_highest_tenth(values):
    kept = np.sort(values)[: len(values) - len(values) // 10]

    assert trimmed_mean(values, 0.1, "high") == pytest.approx(kept.mean(), rel=1e-12)


@given(samples, trims, sides)
def test_a_trimmed_mean_lies_between_the_least_and_the_greatest_sample(values, trim, side):
    assert min(values) <= trimmed_mean(values, trim, side) <= max(values)


@given(samples, trims, sides, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(values, trim, side, random):
    shuffled = values.copy()
    random.shuffle(shuffled)

    assert trimmed_mean(shuffled, trim, side) == trimmed_mean(values, trim, side)


@given(samples, trims)
def test_dropping_the_highest_never_raises_the_mean(values, trim):
    assert trimmed_mean(values, trim, "high") <= trimmed_mean(values, 0, "high")


def test_every_process_of_a_round_weighs_the_same_however_many_runs_it_made():
    found = summarise([[[1.0] * 100, [3.0] * 10], [[2.0], [4.0, 4.0]]], 0.25, "both")

    assert found.rounds_ms == (2.0, 3.0)


def test_raw_samples_are_kept_and_pooled_for_median_and_p90():
    rounds = [[[5.0, 1.0], [2.0]], [[4.0], [3.0, 9.0]]]

    found = summarise(rounds, 0.25, "both")

    assert found.samples_ms == ((5.0, 1.0, 2.0), (4.0, 3.0, 9.0))
    assert found.median_ms == np.median([5, 1, 2, 4, 3, 9])
    assert found.p90_ms == np.quantile([5, 1, 2, 4, 3, 9], 0.9)
    assert found.trimmed_mean_ms == stats.trim_mean([5, 1, 2, 4, 3, 9], 0.25)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=20))
def test_the_interval_is_scipys_paired_t_on_logarithms(pairs):
    reference, compressed = np.array(pairs).T
    logs = np.log(reference) - np.log(compressed)

    speedup, interval = ratio(list(reference), list(compressed))

    assert speedup == pytest.approx(np.exp(logs.mean()), rel=1e-9)
    if logs.std() > 1e-9:  # scipy has no interval for equal ratios
        expected = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
        assert interval == pytest.approx(
            (np.exp(expected.low), np.exp(expected.high)), rel=1e-6
        )


@given(
    st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=20),
    st.floats(0.01, 100),
)
def test_a_drift_that_both_sides_share_changes_nothing(pairs, drift):
    reference, compressed = np.array(pairs).T
    factors = np.geomspace(1, drift, len(pairs))

    plain = ratio(list(reference), list(compressed))
    drifted = ratio(list(reference * factors), list(compressed * factors))

    assert drifted[0] == pytest.approx(plain[0], rel=1e-9)
    assert drifted[1] == pytest.approx(plain[1], rel=1e-6)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=20))
def test_exchanging_the_sides_gives_the_reciprocal(pairs):
    reference, compressed = (list(side) for side in np.array(pairs).T)

    speedup, (low, high) = ratio(reference, compressed)
    back, (back_low, back_high) = ratio(compressed, reference)

    assert back == pytest.approx(1 / speedup, rel=1e-9)
    assert (back_low, back_high) == pytest.approx((1 / high, 1 / low), rel=1e-6)


@pytest.mark.parametrize("truth", [0.8, 1.0, 2.5])
def test_the_interval_holds_the_truth_in_95_of_100_measurements(truth):
    rng = np.random.default_rng(0)
    trials, hits = 2000, 0
    for _ in range(trials):
        compressed = np.exp(rng.normal(0, 0.05, 7))
        reference = compressed * truth * np.exp(rng.normal(0, 0.03, 7))
        _, (low, high) = ratio(list(reference), list(compressed))
        hits += low <= truth <= high

    # Binomial: four standard errors of 0.95 over 2000 trials are 0.02.
    assert abs(hits / trials - 0.95) < 0.02


def test_an_effect_of_the_detectable_size_is_found_in_four_of_five_measurements():
    rng = np.random.default_rng(1)
    sd, rounds, trials = 0.02, 7, 2000
    factor = stats.t.ppf(0.975, rounds - 1) + stats.t.ppf(0.8, rounds - 1)
    effect = factor * sd / math.sqrt(rounds)
    logs = rng.normal(effect, sd, (trials, rounds))

    found = sum(ratio(list(np.exp(row)), [1.0] * rounds)[1][0] > 1 for row in logs)

    # The t quantiles with few degrees of freedom ask a little more than needed.
    assert 0.77 < found / trials < 0.9


def test_the_detectable_effect_is_that_of_the_rounds_own_spread():
    reference, compressed = [1.0, 1.1, 0.9, 1.05], [1.0, 1.0, 1.0, 1.0]
    sd = np.std(np.log(reference), ddof=1)
    factor = stats.t.ppf(0.975, 3) + stats.t.ppf(0.8, 3)

    assert minimum_detectable(reference, compressed) == pytest.approx(
        math.exp(factor * sd / 2), rel=1e-9
    )
    assert measured(reference, compressed).detectable == minimum_detectable(
        reference, compressed
    )


@pytest.mark.parametrize(
    ("reference", "compressed", "verdict"),
    [
        ([2.0, 2.1, 1.9], [1.0, 1.0, 1.0], "faster"),
        ([1.0, 1.0, 1.0], [2.0, 2.1, 1.9], "slower"),
        ([1.0, 1.1, 0.9], [1.0, 1.0, 1.0], "inconclusive"),
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], "inconclusive"),
    ],
)
def test_the_conclusion_is_what_the_whole_interval_says(reference, compressed, verdict):
    assert conclusion(measured(reference, compressed)) == verdict


def test_equal_models_are_seldom_told_apart():
    rng = np.random.default_rng(2)
    verdicts = [
        conclusion(measured(np.exp(rng.normal(0, 0.05, 7)), np.exp(rng.normal(0, 0.05, 7))))
        for _ in range(1000)
    ]

    # One in twenty by construction; four standard errors are 0.028.
    assert verdicts.count("inconclusive") / 1000 > 0.95 - 0.028


def test_one_round_gives_no_interval():
    with pytest.raises(
        UsageError, match=r"1 round gives no interval; choose --rounds 2 or more"
    ):
        measured([1.0], [1.0])


def test_sides_of_different_length_are_refused():
    with pytest.raises(UsageError, match="2 rounds of the reference and 3 of the compressed"):
        measured([1.0, 1.0], [1.0, 1.0, 1.0])


def test_a_process_without_samples_is_refused():
    with pytest.raises(UsageError, match="without samples"):
        summarise([[[1.0], []]], 0.25, "both")
