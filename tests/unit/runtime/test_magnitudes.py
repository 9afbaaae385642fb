"""The largest number of every value inside a model, found by running it."""

import numpy as np
import onnx
import pytest

from nncc.device_profiles.errors import ModelError
from nncc.runtime.magnitudes import magnitudes
from small_models import image, residual_net, write

TEXT = "g (float[N,2] x) => (float[N,2] y) { h = Mul(x, w) y = Relu(h) }"


def test_the_largest_magnitude_over_all_samples_is_found(tmp_path):
    path = write(tmp_path / "m.onnx", TEXT, w=np.array([2, -3], np.float32))
    feeds = [{"x": np.array([[1, 10]], np.float32)}, {"x": np.array([[-20, 1]], np.float32)}]
    assert magnitudes(path, feeds, ["x", "h", "y"]) == {"x": 20.0, "h": 40.0, "y": 2.0}


@pytest.mark.parametrize("opset", [11, 13, 18, 20])
def test_every_opset_has_what_it_takes(tmp_path, opset):
    path = write(tmp_path / "m.onnx", TEXT, opset=opset, w=np.ones(2, np.float32))
    feeds = [{"x": np.full((1, 2), 7, np.float32)}]
    assert magnitudes(path, feeds, ["y"]) == {"y": 7.0}


def test_infinity_is_the_largest_number(tmp_path):
    path = write(tmp_path / "m.onnx", TEXT, w=np.array([1, 1], np.float32))
    feeds = [{"x": np.array([[1, -np.inf]], np.float32)}, {"x": np.ones((1, 2), np.float32)}]
    assert magnitudes(path, feeds, ["h"])["h"] == np.inf


def test_unknown_names_are_left_out_and_the_file_stays(tmp_path):
    path = write(tmp_path / "m.onnx", TEXT, w=np.ones(2, np.float32))
    before = path.read_bytes()
    assert magnitudes(path, [{"x": np.ones((1, 2), np.float32)}], ["nowhere"]) == {}
    assert path.read_bytes() == before


def test_a_residual_net_agrees_with_its_own_outputs(tmp_path):
    path = residual_net(tmp_path / "m.onnx")
    names = [v for node in onnx.load(path).graph.node for v in node.output]
    found = magnitudes(path, [image()], names)
    assert list(found) == names
    from nncc.runtime.session import open_session, run

    want = run(open_session(path, optimise=False), image())["y"]
    np.testing.assert_allclose(found["y"], np.abs(want).max(), rtol=1e-5)


def test_weights_outside_the_file_are_read_where_they_lie(tmp_path):
    inside = residual_net(tmp_path / "inside.onnx")
    (tmp_path / "out").mkdir()
    outside = tmp_path / "out" / "m.onnx"
    onnx.save(onnx.load(inside), outside, save_as_external_data=True, size_threshold=0)
    assert magnitudes(outside, [image()], ["y"]) == magnitudes(inside, [image()], ["y"])


def test_a_sample_that_does_not_fit_is_refused(tmp_path):
    path = write(tmp_path / "m.onnx", TEXT, w=np.ones(2, np.float32))
    with pytest.raises(ModelError):
        magnitudes(path, [{"x": np.ones((1, 3), np.float32)}], ["y"])
