"""Sessions: outputs by name, and every failure as one line that names what to do."""

import numpy as np
import pytest

from nncc.device_profiles.errors import ModelError
from nncc.runtime.session import open_session, run
from small_models import image, residual_net, write

RELU = "g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert "onnxruntime_src" not in text
    assert caught.value.exit_code == 3
    return text


def test_outputs_come_back_by_name(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        "g (float[N] x) => (float[N] a, float[N] b) {a = Neg(x) b = Abs(x)}",
    )
    x = np.array([-1, 2], np.float32)

    found = run(open_session(path), {"x": x})

    assert list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"], -x)
    np.testing.assert_array_equal(found["b"], abs(x))


def test_a_run_is_the_same_bytes_twice_and_in_a_second_session(tmp_path):
    path = residual_net(tmp_path / "m.onnx")
    session = open_session(path)
    first = run(session, image())["y"]

    assert run(session, image())["y"].tobytes() == first.tobytes()
    assert run(open_session(path), image())["y"].tobytes() == first.tobytes()


def test_without_optimisation_the_result_is_the_same_within_rounding(tmp_path):
    path = residual_net(tmp_path / "m.onnx")
    plain = run(open_session(path, optimise=False), image())["y"]

    fast = run(open_session(path), image())["y"]

    # Sums of up to 32 · 9 terms in another order, through six layers.
    np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-4 * np.abs(plain).max())


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"no model at all", "not an ONNX model, or it is truncated"), (None, "no such file")],
)
def test_a_file_that_is_no_model_is_refused_with_one_line(tmp_path, content, says):
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ModelError) as caught:
        open_session(path)

    assert "broken.onnx" in one_line(caught)
    assert says in one_line(caught)


def test_a_truncated_file_is_refused_with_one_line(tmp_path):
    path = residual_net(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ModelError) as caught:
        open_session(path)

    assert "truncated" in one_line(caught)


def test_an_unknown_operator_is_refused_by_the_name_of_its_node(tmp_path):
    path = write(
        tmp_path / "m.onnx", "g (float[N] x) => (float[N] y) { [odd_one] y = NoSuchOp(x) }"
    )

    with pytest.raises(ModelError, match=r"node 'odd_one' \(NoSuchOp\).*no such operator"):
        open_session(path)


def test_weights_that_do_not_fit_are_refused_by_the_name_of_the_node(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        "g (float[N, 3] x) => (float[N, 3] y) { [fc] y = MatMul(x, w) }",
        w=np.ones((4, 3), np.float32),
    )

    with pytest.raises(ModelError, match=r"node 'fc' \(MatMul\): .*Incompatible dimensions"):
        open_session(path)


def test_an_opset_of_the_future_says_which_is_the_newest(tmp_path):
    path = write(tmp_path / "m.onnx", RELU, opset=99)

    with pytest.raises(ModelError, match="re-export with a lower opset") as caught:
        open_session(path)

    assert "opset" in one_line(caught)


def test_an_operator_that_fails_at_run_time_is_named(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        "g (float[N, 3] x, int64[M] s) => (float y) { [view] y = Reshape(x, s) }",
    )
    feeds = {"x": np.ones((2, 3), np.float32), "s": np.array([7], np.int64)}

    with pytest.raises(ModelError, match=r"node 'view' \(Reshape\)") as caught:
        run(open_session(path), feeds)

    assert "requested shape:{7}" in one_line(caught)


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "input 'x': no value was given; the model's inputs are x"),
        ({"z": np.ones((1, 3), np.float32)}, "input 'x': no value was given"),
        (
            {"x": np.ones((1, 3), np.float32), "z": np.ones(1)},
            "input 'z': the model has no such input; the model's inputs are x",
        ),
        (
            {"x": np.ones((1, 3))},
            "input 'x': type float64 given, float32 expected; convert with .astype('float32')",
        ),
        ({"x": np.ones((1, 4), np.float32)}, "input 'x': shape [1, 4] given, [N, 3] expected"),
        ({"x": np.ones(3, np.float32)}, "input 'x': shape [3] given, [N, 3] expected"),
        ({"x": [[1.0, 2.0, 3.0]]}, "input 'x': type list given"),
    ],
)
def test_feeds_that_do_not_fit_are_refused_by_the_name_of_the_input(tmp_path, feeds, says):
    session = open_session(write(tmp_path / "m.onnx", RELU))

    with pytest.raises(ModelError) as caught:
        run(session, feeds)

    assert one_line(caught).startswith(says)


def test_scalars_and_inputs_of_unknown_rank_are_taken(tmp_path):
    scalar = write(tmp_path / "s.onnx", "g (float x) => (float y) { y = Neg(x) }")
    free = write(tmp_path / "f.onnx", "g (float[] x) => (float[] y) { y = Neg(x) }")

    assert run(open_session(scalar), {"x": np.array(2, np.float32)})["y"] == -2
    assert run(open_session(free), {"x": np.array(2, np.float32)})["y"] == -2


def test_an_initialiser_that_is_an_input_too_need_not_be_given(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        "g (float[N] x, float[1] w) => (float[N] y) { y = Mul(x, w) }",
        w=np.array([3], np.float32),
    )
    session, x = open_session(path), np.array([2], np.float32)

    assert run(session, {"x": x})["y"] == 6
    assert run(session, {"x": x, "w": np.array([5], np.float32)})["y"] == 10
