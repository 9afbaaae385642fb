"""A bias that absorbs what a fit loses of the mean, on every kind of layer."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from layers import Layer, layers
from nncc.compiler.fitting.fit import fit
from nncc.compiler.fitting.moments import collect
from nncc.passes.absorb import takes_bias
from nncc.passes.forms import LowRank
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites


def run(proto, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, feeds)[0].astype(np.float64)


def means(y, site):
    """The mean of every output over the positions, as the runtime lays them out."""
    if site.geometry.kernel or site.op.startswith("Conv"):
        return np.moveaxis(y, 1, 0).reshape(y.shape[1], -1).mean(axis=1)
    axis = -2 if site.geometry.weight_is_left and y.ndim > 1 else -1
    return np.moveaxis(y, axis, 0).reshape(y.shape[axis], -1).mean(axis=1)


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.name)
def test_the_mean_of_every_output_stays(layer: Layer):
    model = Model(ir.from_proto(layer.model), "layer", "0" * 64)
    (site,), _ = find_sites(model)
    if not takes_bias(site):
        pytest.skip("a product whose output axis is unknown takes no bias")
    feeds = {"x": layer.feeds["x"] + 1}
    seen = collect(model, [feeds], [site])
    plan = Plan({site.name: LowRank(1)})
    (fitted,) = fit([site], plan, seen, jobs=1).values()
    assert fitted.bias_delta is not None
    terms, deltas = {site.name: fitted.term}, {site.name: fitted.bias_delta}
    before = means(run(layer.model, feeds), site)

    def after(**bias):
        compiled = compress_weights(model, plan, terms, **bias)
        return means(run(ir.to_proto(compiled.graph_model), feeds), site)

    scale = np.abs(before).max()
    np.testing.assert_allclose(after(bias_deltas=deltas), before, atol=1e-4 * scale)
    lost = np.abs(after() - before).max()
    lossless = min(site.shape[1], site.weights // (site.shape[0] * site.shape[1])) == 1
    assert lossless or lost > 1e-3 * scale
