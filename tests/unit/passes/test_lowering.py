"""Lowering: a weight unfolded at load equals the dense one, on every kind of layer."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from layers import convolution, layers, product
from nncc.device_profiles.registry import load
from nncc.passes.forms import Dense, LowRank, Prune, Quantize, Sum
from nncc.passes.lowering import Lowering, lowering, runs_dense
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites

FORMS = [Quantize(3), Prune(0.1), Sum((Quantize(2), Prune(0.05))), LowRank(1)]
WIDE = convolution("wide", m=64, c=64, kernel=(3, 3), pads=[1, 1, 1, 1])


def model_of(layer, opset=None):
    proto = onnx.ModelProto.FromString(layer.model.SerializeToString())
    if opset is not None:
        proto.opset_import[0].version = opset
    return Model(ir.from_proto(proto), layer.name, "0" * 64)


def fitted(model, form):
    (site,), _ = find_sites(model)
    return site, form.compress(site.W())


def lowered(model, form, term, way):
    (site,), _ = find_sites(model)
    made = compress_weights(
        model, Plan({site.name: form}), {site.name: term}, {site.name: Lowering(way)}
    )
    proto = ir.to_proto(made.graph_model)
    return proto


def run(proto, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)[0]


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.name)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_folded_weight_computes_what_the_executed_term_does(layer, form):
    model = model_of(layer)
    site, term = fitted(model, form)
    expected = run(lowered(model, form, term, "executed"), layer.feeds)
    folded = lowered(model, form, term, "folded")
    dense = lowered(model, form, term, "dense")

    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(folded, layer.feeds), expected, atol=1e-5 * scale)
    np.testing.assert_allclose(run(dense, layer.feeds), expected, atol=1e-5 * scale)
    assert ("layer", site.op) in {(n.name, n.op_type) for n in folded.graph.node}
    assert {i.name for i in dense.graph.initializer}.isdisjoint({"W"})


@pytest.mark.parametrize("layer", layers()[:3] + layers()[-3:], ids=lambda layer: layer.name)
def test_a_runtime_is_left_with_the_layer_alone(tmp_path, layer):
    model = model_of(layer)
    _, term = fitted(model, FORMS[2])
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")

    ort.InferenceSession(lowered(model, FORMS[2], term, "folded").SerializeToString(), options)

    left = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    plain = ort.SessionOptions()
    plain.graph_optimization_level = options.graph_optimization_level
    plain.optimized_model_filepath = str(tmp_path / "plain.onnx")
    ort.InferenceSession(layer.model.SerializeToString(), plain)
    assert left == [n.op_type for n in onnx.load(tmp_path / "plain.onnx").graph.node]


def test_a_sum_is_folded_for_onnx_runtime_and_dense_for_tensorrt():
    model = model_of(WIDE)
    site, term = fitted(model, FORMS[2])

    found = lowering(site, term, model, load("x86-cpu"), is_executed=False)
    engine = lowering(site, term, model, load("jetson-nano"), is_executed=False)

    assert (found.way, found.reason) == ("folded", "")
    assert engine.way == "dense"
    assert "engine" in engine.reason


def test_an_old_opset_stores_the_weight_dense_and_says_so():
    model = model_of(WIDE, opset=9)
    site, term = fitted(model, FORMS[2])

    found = lowering(site, term, model, load("x86-cpu"), is_executed=False)

    assert found.way == "dense"
    assert "opset 9" in found.reason


def test_codes_alone_unfold_from_opset_9_on():
    model = model_of(WIDE, opset=9)
    site, term = fitted(model, Quantize(4))

    assert lowering(site, term, model, load("x86-cpu"), is_executed=False).way == "folded"


def test_a_small_weight_stays_dense_since_its_nodes_would_be_larger():
    model = model_of(product("small", m=8, n=8))
    site, term = fitted(model, Quantize(2))

    found = lowering(site, term, model, load("x86-cpu"), is_executed=False)

    assert found.way == "dense"
    assert "larger" in found.reason


def test_quantised_and_pruned_weights_run_dense_and_low_rank_does_not():
    (site,), _ = find_sites(model_of(WIDE))

    assert all(runs_dense(form, site) for form in (Dense(), *FORMS[:3]))
    assert not runs_dense(LowRank(2), site)


def test_what_unfolding_leaves_in_memory_is_counted():
    model = model_of(WIDE)
    site, term = fitted(model, Quantize(2))

    found = lowering(site, term, model, load("x86-cpu"), is_executed=False)

    # The words as floats, one dense weight; the codes as int32, an eighth of it; the table.
    assert found.temporary_bytes == pytest.approx(4 * site.weights * (1 + 1 / 8), rel=0.1)
