"""Normalising is proven, and undone where the proof fails."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from hostile import relu
from models import wheel_model
from nncc.compiler.proving import verify
from nncc.compiler.proving.verify import difference, verified_normalise
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.samples.inputs import synthetic_inputs
from nncc.device_profiles.errors import ModelError
from nncc.passes.normalise import PIPELINE
from nncc.runtime.session import open_session, run

FEED = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


def test_both_files_are_in_the_work_folder_and_agree(tmp_path: Path) -> None:
    model = ingest(wheel_model("pp-ocr-cls"), shapes=["x:1x3x48x192"], workdir=tmp_path)
    feeds = synthetic_inputs(model, 2, seed=0)
    done, warnings = verified_normalise(model, tmp_path, feeds)
    assert warnings == []
    counts = Counter(node.op_type for node in done.graph_model.graph)
    assert counts["BatchNormalization"] == 0
    outputs = [
        run(open_session(tmp_path / name), feeds[0])
        for name in ("original.onnx", "normalised.onnx")
    ]
    assert difference(*outputs) == ""


class Breaks:
    """A pass that changes what the model computes."""

    name = "Break"

    def __call__(self, model: ir.Model) -> bool:
        W = model.graph.initializers["W"]
        assert W.const_value is not None
        W.const_value = ir.Tensor(W.const_value.numpy() + 1)
        return True


class Corrupts:
    """A pass that leaves a graph no runtime takes."""

    name = "Corrupt"

    def __call__(self, model: ir.Model) -> bool:
        model.graph[0].op_type = "NoSuchOperator"
        return True


class Raises:
    """A pass with a bug."""

    name = "Raise"

    def __call__(self, model: ir.Model) -> bool:
        raise KeyError(len(model.graph))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Breaks(), "output 'y' differs by 1"),
        (Corrupts(), "NoSuchOperator"),
        (Raises(), "KeyError"),
    ],
)
def test_pass_that_breaks_the_model_is_left_out_with_a_warning(
    bad: Breaks | Corrupts | Raises,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proto = relu()
    proto.graph.node[1].input[0] = "d"
    proto.graph.node.insert(1, h.make_node("Identity", ["s"], ["d"]))
    model = ingest(proto, workdir=tmp_path)
    monkeypatch.setattr(verify, "PIPELINE", (*PIPELINE[:2], bad, *PIPELINE[2:]))
    done, warnings = verified_normalise(model, tmp_path, [FEED])
    assert len(warnings) == 1
    assert warnings[0].startswith(f"pass {bad.name} is left out: ")
    assert said in warnings[0]
    assert [n.op_type for n in done.graph_model.graph] == ["Add", "Relu"]
    want = np.maximum(FEED["x"] + [1, 2, 3, 4], 0)
    np.testing.assert_array_equal(
        run(open_session(tmp_path / "normalised.onnx"), FEED)["y"], want
    )


def test_false_axis_name_of_an_output_is_dropped_with_a_warning(tmp_path: Path) -> None:
    graph = h.make_graph(
        [h.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        "g",
        [h.make_tensor_value_info("x", T.FLOAT, ["N", 4])],
        [h.make_tensor_value_info("y", T.FLOAT, ["N", 4])],
    )
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8)
    done, warnings = verified_normalise(ingest(proto, workdir=tmp_path), tmp_path, [FEED])
    assert warnings == ["output 'y' is declared as [N, 4] but is [4, 4]; repaired"]
    shape = done.graph_model.graph.outputs[0].shape
    assert shape is not None and not isinstance(shape[0], int) and shape[1] == 4
    assert str(shape) == "[None,4]"


def test_true_axis_names_of_outputs_stay(tmp_path: Path) -> None:
    model = ingest(relu(), workdir=tmp_path)
    done, warnings = verified_normalise(model, tmp_path, [FEED])
    assert warnings == []
    assert str(done.graph_model.graph.outputs[0].shape) == "[N,4]"


def test_model_that_draws_random_numbers_is_taken_as_it_is(tmp_path: Path) -> None:
    proto = relu()
    proto.graph.node[1].input[0] = "r"
    proto.graph.node.insert(1, h.make_node("RandomNormalLike", ["s"], ["r"]))
    model = ingest(proto, workdir=tmp_path)
    done, warnings = verified_normalise(model, tmp_path, [FEED])
    assert warnings == ["the model gives another result each run: it is taken as it is"]
    assert [n.op_type for n in done.graph_model.graph] == ["Add", "RandomNormalLike", "Relu"]
    assert all(n.name for n in done.graph_model.graph)


def test_model_that_does_not_run_is_named_with_the_runtimes_reason(tmp_path: Path) -> None:
    proto = relu()
    proto.graph.node[1].op_type = "NoSuchOp"
    proto.graph.node[1].domain = "com.microsoft"
    proto.opset_import.append(h.make_opsetid("com.microsoft", 1))
    model = replace(ingest(proto, workdir=tmp_path), name="mine")
    with pytest.raises(ModelError, match=r"^mine.*NoSuchOp"):
        verified_normalise(model, tmp_path, [FEED])


def test_differences_are_told_apart_from_rounding() -> None:
    y = np.linspace(-3, 3, 100, dtype=np.float32)
    assert difference({"y": y}, {"y": y * np.float32(1 + 1e-6)}) == ""
    assert "differs by" in difference({"y": y}, {"y": y * np.float32(1.01)})
    assert "shape or type" in difference({"y": y}, {"y": y.astype(np.float64)})
    assert "not finite" in difference({"y": y}, {"y": np.where(y > 2.9, np.nan, y)})
    assert "differs in" in difference({"k": np.arange(9)}, {"k": np.arange(9)[::-1]})
    assert difference({"s": [y, y]}, {"s": [y, y]}) == ""
    assert "items" in difference({"s": [y]}, {"s": [y, y]})
