"""Shapes found by running, and the weights that are left where they are."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from models import wheel_model
from nncc.device_profiles.errors import ModelError
from nncc.runtime.probe import probe
from nncc.runtime.session import open_session, run
from small_models import image, residual_net, write


def value_names(path):
    graph = onnx.load(path, load_external_data=False).graph
    return [name for node in graph.node for name in node.output if name]


def test_shapes_are_those_of_convolution_arithmetic(tmp_path):
    path = residual_net(tmp_path / "m.onnx", channels=16, side=20)
    x = np.zeros((2, 3, 20, 20), np.float32)

    found = probe(path, {"x": x}, ["stem:0", "block/conv1/v:0", "pool:0", "y"])

    assert found == {
        "stem:0": (2, 16, 20 - 7 + 1 + 6, 20),
        "block/conv1/v:0": (2, 8, 20 + 2 * 0 - 1 + 1, 20),
        "pool:0": (2, 16, 1, 1),
        "y": (2, 10),
    }


def test_every_value_of_a_published_model_has_the_shape_the_runtime_gives_it(tmp_path):
    path = wheel_model("pp-ocr-rec")
    names = value_names(path)
    x = np.zeros((1, 3, 48, 96), np.float32)

    found = probe(path, {"x": x}, names)

    assert list(found) == names
    # The same values made outputs by the onnx package, all at once.
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    onnx.save(model, tmp_path / "all.onnx")
    expected = run(open_session(tmp_path / "all.onnx", optimise=False), {"x": x})
    assert found == {name: array.shape for name, array in expected.items()}


def test_external_weights_are_left_outside_and_give_the_same_shapes(tmp_path):
    inside = residual_net(tmp_path / "inside.onnx")
    names = value_names(inside)
    folder = tmp_path / "outside"
    folder.mkdir()
    onnx.save(
        onnx.load(inside),
        folder / "m.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    found = probe(folder / "m.onnx", image(), names)

    assert found == probe(inside, image(), names)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_what_cannot_be_probed_is_absent(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        """g (float[N] x, bool c) => (float[N] y, float[N] z) {
            parts = SequenceConstruct(x, x)
            z = ConcatFromSequence<axis = 0>(parts)
            y = If (c) <
                then_branch = a () => (float[N] t) { hidden = Neg(x) t = Abs(hidden) },
                else_branch = b () => (float[N] e) { e = Neg(x) }
            >
        }""",
    )
    feeds = {"x": np.ones(4, np.float32), "c": np.array(True)}

    found = probe(path, feeds, ["x", "parts", "z", "hidden", "y", "unknown", "y"])

    assert found == {"x": (4,), "z": (8,), "y": (4,)}


def test_nothing_asked_is_nothing_found(tmp_path):
    assert probe(residual_net(tmp_path / "m.onnx"), image(), []) == {}


def test_names_that_look_like_ours_do_not_collide(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        "g (float[N] x) => (float[N] y) { i = Identity(x) y = Neg(i) }",
    )
    model = onnx.load(path)
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "nncc.probe.0"
    onnx.save(model, path)

    found = probe(path, {"x": np.ones(3, np.float32)}, ["nncc.probe.0", "y"])

    assert found == {"nncc.probe.0": (3,), "y": (3,)}


def test_a_broken_model_is_refused_with_its_own_complaint(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        "g (float[N, 3] x) => (float[N, 3] y) { h = Neg(x) [fc] y = MatMul(h, w) }",
        w=np.ones((4, 3), np.float32),
    )

    with pytest.raises(ModelError, match=r"node 'fc' \(MatMul\)"):
        probe(path, {"x": np.ones((1, 3), np.float32)}, ["h", "y"])


def test_feeds_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ModelError, match="input 'x': no value was given"):
        probe(residual_net(tmp_path / "m.onnx"), {}, ["y"])


PEAK = """
import resource, sys
import numpy as np
from pathlib import Path
from nncc.runtime.probe import probe
path, count = Path(sys.argv[1]), int(sys.argv[2])
found = probe(path, {"x": np.zeros((1, 1 << 20), np.float32)}, [f"v{i}" for i in range(count)])
assert len(found) == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mib(path, count):
    command = [sys.executable, "-c", PEAK, str(path), str(count)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout) / 1024


def test_probing_everything_needs_no_more_memory_than_probing_one_value(tmp_path):
    chain = " ".join(f"v{i + 1} = Neg(v{i})" for i in range(100))
    path = write(
        tmp_path / "m.onnx",
        f"g (float[1, N] x) => (float[1, N] v100) {{ v0 = Neg(x) {chain} }}",
    )

    # 101 values of 4 MiB: 400 MiB if they were kept.
    assert peak_mib(path, 100) < peak_mib(path, 1) + 100
