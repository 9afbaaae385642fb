"""The real parser of TensorRT-RTX, in a process of its own."""

import onnx
import pytest
from onnx import helper

import rtx
from nets import build
from nncc.device_profiles.errors import EngineBuildFailed
from nncc.runtime.tensorrt import Library, parse
from nncc.runtime.tensorrt.parsing import findings, reason
from small_models import write


def test_a_net_is_accepted(tmp_path):
    library = rtx.library()
    onnx.save(build("resnet20", "noise"), tmp_path / "m.onnx")
    report = parse(tmp_path / "m.onnx")
    assert report.accepted
    assert report.library == library.title


def test_every_refused_node_is_named_with_its_operator_and_a_reason(tmp_path):
    rtx.library()
    path = tmp_path / "m.onnx"
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4])
    nodes = [
        helper.make_node("Foo", ["x"], ["h"], name="one"),
        helper.make_node("BitShift", ["h", "h"], ["y"], name="two", direction="LEFT"),
        helper.make_node("Bar", ["y"], ["z"], name="three"),
    ]
    out = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [value], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    told = [(f.node, f.op, f.reason) for f in parse(path).findings]
    assert told == [
        ("one", "Foo", "is no operator that it knows"),
        ("two", "BitShift", "is not supported"),
        ("three", "Bar", "is no operator that it knows"),
    ]


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08\x07" * 1000])
def test_a_file_that_is_no_model_is_a_finding_and_no_crash(tmp_path, content):
    rtx.library()
    (tmp_path / "m.onnx").write_bytes(content)
    report = parse(tmp_path / "m.onnx")
    assert not report.accepted
    assert report.findings[0].op == "model"


def test_a_missing_file_is_a_finding(tmp_path):
    rtx.library()
    assert not parse(tmp_path / "none.onnx").accepted


def test_external_weights_are_read_from_the_models_folder(tmp_path):
    rtx.library()
    onnx.save(
        build("resnet20", "noise"),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.onnx.data",
        size_threshold=0,
    )
    assert parse(tmp_path / "m.onnx").accepted


def test_a_parser_that_takes_too_long_is_ended(tmp_path):
    rtx.library()
    path = write(tmp_path / "m.onnx", "g (float[4] x) => (float[4] y) { y = Relu(x) }")
    with pytest.raises(EngineBuildFailed, match=r"took over 0\.01 s"):
        parse(path, timeout_seconds=0.01)


def test_a_library_that_cannot_be_loaded_says_so(tmp_path):
    """As where only part of TensorRT is installed."""
    rtx.library()
    path = write(tmp_path / "m.onnx", "g (float[4] x) => (float[4] y) { y = Relu(x) }")
    broken = Library("tensorrt", "no_such_tensorrt", "1.0")
    with pytest.raises(EngineBuildFailed, match="cannot be loaded"):
        parse(path, library=broken)


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (
            'creator && "Plugin not found, are the plugin name right?"',
            "INVALID_NODE",
            "is no operator that it knows",
        ),
        ("false", "UNSUPPORTED_NODE", "is not supported"),
        ('(rank == 4) && "Only 2-D is supported."', "", "Only 2-D is supported"),
        ("inputs.at(1).is_weights()", "", "breaks its rule inputs.at(1).is_weights()"),
        ("Assertion failed: a->B(&c): Failed to parse.", "", "Failed to parse"),
        ("", "", "is refused without a reason"),
    ],
)
def test_assertions_of_the_parser_are_put_in_words(said, code, words):
    assert reason(said, code) == words


def test_equal_errors_are_told_once():
    error = {"node": "n\x1b[2J", "op": "Op", "desc": "false", "code": "UNSUPPORTED_NODE"}
    (finding,) = findings([error, error])
    assert finding.node == "n [2J"
