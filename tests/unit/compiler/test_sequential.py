"""Fitting layer after layer: the moments, the weight aimed at, and what is gained."""

from itertools import pairwise

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from layers import convolution
from nncc.compiler.fitting.fit import fit
from nncc.compiler.fitting.moments import collect, reading_of
from nncc.compiler.fitting.paired import aimed_at, paired
from nncc.compiler.fitting.sequential import fit_sequentially
from nncc.passes.forms.codes.quantize import Quantize
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites
from nncc.runtime.collect_patches import panels
from small_models import write


@pytest.fixture
def pair():
    """A layer, what it met before, and what it meets now."""
    layer = convolution("grouped", m=6, c=4, kernel=(3, 3), groups=2, pads=[1, 1, 1, 1])
    (site,), _ = find_sites(Model(ir.from_proto(layer.model), "layer", "0" * 64))
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((1, 4, 9, 9)).astype(np.float32) + 3 for _ in range(4)]
    noise = [rng.standard_normal(a.shape).astype(np.float32) for a in x]
    return site, x, [0.8 * a + 0.3 * e for a, e in zip(x, noise, strict=True)]


def patches(site, values) -> np.ndarray:
    """(g, n, positions) of all samples."""
    rng = np.random.default_rng(0)
    every = [p for v in values for p, _ in panels(reading_of(site), v, 10**9, rng)]
    return np.concatenate(every, axis=2).astype(np.float64)


def test_paired_moments_are_the_covariances_of_the_patches(pair):
    site, before, now = pair
    found = paired(reading_of(site), before, now)

    X, Y = patches(site, before), patches(site, now)
    n = X.shape[1]
    for g in range(len(X)):
        joint = np.cov(np.concatenate([X[g], Y[g]]), bias=True)
        np.testing.assert_allclose(found.covariance[g], joint[n:, n:], atol=1e-5)
        want = joint[:n, n:] - joint[n:, n:]
        np.testing.assert_allclose(found.shift[g], want, atol=1e-5)
    np.testing.assert_allclose(found.mean_before, X.mean(axis=2), atol=1e-5)
    np.testing.assert_allclose(found.mean, Y.mean(axis=2), atol=1e-5)


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_weight_aimed_at_gives_the_old_outputs_best_on_the_new_inputs(pair, has_bias):
    site, before, now = pair
    W, reading = site.W(), reading_of(site)
    halves = [paired(reading, before[k::2], now[k::2]) for k in (0, 1)]
    if not has_bias:
        halves = [half.about_zero() for half in halves]

    V = aimed_at(W, tuple(halves), ridges=[1e-9]).reshape(2, 3, -1)

    X, Y = patches(site, before), patches(site, now)
    for g in range(2):
        rows = Y[g].T
        if has_bias:
            rows = np.column_stack([rows, np.ones(len(rows))])
        best = np.linalg.lstsq(rows, (W[g].reshape(3, -1) @ X[g]).T, rcond=None)[0]
        np.testing.assert_allclose(V[g], best[: V.shape[2]].T, atol=1e-3)


def test_moments_of_two_halves_add_up_to_those_of_all(pair):
    site, before, now = pair
    reading = reading_of(site)
    both = paired(reading, before[:1], now[:1]) + paired(reading, before[1:], now[1:])
    whole = paired(reading, before, now)
    for name in ("mean_before", "mean", "covariance", "shift", "count"):
        np.testing.assert_allclose(getattr(both, name), getattr(whole, name), atol=1e-5)


def test_a_layer_that_meets_what_it_met_before_is_aimed_at_as_it_is(pair):
    site, before, _ = pair
    W, reading = site.W(), reading_of(site)
    half = paired(reading, before, before)
    assert aimed_at(W, (half, half)) is W


def test_a_layer_is_aimed_at_as_it_is_where_samples_say_nothing_of_each_other(pair):
    site, before, _ = pair
    rng = np.random.default_rng(1)
    noise = [a + rng.standard_normal(a.shape).astype(np.float32) for a in before]
    one = site.W()
    few = paired(reading_of(site), before[:1], noise[:1], most_patches=1)
    far = paired(reading_of(site), before[1:2], [a * -1 for a in before[1:2]])
    V = aimed_at(one, (few, far), ridges=[1e-3])
    assert V is one


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Four layers with what comes of inputs that depend on each other."""
    rng = np.random.default_rng(0)
    sizes = [24, 48, 48, 48, 8]
    weights = {
        f"W{k}": (rng.standard_normal((a, b)) * np.sqrt(2 / a)).astype(np.float32)
        for k, (a, b) in enumerate(pairwise(sizes))
    }
    path = write(
        tmp_path_factory.mktemp("deep") / "net.onnx",
        """
        net (float[n, 24] x) => (float[n, 8] y) {
            a = MatMul (x, W0)
            b = Relu (a)
            c = MatMul (b, W1)
            d = Relu (c)
            e = MatMul (d, W2)
            f = Relu (e)
            y = MatMul (f, W3)
        }
        """,
        **weights,
    )
    mix = rng.standard_normal((24, 24)) * np.linspace(1, 0.05, 24)[:, None]
    feeds = [
        {"x": (rng.standard_normal((16, 24)) @ mix).astype(np.float32)} for _ in range(128)
    ]
    model = Model(ir.load(path), "deep", "0" * 64)
    return path, model, find_sites(model)[0], feeds[:96], feeds[96:]


def mean_error(path, model, forms, fitted, feeds) -> float:
    """Mean squared error of the outputs."""
    terms = {name: entry.term for name, entry in fitted.items()}
    deltas = {n: e.bias_delta for n, e in fitted.items() if e.bias_delta is not None}
    made = compress_weights(model, Plan(forms), terms, bias_deltas=deltas)
    new = ort.InferenceSession(ir.to_proto(made.graph_model).SerializeToString())
    old = ort.InferenceSession(str(path))
    pairs = [(old.run(None, feed)[0], new.run(None, feed)[0]) for feed in feeds]
    return float(np.mean([np.square(np.subtract(a, b)).mean() for a, b in pairs]))


def test_layers_fitted_one_behind_the_other_lose_less_than_side_by_side(deep):
    path, model, sites, feeds, judged = deep
    forms = {site.name: Quantize(2, scale="row") for site in sites}

    aside = fit(sites, Plan(forms), collect(path, feeds, sites, jobs=1), jobs=1)
    behind = fit_sequentially(path, sites, forms, feeds)

    before = mean_error(path, model, forms, aside, judged)
    after = mean_error(path, model, forms, behind, judged)
    assert after < 0.8 * before, (before, after)


def test_the_first_layer_is_fitted_as_by_itself(deep):
    path, _, sites, feeds, _ = deep
    first = {sites[0].name: Quantize(4, scale="row")}

    alone = fit(sites, Plan(first), collect(path, feeds, sites[:1], jobs=1), jobs=1)
    found = fit_sequentially(path, sites, first, feeds)

    name = sites[0].name
    assert found.keys() == alone.keys()
    assert found[name].error_out == pytest.approx(alone[name].error_out, rel=1e-3)
    a, b = found[name].bias_delta, alone[name].bias_delta
    np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(b).max())
