"""Spectra against errors measured on factors that were really built."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.passes.forms import Blocks, Folded, LowRank
from nncc.passes.geometry import fold, scheme_axes
from nncc.passes.spectra import relative_errors, spectrum


def weights(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def block_diagonal_norm(W, order):
    """Norm of the block-diagonal matrix of all groups, by numpy alone."""
    values = [np.linalg.norm(g.reshape(len(g), -1).astype(np.float64), order) for g in W]
    return max(values) if order == 2 else float(np.sqrt(np.sum(np.square(values))))


SHAPES = [(1, 12, 8, 3, 3), (2, 6, 8, 3, 3), (1, 8, 8, 5)]


@pytest.mark.parametrize(
    ("shape", "scheme"), [*itertools.product(SHAPES, range(4)), ((1, 40, 16), 0)]
)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_errors_are_those_of_the_built_factors(shape, scheme, k):
    W = weights(shape)
    axes = scheme_axes(scheme, W.shape[3:])
    F = fold(W, axes)
    full = min(F.shape[1], F[0, 0].size // k)
    ranks = np.arange(0, full + 1)
    found = spectrum(W, scheme, k, ranks)
    for j in range(1, full + 1):
        form = Folded(scheme, Blocks(k, LowRank(j)) if k > 1 else LowRank(j))
        residual = F - fold(form.compress(W).decompress(), axes)
        # float32 factors: rounding of W's own size is left where the rank is full
        near = {"rtol": 1e-4, "atol": 1e-5}
        operator = block_diagonal_norm(residual, 2) / block_diagonal_norm(F, 2)
        np.testing.assert_allclose(found.operator[j], operator, **near)
        np.testing.assert_allclose(
            found.frobenius[j],
            block_diagonal_norm(residual, "fro") / block_diagonal_norm(F, "fro"),
            **near,
        )
    assert found.total == pytest.approx(np.linalg.norm(W.astype(np.float64)))


@settings(max_examples=30, deadline=None)
@given(
    m=st.integers(2, 20),
    c=st.sampled_from([4, 8, 12]),
    k=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 99),
)
def test_blockwise_understates_and_the_bound_overstates(m, c, k, seed):
    W = weights((1, m, c, 2, 2), seed)
    ranks = np.arange(0, min(m, 4 * c // k) + 1)
    found = spectrum(W, 0, k, ranks)
    slack = 1e-7
    assert (found.blockwise <= found.operator + slack).all()
    assert (found.operator <= found.sqrt_k + slack).all()
    for errors in (found.operator, found.blockwise, found.frobenius):
        assert (np.diff(errors) <= slack).all(), "a higher rank is never worse"
        assert errors[-1] <= 1e-6


def test_large_layers_agree_with_the_exact_eigenvalues():
    """Iterative norms (n ≥ 96) against the full decomposition of 16-bit factors."""
    W = weights((1, 128, 32, 3, 3))
    ranks = np.array([8, 32, 64])
    found = spectrum(W, 0, 2, ranks)
    for at, j in enumerate(ranks):
        residual = W - Blocks(2, LowRank(int(j))).compress(W).decompress()
        exact = np.linalg.norm(residual.reshape(128, -1).astype(np.float64), 2)
        exact /= np.linalg.norm(W.reshape(128, -1).astype(np.float64), 2)
        assert found.operator[at] == pytest.approx(exact, rel=3e-5)


def test_relative_errors_of_a_large_matrix_are_good_to_three_digits():
    W = weights((1, 1200, 1300))
    approximation = LowRank(50).compress(W).decompress()
    op, fro = relative_errors(W, approximation)
    R = (W - approximation)[0].astype(np.float64)
    assert op == pytest.approx(np.linalg.norm(R, 2) / np.linalg.norm(W[0], 2), rel=2e-3)
    assert fro == pytest.approx(
        np.linalg.norm(R) / np.linalg.norm(W[0].astype(float)), rel=1e-6
    )


def test_a_zero_weight_has_no_error():
    W = np.zeros((1, 4, 4, 3, 3), np.float32)
    found = spectrum(W, 0, 1, np.array([1, 2]))
    assert not found.operator.any() and not found.frobenius.any()
    assert relative_errors(W, W) == (0.0, 0.0)
