"""Kept filters: which outputs, by which measure, and the branch that runs in a sum."""

import itertools

import numpy as np
import pytest

from form_weights import identity, moments, unfolded, weight
from layers import convolution, product
from lowering import dense_with, run, site_of, substituted
from nncc.device_profiles.errors import RankError
from nncc.passes.forms import Filters, LowRank, Sum, parse, squared_error


def test_filters_by_error_are_the_best_of_all_choices():
    shape = (1, 6, 4, 2)
    W, metric = weight(shape), moments(shape)
    found = Filters(2, "error").compress(W, metric=metric)
    every = {}
    for kept in itertools.combinations(range(6), 2):
        R = np.array(W)
        R[:, list(kept)] = 0
        every[kept] = metric.squared(R)
    best = min(every, key=every.__getitem__)
    assert tuple(found.index[0]) == best
    assert squared_error(W, found, metric) == pytest.approx(every[best], rel=1e-3)


def test_filters_by_l1_keep_the_largest_norms_whatever_the_inputs():
    """Li et al., Pruning Filters for Efficient ConvNets (ICLR 2017), section 3.1."""
    W = weight()
    norms = np.abs(W).sum(axis=(2, 3, 4))
    for metric in (identity(), moments()):
        term = Filters(2).compress(W, metric=metric)
        for k in range(2):
            assert set(term.index[k]) == set(np.argsort(norms[k])[-2:])


def test_by_error_without_inputs_is_by_the_weights_own_norm():
    W = weight()
    plain, same = (Filters(2, "error").compress(W, metric=m) for m in (identity(), identity()))
    np.testing.assert_array_equal(plain.decompress(), same.decompress())
    norms = np.square(W, dtype=np.float64).sum(axis=(2, 3, 4))
    assert set(plain.index[0]) == set(np.argsort(norms[0])[-2:])


def test_a_share_is_of_the_outputs_of_a_group():
    form = parse("filters(keep=50%, by=error)")
    assert form == Filters(0.5, "error")
    assert form.compress(weight()).index.shape == (2, 3)
    with pytest.raises(RankError, match="keep=7 is outside 1 … 6 outputs of a group"):
        Filters(7).compress(weight())


def test_the_matrix_is_unfolded_from_kept_filters():
    term = Filters(4).compress(weight())
    np.testing.assert_array_equal(unfolded(term), term.decompress().reshape(12, -1))
    assert term.cost().bits == 16 * 2 * 4 * 36 + 2 * 4 * 3


@pytest.mark.parametrize(
    "layer",
    [
        convolution("grouped", m=12, c=8, kernel=(3, 3), groups=2, pads=[1] * 4),
        product("left", m=12, n=8, left=True),
        product("right", m=12, n=8, rows=(2, 3)),
    ],
    ids=lambda layer: layer.name,
)
@pytest.mark.parametrize(
    "form", [Filters(4), Sum((Filters(4), LowRank(1)))], ids=["alone", "sum"]
)
def test_what_runs_is_what_decompression_says(layer, form):
    term = form.compress(site_of(layer).W())
    y = run(substituted(layer, form, term), layer.feeds)
    expected = run(dense_with(layer, term.decompress()), layer.feeds)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
