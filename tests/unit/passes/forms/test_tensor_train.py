"""Trains of three cores and Tucker-2: exact, run, unfolded, fitted in a metric."""

import numpy as np
import pytest

import trains
from layers import Layer, layers
from nncc.device_profiles.errors import RankError
from nncc.passes.forms import Dense, LowRank, squared_error
from nncc.passes.forms.factors.tucker import Tucker2
from nncc.passes.forms.metric import IDENTITY, Metric
from nncc.passes.forms.trains.tensor_train import TensorTrain
from nncc.passes.forms.trains.tensor_train_svd import multiplied, tt_svd

CONVOLUTIONS = [layer for layer in layers() if trains.site_of(layer).geometry.kernel]
by_name = {"ids": lambda layer: layer.name}


def weight(g=1, m=24, c=16, kernel=(3, 3), seed=0):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((g, m, c, *kernel))
    fall = np.arange(1, c + 1) ** -0.7
    return (W * fall.reshape(1, 1, c, *(1,) * len(kernel))).astype(np.float32)


def metric_of(W, seed=1, power=-0.8):
    """Moments of inputs that are far from white."""
    g, m = W.shape[:2]
    n = W.reshape(g, m, -1).shape[2]
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((g, n, n)) * np.arange(1, n + 1) ** power
    return Metric(X @ X.swapaxes(1, 2))


def relative(W, term, metric=IDENTITY):
    return (squared_error(W, term, metric) / metric.squared(W.astype(np.float64))) ** 0.5


def ranks_for(layer: Layer) -> tuple[int, int]:
    _, m, c = trains.site_of(layer).shape[:3]
    return (min(3, c), min(4, m))


@pytest.mark.parametrize("layer", CONVOLUTIONS, **by_name)
@pytest.mark.parametrize("cores", [None, LowRank(1)], ids=["plain", "cores"])
def test_lowered_is_decompressed(layer: Layer, cores):
    term = TensorTrain(ranks_for(layer), cores=cores).compress(trains.site_of(layer).W())
    expected = trains.dense(layer, term.decompress())
    atol = 1e-4 * np.abs(expected).max()  # float32 sums of at most a few hundred products
    np.testing.assert_allclose(trains.lowered(layer, term), expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("layer", CONVOLUTIONS, **by_name)
@pytest.mark.parametrize("cores", [None, Dense(), LowRank(1)], ids=["plain", "dense", "low"])
def test_unfolded_in_the_graph_is_decompressed(layer: Layer, cores):
    term = TensorTrain(ranks_for(layer), cores=cores).compress(trains.site_of(layer).W())
    W = term.decompress()
    expected = W.reshape(W.shape[0] * W.shape[1], -1)
    # both float32 products of the same stored factors
    np.testing.assert_allclose(
        trains.unfolded(term), expected, rtol=0, atol=2e-6 * np.abs(expected).max()
    )


def test_unfolding_is_done_when_the_model_is_loaded(tmp_path):
    term = TensorTrain((8, 10)).compress(weight())
    trains.unfolded(term, path=tmp_path / "made.onnx")
    assert trains.node_types(tmp_path / "made.onnx") == ["MatMul"]


@pytest.mark.parametrize("metric", [None, metric_of(weight(2))], ids=["plain", "metric"])
def test_full_ranks_are_exact(metric):
    W = weight(2)
    term = TensorTrain((16, 24)).compress(W, metric=metric or IDENTITY)
    assert relative(W, term) < 1e-6  # float32 factors


def test_it_starts_at_tt_svd_and_only_improves_on_it():
    W = weight()
    flat = W[0].reshape(24, 16, 9).transpose(1, 2, 0).astype(np.float64)
    plain = np.linalg.norm(flat - multiplied(tt_svd(flat, (8, 10)))) / np.linalg.norm(flat)
    error = relative(W, TensorTrain((8, 10)).compress(W))
    assert 0.97 * plain < error <= plain * (1 + 1e-6)


def test_it_is_tucker_2_of_the_same_ranks():
    W = weight()
    one, two = TensorTrain((8, 10)).compress(W), Tucker2(outputs=10, inputs=8).compress(W)
    np.testing.assert_array_equal(one.decompress(), two.decompress())


@pytest.mark.parametrize("form", [TensorTrain((8, 10)), Tucker2(10, 8)])
def test_moments_that_are_the_identity_change_nothing(form):
    W = weight(2)
    n = 16 * 9
    same = Metric(np.stack([np.eye(n), 3 * np.eye(n)]))
    np.testing.assert_array_equal(
        form.compress(W, metric=same).decompress(), form.compress(W).decompress()
    )


@pytest.mark.parametrize("form", [TensorTrain((8, 10)), Tucker2(10, 8)])
@pytest.mark.parametrize("seed", range(3))
def test_the_fit_in_a_metric_is_better_there_than_the_plain_one(form, seed):
    W = weight(2, seed=seed)
    metric = metric_of(W, seed)
    plain = squared_error(W, form.compress(W), metric)
    assert squared_error(W, form.compress(W, metric=metric), metric) < 0.9 * plain


def test_moments_of_channels_alone_give_the_whitened_optimum():
    """H = C ⊗ I: whitening the channels turns the metric into the plain norm."""
    W = weight()
    rng = np.random.default_rng(5)
    X = rng.standard_normal((16, 16)) * np.arange(1, 17) ** -0.5
    C = X @ X.T + 0.1 * np.eye(16)
    metric = Metric(np.kron(C, np.eye(9))[None])
    damped = C + 0.01 * np.trace(C) / 16 * np.eye(16)
    (root,), _ = Metric(damped[None]).roots()
    white = np.einsum("gmcxy,cd->gmdxy", W, root).astype(np.float32)
    best = squared_error(white, Tucker2(10, 8).compress(white))
    found = Tucker2(10, 8).compress(W, metric=metric)
    in_damped = squared_error(W, found, Metric(np.kron(damped, np.eye(9))[None]))
    assert in_damped <= best * (1 + 1e-3)


def test_a_metric_without_full_rank_is_safe():
    W = weight()
    x = np.random.default_rng(6).standard_normal((144, 5))
    metric = Metric((x @ x.T)[None])
    form = TensorTrain((8, 10))
    fitted, plain = form.compress(W, metric=metric), form.compress(W)
    assert np.isfinite(fitted.decompress()).all()
    assert squared_error(W, fitted, metric) <= squared_error(W, plain, metric)


def test_inputs_that_were_never_seen_are_safe():
    W = weight(2)
    H = np.zeros((2, 144, 144))
    H[1] = metric_of(W).H[1]
    assert np.isfinite(TensorTrain((8, 10)).compress(W, metric=Metric(H)).decompress()).all()


@pytest.mark.parametrize("error", [0.5, 0.2, 0.05, 1e-4])
@pytest.mark.parametrize("metric", [None, metric_of(weight(2))], ids=["plain", "metric"])
def test_an_error_asked_for_is_kept(error, metric):
    W, norm = weight(2), metric or IDENTITY
    term = TensorTrain(error=error).compress(W, metric=norm)
    assert relative(W, term, norm) <= error


def test_an_error_is_not_kept_at_the_price_of_needless_ranks():
    rng = np.random.default_rng(7)
    W = np.einsum(
        "ma,abk,bc->mck",
        rng.standard_normal((24, 6)),
        rng.standard_normal((6, 5, 9)),
        rng.standard_normal((5, 16)),
    ).reshape(1, 24, 16, 3, 3)
    form = TensorTrain(error=1e-3).resolved(W.astype(np.float32))
    assert form.ranks == (5, 6)


@pytest.mark.parametrize("metric", [None, metric_of(weight(2))], ids=["plain", "metric"])
@pytest.mark.parametrize("cores", [None, LowRank(2)], ids=["plain", "cores"])
def test_it_is_never_worse_than_its_start(metric, cores):
    W, norm = weight(2), metric or IDENTITY
    form = TensorTrain((6, 7), cores=cores)
    for start in (Dense().compress(W), TensorTrain((12, 16)).compress(W), form.compress(W)):
        new = form.compress(W, start, norm)
        assert squared_error(W, new, norm) <= squared_error(W, start, norm)


@pytest.mark.parametrize("metric", [None, metric_of(weight(2))], ids=["plain", "metric"])
def test_cores_that_lose_nothing_are_at_or_below_the_plain_train(metric):
    W, norm = weight(2), metric or IDENTITY
    plain = squared_error(W, TensorTrain((8, 10)).compress(W, metric=norm), norm)
    cored = TensorTrain((8, 10), cores=Dense()).compress(W, metric=norm)
    assert squared_error(W, cored, norm) <= plain * (1 + 1e-5)


def test_refitted_cores_beat_cores_compressed_apart():
    W = weight()
    plain = TensorTrain((8, 10)).compress(W)
    of = LowRank(6)
    apart = type(plain)(
        of.compress(plain.P).decompress(),
        of.compress(plain.G).decompress(),
        of.compress(plain.Q).decompress(),
    )
    cored = TensorTrain((8, 10), cores=of).compress(W)
    assert squared_error(W, cored) < squared_error(W, apart)


def test_what_is_counted_is_what_is_stored():
    W = weight(2)
    term = TensorTrain((8, 10)).compress(W)
    stored = 2 * (8 * 16 + 10 * 8 * 9 + 24 * 10)
    cost = term.cost()
    assert (cost.weights, cost.bits) == (stored, 16 * stored)
    assert (cost.adds, cost.mults) == (stored, stored)
    assert 8 * sum(array.nbytes for array in term.arrays().values()) == cost.bits
    cored = TensorTrain((8, 10), cores=LowRank(3)).compress(W)
    assert cored.cost().weights == sum(array.size for array in cored.arrays().values())


def test_kernels_are_three_convolutions_of_the_stored_weights():
    layer = next(layer for layer in CONVOLUTIONS if layer.name == "conv grouped")
    site = trains.site_of(layer)
    form = TensorTrain((3, 4))
    kernels = form.kernels(site.shape, site.geometry)
    assert [kernel.kernel for kernel in kernels] == [(1, 1), (3, 3), (1, 1)]
    assert sum(kernel.weights for kernel in kernels) == form.compress(site.W()).cost().weights


def test_twice_gives_the_same_bytes():
    W = weight(2)
    for form in (
        TensorTrain((8, 10)),
        TensorTrain(error=0.2),
        TensorTrain((6, 6), None, LowRank(2)),
    ):
        for metric in (IDENTITY, metric_of(W)):
            made = [form.compress(W.copy(), metric=metric) for _ in range(2)]
            one, two = ({k: a.tobytes() for k, a in t.arrays().items()} for t in made)
            assert one == two


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TensorTrain(), "either ranks or a relative error"),
        (lambda: TensorTrain((8, 8), 0.1), "either ranks or a relative error"),
        (lambda: TensorTrain((8, 8, 8)), "two ranks.*found 3"),
        (lambda: TensorTrain(error=1.5), "error=1.5 is no relative error"),
        (lambda: TensorTrain((17, 4)).compress(weight()), r"ranks \(4, 17\) are outside"),
        (lambda: TensorTrain((4, 4)).compress(weight()[..., 0, 0]), "tt is for convolutions"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(RankError, match=said):
        make()
