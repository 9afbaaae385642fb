"""TT-SVD against TensorLy, against closed forms, and its promises."""

import math

import numpy as np
import pytest

from nncc.device_profiles.errors import RankError
from nncc.passes.forms.trains.tensor_train_svd import (
    balanced,
    check_ranks,
    largest_ranks,
    multiplied,
    tt_svd,
    tt_svd_by_error,
)

SHAPES = [
    ((12, 9, 20), (5, 7)),
    ((40, 9, 6), (6, 4)),
    ((9, 16, 15), (4, 8)),
    ((4, 6, 5, 7), (3, 9, 4)),
    ((30, 40), (11,)),
]


def decaying(shape, power=-1.0, seed=0):
    """A tensor whose every mode's spectrum falls off."""
    rng = np.random.default_rng(seed)
    T = rng.standard_normal(shape)
    for axis, size in enumerate(shape):
        Q, _ = np.linalg.qr(rng.standard_normal((size, size)))
        bent = Q * np.arange(1, size + 1) ** power
        T = np.moveaxis(np.tensordot(bent, T, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(T)


def relative(T, cores):
    return np.linalg.norm(T - multiplied(cores)) / np.linalg.norm(T)


@pytest.mark.parametrize(("shape", "ranks"), SHAPES)
@pytest.mark.parametrize("power", [0.0, -1.0])
def test_the_error_is_that_of_tensorly(shape, ranks, power):
    tensorly = pytest.importorskip("tensorly")
    from tensorly.decomposition import tensor_train

    T = decaying(shape, power)
    theirs = tensorly.tt_to_tensor(tensor_train(T, [1, *ranks, 1]))
    error = np.linalg.norm(T - theirs) / np.linalg.norm(T)
    # both in float64; the square of an eigenvector's error is what reaches the result
    assert relative(T, tt_svd(T, ranks)) == pytest.approx(error, rel=1e-9)


@pytest.mark.parametrize(("shape", "ranks"), SHAPES)
def test_the_largest_ranks_are_exact(shape, ranks):
    del ranks
    T = decaying(shape)
    assert relative(T, tt_svd(T, largest_ranks(shape))) < 1e-14


def test_a_train_of_given_ranks_is_found_again():
    rng = np.random.default_rng(3)
    shapes = ((1, 8, 3), (3, 9, 4), (4, 10, 1))
    T = multiplied([rng.standard_normal(shape) for shape in shapes])
    assert relative(T, tt_svd(T, (3, 4))) < 1e-12


def test_small_singular_values_survive_the_gram_matrix():
    rng = np.random.default_rng(4)
    U, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    V, _ = np.linalg.qr(rng.standard_normal((40, 30)))
    sigma = 10.0 ** -np.arange(30)
    A = (U * sigma) @ V.T
    error = np.linalg.norm(A - multiplied(tt_svd(A, (8,))))
    assert error == pytest.approx(np.linalg.norm(sigma[8:]), rel=1e-6)


@pytest.mark.parametrize("error", [0.5, 0.1, 1e-3, 0.0])
@pytest.mark.parametrize("shape", [shape for shape, _ in SHAPES])
def test_ranks_by_error_keep_it(shape, error):
    T = decaying(shape)
    assert relative(T, tt_svd_by_error(T, error)) <= max(error, 1e-14)


def test_a_larger_error_never_asks_for_more_weights():
    T = decaying((12, 9, 20))
    sizes = [
        sum(core.size for core in tt_svd_by_error(T, error))
        for error in (0.01, 0.05, 0.1, 0.2, 0.4, 0.8)
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_cores_but_the_last_are_orthonormal():
    for core in tt_svd(decaying((12, 9, 20)), (5, 7))[:-1]:
        rows = core.reshape(-1, core.shape[2])
        np.testing.assert_allclose(rows.T @ rows, np.eye(rows.shape[1]), atol=1e-12)


def test_twice_gives_the_same_bytes():
    T = decaying((12, 9, 20))
    one, two = tt_svd(T, (5, 7)), tt_svd(T.copy(), (5, 7))
    assert [core.tobytes() for core in one] == [core.tobytes() for core in two]


def test_a_tensor_of_zeros_is_found():
    assert not multiplied(tt_svd(np.zeros((4, 5, 6)), (2, 3))).any()


@pytest.mark.parametrize(
    ("ranks", "said"),
    [((3,), "1 ranks for a train of 3 cores"), ((13, 2), "rank 13 after core 1 is outside")],
)
def test_ranks_that_do_not_fit_are_refused(ranks, said):
    with pytest.raises(RankError, match=said):
        check_ranks(ranks, (12, 9, 20))


@pytest.mark.parametrize("size", [1, 7, 36, 96, 512, 4096, 25088])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_balanced_factors_multiply_to_the_size_and_are_as_alike_as_can_be(size, count):
    factors = balanced(size, count)
    assert math.prod(factors) == size
    assert len(factors) == count

    def least_largest(rest, left):
        if left == 1:
            return rest
        divisors = [f for f in range(1, rest + 1) if rest % f == 0]
        return min(max(f, least_largest(rest // f, left - 1)) for f in divisors)

    if size <= 512:
        assert max(factors) == least_largest(size, count)
