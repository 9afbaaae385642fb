"""Layers that few samples tell little of, judged by samples that no fit saw."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nncc.compiler.fitting.crossed import crossed_sensitivity, thin
from nncc.compiler.fitting.fit import metric_of
from nncc.compiler.fitting.moments import collect
from nncc.compiler.fitting.sensitivity import sensitivity
from nncc.compiler.reading.ingest import ingest
from nncc.passes.forms import LowRank
from nncc.passes.sites import find_sites

FEW, MANY = 48, 600
RANKS = (8, 24, 40)


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    """Two layers of 256 inputs with full spectra, seen once a sample."""
    rng = np.random.default_rng(0)
    weights = {
        "W1": rng.standard_normal((256, 256)) / 16,
        "W2": rng.standard_normal((256, 12)) / 16,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "W1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "W2"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "few",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 12])],
        [numpy_helper.from_array(W.astype(np.float32), n) for n, W in weights.items()],
    )
    path = tmp_path_factory.mktemp("few") / "net.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, path)
    return path


def inputs(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Vectors whose spectrum falls as 1/k, as activations' do."""
    rng, basis = np.random.default_rng(seed), np.random.default_rng(9)
    turn = np.linalg.qr(basis.standard_normal((256, 256)))[0]
    x = (rng.standard_normal((count, 256)) * (8 / np.arange(1, 257))) @ turn
    return [{"x": row[None].astype(np.float32)} for row in x]


def test_the_crossed_divergence_is_that_of_inputs_no_fit_saw(net: Path, tmp_path: Path):
    sites, _ = find_sites(ingest(net, workdir=tmp_path))
    first = [site for site in sites if site.name == "first"]
    few, fresh = inputs(FEW, 1), inputs(MANY, 2)
    seen = collect(net, few, sites)

    def terms(moments):
        metric, W = metric_of(first, moments), first[0].W()
        return {"first": [LowRank(j).compress(W, metric=metric) for j in RANKS]}

    by_its_own = sensitivity(net, sites, terms(seen), few, moments=seen)["first"]
    true = sensitivity(net, sites, terms(seen), fresh, moments=seen)["first"]
    crossed = crossed_sensitivity(net, first, terms, few)["first"]

    assert thin(first[0], seen)
    assert by_its_own[-1] < 0.5 * true[-1], "the fit has followed its samples"
    np.testing.assert_array_less(0.8 * true, crossed)
    np.testing.assert_array_less(crossed, 2 * true)


def test_many_positions_an_input_are_no_thin_ground(net: Path, tmp_path: Path):
    sites, _ = find_sites(ingest(net, workdir=tmp_path))
    seen = collect(net, inputs(MANY, 3), sites)
    assert not any(thin(site, seen) for site in sites)
