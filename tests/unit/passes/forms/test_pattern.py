"""n:m patterns: what is kept of every block, refitted values, and how it is stored."""

import itertools

import numpy as np
import pytest

from form_weights import identity, moments, unfolded, weight
from layers import convolution, product
from lowering import dense_with, run, site_of, substituted
from nncc.device_profiles.errors import PlanError, RankError
from nncc.passes.forms import Dense, Metric, Pattern, Quantize, Sum, parse, squared_error

SHAPE = (2, 6, 8, 3, 3)


def blocks(W, m):
    return np.moveaxis(W, 2, -1).reshape(-1, m)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (1, 4), (4, 8)])
def test_every_block_keeps_its_largest(n, m):
    W = weight(SHAPE)
    term = Pattern(n, m).compress(W)
    own, kept = blocks(W, m), blocks(term.decompress(), m)
    assert ((kept != 0).sum(axis=1) == n).all()
    largest = np.sort(np.abs(own), axis=1)[:, -n:]
    np.testing.assert_allclose(np.sort(np.abs(kept), axis=1)[:, -n:], largest, rtol=1e-3)


def best_error(w, H, n, m):
    """The least error of one row over every pattern, refitted by the pseudo-inverse."""
    least = np.inf
    choices = list(itertools.combinations(range(m), n))
    for chosen in itertools.product(choices, repeat=len(w) // m):
        T = [block * m + i for block, kept in enumerate(chosen) for i in kept]
        C = H - H[:, T] @ np.linalg.pinv(H[np.ix_(T, T)]) @ H[T]
        least = min(least, float(w @ C @ w))
    return least


def test_values_are_refitted_and_patterns_chosen_by_output_error():
    """Against every pattern of every row: 6³ choices a row."""
    shape = (1, 6, 12)
    W, metric = weight(shape), moments(shape)
    term = Pattern(2, 4).compress(W, metric=metric)
    assert ((blocks(term.decompress(), 4) != 0).sum(axis=1) <= 2).all()
    found = squared_error(W, term, metric)
    plain = squared_error(W, Pattern(2, 4).compress(W), metric)
    best = sum(best_error(w.astype(np.float64), metric.H[0], 2, 4) for w in W[0])
    assert best * (1 - 1e-6) <= found < plain
    assert found <= 2 * best  # a heuristic; the plain choice is many times off
    mask = term.decompress()[0] != 0
    refit = sum(
        float(w @ (H := metric.H[0]) @ w)
        - float(w @ H[:, T] @ np.linalg.pinv(H[np.ix_(T, T)]) @ H[T] @ w)
        for w, T in ((W[0, i].astype(np.float64), np.flatnonzero(mask[i])) for i in range(6))
    )
    assert found <= 1.05 * refit  # a slight ridge, values of 16 bits


def test_with_the_identity_the_plain_fit_is_found():
    W = weight(SHAPE)
    n = 8 * 9
    for metric in (identity(SHAPE), Metric(np.broadcast_to(3 * np.eye(n), (2, n, n)))):
        np.testing.assert_array_equal(
            Pattern(2, 4).compress(W, metric=metric).decompress(),
            Pattern(2, 4).compress(W).decompress(),
        )


def test_never_worse_than_the_start():
    W, metric = weight(SHAPE), moments(SHAPE)
    exact = Dense().compress(W)
    assert Pattern(2, 4).compress(W, start=exact, metric=metric) is exact


def test_the_matrix_is_unfolded_from_values_and_patterns():
    term = Pattern(2, 4).compress(weight(SHAPE))
    np.testing.assert_array_equal(unfolded(term), term.decompress().reshape(12, -1))
    blocks_ = 2 * 6 * 8 * 9 // 4
    assert term.cost().bits == blocks_ * (2 * 16 + 3)  # six patterns: three bits
    assert term.cost().weights == 2 * blocks_


@pytest.mark.parametrize(
    "layer",
    [
        convolution("conv", m=12, c=8, kernel=(3, 3), pads=[1] * 4),
        product("right", m=12, n=8),
    ],
    ids=lambda layer: layer.name,
)
@pytest.mark.parametrize(
    "form", [Pattern(2, 4), Sum((Pattern(2, 4), Quantize(2)))], ids=["alone", "sum"]
)
def test_what_runs_is_one_dense_layer(layer, form):
    site = site_of(layer)
    term = form.compress(site.W())
    assert form.kernels(site.shape, site.geometry) == Dense().kernels(
        site.shape, site.geometry
    )
    y = run(substituted(layer, form, term), layer.feeds)
    expected = run(dense_with(layer, term.decompress()), layer.feeds)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_what_has_no_blocks_is_refused():
    with pytest.raises(RankError, match="6 input channels are no multiple of m=4"):
        Pattern(2, 4).compress(weight((1, 4, 6)))
    with pytest.raises(PlanError, match="pattern 4:4; choose 1 ≤ n < m"):
        Pattern(4, 4)
    assert parse("pattern(2, 4)") == Pattern(2, 4)
