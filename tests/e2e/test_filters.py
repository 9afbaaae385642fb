"""Fewer channels in a real net: drafted and priced by `auto`, and gone from the file."""

import csv
import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import nncc
from models import fashion_mnist, ref_model
from nncc.compiler.commands.cli import main
from nncc.passes.forms import Columns, LowRank
from nncc.passes.plan import Plan

LENET = ref_model("lenet5")
FIRST, SECOND, LAST = "/c1/Conv", "/c2/Conv", "/f2/Gemm"


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    path = tmp_path_factory.mktemp("calibration") / "samples.npz"
    np.savez(path, x=fashion_mnist(5000)[0][:64])
    return path


@pytest.fixture(scope="module")
def forced(calibration, tmp_path_factory):
    """conv2 reads 8 of 20 channels, and the last layer 64 of 500."""
    folder = tmp_path_factory.mktemp("forced")
    plan = folder / "given.json"
    plan.write_text(Plan({SECOND: Columns(8), LAST: Columns(64)}).dumps())
    return nncc.compile(
        LENET, "host", plan=plan, calib=str(calibration), measure=False,
        output=folder / "build",
    )  # fmt: skip


def constants(path):
    """Arrays of a file by layer and input, those that are widened at load too."""
    graph = onnx.load(path).graph
    held = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]].astype(np.float32)
    return graph, held


def conv(x, W, b):
    windows = sliding_window_view(x, W.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, W, optimize=True) + b[:, None, None]


def pooled(x):
    n, c, h, w = x.shape
    return np.maximum(x, 0).reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def lenet(x, layers):
    """LeNet5 in numpy: (weight, bias) of its four layers."""
    (W1, b1), (W2, b2), (W3, b3), (W4, b4) = layers
    x = pooled(conv(pooled(conv(x, W1, b1)), W2, b2)).reshape(len(x), -1)
    return np.maximum(x @ W3.T + b3, 0) @ W4.T + b4


def dense_layers():
    graph, held = constants(LENET)
    found = [n for n in graph.node if n.op_type in ("Conv", "Gemm")]
    return [(held[n.input[1]], held[n.input[2]]) for n in found]


def test_the_file_holds_fewer_filters_and_computes_the_refitted_net(forced):
    graph, held = constants(forced.model)
    shapes = {n.name: held[n.input[1]].shape for n in graph.node if n.op_type == "Conv"}
    assert list(shapes.values()) == [(8, 1, 5, 5), (50, 8, 5, 5)]
    assert not [n for n in graph.node if n.op_type == "Gather"]
    # the refitted layers in their whole shape, put into the reference's dense net
    layers = dense_layers()
    x = fashion_mnist()[0][:32]
    conv2 = next(n for n in graph.node if n.op_type == "Conv" and n.name != FIRST)
    W1 = next(held[n.input[1]] for n in graph.node if n.name == FIRST)
    kept = [int(np.abs(layers[0][0] - f).sum((1, 2, 3)).argmin()) for f in W1]
    np.testing.assert_array_equal(layers[0][0][kept], W1)
    W2 = np.zeros_like(layers[1][0])
    W2[:, kept] = held[conv2.input[1]]
    layers[1] = (W2, held[conv2.input[2]])
    W3 = next(v for v in held.values() if v.ndim == 2 and 800 in v.shape and 64 in v.shape)
    W3 = W3 if W3.shape[0] == 64 else W3.T
    rows = [int(np.abs(layers[2][0] - f).sum(1).argmin()) for f in W3]
    W4 = next(v for v in held.values() if v.ndim == 2 and sorted(v.shape) == [10, 64])
    whole = np.zeros_like(layers[3][0])
    whole[:, rows] = W4 if W4.shape[0] == 10 else W4.T
    bias = next(v for v in held.values() if v.shape == (10,))
    layers[3] = (whole, bias)

    y = ort.InferenceSession(forced.model).run(None, {"x": x})[0]

    expected = lenet(x, layers)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_artifact_tells_what_the_file_holds(forced):
    rows = {r["name"]: r for r in csv.DictReader((forced.folder / "layers.csv").open())}
    assert int(rows[FIRST]["weights_compressed"]) == 8 * 25
    assert int(rows["/f1/Gemm"]["weights_compressed"]) == 64 * 800
    assert "436 of its 500 filters are gone" in rows["/f1/Gemm"]["reason"]
    metrics = json.loads((forced.folder / "metrics.json").read_text())
    macs = 8 * 25 * 576 + 50 * 8 * 25 * 64 + 64 * 800 + 640
    assert metrics["ops"]["macs_compressed"] == macs
    told = metrics["latency"]["predicted_ms"]
    if told["tier"] is not None:  # this machine was microbenchmarked before
        assert told["compressed"] < told["reference"]


def test_a_plan_of_columns_repeats_byte_for_byte(forced, calibration, tmp_path):
    again = nncc.compile(
        LENET, "host", plan=forced.folder / "plan.json", calib=str(calibration),
        measure=False, output=tmp_path / "again",
    )  # fmt: skip
    assert again.model.read_bytes() == forced.model.read_bytes()


def test_auto_weighs_filters_beside_the_other_families(calibration, tmp_path, capsys):
    done = nncc.compile(
        LENET, "host", macs=0.35, calib=str(calibration), measure=False,
        output=tmp_path / "build",
    )  # fmt: skip
    assert done.outcome.budget_met
    weighed = json.loads((done.folder / "alternatives.json").read_text())
    layer = next(entry for entry in weighed["layers"] if entry["name"] == LAST)
    forms = [c["form"] for c in layer["candidates"]]
    assert any(form.startswith("columns(") for form in forms)
    plan = json.loads((done.folder / "plan.json").read_text())
    assert main(["explain", str(done.folder), "--layer", LAST]) == 0
    said = capsys.readouterr().out
    assert "columns(" in said
    assert done.outcome.exit_code == 0 and plan["layers"]


def test_what_goes_back_to_dense_leaves_every_filter(calibration, tmp_path):
    """The gate puts layers back; the filters around them come with them."""
    plan = tmp_path / "plan.json"
    plan.write_text(Plan({SECOND: Columns(1), LAST: LowRank(8)}).dumps())
    done = nncc.compile(
        LENET, "host", plan=plan, calib=str(calibration), measure=False,
        min_agreement=0.97, output=tmp_path / "build",
    )  # fmt: skip
    graph, held = constants(done.model)
    rows = {row.name: row for row in done.outcome.layers}
    if rows[SECOND].form == "dense":
        first = next(n for n in graph.node if n.name == FIRST)
        assert held[first.input[1]].shape == (20, 1, 5, 5)
        assert rows[FIRST].weights_compressed == 500
    else:
        pytest.fail(f"one channel of twenty passes the gate: {rows[SECOND]}")
