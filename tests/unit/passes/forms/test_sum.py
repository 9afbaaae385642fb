import itertools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from form_weights import identity, moments, unfolded, weight
from layers import layers
from nncc.device_profiles.errors import PlanError
from nncc.passes.forms.codes.affine import Affine
from nncc.passes.forms.codes.codebook import Binary, Powers, Ternary
from nncc.passes.forms.codes.quantize import Quantize
from nncc.passes.forms.codes.quantize_levels import Levels
from nncc.passes.forms.dense import Dense
from nncc.passes.forms.factors.lowrank import LowRank
from nncc.passes.forms.form import squared_error
from nncc.passes.forms.metric import IDENTITY
from nncc.passes.forms.sparse.columns import Columns
from nncc.passes.forms.sparse.filters import Filters
from nncc.passes.forms.sparse.joint import joint, joint_forms
from nncc.passes.forms.sparse.prune import Prune
from nncc.passes.forms.sums.sum import Sum, SumTerm
from nncc.passes.forms.sums.sum_codebook import signs, trimmed
from nncc.passes.forms.sums.sum_pair import fit_pair
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites

SUMS = [
    Sum((Quantize(2), Prune(0.1))),
    Sum((Quantize(4, "channel"), Prune(0.1))),
    Sum((Quantize(2), Prune(0.1), LowRank(1))),
    Sum((Quantize(2), LowRank(1))),
    Sum((LowRank(1), Prune(0.1))),
    Sum((Ternary(), Prune(0.05))),
    Sum((LowRank(1), Columns(2))),
    Sum((Sum((Quantize(2), Prune(9))), LowRank(1))),
]
BRANCHES = [
    Sum((LowRank(1), LowRank(2))),
    Sum((LowRank(1), Columns(2))),
    Sum((Filters(3), Columns(2), LowRank(1))),
]


def sited(layer):
    model = Model(ir.from_proto(layer.model), layer.name, "")
    (site,), _ = find_sites(model)
    return model, site


WIDE = [x for x in layers() if sited(x)[1].shape[1] >= 3 and sited(x)[1].shape[2] >= 2]
"""Layers with channels to choose from: no depthwise ones."""


@dataclass(frozen=True)
class Given:
    """Levels that everybody knows."""

    codebook: np.ndarray

    def levels(self, W, weights):
        assert weights is None or weights.shape == W.shape
        return Levels(self.codebook[None, None], None, None, W.shape[1], 0)


small = st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=6)


@given(small, st.integers(1, 2), st.sets(st.integers(-8, 8), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_given_levels_and_corrections_are_the_best_of_all(values, kappa, levels):
    """LC part V, theorem 4.1, against every choice of levels and of corrected weights."""
    w = np.array(values, np.float32)
    codebook = np.array(sorted(levels), np.float32) / 4
    least = min(
        sum(np.square(w - q)[[i for i in range(len(w)) if i not in corrected]])
        for corrected in itertools.combinations(range(len(w)), kappa)
        for q in itertools.product(codebook.astype(np.float64), repeat=len(w))
    )
    Q, P = fit_pair(w[None, None], Given(codebook), kappa)
    found = np.square(w - Q.decompress() - P.decompress(), dtype=np.float64).sum()
    assert found <= least + 1e-5  # corrections have 16 bits


def test_signs_and_corrections_are_exact_in_a_sum():
    W = weight()
    error = np.sort(np.square(W - np.sign(W), dtype=np.float64), axis=None)
    term = Sum((Binary(scaled=0), Prune(40))).compress(W)
    assert squared_error(W, term) == pytest.approx(error[:-40].sum(), rel=1e-6)


def test_trimmed_levels_are_the_best_of_all_splits():
    """Two levels and two corrections of 9 weights, against every trim of every split."""
    for seed in range(10):
        x = np.sort(np.random.default_rng(seed).laplace(size=9).astype(np.float32))
        least = np.inf
        for out in itertools.combinations(range(9), 2):
            rest = np.delete(x, out).astype(np.float64)
            for cut in range(8):
                groups = [g for g in (rest[:cut], rest[cut:]) if g.size]
                least = min(least, sum(np.square(g - g.mean()).sum() for g in groups))
        found = min(
            trimmed(x, 2, np.array(pair, np.float64)).errors[-1]
            for pair in itertools.combinations(x, 2)
        )
        assert found == pytest.approx(least, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("k", [2, 3, 16])
def test_trimmed_levels_beat_thirty_plain_alternations(k):
    """A corrected weight must not pull its level: the alternation of eq. (3) lets it."""
    W = np.random.default_rng(k).laplace(size=(1, 40, 150)).astype(np.float32)
    left, Q, P = W, Quantize(k), Prune(0.05)
    q = p = np.zeros_like(W)
    for _ in range(30):
        q = Q.compress(left).decompress()
        p = P.compress(W - q).decompress()
        left = W - p
    alternating = np.square(W - q - p).sum(dtype=np.float64)
    assert squared_error(W, Sum((Q, P)).compress(W)) <= alternating * (1 + 1e-6)


@pytest.mark.parametrize(
    ("law", "limit"), [("standard_normal", 0.268026), ("laplace", 0.294932)]
)
def test_three_passes_reach_what_thirty_plain_alternations_do(law, limit):
    """The limits are where the alternation of LC part V, eq. (3), ends on these weights."""
    W = getattr(np.random.default_rng(0), law)(size=(1, 512, 4608)) * np.sqrt(2 / 4608)
    W = W.astype(np.float32)
    energy = float(np.vdot(W.astype(np.float64), W))
    assert trimmed(W, 70_778, signs(W), passes=3).errors[-1] <= limit * energy
    term = Sum((Quantize(2), Prune(0.03))).compress(W)
    assert len(term.parts[1].index) == 70_778
    assert squared_error(W, term) <= limit * energy


def test_passes_never_raise_the_trimmed_error():
    x = np.random.default_rng(0).laplace(size=5000).astype(np.float32)
    errors = trimmed(x, 100, np.array([-2.0, -0.1, 0.3])).errors
    assert len(errors) > 2
    assert all(a >= b for a, b in itertools.pairwise(errors))


def laplacian(shape, seed=0):
    W = np.random.default_rng(seed).laplace(size=shape).astype(np.float32)
    return W, moments(shape, seed)


@pytest.mark.parametrize(
    "quantised", [Quantize(4, scale="row"), Ternary("channel"), Affine(2), Powers(3)], ids=str
)
def test_levels_and_corrections_together_beat_alternation_in_the_metric(quantised):
    W, metric = laplacian((1, 24, 60))
    P = Prune(0.05)
    q = p = None
    left, alternating = W, np.inf
    for _ in range(10):
        q = quantised.compress(left, start=q, metric=metric)
        p = P.compress(W - q.decompress(), metric=metric)
        left = W - p.decompress()
        alternating = min(alternating, metric.squared(left - q.decompress()))
    together = Sum((quantised, P)).compress(W, metric=metric)
    assert len(together.parts[1].index) == 72
    assert squared_error(W, together, metric) < 0.97 * alternating


def test_levels_and_corrections_in_the_metric_are_near_the_best_of_all():
    """Against all signs of six weights and every weight that is corrected: mostly equal."""
    signs_of_all = np.array(list(itertools.product((-1.0, 1.0), repeat=6)))
    ratios = []
    for seed in range(12):
        W, metric = laplacian((1, 1, 6), seed)
        H = metric.H[0]
        R = W[0, 0].astype(np.float64) - signs_of_all
        # A correction of weight j takes (R H)_j² / H_jj off the error.
        G = R @ H
        least = ((G * R).sum(axis=1) - (G**2 / np.diag(H)).max(axis=1)).min()
        term = Sum((Binary(scaled=0), Prune(1))).compress(W, metric=metric)
        ratios.append(squared_error(W, term, metric) / least)
    assert min(ratios) > 1 - 1e-3
    assert np.median(ratios) < 1.02


@pytest.mark.parametrize("samples", [3, 0.3], ids=["full rank", "rank-deficient"])
@pytest.mark.parametrize("kappa", [0, 1, 50, 432])
def test_any_number_of_corrections_is_met_in_the_metric(kappa, samples):
    W, metric = weight(), moments(samples=samples)
    for quantised in (Quantize(2), Binary("channel"), Affine(2)):
        term = Sum((quantised, Prune(kappa))).compress(W, metric=metric)
        alone = quantised.compress(W, metric=metric)
        assert np.isfinite(term.decompress()).all()
        assert len(term.parts[1].index) <= kappa
        error, other = squared_error(W, term, metric), squared_error(W, alone, metric)
        assert error <= other * (1 + 1e-6) + 1e-6


@pytest.mark.parametrize("in_metric", [False, True], ids=["plain", "metric"])
@pytest.mark.parametrize("form", SUMS, ids=str)
def test_a_sum_is_never_worse_than_where_it_starts(form, in_metric):
    W = weight()
    metric = moments() if in_metric else IDENTITY
    term = form.compress(W, metric=metric)
    other = weight(seed=5)
    moved = form.compress(W, start=form.compress(W + other * np.float32(0.3)), metric=metric)
    again = form.compress(W, start=term, metric=metric)
    start = form.compress(W + other * np.float32(0.3))
    assert squared_error(W, moved, metric) <= squared_error(W, start, metric)
    assert squared_error(W, again, metric) <= squared_error(W, term, metric)
    exact = Dense().compress(W)
    assert squared_error(W, form.compress(W, start=exact, metric=metric), metric) == 0


@pytest.mark.parametrize("form", SUMS, ids=str)
def test_in_the_identity_metric_a_sum_is_the_plain_one(form):
    W = weight()
    plain, metric = form.compress(W), form.compress(W, metric=identity())
    np.testing.assert_array_equal(plain.decompress(), metric.decompress())


@pytest.mark.parametrize("form", SUMS, ids=str)
def test_a_sum_beats_each_of_its_parts_alone(form):
    W = weight()
    total = squared_error(W, form.compress(W))
    assert all(total <= squared_error(W, part.compress(W)) for part in form.parts)


@pytest.mark.parametrize("form", SUMS, ids=str)
def test_a_sum_unfolds_in_the_runtime_and_adds_up_its_costs(form):
    term = form.compress(weight())
    assert isinstance(term, SumTerm)
    matrix = unfolded(term)
    if matrix is not None:
        np.testing.assert_allclose(matrix, term.decompress().reshape(12, -1), atol=1e-6)
    assert term.cost().bits == sum(part.cost().bits for part in term.parts)
    one, two = (form.compress(weight()).arrays() for _ in range(2))
    assert {k: a.tobytes() for k, a in one.items()} == {k: a.tobytes() for k, a in two.items()}


def test_corrections_of_a_large_codebook_weight_unfold_in_the_runtime():
    term = Sum((Quantize(2), Prune(0.01))).compress(weight((1, 128, 300)))
    np.testing.assert_allclose(unfolded(term), term.decompress()[0], atol=1e-6)


def test_a_sum_with_a_dense_part_is_one_layer_and_others_are_branches():
    (layer,) = (layer for layer in layers() if layer.name == "conv 2-D")
    (site,), _ = find_sites(Model(ir.from_proto(layer.model), "", ""))
    dense = Dense().kernels(site.shape, site.geometry)
    folded = Sum((LowRank(1), Prune(3)))
    branches = Sum((LowRank(1), Columns(2)))
    assert folded.kernels(site.shape, site.geometry) == dense
    assert folded.compress(site.W()).is_folded
    assert branches.kernels(site.shape, site.geometry) == (
        *LowRank(1).kernels(site.shape, site.geometry),
        *Columns(2).kernels(site.shape, site.geometry),
    )
    assert not branches.compress(site.W()).is_folded


@pytest.mark.parametrize("form", [*BRANCHES, SUMS[0], Columns(2), Filters(3)], ids=str)
@pytest.mark.parametrize("layer", WIDE, ids=lambda layer: layer.name)
def test_branches_compute_what_decompression_says(layer, form):
    model, site = sited(layer)
    term = form.compress(site.W())
    plan = Plan({site.name: form})
    lowered = compress_weights(model, plan, {site.name: term})
    exact = Dense().compress(np.array(term.decompress()))
    dense = compress_weights(model, Plan({site.name: Dense()}), {site.name: exact})

    def run(made):
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        proto = ir.to_proto(made.graph_model).SerializeToString()
        return ort.InferenceSession(proto, options).run(None, layer.feeds)[0]

    y, expected = run(lowered), run(dense)
    assert y.shape == expected.shape
    # float32 sums of at most a few hundred products
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_sum_has_two_to_four_parts():
    with pytest.raises(PlanError, match="a sum of 1 forms; add up 2 to 4"):
        Sum((Prune(1),))


def net():
    rng = np.random.default_rng(0)
    sizes = {"a": (1, 20, 30), "b": (1, 16, 8, 3, 3), "c": (1, 10, 64)}
    scale = {"a": 1.0, "b": 0.1, "c": 3.0}
    return {n: (rng.laplace(size=s) * scale[n]).astype(np.float32) for n, s in sizes.items()}


def test_joint_pruning_keeps_the_largest_weights_of_the_whole_net():
    W = net()
    terms = joint(W, Prune(0.5), 100)
    everything = np.concatenate([w.ravel() for w in W.values()])
    kept = np.sort(np.abs(everything))[-100]
    for name, term in terms.items():
        np.testing.assert_array_equal(term.decompress() != 0, np.abs(W[name]) >= kept)


@pytest.mark.parametrize(
    "quantised", [Quantize(2), Affine(2), Quantize(2, "channel")], ids=str
)
def test_joint_corrections_are_better_than_equal_shares(quantised):
    W = net()
    form = Sum((quantised, Prune(0.03)))
    total = int(0.03 * sum(w.size for w in W.values()))
    forms = joint_forms(W, form, total)
    assert sum(f.parts[1].kappa for f in forms.values()) == total
    terms = joint(W, form, total)
    alone = sum(squared_error(W[n], form.compress(W[n])) for n in W)
    assert sum(squared_error(W[n], terms[n]) for n in W) < alone


def test_joint_corrections_count_output_errors_where_inputs_are_known():
    W = net()
    metrics = {name: moments((1, 1, w[0, 0].size)) for name, w in W.items()}
    forms = joint_forms(W, Prune(1), 90, metrics)
    scores = {
        n: np.square(W[n].reshape(W[n].shape[1], -1)) * np.diag(metrics[n].H[0]) for n in W
    }
    least = np.sort(np.concatenate([s.ravel() for s in scores.values()]))[-90]
    assert {n: f.kappa for n, f in forms.items()} == {
        n: int((s >= least * (1 - 1e-6)).sum()) for n, s in scores.items()
    }


def test_joint_needs_one_part_for_the_corrections():
    with pytest.raises(PlanError, match="not one part that the net's corrections are for"):
        joint(net(), Sum((Quantize(2), LowRank(1))), 10)
