"""The promises of `Form`, for every registered form on every kind of site."""

import json

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from layers import Layer, layers
from nncc.device_profiles.errors import PlanError, RankError
from nncc.passes.forms import (
    Blocks,
    Dense,
    Folded,
    Form,
    LowRank,
    Tucker2,
    forms,
    from_json,
    kernel_weights,
    squared_error,
    text,
    to_json,
)
from nncc.passes.model import Model
from nncc.passes.plan import Plan, loads
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites

CANDIDATES: list[Form] = [
    Dense(),
    LowRank(1),
    LowRank(3),
    Blocks(2, LowRank(2)),
    Blocks(4, LowRank(1)),
    *(Folded(s, LowRank(2)) for s in range(4)),
    *(Folded(s, Blocks(2, LowRank(2))) for s in range(4)),
    Tucker2(3, 2),
]


def model_of(layer: Layer) -> Model:
    return Model(ir.from_proto(layer.model), layer.name, "0" * 64)


def run(proto, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, feeds)[0]


def cases():
    for layer in layers():
        (site,), skipped = find_sites(model_of(layer))
        assert not skipped
        for form in CANDIDATES:
            try:
                form.kernels(site.shape, site.geometry)
            except RankError:
                continue
            yield pytest.param(layer, form, id=f"{layer.name}-{text(form)}")


CASES = list(cases())


def dense_with(layer: Layer, W: np.ndarray):
    """The layer's model with its weight replaced by W, the independent reference."""
    model = onnx_copy(layer.model)
    (site,), _ = find_sites(Model(ir.from_proto(model), "", ""))
    from onnx import numpy_helper

    tensor = next(t for t in model.graph.initializer if t.name == "W")
    g, m, c, *kernel = site.shape
    if site.op == "Conv":
        array = W.reshape(g * m, c, *kernel)
    elif site.op == "ConvTranspose":
        array = np.concatenate([np.moveaxis(group, 0, 1) for group in W])
    else:
        node = model.graph.node[0]
        flags = {a.name: a for a in node.attribute}
        alpha = flags["alpha"].f if "alpha" in flags else 1.0
        mine = "transA" if site.geometry.weight_is_left else "transB"
        stored = W[0] if site.geometry.weight_is_left else W[0].T
        array = (stored.T if mine in flags and flags[mine].i else stored) / alpha
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), "W"))
    return model


def onnx_copy(model):
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def test_every_registered_form_is_under_contract():
    assert {form.name for form in CANDIDATES} == set(forms())


@pytest.mark.parametrize(("layer", "form"), CASES)
def test_lowered_nodes_compute_what_decompression_says(layer: Layer, form: Form):
    model = model_of(layer)
    (site,), _ = find_sites(model)
    term = form.compress(site.W())
    assert term.shape == site.shape
    lowered = ir.to_proto(
        compress_weights(model, Plan({site.name: form}), {site.name: term}).graph_model
    )
    y = run(lowered, layer.feeds)
    expected = run(dense_with(layer, term.decompress()), layer.feeds)
    assert y.shape == expected.shape
    # float32 sums of at most a few hundred products
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("layer", "form"), CASES)
def test_stored_weights_are_those_of_the_kernels(layer: Layer, form: Form):
    (site,), _ = find_sites(model_of(layer))
    term = form.compress(site.W())
    stored = sum(array.size for array in term.arrays().values())
    assert (
        term.cost().weights
        == stored
        == kernel_weights(form.kernels(site.shape, site.geometry))
    )
    assert term.cost().bits == 8 * sum(array.nbytes for array in term.arrays().values())


@pytest.mark.parametrize(("layer", "form"), CASES)
def test_compress_is_never_worse_than_its_start(layer: Layer, form: Form):
    (site,), _ = find_sites(model_of(layer))
    W = site.W()
    exact = Dense().compress(W)
    assert squared_error(W, form.compress(W, start=exact)) <= squared_error(W, exact)


@pytest.mark.parametrize(("layer", "form"), CASES)
def test_compress_twice_gives_the_same_bytes(layer: Layer, form: Form):
    (site,), _ = find_sites(model_of(layer))
    one, two = form.compress(site.W()), form.compress(site.W())
    assert {k: a.tobytes() for k, a in one.arrays().items()} == {
        k: a.tobytes() for k, a in two.arrays().items()
    }


@pytest.mark.parametrize("form", CANDIDATES, ids=text)
def test_a_form_survives_the_plan(form: Form):
    assert from_json(json.loads(json.dumps(to_json(form)))) == form
    plan = Plan({"a/b": form})
    assert loads(plan.dumps()) == plan


@pytest.mark.parametrize("form", CANDIDATES, ids=text)
def test_terms_are_closed_for_writing(form: Form):
    W = np.random.default_rng(0).standard_normal((1, 8, 8, 3, 3)).astype(np.float32)
    for array in form.compress(W).arrays().values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_an_unknown_form_lists_the_known_ones():
    with pytest.raises(PlanError, match="unknown form 'cp'; forms are blocks, dense"):
        from_json({"form": "cp", "j": 3})


def test_rank_error_names_the_break_even_rank():
    W = np.zeros((1, 64, 576), np.float32)
    with pytest.raises(RankError, match=r"rank j=96 is outside 1 … min\(m, n\)=64.*j ≤ 57"):
        LowRank(96).compress(W)
