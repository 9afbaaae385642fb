"""Foldings are bijections, and factorised forms follow the geometry they are given."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.passes.forms import Blocks, Folded, LowRank, kernel_weights, squared_error
from nncc.passes.geometry import Geometry, distinct_schemes, fold, scheme_axes, unfold

kernels = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.sampled_from([2, 4, 6]))


def weights(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(head=shapes, kernel=kernels, scheme=st.integers(0, 3), seed=st.integers(0, 99))
def test_unfold_undoes_fold(head, kernel, scheme, seed):
    W = weights((*head, *kernel), seed)
    axes = scheme_axes(scheme, kernel)
    F = fold(W, axes)
    assert F.shape[1] == head[1] * int(np.prod([kernel[a] for a in axes]))
    np.testing.assert_array_equal(unfold(F, axes, W.shape), W)


@settings(max_examples=60, deadline=None)
@given(head=shapes, kernel=kernels, j=st.integers(1, 2), seed=st.integers(0, 99))
def test_every_form_lowers_the_error_as_its_rank_grows(head, kernel, j, seed):
    W = weights((*head, *kernel), seed)
    geometry = Geometry("Conv", head[0], kernel)
    for scheme in distinct_schemes(geometry):
        F = fold(W, scheme_axes(scheme, kernel))
        most = min(F.shape[1], F[0, 0].size)
        low, high = min(j, most), min(j + 1, most)
        errors = [
            squared_error(W, Folded(scheme, LowRank(rank)).compress(W)) for rank in (low, high)
        ]
        assert errors[1] <= errors[0] * (1 + 1e-5) + 1e-9


@settings(max_examples=60, deadline=None)
@given(head=shapes, kernel=kernels, seed=st.integers(0, 99))
def test_two_blocks_store_k_times_the_outputs_and_once_the_inputs(head, kernel, seed):
    """ALDS, section 2.1: j (k m + n) weights of k blocks, here per group and j = 1."""
    del seed
    g, m, c = head
    geometry = Geometry("Conv", g, kernel)
    stored = kernel_weights(Blocks(2, LowRank(1)).kernels((*head, *kernel), geometry))
    assert stored == g * (2 * m + c * int(np.prod(kernel)))
