"""The tt-sparse recipe: its budget, its splits, and what it leaves alone."""

import math

import numpy as np
import pytest

import trains
from layers import convolution, product
from nncc.compiler.allocation.train_guess import sampled
from nncc.compiler.allocation.train_recipe import train_plan
from nncc.compiler.allocation.train_search import affordable, numbers_of, search
from nncc.compiler.fitting.fit import fit
from nncc.compiler.fitting.moments import Moments
from nncc.compiler.fitting.shrink import shrunk
from nncc.compiler.options import CompileOptions
from nncc.compiler.reading.ingest import ingest
from nncc.device_profiles.errors import UsageError
from nncc.passes.forms import IDENTITY, Dense, LowRank, Metric, Prune, Sum, squared_error
from nncc.passes.forms.sparse.columns import Columns
from nncc.passes.forms.sparse.prune_term import gap_bits
from nncc.passes.normalise import normalise
from nncc.passes.sites import find_sites, skipped_weights
from small_models import residual_net


def options(size, **others):
    return CompileOptions(recipe="tt-sparse", size=size, jobs=1, **others)


def net(tmp_path):
    path = residual_net(tmp_path / "net.onnx", channels=24, side=8)
    return find_sites(normalise(ingest(path, workdir=tmp_path)))


def low_rank(m, n, j, seed=0):
    rng = np.random.default_rng(seed)
    U, V = rng.standard_normal((m, j)), rng.standard_normal((j, n))
    return (U @ V / math.sqrt(j)).astype(np.float32)


def scattered(m, n, count, seed=1):
    rng = np.random.default_rng(seed)
    S = np.zeros(m * n, np.float32)
    S[rng.choice(m * n, count, replace=False)] = 4 * rng.standard_normal(count)
    return S.reshape(m, n)


def found_for(W, fraction, metric=IDENTITY):
    site = trains.site_of(product("made", m=W.shape[0], n=W.shape[1]))
    return search(site, W[None], metric).best(fraction * W.size)


@pytest.mark.parametrize("size", [0.5, 0.2])
def test_a_trained_net_is_held_to_its_budget_by_what_is_really_stored(size, tmp_path):
    sites, skipped = net(tmp_path)
    planned = train_plan(sites, skipped, options(size))
    terms = fit(sites, planned.plan, jobs=1)
    numbers = sum(
        numbers_of(terms[site.name].term) if site.name in terms else site.weights
        for site in sites
    )
    whole = sum(site.weights for site in sites) + skipped_weights(sites, skipped)
    kept = (numbers + skipped_weights(sites, skipped)) / whole
    assert planned.budget_met
    assert planned.budget_used == pytest.approx(kept)
    assert 0.75 * size < kept <= size


def test_a_larger_budget_never_leaves_more_error(tmp_path):
    sites, skipped = net(tmp_path)
    errors = []
    for size in (0.7, 0.4, 0.2):
        planned = train_plan(sites, skipped, options(size))
        terms = fit(sites, planned.plan, jobs=1)
        errors.append(sum(entry.error_fro**2 for entry in terms.values()))
    assert errors == sorted(errors)


def test_twice_gives_the_same_plan(tmp_path):
    sites, skipped = net(tmp_path)
    one, two = (train_plan(sites, skipped, options(0.3)).plan.dumps() for _ in range(2))
    assert one == two


def test_every_dense_layer_says_why(tmp_path):
    sites, skipped = net(tmp_path)
    planned = train_plan(sites, skipped, options(0.4))
    dense = {site.name for site in sites if planned.plan.form(site.name) == Dense()}
    assert dense == set(planned.reasons)
    assert all(planned.reasons.values())


def test_a_budget_out_of_reach_gives_the_least_and_says_so(tmp_path):
    sites, skipped = net(tmp_path)
    planned = train_plan(sites, skipped, options(0.001))
    assert not planned.budget_met
    assert planned.budget_used < 0.1
    assert "below the least" in planned.undone[0]


def test_a_depthwise_layer_is_left_dense():
    layer = convolution("deep", m=64, c=64, groups=64, kernel=(3, 3))
    site = trains.site_of(layer)
    planned = train_plan([site], [], options(0.5))
    assert planned.plan.form(site.name) == Dense()
    assert planned.reasons[site.name] == (
        "each of its 64 groups is 1 x 9: there is no rank to spare"
    )


def test_no_size_is_refused():
    with pytest.raises(UsageError, match=r"needs a budget.*--size 0.3"):
        train_plan([], [], CompileOptions(recipe="tt-sparse"))


def test_low_rank_and_sparse_together_are_found_as_a_sum():
    W = low_rank(96, 128, 6) + scattered(96, 128, 300)
    best = found_for(W, 0.2)
    assert isinstance(best.form, Sum)
    assert best.error < 1e-3


def test_a_sum_that_does_not_earn_its_bits_is_not_taken():
    W = low_rank(96, 128, 6) + 0.01 * scattered(96, 128, 96 * 128)
    assert isinstance(found_for(W, 0.115).form, LowRank)


def test_scattered_entries_alone_are_found_as_such():
    assert isinstance(found_for(scattered(96, 128, 300), 0.05).form, Prune)


def test_whole_channels_are_found_where_they_are_what_is_left():
    W = low_rank(96, 128, 4)
    W += 0.01 * np.random.default_rng(9).standard_normal(W.shape).astype(np.float32)
    W[:, 7:13] += 3 * np.random.default_rng(2).standard_normal((96, 6)).astype(np.float32)
    best = found_for(W, 0.125)
    assert isinstance(best.form, Sum)
    assert isinstance(best.form.parts[1], Columns)
    assert best.error < 1e-3


@pytest.mark.parametrize("fraction", [0.05, 0.3])
@pytest.mark.parametrize("kernel", [(3, 3), (5,)])
def test_what_is_fitted_is_no_more_than_was_granted_and_no_worse_than_guessed(
    fraction, kernel
):
    site = trains.site_of(convolution("made", m=32, c=24, kernel=kernel))
    W = np.random.default_rng(3).standard_normal(site.shape).astype(np.float32)
    W *= np.arange(1, 25, dtype=np.float32).reshape(1, 1, 24, *(1,) * len(kernel)) ** -0.8
    looked = search(site, W, IDENTITY)
    guess = min(looked.guesses(fraction * W.size), key=lambda g: g.error)
    best = looked.best(fraction * W.size)
    assert best.numbers <= fraction * W.size
    term = best.form.compress(W)
    assert numbers_of(term) == best.numbers
    assert squared_error(W, term) / np.vdot(W, W) == pytest.approx(best.error, rel=1e-5)
    # positions that are not evenly spread cost more than was thought
    assert best.error <= 1.15 * guess.error


def test_moments_move_the_budget_to_what_the_layer_reads():
    rng = np.random.default_rng(4)
    W = rng.standard_normal((64, 96)).astype(np.float32)
    power = np.concatenate([np.full(12, 30.0), np.full(84, 0.1)])
    metric = Metric(np.diag(power**2)[None])
    plain, seen = found_for(W, 0.2), found_for(W, 0.2, metric)
    energy = metric.energy(W[None])
    lost = squared_error(W[None], plain.form.compress(W[None]), metric) / energy
    assert seen.error < 0.05 * lost


def test_moments_of_few_samples_do_not_let_the_rest_of_the_weight_go():
    """A layer of 96 inputs that saw 8 samples is not cut to what those 8 need."""
    rng = np.random.default_rng(5)
    layer = product("seen", m=64, n=96)
    site = trains.site_of(layer)
    X = rng.standard_normal((8, 96))
    moments = {site.name: Moments((X.T @ X / 8)[None], np.zeros((1, 96)), 8)}
    planned = train_plan([site], [], options(0.5), moments)
    term = planned.plan.form(site.name).compress(
        site.W(), metric=Metric(shrunk(moments[site.name].covariance, 8))
    )
    other = Metric(np.eye(96)[None])
    assert squared_error(site.W(), term, other) < 0.6 * other.energy(site.W())


@pytest.mark.parametrize("density", [0.001, 0.02, 0.3])
def test_corrections_that_are_afforded_cost_what_was_paid(density):
    size = 200_000
    count = affordable(density * size, size)
    index = np.sort(np.random.default_rng(6).choice(size, count, replace=False))
    assert 0.96 < gap_bits(index) / (16 * density * size) <= 1.0


@pytest.mark.parametrize("samples", [40, 4000])
def test_shrunk_moments_are_nearer_to_the_truth(samples):
    rng = np.random.default_rng(7)
    truth = np.diag(np.arange(1.0, 31.0))
    X = rng.standard_normal((samples, 30)) * np.sqrt(np.diagonal(truth))
    S = X.T @ X / samples
    assert np.linalg.norm(shrunk(S[None], samples)[0] - truth) < np.linalg.norm(S - truth)


def test_outputs_are_sampled_where_the_metric_is_large():
    W = np.random.default_rng(8).standard_normal((1, 512, 1000)).astype(np.float32)
    assert len(sampled(W, IDENTITY).rows) == 512
    rows = sampled(W, Metric(np.eye(1000)[None])).rows
    assert len(rows) == 200
    assert len(set(rows.tolist())) == 200
