"""Times of original nodes, led back from the runtime's own names.

Which node gets time is certain; how much is not, so nothing here compares milliseconds but in
ratios that hold on any machine.
"""

import doctest

import numpy as np
import onnx
import pytest
from onnx import helper

from models import wheel_model
from nncc.runtime import layer_times
from nncc.runtime.layer_times import Origins, attributed, node_times, origins, site_times
from small_models import image, residual_net, write

HEAVY = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def event(name, op, begin, length):
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "ts": begin,
        "dur": length,
        "args": {"op_name": op},
    }


def start(begin):
    return {"cat": "Session", "name": "model_run", "ts": begin, "dur": 1}


def test_the_documented_examples_hold():
    assert doctest.testmod(layer_times).failed == 0


def test_every_layer_of_a_net_full_of_fusions_gets_its_time(tmp_path):
    path = residual_net(tmp_path / "m.onnx")

    times = node_times(path, image(), runs=5)

    heavy = {node.name for node in onnx.load(path).graph.node if node.op_type in HEAVY}
    assert heavy == {
        "stem",
        "block/conv1/v",
        "block/conv1/u",
        "block/conv2",
        "depthwise",
        "head",
        "classes",
    }
    assert heavy <= times.keys()
    assert all(times[name] > 0 for name in heavy)
    # The stem's 7 x 7 is over half of all multiplications, and no activation is named apart.
    assert max(times, key=times.__getitem__) in heavy
    assert "relu" not in times


@pytest.mark.parametrize(
    ("name", "shape"), [("pp-ocr-rec", (1, 3, 48, 160)), ("pp-ocr-cls", (1, 3, 48, 192))]
)
def test_every_layer_of_a_published_model_gets_its_time(name, shape):
    path = wheel_model(name)

    times = node_times(path, {"x": np.zeros(shape, np.float32)}, runs=5)

    nodes = onnx.load(path).graph.node
    heavy = {node.name for node in nodes if node.op_type in HEAVY}
    assert heavy - times.keys() == set()
    assert set(times) <= {node.name for node in nodes} | {""}
    assert times.get("", 0) < sum(times.values()) / 2


def test_nodes_of_a_body_get_their_time_and_it_is_not_counted_twice(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        """g (float[256, 256] x, bool c) => (float[256, 256] y) {
            [branch] y = If (c) <
                then_branch = a () => (float[256, 256] t) { [inner] t = MatMul(x, w) },
                else_branch = b () => (float[256, 256] e) { [other] e = Neg(x) }
            >
        }""",
        w=np.ones((256, 256), np.float32),
    )
    feeds = {"x": np.ones((256, 256), np.float32), "c": np.array(True)}

    times = node_times(path, feeds, runs=5)

    assert "inner" in times
    assert "other" not in times
    assert times["branch"] < times["inner"]  # its own work is next to none


def test_an_int8_model_keeps_its_layers_apart(tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    path, quantized = residual_net(tmp_path / "m.onnx"), tmp_path / "q.onnx"

    class Images(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = [image(seed=0), image(seed=1)]

        def get_next(self):
            return self.left.pop() if self.left else None

    quantization.quantize_static(path, quantized, Images(), per_channel=True)

    times = node_times(quantized, image(), runs=5)

    assert {"stem", "block/conv1/v", "block/conv1/u", "block/conv2", "depthwise"} <= set(times)


def test_names_with_quotes_and_newlines_survive_the_profile(tmp_path):
    odd = 'a"b\\c\nd'
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"], name=odd)],
        "g",
        [helper.make_tensor_value_info("x", 1, [2])],
        [helper.make_tensor_value_info("y", 1, [2])],
    )
    opset = helper.make_opsetid("", 13)
    onnx.save(
        helper.make_model(graph, opset_imports=[opset], ir_version=7), tmp_path / "m.onnx"
    )

    assert set(node_times(tmp_path / "m.onnx", {"x": np.ones(2, np.float32)}, runs=2)) == {odd}


def test_the_leading_runs_are_left_out():
    events = [
        start(0),
        event("a", "Neg", 1, 1000),
        start(2000),
        event("a", "Neg", 2001, 20),
        start(3000),
        event("a", "Neg", 3001, 40),
    ]

    assert attributed(events, Origins({"a": "Neg"}, {}, {}), skip=1) == {"a": 0.03}


def test_events_inside_another_are_taken_off_it():
    events = [
        start(0),
        event("loop", "Loop", 10, 100),
        event("in", "Neg", 20, 30),
        event("in", "Neg", 60, 30),
        event("after", "Neg", 110, 5),
    ]
    known = Origins({"loop": "Loop", "in": "Neg", "after": "Neg"}, {}, {})

    assert attributed(events, known, skip=0) == {"loop": 0.04, "in": 0.06, "after": 0.005}


@pytest.mark.parametrize(
    ("name", "op", "node"),
    [
        ("conv", "Conv", "conv"),
        ("r_nchwc", "Conv", "conv"),
        ("r_nchwc_token_12", "Conv", "conv"),
        ("fused conv", "FusedConv", "conv"),
        ("conv_token_3", "QLinearConv", "conv"),
        ("fc/MatMulAddFusion", "Gemm", "fc"),
        ("fused fc/MatMulAddFusion/", "FusedGemm", "fc"),
        ("relu", "Relu", "relu"),
        ("ReorderOutput_token_7", "ReorderOutput", ""),
        ("Reshape_token_7", "Reshape", ""),
        ("anything", "Conv", ""),
        ("r", "Relu", ""),  # a value's name alone, undecorated, is no node's
    ],
)
def test_names_of_the_optimised_graph_lead_back(tmp_path, name, op, node):
    path = write(
        tmp_path / "m.onnx",
        """g (float[N, 3, 8, 8] x, float[4, 3, 1, 1] w, float[8, 8] v) => (float[] y) {
            [conv] c = Conv(x, w)
            [bn] b = BatchNormalization(c, w, w, w, w)
            [relu] r = Relu(b)
            [fc] f = MatMul(r, v)
            [Reshape] y = Reshape(f, w)
        }""",
    )

    assert origins(onnx.load(path)).of(name, op) == node


def test_a_site_is_its_node_and_what_was_made_from_it():
    times = {
        "b/conv": 1.0,
        "b/conv/u": 2.0,
        "b/conv/v": 4.0,
        "b/conv2": 8.0,
        "b": 16.0,
        "": 32.0,
    }

    assert site_times(times, ["b/conv", "b/conv2", "absent"]) == {
        "b/conv": 7.0,
        "b/conv2": 8.0,
        "absent": 0.0,
    }


def test_a_node_counts_for_the_longest_site_that_begins_its_name():
    assert site_times({"a/b/u": 1.0, "a/c": 2.0}, ["a", "a/b"]) == {"a": 2.0, "a/b": 1.0}
