"""A model run part by part gives what it gives as a whole."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from layers import Layer, layers
from nncc.compiler.fitting.stages import Change, Stages
from nncc.passes.absorb import takes_bias
from nncc.passes.forms.codes.half import Half, HalfTerm
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites
from small_models import image, residual_net, write


def model_of(proto) -> Model:
    return Model(ir.from_proto(proto), "model", "0" * 64)


def outputs(model: Model, feeds) -> list[np.ndarray]:
    proto = ir.to_proto(model.graph_model)
    found = ort.InferenceSession(proto.SerializeToString()).run(None, feeds)
    return [np.asarray(array) for array in found]


def test_all_parts_one_after_another_are_the_model(tmp_path):
    path = residual_net(tmp_path / "net.onnx")
    model = Model(ir.load(path), "net", "0" * 64)
    sites, _ = find_sites(model)
    stages = Stages(path, sites)
    feeds = image()

    values = stages.head().run(feeds)
    for at in range(len(stages.sites)):
        values = stages.layer(at).run(values)

    assert [site.name for site in stages.sites] == [site.name for site in sites]
    assert set(values) == set(stages.outputs)
    (want,) = ort.InferenceSession(str(path)).run(None, feeds)
    np.testing.assert_allclose(values[stages.outputs[0]], want, rtol=1e-5, atol=1e-6)


def test_what_follows_a_layer_needs_nothing_before_it_to_run_again(tmp_path):
    path = residual_net(tmp_path / "net.onnx")
    sites, _ = find_sites(Model(ir.load(path), "net", "0" * 64))
    stages = Stages(path, sites)
    (want,) = ort.InferenceSession(str(path)).run(None, image())

    values = stages.head().run(image())
    for at, site in enumerate(stages.sites):
        got = stages.rest(at).run(values, Change(site.W()))[stages.outputs[0]]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        values = stages.layer(at).run(values)


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.name)
def test_a_changed_layer_computes_what_the_rewritten_model_does(layer: Layer):
    model = model_of(layer.model)
    (site,), _ = find_sites(model)
    W = (site.W() * 0.75).astype(np.float16)
    delta = None
    if takes_bias(site):
        delta = np.linspace(-1, 1, site.shape[0] * site.shape[1])
    term = HalfTerm(W)
    plan = Plan({site.name: Half()})
    deltas = {} if delta is None else {site.name: delta}
    rewritten = compress_weights(model, plan, {site.name: term}, bias_deltas=deltas)
    (want,) = outputs(rewritten, layer.feeds)

    stages = Stages(model, [site])
    change = Change(term.decompress(), delta)
    before = stages.head().run(layer.feeds)
    for part, given in ((stages.layer(0, change), None), (stages.rest(0), change)):
        (got,) = part.run(before, given).values()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_layers_in_bodies_are_not_cut_at(tmp_path):
    path = write(
        tmp_path / "if.onnx",
        """
        net (float[2, 4] x, bool c) => (float[2, 4] y) {
            a = MatMul (x, W)
            b = If (c) <
                then_branch = t () => (float[2, 4] p) { p = MatMul (a, V) },
                else_branch = e () => (float[2, 4] q) { q = Identity (a) }
            >
            y = MatMul (b, W)
        }
        """,
        W=np.eye(4, dtype=np.float32) * 2,
        V=np.eye(4, dtype=np.float32) * 3,
    )
    model = Model(ir.load(path), "if", "0" * 64)
    sites, _ = find_sites(model)
    stages = Stages(path, sites)
    feeds = {"x": np.ones((2, 4), np.float32), "c": np.array(True)}

    values = stages.head().run(feeds)
    for at in range(len(stages.sites)):
        values = stages.layer(at).run(values)

    assert len(sites) == 3
    assert len(stages.sites) == 2
    np.testing.assert_allclose(values["y"], np.full((2, 4), 12.0))
