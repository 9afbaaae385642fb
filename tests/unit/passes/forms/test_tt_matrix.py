"""Trains over pairs of factors: the layout of CEPD, run as chains, unfolded, refitted."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

import trains
from layers import Layer, layers, product
from nncc.device_profiles.errors import RankError
from nncc.passes.forms import Dense, LowRank, squared_error
from nncc.passes.forms.metric import IDENTITY, Metric
from nncc.passes.forms.trains.tensor_train_svd import largest_ranks, multiplied, tt_svd
from nncc.passes.forms.trains.tt_matrix import TTMatrix
from nncc.passes.forms.trains.tt_matrix_modes import Modes, modes_of, partial_moments

EVERY = layers()
PRODUCTS = [
    product("right", m=24, n=36),
    product("right, four axes", m=24, n=36, rows=(2, 3, 5)),
    product("right, a vector", m=24, n=36, rows=()),
    product("left", m=24, n=36, left=True),
    product("left, three axes", m=24, n=36, left=True, rows=(2, 3)),
    product("left, a vector", m=24, n=36, left=True, rows=()),
    product("gemm", m=24, n=36, gemm={"transB": 1, "alpha": 0.5}),
    product("gemm left", m=24, n=36, left=True, gemm={}),
]
by_name = {"ids": lambda layer: layer.name}


def weight(shape=(1, 24, 36), seed=0):
    rng = np.random.default_rng(seed)
    g, m, *rest = shape
    W = rng.standard_normal((g, m, math.prod(rest)))
    return (W * np.arange(1, m + 1)[:, None] ** -0.5).reshape(shape).astype(np.float32)


def metric_of(W, seed=1, power=-0.8):
    g, m = W.shape[:2]
    n = W.reshape(g, m, -1).shape[2]
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((g, n, n)) * np.arange(1, n + 1) ** power
    return Metric(X @ X.swapaxes(1, 2))


def relative(W, term, metric=IDENTITY):
    return (squared_error(W, term, metric) / metric.squared(W.astype(np.float64))) ** 0.5


def small(layer: Layer, cores=None) -> TTMatrix:
    """A form of ranks 2 at most for the layer."""
    modes = TTMatrix(error=0.5).modes(trains.site_of(layer).shape)
    ranks = tuple(min(2, most) for most in largest_ranks(modes.sizes))
    return TTMatrix(ranks, cores=cores)


@pytest.mark.parametrize("layer", [*EVERY, *PRODUCTS], **by_name)
@pytest.mark.parametrize("cores", [None, LowRank(1)], ids=["plain", "cores"])
def test_lowered_is_decompressed(layer: Layer, cores):
    term = small(layer, cores).compress(trains.site_of(layer).W())
    expected = trains.dense(layer, term.decompress())
    got = trains.lowered(layer, term)
    assert got.shape == expected.shape
    atol = 1e-4 * np.abs(expected).max()  # float32 sums of at most a few hundred products
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("layer", [*EVERY, *PRODUCTS], **by_name)
@pytest.mark.parametrize("cores", [None, LowRank(1)], ids=["plain", "cores"])
def test_unfolded_in_the_graph_is_decompressed(layer: Layer, cores):
    term = small(layer, cores).compress(trains.site_of(layer).W())
    W = term.decompress()
    expected = W.reshape(W.shape[0] * W.shape[1], -1)
    # both float32 products of the same stored cores
    np.testing.assert_allclose(
        trains.unfolded(term), expected, rtol=0, atol=2e-6 * np.abs(expected).max()
    )


def test_unfolding_is_done_when_the_model_is_loaded(tmp_path):
    term = TTMatrix((4, 6)).compress(weight((1, 16, 16, 3, 3)))
    trains.unfolded(term, path=tmp_path / "made.onnx")
    assert trains.node_types(tmp_path / "made.onnx") == ["MatMul"]


@pytest.mark.parametrize("layer", PRODUCTS, **by_name)
@pytest.mark.parametrize("d", [2, 3])
def test_a_product_is_run_core_by_core_where_that_is_cheaper(layer: Layer, d):
    site = trains.site_of(layer)
    form = TTMatrix((1,) * (d - 1), d=d)
    kernels = form.kernels(site.shape, site.geometry)
    term = form.compress(site.W())
    assert len(kernels) == d
    assert sum(kernel.weights for kernel in kernels) == term.cost().weights
    np.testing.assert_allclose(
        trains.lowered(layer, term),
        trains.dense(layer, term.decompress()),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_operations_counted_are_those_of_the_kernels():
    site = trains.site_of(PRODUCTS[1])
    known = replace(site.geometry, in_extent=(30,), out_extent=(30,))
    form = TTMatrix((2,))
    kernels = form.kernels(site.shape, known)
    cost = form.compress(site.W()).cost()
    assert sum(kernel.macs for kernel in kernels) == 30 * cost.mults
    # 24 = 4 · 6 and 36 = 6 · 6: x over (6, 6), then 6 outputs and rank 2, then 4 outputs
    assert cost.mults == 6 * (6 * 6 * 2) + 6 * (4 * 2 * 6)


def test_a_product_of_unknown_rank_is_run_dense():
    site = trains.site_of(PRODUCTS[0])
    unknown = replace(site.geometry, input_rank=None)
    (kernel,) = TTMatrix((1,)).kernels(site.shape, unknown)
    assert kernel.weights == 24 * 36


def test_the_tensor_is_that_of_the_paper():
    """T̃((k₁, k₂), (o₁, i₁), (o₂, i₂)) = T(o₁ o₂, i₁ i₂, k₁, k₂) (CEPD, section 4)."""
    W = np.arange(6 * 10 * 9.0).reshape(6, 10, 9)
    modes = Modes((2, 3), (5, 2), 9)
    T = modes.tensor(W)
    assert T.shape == (9, 10, 6)
    for o1, o2, i1, i2, k in itertools.product(range(2), range(3), range(5), range(2), (0, 7)):
        assert T[k, o1 * 5 + i1, o2 * 2 + i2] == W[o1 * 3 + o2, i1 * 2 + i2, k]
    np.testing.assert_array_equal(modes.weight(T), W)


@pytest.mark.parametrize(
    ("shape", "ranks"),
    [((1, 16, 24, 3, 3), (5, 8)), ((1, 64, 36), (9,)), ((1, 8, 9, 5), (2, 3))],
)
def test_the_error_is_at_or_below_tt_svd_of_tensorly(shape, ranks):
    tensorly = pytest.importorskip("tensorly")
    from tensorly.decomposition import tensor_train

    W = weight(shape)
    modes = modes_of(shape, 2)
    T = modes.tensor(W[0].reshape(*shape[1:3], -1).astype(np.float64))
    theirs = np.linalg.norm(T - tensorly.tt_to_tensor(tensor_train(T, [1, *ranks, 1])))
    ours = np.linalg.norm(T - multiplied(tt_svd(T, ranks)))
    assert ours == pytest.approx(theirs, rel=1e-9)
    term = TTMatrix(ranks).compress(W)
    assert squared_error(W, term) ** 0.5 <= theirs * (1 + 1e-5)  # cores of 16 bits


@pytest.mark.parametrize("shape", [(1, 24, 36), (2, 8, 12, 3, 3), (1, 7, 5, 4)])
@pytest.mark.parametrize("with_metric", [False, True])
def test_full_ranks_are_exact(shape, with_metric):
    W = weight(shape)
    norm = metric_of(W) if with_metric else IDENTITY
    ranks = largest_ranks(modes_of(shape, 2).sizes)
    assert relative(W, TTMatrix(ranks).compress(W, metric=norm)) < 1e-6  # float32 cores


@pytest.mark.parametrize("shape", [(1, 24, 36), (2, 16, 12, 3, 3)])
def test_moments_that_are_the_identity_change_nothing(shape):
    W = weight(shape)
    n = math.prod(shape[2:])
    form = TTMatrix((3,) if len(shape) == 3 else (3, 4))
    same = Metric(np.stack([2.0 * np.eye(n)] * shape[0]))
    np.testing.assert_array_equal(
        form.compress(W, metric=same).decompress(), form.compress(W).decompress()
    )


@pytest.mark.parametrize("shape", [(1, 24, 36), (2, 16, 12, 3, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_the_fit_in_a_metric_is_better_there_than_the_plain_one(shape, seed):
    W = weight(shape, seed)
    metric = metric_of(W, seed)
    form = TTMatrix((6,) if len(shape) == 3 else (3, 6))
    plain = squared_error(W, form.compress(W), metric)
    assert squared_error(W, form.compress(W, metric=metric), metric) < 0.9 * plain


def test_moments_that_are_products_are_fitted_at_their_optimum():
    """H = A ⊗ B over the input factors of two cores: a truncation after whitening."""
    W = weight((1, 24, 36))
    rng = np.random.default_rng(8)
    A, B = (X @ X.T + 0.2 * np.eye(6) for X in rng.standard_normal((2, 6, 6)))
    metric = Metric(np.kron(A, B)[None])
    modes = modes_of(W.shape, 2)
    (root,), _ = metric.damped(0.01).roots()
    white = modes.tensor((W[0].astype(np.float64) @ root)[:, :, None])
    fitted = TTMatrix((5,)).compress(W, metric=metric)
    best = np.linalg.svd(white.reshape(white.shape[0], -1), compute_uv=False)[5:]
    error = squared_error(W, fitted, metric.damped(0.01))
    assert error <= float(np.vdot(best, best)) * (1 + 1e-2)


def test_partial_moments_are_those_of_one_factor_alone():
    rng = np.random.default_rng(9)
    parts = [X @ X.T for X in (rng.standard_normal((n, n)) for n in (3, 4, 5))]
    H = np.kron(np.kron(parts[0], parts[1]), parts[2])
    found = partial_moments(H, Modes((2, 2), (3, 4), 5))
    for got, part in zip(found, (parts[2], parts[0], parts[1]), strict=True):
        np.testing.assert_allclose(got, part * len(part) / np.trace(part), rtol=1e-10)


@pytest.mark.parametrize("error", [0.5, 0.1, 1e-3])
@pytest.mark.parametrize("shape", [(1, 24, 36), (2, 16, 12, 3, 3)])
@pytest.mark.parametrize("with_metric", [False, True])
@pytest.mark.parametrize("d", [2, 3])
def test_an_error_asked_for_is_kept(error, shape, with_metric, d):
    W = weight(shape)
    norm = metric_of(W) if with_metric else IDENTITY
    assert relative(W, TTMatrix(error=error, d=d).compress(W, metric=norm), norm) <= error


@pytest.mark.parametrize("shape", [(1, 24, 36), (2, 16, 12, 3, 3)])
@pytest.mark.parametrize("with_metric", [False, True])
@pytest.mark.parametrize("cores", [None, LowRank(1)], ids=["plain", "cores"])
def test_it_is_never_worse_than_its_start(shape, with_metric, cores):
    W = weight(shape)
    norm = metric_of(W) if with_metric else IDENTITY
    form = TTMatrix((4,) if len(shape) == 3 else (3, 4), cores=cores)
    best = TTMatrix((8,) if len(shape) == 3 else (5, 9))
    for start in (Dense().compress(W), best.compress(W), form.compress(W)):
        new = form.compress(W, start, norm)
        assert squared_error(W, new, norm) <= squared_error(W, start, norm)


@pytest.mark.parametrize("shape", [(1, 24, 36), (2, 16, 12, 3, 3)])
@pytest.mark.parametrize("with_metric", [False, True])
def test_cores_that_lose_nothing_are_at_or_below_the_plain_train(shape, with_metric):
    W = weight(shape)
    norm = metric_of(W) if with_metric else IDENTITY
    form = TTMatrix((5,) if len(shape) == 3 else (3, 6))
    plain = squared_error(W, form.compress(W, metric=norm), norm)
    cored = replace(form, cores=Dense()).compress(W, metric=norm)
    assert squared_error(W, cored, norm) <= plain * (1 + 1e-5)


def test_what_is_counted_is_what_is_stored():
    W = weight((2, 16, 12, 3, 3))
    term = TTMatrix((3, 4)).compress(W)
    # 16 = 4 · 4 and 12 = 4 · 3: sizes 9, 16 and 12
    stored = 2 * (9 * 3 + 3 * 16 * 4 + 4 * 12)
    assert (term.cost().weights, term.cost().bits) == (stored, 16 * stored)
    assert 8 * sum(array.nbytes for array in term.arrays().values()) == 16 * stored


def test_twice_gives_the_same_bytes():
    for shape, ranks in (((1, 24, 36), (4,)), ((2, 16, 12, 3, 3), (3, 4))):
        W = weight(shape)
        for form in (TTMatrix(ranks), TTMatrix(error=0.3), TTMatrix(ranks, cores=LowRank(1))):
            for metric in (IDENTITY, metric_of(W)):
                made = [form.compress(W.copy(), metric=metric) for _ in range(2)]
                one, two = ({k: a.tobytes() for k, a in t.arrays().items()} for t in made)
                assert one == two


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TTMatrix(), "either ranks or a relative error"),
        (lambda: TTMatrix((4,), d=1), "d=1 factors; choose d from 2 to 8"),
        (lambda: TTMatrix((4,), outputs=(2, 3, 4)), "are not d=2 factors"),
        (
            lambda: TTMatrix((4,), outputs=(5, 5)).compress(weight()),
            r"outputs \(5, 5\) are not 2 factors of 24; .*write outputs=\(4, 6\)",
        ),
        (lambda: TTMatrix((4, 4)).compress(weight()), "2 ranks for a train of 2 cores"),
        (lambda: TTMatrix((40,)).compress(weight()), "rank 40 after core 1 is outside 1 … 24"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(RankError, match=said):
        make()
