"""Sites of hand-made and real models: what is found, how it is counted, why some are not."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from layers import convolution, layers, product
from models import wheel_model
from nncc.compiler.reading.ingest import ingest
from nncc.passes.model import Model
from nncc.passes.normalise import PIPELINE, normalise
from nncc.passes.sites import find_sites


def model(nodes, weights, inputs, outputs=("y",), opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return Model(ir.from_proto(proto), "m", "")


def noise(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


FLOAT_IN = {"x": (TensorProto.FLOAT, [1, 32])}


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.name)
def test_macs_are_those_of_the_convolution_counted_by_hand(layer):
    """Multiply-adds = output elements × inputs per output (inputs × outputs if transposed)."""
    import onnxruntime as ort

    proto = layer.model
    (y,) = ort.InferenceSession(proto.SerializeToString()).run(None, layer.feeds)
    shapes = {"x": layer.feeds["x"].shape, "y": y.shape}
    (site,), _ = find_sites(Model(ir.from_proto(proto), "m", ""), shapes)
    _, m, c, *kernel = site.shape
    if site.op == "ConvTranspose":
        expected = layer.feeds["x"].size * m * int(np.prod(kernel))
    elif site.op == "Conv":
        expected = y.size * c * int(np.prod(kernel))
    else:
        expected = y.size * c
    assert site.macs == expected


def test_recurrent_weights_tables_and_integers_are_listed_with_a_reason():
    found = model(
        [
            helper.make_node("Gather", ["table", "i"], ["e"], name="lookup"),
            helper.make_node("MatMul", ["x", "Q"], ["q"], name="integer"),
            helper.make_node("LSTM", ["s", "Wx", "Wh"], ["h"], name="lstm", hidden_size=8),
            helper.make_node("MatMul", ["x3", "batch"], ["b"], name="batched"),
        ],
        {
            "table": noise(100, 8),
            "Q": np.ones((32, 32), np.int8),
            "Wx": noise(1, 32, 8),
            "Wh": noise(1, 32, 8),
            "batch": noise(4, 32, 8),
        },
        FLOAT_IN
        | {
            "i": (TensorProto.INT64, [1]),
            "s": (TensorProto.FLOAT, [5, 1, 8]),
            "x3": (TensorProto.FLOAT, [4, 3, 32]),
        },
        ("e", "q", "h", "b"),
    )
    sites, skipped = find_sites(found)
    assert sites == []
    reasons = {s.name: s.reason for s in skipped}
    assert reasons["lookup"] == "table that is looked up, not multiplied"
    assert reasons["integer"] == "already quantised (int8)"
    assert reasons["lstm"] == "recurrent weight: its products are inside one operator"
    assert reasons["batched"] == "a batch of matrices: each multiplies another input"


def test_a_bias_is_no_weight():
    layer = product("gemm", m=300, n=8, gemm={})
    sites, skipped = find_sites(Model(ir.from_proto(layer.model), "m", ""))
    assert len(sites) == 1
    assert skipped == []


def test_sites_that_share_a_weight_name_each_other():
    found = model(
        [
            helper.make_node("MatMul", ["x", "W"], ["h"], name="one"),
            helper.make_node("MatMul", ["h", "W"], ["y"], name="two"),
        ],
        {"W": noise(32, 32)},
        FLOAT_IN,
    )
    sites, _ = find_sites(found)
    assert {s.name: s.shares for s in sites} == {"one": ("two",), "two": ("one",)}


def test_weights_in_branches_and_captured_from_outside_are_found():
    body = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["x", weight], [f"{name}.y"], name=f"{name}.product")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(noise(32, 16), "inner")] if weight == "inner" else [],
        )
        for name, weight in (("then", "inner"), ("else", "outer"))
    }
    found = model(
        [
            helper.make_node(
                "If",
                ["c"],
                ["y"],
                name="if",
                then_branch=body["then"],
                else_branch=body["else"],
            )
        ],
        {"outer": noise(32, 16)},
        FLOAT_IN | {"c": (TensorProto.BOOL, [])},
    )
    sites, _ = find_sites(found)
    assert {(s.name, s.weight_name) for s in sites} == {
        ("then.product", "inner"),
        ("else.product", "outer"),
    }


def test_half_precision_weights_are_read_as_float32():
    layer = convolution("c", m=4, c=2, kernel=(3, 3))
    proto = layer.model
    proto.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(noise(4, 2, 3, 3, dtype=np.float16), "W")
    )
    (site,), _ = find_sites(Model(ir.from_proto(proto), "m", ""))
    assert site.dtype == ir.DataType.FLOAT16
    assert site.W().dtype == np.float32


def test_pp_ocr_keeps_its_weights_in_constant_nodes_and_all_are_found(tmp_path):
    found = normalise(ingest(wheel_model("pp-ocr-rec"), workdir=tmp_path), PIPELINE)
    sites, _ = find_sites(found)
    # counted in the file: 2.69 M parameters, of which 0.02 M biases and scales
    assert len(sites) == 47
    assert 2.6e6 < sum(s.weights for s in sites) < 2.7e6
