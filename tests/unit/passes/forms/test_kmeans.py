"""One-dimensional k-means against exhaustive search and scikit-learn."""

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from nncc.device_profiles.errors import ModelError, RankError
from nncc.passes.forms.codes import kmeans as module
from nncc.passes.forms.codes.kmeans import kmeans, kmeans_rows, nearest
from nncc.passes.forms.codes.kmeans_partition import partition

REFS = Path(__file__).resolve().parents[3] / "data" / "refs"


def error(x, centres, w=1.0):
    distance = x.reshape(-1, 1).astype(np.float64) - np.asarray(centres, np.float64)
    return float((w * (distance**2).min(axis=1)).sum())


def least(x, k, w):
    """The least error of all ways to cut the sorted values into k intervals."""
    order = np.argsort(x)
    x, w = x[order], w[order]

    def cost(a, b):
        mean = np.average(x[a:b], weights=w[a:b])
        return (w[a:b] * (x[a:b] - mean) ** 2).sum()

    cuts = combinations(range(1, len(x)), min(k, len(x)) - 1)
    ends = ((0, *cut, len(x)) for cut in cuts)
    return min(sum(cost(a, b) for a, b in pairwise(cut)) for cut in ends)


def layers():
    for path in sorted(REFS.glob("*.onnx")):
        for tensor in onnx.load(path).graph.initializer:
            W = numpy_helper.to_array(tensor)
            if W.ndim >= 2 and W.size >= 400:
                yield pytest.param(W, id=f"{path.stem}-{tensor.name}")


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=10),
    st.integers(1, 5),
    st.integers(0, 2**32 - 1),
)
def test_centres_are_those_of_the_best_cut(values, k, seed):
    rng = np.random.default_rng(seed)
    x = np.array(values) + 0.25 * rng.integers(0, 3, len(values))
    w = rng.random(len(values)) + 0.1
    found = kmeans(x, k, w)
    best = least(x, k, w)
    assert found.gap == 0
    assert error(x, found.centres, w) == pytest.approx(best, abs=1e-9)
    assert found.error == pytest.approx(best, abs=1e-9)
    rows = kmeans_rows(np.stack([x, 2 * x[::-1]]), k, np.stack([w, w[::-1]]))
    assert error(x, rows[0], w) == pytest.approx(best, abs=1e-9)
    assert error(2 * x, rows[1], w) == pytest.approx(4 * best, abs=1e-9)


@pytest.mark.parametrize("W", list(layers()))
def test_it_is_never_worse_than_scikit_learn_with_ten_restarts(W):
    cluster = pytest.importorskip("sklearn.cluster")
    # scikit-learn takes a quarter of a second for a hundred thousand values: some will do.
    x = W.ravel()[:: max(1, W.size // 8_000)]
    for k in (2, 4, 16):
        other = cluster.KMeans(k, n_init=10, random_state=0).fit(x.reshape(-1, 1))
        theirs = error(x, other.cluster_centers_.ravel())
        assert error(x, kmeans(x, k).centres) <= theirs * (1 + 1e-6)


def test_cells_and_bins_stay_within_the_gap_they_state(monkeypatch):
    x = np.random.default_rng(0).standard_t(4, 30_000).astype(np.float32)
    exact = kmeans(x, 8)
    assert exact.gap == 0
    monkeypatch.setattr("nncc.passes.forms.codes.kmeans_partition._EXACT", 0)
    monkeypatch.setattr("nncc.passes.forms.codes.kmeans_partition._CELLS", 1024)
    in_cells = kmeans(x, 8)
    monkeypatch.setattr(module, "_SORTED_TO", 4096)
    monkeypatch.setattr(module, "_BINS", 4096)
    in_bins = kmeans(x, 8)
    for found in (in_cells, in_bins):
        assert 0 < found.gap < 0.5 * found.error
        assert found.error - found.gap <= exact.error <= found.error * (1 + 1e-12)
        # Lloyd's steps leave far less than the bound.
        assert found.error <= exact.error * (1 + 1e-4)
        assert error(x, found.centres) == pytest.approx(found.error, rel=1e-4)


def test_the_error_of_a_large_layer_is_what_its_centres_give():
    x = np.random.default_rng(1).standard_normal(1_500_000).astype(np.float32)
    found = kmeans(x, 4)
    # Lloyd-Max for the normal distribution: 0.11748 (Max 1960, table I).
    assert found.error / x.size == pytest.approx(0.11748, abs=5e-4)
    assert found.gap < 1e-6 * found.error
    codes = nearest(x, found.centres.astype(np.float32))
    residual = x - found.centres[codes]
    assert float(np.vdot(residual, residual)) == pytest.approx(found.error, rel=1e-6)


def test_values_of_no_weight_are_left_out():
    x = np.array([[0.0, 1.0, 100.0], [5.0, 5.0, 7.0]])
    w = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(kmeans_rows(x, 2, w), [[0.0, 1.0], [5.0, 7.0]])


def test_fewer_values_than_centres_are_all_met():
    assert error(np.array([3.0, 3.0, 8.0]), kmeans(np.array([3.0, 3.0, 8.0]), 5).centres) == 0


def test_a_constant_is_its_own_centre():
    np.testing.assert_array_equal(kmeans(np.full(7, 0.1), 3).centres, [0.1] * 3)


def test_borders_go_to_the_lower_centre():
    assert nearest(np.array([0.5, 0.51]), np.array([0.0, 1.0])).tolist() == [0, 1]


def test_the_same_values_give_the_same_bytes():
    x = np.random.default_rng(2).standard_normal(5000).astype(np.float32)
    assert kmeans(x, 7).centres.tobytes() == kmeans(x.copy(), 7).centres.tobytes()


def test_empty_intervals_repeat_a_centre():
    found = partition(np.array([[1.0, 1.0]]), np.ones((1, 2)), 3)
    np.testing.assert_allclose(found.centres, [[1.0, 1.0, 1.0]])


@pytest.mark.parametrize("solve", [kmeans, lambda x, k: kmeans_rows(x[None], k)])
def test_bad_input_is_named(solve):
    with pytest.raises(ModelError, match="not finite; look for NaN"):
        solve(np.array([1.0, np.nan]), 2)
    with pytest.raises(RankError, match="0 centres of 2 values; choose k ≥ 1"):
        solve(np.array([1.0, 2.0]), 0)
