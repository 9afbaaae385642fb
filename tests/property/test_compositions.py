"""The promises of `Form` for 212 sums and nests of forms, on every kind of layer in turn."""

import json
from functools import cache

import numpy as np
import pytest

import counting
from compositions import composed
from layers import Layer, layers
from lowering import decoded, dense_with, run, site_of, substituted
from nncc.device_profiles.errors import RankError
from nncc.passes.forms import (
    IDENTITY,
    Form,
    Metric,
    Term,
    from_json,
    parse,
    squared_error,
    text,
    to_json,
)

KINDS = (
    "conv 2-D",
    "gemm transB",
    "conv 1-D",
    "conv grouped",
    "matmul right 3-D",
    "conv depthwise",
    "matmul left",
)
LAYERS: dict[str, Layer] = {layer.name: layer for layer in layers() if layer.name in KINDS}
FORMS = composed(212)
WILFUL = ("binary(scaled=0)", "-penalty", "lowrank_auto")
"""Forms that do not serve the error alone: a sum may lose by them."""


@cache
def weight(name: str) -> np.ndarray:
    W = site_of(LAYERS[name]).W()
    W.flags.writeable = False
    return W


@cache
def seen(name: str) -> Metric:
    """Moments of inputs that leave some directions out: rank-deficient, not scaled to one."""
    g, _, *rest = weight(name).shape
    n = int(np.prod(rest))
    rng = np.random.default_rng(n)
    A = rng.standard_normal((g, n, max(2 * n // 3, 1))) * rng.uniform(0.1, 3, (g, n, 1))
    return Metric(A @ A.swapaxes(1, 2))


@cache
def fitted(name: str, form: Form, metric: Metric = IDENTITY) -> Term:
    return form.compress(weight(name), metric=metric)


def fits(name: str, form: Form) -> bool:
    site = site_of(LAYERS[name])
    try:
        form.kernels(site.shape, site.geometry)
    except RankError:
        return False
    return True


def cases():
    """Each form on the next kind of layer that it fits; a few fit none."""
    at = 0
    for form in FORMS:
        turns = (KINDS[(at + step) % len(KINDS)] for step in range(len(KINDS)))
        name = next((name for name in turns if fits(name, form)), None)
        if name is not None:
            at = KINDS.index(name) + 1
            yield pytest.param(name, form, id=f"{name}-{text(form)}")


CASES = list(cases())
SUMS = [
    case
    for case in CASES
    if case.values[1].name == "sum"
    and not any(word in text(case.values[1]) for word in WILFUL)
]


def test_there_are_two_hundred_compositions_and_every_kind_of_layer_has_some():
    assert len({case.values[1] for case in CASES}) >= 200
    names = [case.values[0] for case in CASES]
    assert min(names.count(kind) for kind in KINDS) >= 10


@pytest.mark.parametrize(("name", "form"), CASES)
def test_a_fit_is_never_worse_than_its_start(name: str, form: Form):
    W, H = weight(name), seen(name)
    plain = fitted(name, form)
    again = form.compress(W, start=plain)
    assert squared_error(W, again) <= squared_error(W, plain)
    in_metric = form.compress(W, start=plain, metric=H)
    assert squared_error(W, in_metric, H) <= squared_error(W, plain, H)


@pytest.mark.parametrize(("name", "form"), SUMS)
def test_a_sum_is_no_worse_than_its_parts(name: str, form: Form):
    W = weight(name)
    least = min(squared_error(W, fitted(name, part)) for part in form.parts)
    assert squared_error(W, fitted(name, form)) <= least


@pytest.mark.parametrize(("name", "form"), CASES)
def test_the_graph_computes_what_decompression_says(name: str, form: Form):
    layer, term = LAYERS[name], fitted(name, form)
    W = term.decompress()
    assert W.shape == weight(name).shape and W.dtype == np.float32
    y = run(substituted(layer, form, term), layer.feeds)
    expected = run(dense_with(layer, W), layer.feeds)
    assert y.shape == expected.shape
    # float32 sums of a few hundred products
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "form"), CASES)
def test_the_unfolded_matrix_is_the_decompressed_one(name: str, form: Form):
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


@pytest.mark.parametrize(("name", "form"), CASES)
def test_bits_are_what_the_papers_count(name: str, form: Form):
    term = fitted(name, form)
    assert term.cost().bits == counting.bits(form, term, weight(name).shape)


@pytest.mark.parametrize(("name", "form"), CASES)
def test_the_same_fit_gives_the_same_bytes(name: str, form: Form):
    one, two = fitted(name, form).arrays(), form.compress(weight(name)).arrays()
    assert {k: a.tobytes() for k, a in one.items()} == {k: a.tobytes() for k, a in two.items()}


@pytest.mark.parametrize("form", FORMS, ids=text)
def test_a_composition_survives_json_and_text(form: Form):
    assert from_json(json.loads(json.dumps(to_json(form)))) == form
    assert parse(text(form)) == form
    assert repr(parse(text(form))) == repr(form)
