"""The promises of `Form`, for every registered form on every kind of site."""

import json
from functools import cache

import numpy as np
import pytest

import counting
from compositions import registered, single
from layers import Layer, layers
from lowering import decoded, dense_with, run, site_of, substituted
from nncc.device_profiles.errors import PlanError, RankError
from nncc.passes.forms import (
    IDENTITY,
    Blocks,
    Dense,
    Folded,
    Form,
    LowRank,
    Metric,
    Term,
    Tucker2,
    from_json,
    kernel_weights,
    parse,
    squared_error,
    text,
    to_json,
)
from nncc.passes.plan import Plan, loads

CANDIDATES = single()
EXECUTED = (Dense, LowRank, Tucker2, Blocks, Folded)
"""Forms that always run as the kernels they name, one stored weight a weight of a kernel."""
LAYERS: dict[str, Layer] = {layer.name: layer for layer in layers()}


@cache
def weight(name: str) -> np.ndarray:
    W = site_of(LAYERS[name]).W()
    W.flags.writeable = False
    return W


@cache
def fitted(name: str, form: Form, metric: Metric = IDENTITY) -> Term:
    return form.compress(weight(name), metric=metric)


def cases():
    for name, layer in LAYERS.items():
        site = site_of(layer)
        for form in CANDIDATES:
            try:
                form.kernels(site.shape, site.geometry)
            except RankError:
                continue
            yield pytest.param(name, form, id=f"{name}-{text(form)}")


CASES = list(cases())
OFTEN = (
    "conv 2-D",
    "conv grouped",
    "conv depthwise",
    "conv 1-D",
    "transpose 2-D",
    "gemm",
    "matmul left 3-D",
)
SOME = [case for case in CASES if case.values[0] in OFTEN]
"""Enough for promises that do not depend on what the layer does beside its weight."""


def moments(shape: tuple[int, ...], rank: int) -> np.ndarray:
    """Second moments of `rank` inputs, correlated and of different sizes."""
    g, _, *rest = shape
    n = int(np.prod(rest))
    rng = np.random.default_rng(n)
    A = rng.standard_normal((g, n, rank)) * rng.uniform(0.1, 3, (g, n, 1))
    return A @ A.swapaxes(1, 2)


def test_every_registered_form_is_under_contract():
    assert {form.name for form in CANDIDATES} == registered()
    assert {case.values[1].name for case in CASES} == registered()


@pytest.mark.parametrize(("name", "form"), CASES)
def test_lowered_nodes_compute_what_decompression_says(name: str, form: Form):
    layer, term = LAYERS[name], fitted(name, form)
    assert term.shape == weight(name).shape
    y = run(substituted(layer, form, term), layer.feeds)
    expected = run(dense_with(layer, term.decompress()), layer.feeds)
    assert y.shape == expected.shape
    # float32 sums of at most a few hundred products
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "form"), SOME)
def test_unfolded_matrices_are_the_decompressed_ones(name: str, form: Form):
    term = fitted(name, form)
    matrix = decoded(term)
    if matrix is None:
        return
    W = term.decompress()
    expected = W.reshape(W.shape[0] * W.shape[1], -1)
    assert matrix.dtype == np.float32 and matrix.shape == expected.shape
    np.testing.assert_allclose(
        matrix, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max(initial=0)
    )


@pytest.mark.parametrize(("name", "form"), SOME)
def test_bits_are_what_the_papers_count(name: str, form: Form):
    term = fitted(name, form)
    assert term.cost().bits == counting.bits(form, term, weight(name).shape)


@pytest.mark.parametrize(("name", "form"), SOME)
def test_stored_weights_of_products_are_those_of_their_kernels(name: str, form: Form):
    if not isinstance(form, EXECUTED):
        return
    term, site = fitted(name, form), site_of(LAYERS[name])
    stored = sum(array.size for array in term.arrays().values())
    kernels = form.kernels(site.shape, site.geometry)
    assert term.cost().weights == stored == kernel_weights(kernels)


@pytest.mark.parametrize(("name", "form"), SOME)
def test_compress_is_never_worse_than_its_start(name: str, form: Form):
    W, exact = weight(name), fitted(name, Dense())
    assert squared_error(W, form.compress(W, start=exact)) <= squared_error(W, exact)


@pytest.mark.parametrize(("name", "form"), SOME)
def test_compress_twice_gives_the_same_bytes(name: str, form: Form):
    one, two = fitted(name, form).arrays(), form.compress(weight(name)).arrays()
    assert {k: a.tobytes() for k, a in one.items()} == {k: a.tobytes() for k, a in two.items()}


@pytest.mark.parametrize(("name", "form"), SOME)
def test_a_fit_that_sees_the_input_serves_the_output(name: str, form: Form):
    W, plain = weight(name), fitted(name, form)
    seen = Metric(moments(W.shape, 2 * W[0, 0].size))
    found = form.compress(W, start=plain, metric=seen)
    assert squared_error(W, found, seen) <= squared_error(W, plain, seen)


@pytest.mark.parametrize(("name", "form"), SOME)
def test_inputs_all_alike_change_nothing(name: str, form: Form):
    """H = I is the plain norm, so that the fit in it is the plain fit."""
    W, plain = weight(name), fitted(name, form)
    n = W[0, 0].size
    round_metric = Metric(np.broadcast_to(np.eye(n), (W.shape[0], n, n)).copy())
    found = form.compress(W, metric=round_metric)
    np.testing.assert_allclose(
        squared_error(W, found), squared_error(W, plain), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("form", CANDIDATES, ids=text)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_small_large_and_empty_weights_are_finite(form: Form, scale: float):
    W = weight(next(case.values[0] for case in CASES if case.values[1] == form))
    term = form.compress(W * np.float32(scale))
    assert np.isfinite(term.decompress()).all()


@pytest.mark.parametrize("form", CANDIDATES, ids=text)
def test_a_form_survives_the_plan(form: Form):
    assert from_json(json.loads(json.dumps(to_json(form)))) == form
    assert parse(text(form)) == from_json(text(form)) == form
    assert repr(parse(text(form))) == repr(form)
    plan = Plan({"a/b": form})
    assert loads(plan.dumps()) == plan


@pytest.mark.parametrize("form", CANDIDATES, ids=text)
def test_terms_are_closed_for_writing(form: Form):
    term = fitted(next(case.values[0] for case in CASES if case.values[1] == form), form)
    for array in (term.decompress(), *term.arrays().values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_an_unknown_form_lists_the_known_ones():
    with pytest.raises(PlanError, match=r"unknown form 'cp'.*forms are .*blocks, .*dense"):
        from_json({"form": "cp", "j": 3})


def test_rank_error_names_the_break_even_rank():
    W = np.zeros((1, 64, 576), np.float32)
    with pytest.raises(RankError, match=r"rank j=96 is outside 1 … min\(m, n\)=64.*j ≤ 57"):
        LowRank(96).compress(W)
