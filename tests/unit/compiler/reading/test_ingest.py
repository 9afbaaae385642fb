"""Ingest keeps what a model is, and repairs what its file says wrongly."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from hostile import relu
from models import ref_model, wheel_model
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.writing.save import write
from nncc.device_profiles.errors import MissingExtra, ModelError, UnsupportedOp, UsageError
from nncc.runtime.session import open_session, run


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "given.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def one_node(
    node: onnx.NodeProto,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto],
    opset: int = 13,
    ir_version: int = 8,
) -> onnx.ModelProto:
    graph = h.make_graph([node], "g", inputs, outputs, weights)
    return h.make_model(
        graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir_version
    )


def x(*sizes: int | str, name: str = "x", kind: int = T.FLOAT) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, kind, sizes)


def shapes(values: list[ir.Value]) -> list[str]:
    return [f"{v.name}{v.shape}" for v in values]


def test_names_types_order_and_dynamic_axes_stay(tmp_path: Path) -> None:
    model = ingest(wheel_model("silero-vad"), workdir=tmp_path)
    graph = model.graph_model.graph
    assert shapes(list(graph.inputs)) == [
        "input[batch,sequence]",
        "sr[]",
        "state[2,batch,128]",
    ]
    assert shapes(list(graph.outputs)) == ["output[batch,1]", "stateN[2,batch,128]"]
    assert [v.dtype for v in graph.inputs] == [
        ir.DataType.FLOAT,
        ir.DataType.INT64,
        ir.DataType.FLOAT,
    ]


def test_metadata_of_model_and_nodes_survives(tmp_path: Path) -> None:
    given = relu(producer_name="me", producer_version="3", domain="d", doc_string="doc")
    given.ir_version = 10
    given.metadata_props.add(key="character", value="a\nb\n中")
    given.graph.node[0].metadata_props.add(key="layer", value="first")
    given.graph.doc_string = "graph doc"
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    write(model, tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx")
    assert (out.producer_name, out.producer_version, out.domain) == ("me", "3", "d")
    assert (out.doc_string, out.graph.doc_string) == ("doc", "graph doc")
    assert {p.key: p.value for p in out.metadata_props} == {"character": "a\nb\n中"}
    assert {p.key: p.value for p in out.graph.node[0].metadata_props} == {"layer": "first"}
    assert [(o.domain, o.version) for o in out.opset_import] == [("", 13)]


def test_alphabet_of_the_text_recogniser_survives(tmp_path: Path) -> None:
    path = wheel_model("pp-ocr-rec")
    model = ingest(path, workdir=tmp_path)
    (given,) = (p for p in onnx.load(path).metadata_props if p.key == "character")
    assert model.graph_model.metadata_props["character"] == given.value


def test_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = ref_model("lenet5")
    assert (
        ingest(path, workdir=tmp_path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    )


def test_digest_covers_external_data(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(ir.load(ref_model("lenet5")), path, external_above=0)
    before = ingest(path, workdir=tmp_path).sha256
    data = tmp_path / "m.onnx.data"
    changed = bytearray(data.read_bytes())
    changed[0] ^= 1
    data.write_bytes(bytes(changed))
    assert ingest(path, workdir=tmp_path).sha256 != before


def test_ir_3_weights_are_no_longer_inputs(tmp_path: Path) -> None:
    given = relu()
    given.ir_version = 3
    given.graph.input.append(x(4, name="W"))
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    assert [v.name for v in model.graph_model.graph.inputs] == ["x"]
    assert model.graph_model.ir_version == 4
    assert model.warnings == ()
    write(model, tmp_path / "out.onnx")
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)


def test_default_values_of_inputs_become_constants_with_a_warning(tmp_path: Path) -> None:
    given = relu()
    given.graph.input.append(x(4, name="W"))
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    assert [v.name for v in model.graph_model.graph.inputs] == ["x"]
    assert "'W' had a default value" in model.warnings[0]


@pytest.mark.parametrize("opset", [7, 9, 12, 17, 20, 23, 26, 27, 28])
def test_every_opset_runs_as_it_did(tmp_path: Path, opset: int) -> None:
    given = relu()
    given.opset_import[0].version = opset
    given.ir_version = 14 if opset > 26 else 8
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    write(model, tmp_path / "out.onnx")
    out = run(open_session(tmp_path / "out.onnx"), {"x": np.full((2, 4), -2, np.float32)})
    np.testing.assert_array_equal(out["y"], [[0, 0, 1, 2]] * 2)
    assert bool(model.warnings) == (opset > 26)
    assert model.opset == min(opset, 26)


def test_operator_newer_than_the_runtime_is_named(tmp_path: Path) -> None:
    node = h.make_node("Range", ["a", "b", "c"], ["y"], name="count")
    node.attribute.append(h.make_attribute("stash_type", 1))
    given = one_node(
        node,
        [x(name=n, kind=T.FLOAT16) for n in "abc"],
        [x("N", name="y", kind=T.FLOAT16)],
        [],
        opset=28,
        ir_version=14,
    )
    with pytest.raises(UnsupportedOp, match=r"'count': Range .*; ONNX Runtime takes opset"):
        ingest(saved(given, tmp_path), workdir=tmp_path)


def test_opset_6_is_raised_to_7_and_keeps_its_broadcasting(tmp_path: Path) -> None:
    """A slope per channel: opset 6 ran it along axis 1, opset 7 along the last axis."""
    slope = h.make_tensor("slope", T.FLOAT, [3], [1.0, 2.0, 3.0])
    given = one_node(
        h.make_node("PRelu", ["x", "slope"], ["y"]),
        [x(1, 3, 3), x(3, name="slope")],
        [x(1, 3, 3, name="y")],
        [slope],
        opset=6,
        ir_version=3,
    )
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    write(model, tmp_path / "out.onnx")
    out = run(open_session(tmp_path / "out.onnx"), {"x": -np.ones((1, 3, 3), np.float32)})
    np.testing.assert_array_equal(out["y"][0], -np.repeat([[1.0], [2], [3]], 3, axis=1))
    assert model.warnings == ("opset 6 written as 7: older ones do not run",)


def test_half_precision_model_stays_half(tmp_path: Path) -> None:
    W = numpy_helper.from_array(np.ones((2, 3), np.float16), "W")
    given = one_node(
        h.make_node("MatMul", ["x", "W"], ["y"]),
        [x("N", 2, kind=T.FLOAT16)],
        [x("N", 3, name="y", kind=T.FLOAT16)],
        [W],
    )
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    kept = model.graph_model.graph.initializers["W"].const_value
    assert kept is not None and kept.dtype == ir.DataType.FLOAT16
    assert model.graph_model.graph.outputs[0].dtype == ir.DataType.FLOAT16


def test_local_functions_are_inlined_at_every_call(tmp_path: Path) -> None:
    opset, own = h.make_opsetid("", 15), h.make_opsetid("own", 1)
    twice = h.make_function(
        "own", "Twice", ["a"], ["b"], [h.make_node("Add", ["a", "a"], ["b"])], [opset]
    )
    calls = [
        h.make_node("Twice", ["x"], ["t"], name="first", domain="own"),
        h.make_node("Twice", ["t"], ["y"], name="second", domain="own"),
    ]
    given = h.make_model(
        h.make_graph(calls, "g", [x("N")], [x("N", name="y")]),
        functions=[twice],
        opset_imports=[opset, own],
        ir_version=8,
    )
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    assert [n.op_type for n in model.graph_model.graph] == ["Add", "Add"]
    assert not model.graph_model.functions
    write(model, tmp_path / "out.onnx")
    out = run(open_session(tmp_path / "out.onnx"), {"x": np.ones(3, np.float32)})
    np.testing.assert_array_equal(out["y"], [4, 4, 4])


def test_false_output_shape_is_repaired_with_a_warning(tmp_path: Path) -> None:
    given = relu()
    given.graph.output[0].CopyFrom(x("N", 5, name="y"))
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    assert shapes(list(model.graph_model.graph.outputs)) == ["y[N,4]"]
    assert model.warnings == ("output 'y' is declared as [N, 5] but is [N, 4]; repaired",)


def test_false_shapes_between_nodes_are_forgotten(tmp_path: Path) -> None:
    given = relu()
    given.graph.value_info.append(x(7, 7, 7, name="s"))
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    assert model.graph_model.graph[0].outputs[0].shape is None
    assert model.warnings == ()


def test_negative_input_size_is_a_dynamic_axis(tmp_path: Path) -> None:
    given = relu()
    given.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    shape = model.graph_model.graph.inputs[0].shape
    assert shape is not None
    assert not isinstance(shape[0], int)
    assert shape[1] == 4


def test_quantised_nodes_pass_through_and_are_counted(tmp_path: Path) -> None:
    scale = h.make_tensor("scale", T.FLOAT, [], [0.5])
    W = h.make_tensor("W", T.INT8, [4], [1, 2, 3, 4])
    nodes = [
        h.make_node("DequantizeLinear", ["W", "scale"], ["w"]),
        h.make_node("Add", ["x", "w"], ["y"]),
    ]
    graph = h.make_graph(nodes, "g", [x("N", 4)], [x("N", 4, name="y")], [W, scale])
    given = h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8)
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    assert [n.op_type for n in model.graph_model.graph] == ["DequantizeLinear", "Add"]
    assert model.warnings == (
        "the model is already quantised in part: 1 node passes through untouched",
    )


def test_sparse_weight_is_written_dense(tmp_path: Path) -> None:
    given = relu()
    del given.graph.initializer[:]
    values = h.make_tensor("W", T.FLOAT, [2], [5.0, 6.0])
    where = h.make_tensor("i", T.INT64, [2], [1, 3])
    given.graph.sparse_initializer.append(h.make_sparse_tensor(values, where, [4]))
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    W = model.graph_model.graph.initializers["W"].const_value
    assert W is not None and W.numpy().tolist() == [0, 5, 0, 6]


def test_nodes_in_any_order_are_sorted(tmp_path: Path) -> None:
    given = relu()
    nodes = list(given.graph.node)
    del given.graph.node[:]
    given.graph.node.extend(reversed(nodes))
    model = ingest(saved(given, tmp_path), workdir=tmp_path)
    assert [n.op_type for n in model.graph_model.graph] == ["Add", "Relu"]


@pytest.mark.parametrize("kind", ["proto", "ir", "text", "path"])
def test_every_kind_of_source_gives_the_same_graph(tmp_path: Path, kind: str) -> None:
    path = ref_model("lenet300")
    source = {
        "proto": onnx.load(path),
        "ir": ir.load(path),
        "text": str(path),
        "path": path,
    }[kind]
    model = ingest(source, workdir=tmp_path)
    assert [n.op_type for n in model.graph_model.graph].count("Gemm") == 3
    assert len(model.sha256) == 64
    assert model.name


def test_external_weights_stay_on_disk_whatever_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(ir.load(ref_model("lenet300")), tmp_path / "m.onnx", external_above=0)
    monkeypatch.chdir(tmp_path)
    model = ingest("m.onnx", workdir=tmp_path)
    monkeypatch.chdir("/")
    held = [v.const_value for v in model.graph_model.graph.initializers.values()]
    large = [t for t in held if t is not None and t.nbytes > 4096]
    assert large and all(isinstance(t, ir.ExternalTensor) for t in large)
    again = ingest(ref_model("lenet300"), workdir=tmp_path).graph_model.graph.initializers
    for tensor in large:
        same = again[str(tensor.name)].const_value
        assert same is not None
        np.testing.assert_array_equal(tensor.numpy(), same.numpy())


def test_proto_with_external_data_but_no_folder_is_refused(tmp_path: Path) -> None:
    write(ir.load(ref_model("lenet300")), tmp_path / "m.onnx", external_above=0)
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(ModelError, match="missing"):
        ingest(proto, workdir=work)


@pytest.mark.parametrize(
    ("given", "name"), [("../../etc/x", "etc_x"), ("", "model"), ("net\x1b[31m", "net__31m")]
)
def test_name_of_a_graph_is_safe_for_files_and_terminals(
    given: str, name: str, tmp_path: Path
) -> None:
    proto = relu()
    proto.graph.name = given
    assert ingest(proto, workdir=tmp_path).name == name


def test_torch_module_without_torch_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    class Module:
        pass

    with pytest.raises(MissingExtra, match=r"pip install 'nncc\[train\]'"):
        ingest(Module(), workdir=tmp_path)  # type: ignore[arg-type]


def test_something_that_is_no_model_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        ingest(3, workdir=tmp_path)  # type: ignore[arg-type]


def test_asked_shapes_choose_sizes_and_leave_the_axes_dynamic(tmp_path: Path) -> None:
    model = ingest(wheel_model("pp-ocr-rec"), shapes=["x:1x3x48x320"], workdir=tmp_path)
    assert model.shapes["x"].optimum == (1, 3, 48, 320)
    shape = model.graph_model.graph.inputs[0].shape
    assert shape is not None
    assert [isinstance(size, int) for size in shape] == [False, True, False, False]
