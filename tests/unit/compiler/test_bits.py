"""From measured candidates to the forms that a budget of bits allows."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from nncc.compiler.allocation.bits import all_in, choose, measured_rows, plain_rows
from nncc.compiler.allocation.bits_candidates import (
    MOST_SUMS,
    Fit,
    candidates,
    code_forms,
    fits,
    is_sum,
    sum_forms,
    worth_measuring,
)
from nncc.compiler.allocation.bits_row import Row, isotonic
from nncc.compiler.fitting.moments import collect
from nncc.compiler.fitting.sequential import fit_sequentially
from nncc.passes.counts import float_count
from nncc.passes.forms import IDENTITY
from nncc.passes.forms.codes.affine import Affine
from nncc.passes.forms.codes.quantize import Quantize
from nncc.passes.forms.sparse.prune import Prune
from nncc.passes.forms.sums.sum import Sum
from nncc.passes.half_store import half_floats, store_halves
from nncc.passes.model import Model
from nncc.passes.sites import find_sites
from small_models import image, residual_net


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_isotonic_regression_is_that_of_scipy(values):
    y = np.array(values)
    np.testing.assert_allclose(isotonic(y), isotonic_regression(y).x, atol=1e-9)


def test_a_divergence_that_falls_while_the_error_rises_is_smoothed_away():
    tried = tuple(Fit(Affine(b), 100 * b, e) for b, e in ((2, 0.1), (4, 0.01), (6, 0.001)))
    noisy = Row("a", 3200, tried, (1e-3, 2e-3, 1e-5)).weighed()
    assert noisy[0] > noisy[1] > noisy[2]


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = residual_net(tmp_path_factory.mktemp("net") / "net.onnx", channels=8, side=8)
    model = Model(ir.load(path), "net", "0" * 64)
    sites, _ = find_sites(model)
    feeds = [image(8, seed) for seed in range(8)]
    return path, model, sites, feeds, collect(path, feeds, sites, jobs=1)


@pytest.fixture(scope="module")
def rows(net):
    path, _, sites, feeds, moments = net
    return measured_rows(path, sites, code_forms, feeds[:2], moments)


def few_forms(site):
    """Even grids: fitted in no time."""
    del site
    return Affine(4), Affine(8)


@pytest.mark.parametrize("bits", [3.5, 4.5, 6.0])
def test_what_is_chosen_holds_the_bits_counted_all_in(net, rows, bits):
    path, model, sites, feeds, _ = net
    halves = half_floats(store_halves(model))

    chosen = choose(model, sites, rows, bits, is_measured=True, halves=halves)

    fitted = fit_sequentially(path, sites, chosen.forms, feeds)
    terms = {name: entry.term for name, entry in fitted.items()}
    counted = all_in(model, sites, terms, halves)
    assert 0.9 * bits < counted <= bits
    assert counted == pytest.approx(chosen.bits)
    # By hand: bits of the terms, 16 for the one bias of the file and for the six new ones.
    stored = sum(term.cost().bits for term in terms.values())
    biases = 16 * (64 + 8 + 4 + 8 + 8 + 8 + 10)
    assert counted == pytest.approx((stored + biases) / float_count(model))


def test_more_bits_never_cost_quality(net, rows):
    _, model, sites, *_ = net
    lost = [
        choose(model, sites, rows, bits, is_measured=True).divergence for bits in (3, 4, 5, 8)
    ]
    assert lost == sorted(lost, reverse=True)


def test_a_budget_below_everything_is_reported_and_the_least_is_taken(net, rows):
    _, model, sites, *_ = net
    chosen = choose(model, sites, rows, 1.0, is_measured=True)
    assert not chosen.is_met
    assert chosen.bits > 1.0
    assert len(chosen.forms) == len(sites)


def test_without_inputs_the_largest_relative_error_is_what_counts(net):
    _, model, sites, *_ = net
    found = plain_rows(sites, code_forms)
    chosen = choose(model, sites, found, 5.0, is_measured=False)
    errors = [
        fit.error for row in found for fit in row.fits if fit.form == chosen.forms[row.site]
    ]
    assert len(errors) == len(sites)
    assert max(errors) == pytest.approx(chosen.divergence)
    assert max(errors) < 20 * np.median(errors)


def test_what_was_measured_is_found_again_and_what_is_broken_is_measured_anew(net, tmp_path):
    path, _, sites, feeds, moments = net
    two = [sites[0], sites[-1]]

    def rows_now():
        return measured_rows(path, two, few_forms, feeds[:1], moments, folder=tmp_path)

    first = rows_now()
    marked, broken = sorted(tmp_path.iterdir())
    held = json.loads(marked.read_text())
    held["candidates"][0][3] = 123.0
    marked.write_text(json.dumps(held))
    broken.write_text("{")

    again = rows_now()
    assert sorted(row.divergence[0] == 123.0 for row in again) == [False, True]
    kept = {row.site: row for row in first}
    assert next(row for row in again if row.divergence[0] != 123.0) in kept.values()


def test_other_samples_are_other_measurements(net, tmp_path):
    path, _, sites, feeds, moments = net
    for part in (feeds[:1], feeds[1:2]):
        measured_rows(path, sites[:1], few_forms, part, moments, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_candidates_get_dearer_and_clearly_better_and_are_not_many(net):
    _, _, sites, *_ = net
    site = max(sites, key=lambda s: s.weights)
    found = worth_measuring(
        fits(site.W(), code_forms(site), IDENTITY), 32 * site.weights, most=5
    )
    bits = [fit.bits for fit, _ in found]
    errors = [fit.error for fit, _ in found]
    assert 3 <= len(found) <= 5
    assert bits == sorted(bits)
    assert errors == sorted(errors, reverse=True)


def test_sums_are_offered_to_large_layers_alone(net):
    _, _, sites, *_ = net
    assert all(not sum_forms(site) for site in sites if site.weights < 4096)


def test_one_bit_codes_are_for_budgets_near_them(net):
    site = max(net[2], key=lambda s: s.weights)
    assert Quantize(2, scale="row") in code_forms(site, 2.2)
    assert Quantize(2, scale="row") not in code_forms(site, 2.9)
    assert Quantize(4, scale="row") in code_forms(site, 2.9)


CODES, SUM = Quantize(2, scale="row"), Sum((Quantize(2, scale="row"), Prune(0.01)))


def rows_with_sums(net, sum_loses, sum_is_dearer=0):
    """Of every layer: codes of 2 and 4 bits a weight, and a sum of as many as the first."""
    rows = []
    for site in net[2]:
        n = site.weights
        codes = (Fit(CODES, 2 * n, 0.1), Fit(Affine(4), 4 * n, 0.01))
        added = Fit(SUM, 2 * n + sum_is_dearer, 0.1 * sum_loses)
        tried = ((codes[0], 0.1), (added, 0.1 * sum_loses), (codes[1], 0.01))
        rows.append(Row(site.name, 32 * n, *map(tuple, zip(*tried, strict=True))))
    return rows


def sums_taken(net, rows):
    chosen = choose(net[1], net[2], rows, 3.5, is_measured=True)
    return sum(map(is_sum, chosen.forms.values()))


def test_sums_that_lose_less_at_equal_bits_are_chosen(net):
    assert sums_taken(net, rows_with_sums(net, 0.5)) > 0


@pytest.mark.parametrize("loses", [0.995, 1.0, 1.5])
def test_sums_that_earn_next_to_nothing_leave_the_plan_of_codes_as_it_was(net, loses):
    rows = rows_with_sums(net, loses)
    without = [row.without_sums() for row in rows]
    chosen, plain = (
        choose(net[1], net[2], each, 3.5, is_measured=True) for each in (rows, without)
    )
    assert chosen == plain


def test_a_sum_is_not_offered_where_codes_of_no_more_bits_lose_less():
    tried = (Fit(CODES, 100, 0.1), Fit(Affine(4), 150, 0.02), Fit(SUM, 160, 0.015))
    assert not Row("a", 3200, tried, (0.5, 0.1, 0.2)).with_better_sums().sums
    assert Row("a", 3200, tried, (0.5, 0.1, 0.05)).with_better_sums().sums


def test_what_codes_weigh_does_not_depend_on_the_sums_beside_them():
    tried = (Fit(CODES, 100, 0.1), Fit(SUM, 120, 0.05), Fit(Affine(4), 150, 0.02))
    row = Row("a", 3200, tried, (0.5, 0.01, 0.1))
    np.testing.assert_array_equal(row.weighed()[[0, 2]], row.without_sums().weighed())


def test_codes_are_measured_as_without_sums_and_few_sums_beside_them():
    W = np.random.default_rng(0).standard_t(3, (1, 64, 8, 3, 3)).astype(np.float32)
    codes = [Quantize(1 << b, scale="row") for b in (1, 2, 3, 4)]
    sums = [Sum((c, Prune(k))) for c in codes[:3] for k in (0.005, 0.01, 0.02, 0.04)]
    alone = candidates(W, codes, IDENTITY, 32 * W.size)
    found = candidates(W, [*codes, *sums], IDENTITY, 32 * W.size)
    assert [fit for fit, _ in found if not is_sum(fit.form)] == [fit for fit, _ in alone]
    assert 1 <= sum(is_sum(fit.form) for fit, _ in found) <= MOST_SUMS
