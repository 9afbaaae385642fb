"""What nothing replaces is refused with a reason and a remedy, and left as it is."""

import numpy as np
import onnx
import pytest
from onnx import helper

from lowered import lowered, profile
from nncc.passes.legalise.lowering import Goal
from nncc.passes.legalise.refused import LOWERINGS

GRID = {
    "x": np.zeros((1, 2, 4, 4), np.float32),
    "grid": np.zeros((1, 3, 3, 2), np.float32),
}


def graph_of(op, opset, inputs, domain="", **attributes):
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in inputs.items()
    ]
    node = helper.make_node(op, list(inputs), ["y"], name="it", domain=domain, **attributes)
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", values, [output])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "domain", "told", "remedy"),
    [
        ("GridSample", 16, GRID, "", "reads single pixels", "Resize"),
        ("DFT", 17, {"x": np.zeros((1, 8, 1), np.float32)}, "", "Fourier", "convolution"),
        ("RandomNormalLike", 13, {"x": np.zeros(3, np.float32)}, "", "random", "as an input"),
        ("Det", 13, {"x": np.zeros((3, 3), np.float32)}, "", "nothing replaces", "outside"),
        ("SkipLayerNormalization", 17, {"x": np.zeros((1, 2, 3), np.float32)},
         "com.microsoft", "fusion of ONNX Runtime", "before ONNX Runtime"),
    ],
)  # fmt: skip
def test_an_operator_is_refused_with_reason_and_remedy(
    op, opset, inputs, domain, told, remedy
):
    done, made = lowered(graph_of(op, opset, inputs, domain), profile())
    (refusal,) = done.refused
    assert refusal.node == "it" and refusal.op.endswith(op)
    assert told in refusal.reason and remedy in refusal.remedy
    assert [node.op_type for node in made.graph.node] == [op]


def test_no_operator_that_an_old_device_lists_is_refused_for_being_unlisted():
    goal = Goal(13, profile())
    listed = [op for op in LOWERINGS if goal.takes(op)]
    assert listed  # they are for other devices: 7.1 has no If, say
    x = np.zeros((1, 1, 4, 4), np.float32)
    done, _ = lowered(graph_of("RandomUniformLike", 13, {"x": x}), profile())
    assert not done.refused
