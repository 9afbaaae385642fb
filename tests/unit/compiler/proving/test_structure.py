"""What a compiled model must keep and be: each broken promise is named, a sound one is not."""

import onnx
import pytest
from onnx import TensorProto, helper

from models import wheel_model
from nncc.compiler.proving.prove import structural_checks
from small_models import residual_net


@pytest.fixture
def reference(tmp_path):
    path = residual_net(tmp_path / "reference.onnx")
    model = onnx.load(path)
    helper.set_model_props(model, {"character": "abc", "author": "someone"})
    onnx.save(model, path)
    return path


def problems(reference, change, tmp_path, max_opset=13, max_ir=7, **options):
    """The problems of the reference after `change`."""
    model = onnx.load(reference)
    change(model)
    path = tmp_path / "compiled.onnx"
    onnx.save(model, path)
    return structural_checks(reference, path, max_opset, max_ir, **options)


def shape_of(value):
    return value.type.tensor_type.shape


def test_an_unchanged_model_is_sound(reference):
    assert structural_checks(reference, reference, 13, 7) == []


@pytest.mark.parametrize("name", ["pp-ocr-cls", "mtcnn-onet"])
def test_a_published_model_against_itself_has_at_most_unnamed_nodes(name):
    path = wheel_model(name)

    found = structural_checks(path, path, 99, 99)

    assert [text for text in found if "nodes" not in text] == []


def rename_input(model):
    model.graph.input[0].name = "image"
    model.graph.node[0].input[0] = "image"


def swap_outputs(model):
    model.graph.output.insert(0, helper.make_tensor_value_info("flat:0", 1, ["N", None]))


def change_type(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def fix_batch(model):
    shape_of(model.graph.input[0]).dim[0].dim_value = 1


def rename_axis(model):
    shape_of(model.graph.output[0]).dim[0].dim_param = "batch"


def widen(model):
    shape_of(model.graph.output[0]).dim[1].dim_value = 11


def drop_shape(model):
    model.graph.output[0].type.tensor_type.ClearField("shape")


def drop_metadata(model):
    del model.metadata_props[0]


def change_metadata(model):
    model.metadata_props[0].value = "xyz"


def new_domain(model):
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def add_function(model):
    body = [helper.make_node("Neg", ["a"], ["b"], name="inner")]
    opsets = [helper.make_opsetid("", 13)]
    model.functions.append(helper.make_function("local", "Hidden", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))


def same_name(model):
    model.graph.node[1].name = model.graph.node[0].name


def no_name(model):
    model.graph.node[0].name = ""


def break_graph(model):
    model.graph.node[3].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rename_input, "inputs are ['image'], they were ['x']"),
        (swap_outputs, "outputs are ['flat:0', 'y'], they were ['y']"),
        (change_type, "input 'x' is double, it was float"),
        (fix_batch, "input 'x' has shape [1, 3, 32, 32], it was [N, 3, 32, 32]"),
        (rename_axis, "output 'y' has shape [batch, 10], it was [N, 10]"),
        (widen, "output 'y' has shape [N, 11], it was [N, 10]"),
        (drop_shape, "output 'y' has shape unknown, it was [N, 10]"),
        (drop_metadata, "metadata 'character' is lost"),
        (change_metadata, "metadata 'character' has changed"),
        (new_domain, "operator domain 'com.example' is new"),
        (add_function, "local functions are left: Hidden"),
        (same_name, "2 nodes are named 'stem'"),
        (no_name, "1 nodes have no name"),
        (break_graph, "onnx.checker: "),
    ],
)
def test_each_broken_promise_is_named(reference, tmp_path, change, says):
    found = problems(reference, change, tmp_path)

    assert any(text.startswith(says) for text in found), found
    assert all("\n" not in text for text in found)


@pytest.mark.parametrize("change", [widen, rename_axis])
def test_a_repaired_output_may_have_another_shape(reference, tmp_path, change):
    assert problems(reference, change, tmp_path, repaired=["y"]) == []


def test_a_model_beyond_the_target_is_named(reference):
    assert structural_checks(reference, reference, 12, 6) == [
        "opset 13 is above the target's 12",
        "IR version 7 is above the target's 6",
    ]


def test_a_fault_of_the_original_is_not_ours(reference, tmp_path):
    broken = onnx.load(reference)
    break_graph(broken)
    path = tmp_path / "broken.onnx"
    onnx.save(broken, path)

    assert structural_checks(path, path, 13, 7) == []


def test_initialisers_listed_as_inputs_are_no_inputs(reference, tmp_path):
    model = onnx.load(reference)
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    old = tmp_path / "old.onnx"
    onnx.save(model, old)

    assert structural_checks(old, reference, 13, 7) == []


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("gone.bin", "external data 'gone.bin' is missing"),
        (
            "../reference.bin",
            "external data '../reference.bin' lies outside the model's folder",
        ),
    ],
)
def test_external_data_must_lie_inside_the_folder(reference, tmp_path, location, says):
    (tmp_path / "reference.bin").write_bytes(bytes(1 << 20))
    folder = tmp_path / "compiled"
    folder.mkdir()
    model = onnx.load(reference)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(model.SerializeToString())

    assert says in structural_checks(reference, folder / "m.onnx", 13, 7)
