"""Sample inputs: given ones are held against the model, made ones run on it."""

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from hostile import relu
from models import MODEL_NAMES, REF_DIGESTS, ref_model, wheel_model
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.samples.inputs import calibration_inputs, split, synthetic_inputs
from nncc.device_profiles.errors import ShapeUnknown, UsageError
from nncc.passes.model import Model


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return ingest(relu(), workdir=tmp_path)


def savez(folder: Path, **arrays: object) -> str:
    path = folder / "c.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def build(nodes: list[onnx.NodeProto], inputs: list, weights: list, folder: Path) -> Model:
    outputs = [h.make_tensor_value_info("y", T.FLOAT, None)]
    graph = h.make_graph(nodes, "g", inputs, outputs, weights)
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8)
    return ingest(proto, workdir=folder)


def test_npz_samples_become_batches_of_one(tmp_path: Path, model: Model) -> None:
    x = np.arange(20, dtype=np.float32).reshape(5, 4)
    feeds = calibration_inputs(savez(tmp_path, x=x), model)
    assert len(feeds) == 5
    np.testing.assert_array_equal(feeds[3]["x"], x[3:4])


def test_npz_samples_that_carry_their_batch_keep_it(tmp_path: Path, model: Model) -> None:
    feeds = calibration_inputs(savez(tmp_path, x=np.ones((5, 2, 4), np.float32)), model)
    assert feeds[0]["x"].shape == (2, 4)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": np.ones((5, 4), np.float32)}, "has the arrays z"),
        ({}, "has the arrays \\(none\\)"),
        ({"x": np.ones((5, 3), np.float32)}, "'x' has shape \\[1, 3\\]"),
        ({"x": np.ones((5, 4, 4, 4), np.float32)}, "'x' has shape"),
        ({"x": np.ones((5, 4))}, "'x' has type float64"),
        ({"x": np.float32(1)}, "number of samples"),
        ({"x": np.ones((0, 4), np.float32)}, "holds no sample"),
        ({"x": np.array([None, {}], dtype=object)}, "Python objects"),
    ],
)
def test_npz_that_does_not_fit_says_what_is_expected(
    tmp_path: Path, model: Model, arrays: dict, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        calibration_inputs(savez(tmp_path, **arrays), model)
    if "objects" not in said:
        assert "x [N,4] float" in str(caught.value)


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


@pytest.mark.parametrize(
    "member",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1048576)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4)}", bytes(64)),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\nsystem\n."),
        npy("__import__('os').system('true')"),
        npy("(" * 9000),
        b"no array",
        b"",
    ],
)
def test_hostile_npz_is_refused_before_anything_is_read(
    tmp_path: Path, model: Model, member: bytes
) -> None:
    path = tmp_path / "c.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(UsageError):
        calibration_inputs(str(path), model)


def test_broken_archives_and_other_files_are_refused(tmp_path: Path, model: Model) -> None:
    good = io.BytesIO()
    np.savez(good, x=np.ones((5, 4), np.float32))
    for data in (good.getvalue()[:60], b"hello", b""):
        path = tmp_path / "c.npz"
        path.write_bytes(data)
        with pytest.raises(UsageError, match="npz archive"):
            calibration_inputs(str(path), model)
    with pytest.raises(UsageError, match="check the path"):
        calibration_inputs(str(tmp_path / "none.npz"), model)


def test_function_gives_feeds(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_calib.py").write_text(
        "import numpy as np\n"
        "def feeds():\n"
        "    for i in range(3):\n"
        "        yield {'x': np.full((2, 4), i, np.float32)}\n"
        "def wrong():\n    return [{'z': 1}]\n"
        "def fails():\n    raise OSError('no disk')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [f["x"][0, 0] for f in calibration_inputs("mine_calib:feeds", model)] == [0, 1, 2]
    with pytest.raises(UsageError, match="feeds z; expected: x"):
        calibration_inputs("mine_calib:wrong", model)
    with pytest.raises(UsageError, match="OSError: no disk"):
        calibration_inputs("mine_calib:fails", model)
    with pytest.raises(UsageError, match="cannot be imported"):
        calibration_inputs("mine_calib:nothing", model)
    with pytest.raises(UsageError, match=r"neither FILE\.npz nor"):
        calibration_inputs("mine calib", model)


def test_split_is_the_same_for_a_seed_and_loses_nothing() -> None:
    feeds = [{"x": np.full(1, i)} for i in range(10)]
    fit, held = split(feeds, 3)
    assert (len(fit), len(held)) == (8, 2)
    assert sorted(int(f["x"][0]) for f in (*fit, *held)) == list(range(10))
    assert [f["x"][0] for f in split(feeds, 3)[1]] == [f["x"][0] for f in held]
    assert split(feeds[:1], 0) == (feeds[:1], feeds[:1])


@pytest.mark.parametrize("name", [*MODEL_NAMES, *REF_DIGESTS])
def test_real_models_run_on_synthetic_inputs_without_being_told_sizes(
    name: str, tmp_path: Path
) -> None:
    path = ref_model(name) if name in REF_DIGESTS else wheel_model(name)
    model = ingest(path, workdir=tmp_path)
    feeds = synthetic_inputs(model, 2, seed=0)
    assert len(feeds) == 2
    again = synthetic_inputs(model, 2, seed=0)
    for key, array in feeds[1].items():
        np.testing.assert_array_equal(array, again[1][key])


def test_asked_sizes_are_used(tmp_path: Path) -> None:
    model = ingest(
        wheel_model("pp-ocr-rec"),
        shapes=["x:1x3x48x64:2x3x48x80:4x3x48x640"],
        workdir=tmp_path,
    )
    (feed,) = synthetic_inputs(model, 1, seed=0)
    assert feed["x"].shape == (2, 3, 48, 80)


def test_asked_size_of_a_named_axis_holds_for_every_input(tmp_path: Path) -> None:
    model = ingest(wheel_model("silero-vad"), shapes=["state:2x3x128"], workdir=tmp_path)
    (feed,) = synthetic_inputs(model, 1, seed=0)
    assert feed["input"].shape[0] == 3


def test_integers_stay_within_the_table_they_index(tmp_path: Path) -> None:
    table = numpy_helper.from_array(np.ones((5, 3), np.float32), "table")
    nodes = [
        h.make_node("Cast", ["x"], ["i"], to=T.INT64),
        h.make_node("Gather", ["table", "i"], ["y"]),
    ]
    inputs = [h.make_tensor_value_info("x", T.INT32, ["N", 200])]
    (feed,) = synthetic_inputs(build(nodes, inputs, [table], tmp_path), 1, seed=0)
    assert feed["x"].max() == 4
    assert feed["x"].min() == 0


def test_bytes_are_drawn_as_pixels(tmp_path: Path) -> None:
    nodes = [h.make_node("Cast", ["x"], ["y"], to=T.FLOAT)]
    inputs = [h.make_tensor_value_info("x", T.UINT8, ["N", 8, 8, 3])]
    (feed,) = synthetic_inputs(build(nodes, inputs, [], tmp_path), 1, seed=0)
    assert feed["x"].shape == (1, 8, 8, 3)
    assert feed["x"].max() > 200


def test_text_inputs_get_text(tmp_path: Path) -> None:
    nodes = [
        h.make_node("StringNormalizer", ["x"], ["s"]),
        h.make_node("Shape", ["s"], ["n"]),
        h.make_node("Cast", ["n"], ["y"], to=T.FLOAT),
    ]
    inputs = [h.make_tensor_value_info("x", T.STRING, ["N"])]
    (feed,) = synthetic_inputs(build(nodes, inputs, [], tmp_path), 1, seed=0)
    assert feed["x"].tolist() == ["a"]


def test_sizes_that_cannot_be_guessed_are_asked_for(tmp_path: Path) -> None:
    W = numpy_helper.from_array(np.ones((777, 3), np.float32), "W")
    nodes = [h.make_node("MatMul", ["x", "W"], ["y"])]
    inputs = [h.make_tensor_value_info("x", T.FLOAT, ["N", "K"])]
    with pytest.raises(ShapeUnknown, match="--shape x:") as caught:
        synthetic_inputs(build(nodes, inputs, [W], tmp_path), 1, seed=0)
    assert caught.value.exit_code == 3


def test_absurd_declared_size_is_not_allocated(tmp_path: Path) -> None:
    nodes = [h.make_node("Relu", ["x"], ["y"])]
    inputs = [h.make_tensor_value_info("x", T.FLOAT, [1 << 20, 1 << 20])]
    with pytest.raises(ShapeUnknown, match="over 1 GiB"):
        synthetic_inputs(build(nodes, inputs, [], tmp_path), 1, seed=0)
