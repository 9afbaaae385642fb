"""Kept columns: which input channels, with which weights, and the layer that runs."""

import itertools

import numpy as np
import pytest

from form_weights import identity, moments, unfolded, weight
from layers import convolution, product
from lowering import dense_with, run, site_of, substituted
from nncc.device_profiles.errors import RankError
from nncc.passes.forms import Columns, LowRank, Metric, Sum, TensorTrain, squared_error


def refit_error(W, H, channels):
    """min over weights on `channels` of ‖(W − V) H^½‖², by the pseudo-inverse."""
    g, m, c, *_ = W.shape
    per = H.shape[-1] // c
    total = 0.0
    for w, h in zip(W.reshape(g, m, -1).astype(np.float64), H, strict=True):
        T = [channel * per + k for channel in channels for k in range(per)]
        C = h - h[:, T] @ np.linalg.pinv(h[np.ix_(T, T)]) @ h[T]
        total += float(np.einsum("ij,jk,ik->", w, C, w))
    return total


def test_the_plain_choice_is_the_best_of_all_choices():
    W = weight((1, 5, 6, 3, 3))
    found = squared_error(W, Columns(3).compress(W))
    every = [
        np.square(W).sum() - np.square(W[:, :, list(kept)]).sum()
        for kept in itertools.combinations(range(6), 3)
    ]
    assert found == pytest.approx(min(every), rel=1e-3)  # values of 16 bits


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_in_the_metric_columns_are_chosen_and_refitted_by_output_error(keep):
    shape = (1, 5, 6, 2)
    W, metric = weight(shape), moments(shape)
    found = squared_error(W, Columns(keep).compress(W, metric=metric), metric)
    every = sorted(
        refit_error(W, metric.H, kept) for kept in itertools.combinations(range(6), keep)
    )
    assert every[0] * (1 - 1e-6) <= found <= 1.2 * every[0]  # greedy, a slight ridge
    plain = squared_error(W, Columns(keep).compress(W), metric)
    assert found < plain


def test_with_the_identity_the_plain_fit_is_found():
    W = weight()
    plain, same = Columns(2).compress(W), Columns(2).compress(W, metric=identity())
    np.testing.assert_array_equal(plain.decompress(), same.decompress())


def test_dead_inputs_do_no_harm():
    W = weight()
    H = np.array(moments().H)
    H[:, :9] = 0
    H[:, :, :9] = 0
    term = Columns(2).compress(W, metric=Metric(H))
    assert np.isfinite(term.decompress()).all()
    assert not (term.index == 0).any()


def test_a_share_is_of_the_channels_of_a_group():
    assert Columns(0.5).compress(weight()).index.shape == (2, 2)
    assert Columns(0.01).compress(weight()).index.shape == (2, 1)
    with pytest.raises(RankError, match="keep=5 is outside 1 … 4 input channels"):
        Columns(5).compress(weight())
    with pytest.raises(RankError, match=r"keep=1\.5 is outside"):
        Columns(1.5).compress(weight())


def test_the_matrix_is_unfolded_from_kept_channels():
    W = weight()
    term = Columns(3).compress(W)
    np.testing.assert_array_equal(unfolded(term), term.decompress().reshape(12, -1))
    assert term.cost().bits == 16 * 2 * 3 * 6 * 9 + 2 * 3 * 2
    assert term.cost().mults == 2 * 3 * 6 * 9


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
    "form", [Columns(2), Sum((Columns(2), LowRank(1)))], ids=["alone", "sum"]
)
def test_a_smaller_layer_runs_behind_the_choice(layer, form):
    site = site_of(layer)
    term = form.compress(site.W())
    proto = substituted(layer, form, term)
    assert "Gather" in {node.op_type for node in proto.graph.node}
    y, expected = (
        run(proto, layer.feeds),
        run(dense_with(layer, term.decompress()), layer.feeds),
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    kernels = Columns(2).kernels(site.shape, site.geometry)
    assert kernels[0].macs is None or kernels[0].weights == 2 * site.weights // site.shape[2]


def test_trains_and_columns_are_fitted_as_one_sum():
    """CEPD, section 4.4: a tensor train and structured sparsity beside it, never worse."""
    W, metric = weight((1, 8, 6, 3, 3)), moments((1, 8, 6, 3, 3))
    train, sparse = TensorTrain(ranks=(2, 2)), Columns(2)
    both = Sum((train, sparse))
    for known in (Metric(), metric):
        alone = min(
            squared_error(W, f.compress(W, metric=known), known) for f in (train, sparse)
        )
        assert squared_error(W, both.compress(W, metric=known), known) < alone


def test_the_values_are_of_sixteen_bits_where_those_hold_them():
    W = weight()
    assert Columns(2).compress(W).values.dtype == np.float16
    assert Columns(2).compress(W * np.float32(1e-6)).values.dtype == np.float32
