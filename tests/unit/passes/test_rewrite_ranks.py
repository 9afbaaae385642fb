"""Rewriting where the graph does not say how many axes a product reads."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import nncc


def squeezed(path: Path) -> Path:
    """x (a, b, 32), axes of one dropped, times a matrix: 2 axes or 3, as the sizes say."""
    rng = np.random.default_rng(0)
    W = (rng.standard_normal((32, 4)) @ rng.standard_normal((4, 48))).astype(np.float32)
    nodes = [
        helper.make_node("Squeeze", ["x"], ["s"], name="squeeze"),
        helper.make_node("MatMul", ["s", "W"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "squeezed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(W, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, path)
    return path


def test_blocks_of_a_product_are_written_for_the_rank_that_a_sample_shows(tmp_path: Path):
    path = squeezed(tmp_path / "net.onnx")

    made = nncc.compile(
        path,
        "x86-cpu",
        form=("product=blocks(k=2, lowrank(j=4))",),
        shape=("x:1x6x32",),
        output=tmp_path / "build",
    )

    x = np.random.default_rng(1).standard_normal((1, 6, 32)).astype(np.float32)
    before, after = (
        ort.InferenceSession(str(p)).run(None, {"x": x})[0] for p in (path, made.model)
    )
    assert made.outcome.changed == 1
    np.testing.assert_allclose(after, before, atol=2e-2 * np.abs(before).max())
