"""Where weights lie outside the model file, and the digest over all of them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nncc.device_profiles.errors import ModelError
from nncc.runtime.weight_files import (
    digest,
    external_locations,
    inside,
    read_structure,
    stored_bytes,
)
from small_models import residual_net, write


def outside(folder, source):
    """The model at `source` with its weights in `folder`/weights.bin."""
    folder.mkdir()
    path = folder / "m.onnx"
    onnx.save(
        onnx.load(source),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def test_the_structure_is_what_onnx_reads(tmp_path):
    path = residual_net(tmp_path / "m.onnx")

    assert read_structure(path) == onnx.load(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x3a\xff\xff\xff\xff\x7f"])
def test_a_file_that_is_no_model_is_refused_with_one_line(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=r"m\.onnx: not an ONNX model, or truncated; export"):
        read_structure(path)


def test_a_missing_file_is_refused_with_one_line(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.onnx: No such file or directory; check the"):
        read_structure(tmp_path / "gone.onnx")


def test_the_size_counts_external_files(tmp_path):
    path = outside(tmp_path / "outside", residual_net(tmp_path / "m.onnx"))
    files = [file.stat().st_size for file in path.parent.iterdir()]

    assert len(files) == 2
    assert stored_bytes(path) == sum(files)


def test_the_digest_changes_with_one_external_byte(tmp_path):
    path = outside(tmp_path / "outside", residual_net(tmp_path / "m.onnx"))
    before = digest(path)
    weights = path.parent / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)

    assert digest(path) != before


def test_the_digest_does_not_depend_on_the_folder(tmp_path):
    source = residual_net(tmp_path / "m.onnx")

    assert digest(outside(tmp_path / "a", source)) == digest(outside(tmp_path / "b", source))


def test_external_tensors_are_found_in_attributes_and_subgraphs(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        """g (float[N] x, bool c) => (float[N] y) {
            y = If (c) <
                then_branch = a () => (float[N] t) {
                    k = Constant<value_float = 1.0>() t = Mul(x, k)
                },
                else_branch = b () => (float[N] e) { e = Neg(x) }
            >
        }""",
    )
    model = onnx.load(path)
    constant = model.graph.node[0].attribute[0].g.node[0]
    tensor = TensorProto(name="k", data_type=TensorProto.FLOAT, data_location=1)
    tensor.external_data.add(key="location", value="deep.bin")
    del constant.attribute[:]
    constant.attribute.append(helper.make_attribute("value", tensor))

    assert external_locations(model) == ["deep.bin"]


@pytest.mark.parametrize(
    "location", ["../up.bin", "/etc/hostname", "a/../../up.bin", "nul\0byte", "link/up.bin"]
)
def test_a_location_that_leaves_the_folder_is_not_followed(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "up.bin").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path)

    assert inside(folder, location) is None


def test_a_location_below_the_folder_is_followed(tmp_path):
    assert inside(tmp_path, "sub/../weights.bin") == (tmp_path / "weights.bin").resolve()


def test_the_digest_does_not_open_files_outside_the_folder(tmp_path):
    folder = tmp_path / "model"
    path = outside(folder, residual_net(tmp_path / "m.onnx"))
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../secret.bin"
    path.write_bytes(model.SerializeToString())
    without = digest(path)
    (tmp_path / "secret.bin").write_bytes(np.zeros(100_000, np.uint8).tobytes())

    assert digest(path) == without
