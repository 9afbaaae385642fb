"""Error feedback: against GPTQ as published, exhaustive search and plain rounding."""

import time
from itertools import product

import numpy as np
import pytest

from nncc.passes.forms import IDENTITY, Metric, squared_error
from nncc.passes.forms.codes.affine import Affine
from nncc.passes.forms.codes.codebook import Binary, Powers, Ternary
from nncc.passes.forms.codes.feedback import Rounded, descended, fed_back, ordered, slopes_of
from nncc.passes.forms.codes.feedback_refit import refitted
from nncc.passes.forms.codes.half import Half
from nncc.passes.forms.codes.kmeans import kmeans
from nncc.passes.forms.codes.quantize import Quantize

FORMS = [
    Quantize(2),
    Quantize(8),
    Quantize(4, "channel"),
    Quantize(3, "group", 16),
    Quantize(4, scale="row"),
    Quantize(4, scale="group", group=16),
    Binary(),
    Binary(scaled=0),
    Binary("channel"),
    Ternary(),
    Ternary("channel"),
    Powers(3),
    Affine(2),
    Affine(3, "layer"),
    Affine(3, "group", 16),
    Affine(4, symmetric=1),
    Affine(8),
    Half(),
]
SHAPES = [(1, 12, 8, 3, 3), (1, 20, 40), (4, 5, 3, 3), (16, 1, 1, 3, 3)]


def case(shape, samples=400, seed=0):
    """Weights of unlike rows, and the covariance of correlated inputs after a ReLU."""
    rng = np.random.default_rng(seed)
    g, m, n = shape[0], shape[1], int(np.prod(shape[2:]))
    W = rng.standard_normal((g, m, n)) * rng.lognormal(0, 0.5, (g, m, 1))
    mixing = rng.standard_normal((g, n, n)) * np.exp(-4 * np.arange(n) / n)
    x = np.maximum(rng.standard_normal((g, samples, n)) @ mixing.swapaxes(1, 2) + 0.3, 0)
    x -= x.mean(axis=1, keepdims=True)
    H = x.swapaxes(1, 2) @ x / samples
    return W.reshape(shape).astype(np.float32), Metric(H)


def flat(W):
    return W.reshape(W.shape[0] * W.shape[1], -1).astype(np.float64)


@pytest.mark.parametrize("samples", [400, 5], ids=["full rank", "rank-deficient"])
@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_a_fit_in_the_metric_is_never_worse_than_rounding_or_its_start(form, samples):
    for seed, shape in enumerate(SHAPES):
        W, metric = case(shape, samples, seed)
        plain = form.compress(W)
        term = form.compress(W, None, metric)
        assert np.isfinite(term.decompress()).all()
        error = squared_error(W, term, metric)
        assert error <= squared_error(W, plain, metric)
        for start in (plain, Quantize(64).compress(W), term):
            again = form.compress(W, start, metric)
            assert squared_error(W, again, metric) <= squared_error(W, start, metric)


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_a_multiple_of_the_identity_is_the_plain_fit_to_the_byte(form):
    for shape in SHAPES:
        W, _ = case(shape)
        plain = form.compress(W, None, IDENTITY).decompress()
        n = int(np.prod(shape[2:]))
        for factor in (1.0, 0.3):
            metric = Metric(np.tile(factor * np.eye(n), (shape[0], 1, 1)))
            assert form.compress(W, None, metric).decompress().tobytes() == plain.tobytes()


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_nearly_the_identity_is_nearly_the_plain_fit(form):
    W, _ = case((1, 20, 40))
    metric = Metric((np.eye(40) + 1e-9 * np.ones((40, 40)))[None])
    plain, term = form.compress(W), form.compress(W, None, metric)
    # Least squares and descent in the metric may settle a little below the plain fit.
    assert squared_error(W, term) == pytest.approx(squared_error(W, plain), rel=0.08)


@pytest.mark.parametrize("form", [Quantize(4, scale="row"), Quantize(8), Affine(3)], ids=repr)
def test_feedback_more_than_halves_the_error_of_correlated_inputs(form):
    W, metric = case((1, 64, 96), 300)
    plain, term = form.compress(W), form.compress(W, None, metric)
    assert squared_error(W, term, metric) < 0.5 * squared_error(W, plain, metric)


def gptq(W, levels, H, columns):
    """Frantar et al. 2023, algorithm 1 without blocks, by explicit inverses."""
    W = W[:, columns].copy()
    inverse = np.linalg.inv(H[np.ix_(columns, columns)])
    codes = np.zeros(W.shape, np.uint8)
    for j, column in enumerate(columns):
        here = levels.column(int(column))
        codes[:, j] = here.nearest(W[:, j : j + 1])[:, 0]
        error = W[:, j] - here.values(codes[:, j : j + 1])[:, 0]
        W[:, j:] -= np.outer(error / inverse[0, 0], inverse[0])
        inverse = inverse[1:, 1:] - np.outer(inverse[1:, 0], inverse[0, 1:]) / inverse[0, 0]
    back = np.empty_like(codes)
    back[:, columns] = codes
    return back


@pytest.mark.parametrize(
    "form",
    [Quantize(8), Quantize(4, "group", 50), Quantize(4, scale="row"), Affine(4)],
    ids=repr,
)
def test_feedback_is_gptq(form):
    W, metric = case((1, 10, 200), 800)
    H = metric.damped(0.01).H
    levels = form.levels(W.reshape(10, 200), None)
    order = ordered(H)
    assert (np.diff(np.diag(H[0])[order.columns]) <= 0).all()
    codes = fed_back(flat(W), levels, order).codes
    other = gptq(flat(W), levels, H[0], order.columns)
    # A weight on the border of two levels may fall on either side, and others then follow.
    assert (codes != other).mean() < 0.01


def test_groups_are_rounded_each_with_its_own_moments():
    W, metric = case((3, 4, 20))
    H = metric.damped(0.01).H
    levels = Quantize(4).levels(W.reshape(12, 20), None)
    order = ordered(H)
    together = fed_back(flat(W), levels, order).codes
    for at in range(3):
        expected = gptq(flat(W[at : at + 1]), levels, H[at], order.columns)
        np.testing.assert_array_equal(together[4 * at : 4 * at + 4], expected)


def test_the_codes_are_near_the_best_of_all():
    ratios = []
    for seed in range(20):
        W, metric = case((1, 1, 10), 100, seed)
        term = Binary().compress(W, None, metric)
        signs = np.array(list(product((-1.0, 1.0), repeat=10)))
        w, H = W.reshape(-1).astype(np.float64), metric.H[0]
        gain = (signs @ H @ w) ** 2 / np.einsum("si,ij,sj->s", signs, H, signs)
        ratios.append(squared_error(W, term, metric) / (w @ H @ w - gain.max()))
    assert min(ratios) > 1 - 1e-5
    assert np.median(ratios) < 1.1


def objective(W, codes, levels, H):
    R = flat(W) - levels.values(codes)
    return Metric(H).squared(R.reshape(W.shape))


@pytest.mark.parametrize("form", [f for f in FORMS if not isinstance(f, Half)], ids=repr)
def test_no_step_of_the_alternation_raises_the_objective(form):
    for shape in SHAPES:
        W, metric = case(shape)
        H = metric.damped(0.01).H
        order = ordered(H)
        levels = form.levels(flat(W).astype(np.float32), None)
        codes = levels.nearest(flat(W))
        before = objective(W, codes, levels, H)
        for _ in range(3):
            values = levels.values(codes).astype(np.float64)
            here = Rounded(codes, values, slopes_of(flat(W) - values, H))
            there = descended(here, levels, order, 1)
            codes, G = there.codes, there.slopes
            np.testing.assert_allclose(there.values, levels.values(codes), rtol=1e-5)
            np.testing.assert_allclose(
                G, slopes_of(flat(W) - levels.values(codes), H), atol=1e-5 * np.abs(H).max()
            )
            after = objective(W, codes, levels, H)
            assert after <= before * (1 + 1e-6)
            levels = refitted(codes, levels, H, G)
            before = objective(W, codes, levels, H)
            # Scales are rounded to float16.
            assert before <= after * (1 + 2e-3)
            levels, codes = levels.ascending(codes)


def test_refitted_levels_solve_the_least_squares_problem():
    W, metric = case((2, 6, 30))
    H = metric.damped(0.01).H
    roots = np.linalg.cholesky(H)
    w = flat(W)
    levels = Quantize(4).levels(W.reshape(12, 30), None)
    codes = levels.nearest(w)
    onehot = np.eye(4)[codes]  # (12, 30, 4)
    design = np.concatenate([roots[r // 6].T @ onehot[r] for r in range(12)])
    wanted = np.concatenate([roots[r // 6].T @ w[r] for r in range(12)])
    expected = np.linalg.lstsq(design, wanted)[0]
    found = refitted(codes, levels, H, slopes_of(w - levels.values(codes), H)).codebook.ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    rows = Quantize(4, "channel").levels(W.reshape(12, 30), None)
    codes = rows.nearest(w)
    found = refitted(codes, rows, H, slopes_of(w - rows.values(codes), H)).codebook[:, 0]
    for r in range(12):
        design = roots[r // 6].T @ np.eye(4)[codes[r]]
        expected = np.linalg.lstsq(design, roots[r // 6].T @ w[r])[0]
        np.testing.assert_allclose(found[r], expected, rtol=1e-4, atol=1e-6)


def test_refitted_grids_solve_the_least_squares_problem():
    W, metric = case((1, 6, 30))
    H = metric.damped(0.01).H
    root = np.linalg.cholesky(H[0]).T
    w = flat(W)
    levels = Affine(3).levels(W.reshape(6, 30), None)
    codes = levels.nearest(w)
    new = refitted(codes, levels, H, slopes_of(w - levels.values(codes), H))
    for r in range(6):
        design = root @ np.stack([codes[r], np.ones(30)], axis=1)
        (s, t), *_ = np.linalg.lstsq(design, root @ w[r])
        assert float(new.scale[r, 0]) == pytest.approx(s, rel=1e-3)
        assert float(new.zero[r, 0]) == pytest.approx(-t / s, rel=2e-2, abs=1e-2)


def test_a_diagonal_metric_is_weighted_k_means():
    W, _ = case((1, 20, 40))
    h = np.random.default_rng(3).lognormal(0, 1, 40)
    metric = Metric(np.diag(h)[None])
    best = kmeans(W.reshape(20, 40), 5, np.tile(h, (20, 1)))
    term = Quantize(5).compress(W, None, metric)
    # The fit sees a diagonal damped by a hundredth of its mean.
    assert squared_error(W, term, metric) == pytest.approx(best.error, rel=5e-3)


def test_inputs_that_nobody_saw_do_no_harm():
    W, metric = case((4, 5, 3, 3))
    H = metric.H.copy()
    H[1] = 0  # a group without inputs
    H[:, 2] = H[:, :, 2] = 0  # an input that is always zero
    for form in FORMS:
        plain = form.compress(W)
        for moments in (H, np.zeros_like(H)):
            term = form.compress(W, None, Metric(moments))
            assert np.isfinite(term.decompress()).all()
            assert squared_error(W, term, Metric(moments)) <= squared_error(
                W, plain, Metric(moments)
            )


def test_the_same_moments_give_the_same_bytes():
    W, metric = case((1, 12, 8, 3, 3))
    for form in FORMS:
        one, two = form.compress(W, None, metric), form.compress(W, None, metric)
        assert one.decompress().tobytes() == two.decompress().tobytes()


def test_hundreds_of_depthwise_groups_are_fitted_together():
    W, metric = case((512, 1, 1, 3, 3), 50)
    form = Quantize(4, "channel")
    began = time.process_time()
    form.compress(W, None, metric)
    # About 50 ms; one fit a group would take seconds.
    assert time.process_time() - began < 1.0
