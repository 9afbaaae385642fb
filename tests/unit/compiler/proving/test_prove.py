"""How close a compiled model is: numbers against numpy, failures that are never hidden."""

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models import ref_model
from nncc.compiler.proving import prove as prove_module
from nncc.compiler.proving.prove import prove
from nncc.device_profiles.errors import ModelError, Postcondition, UsageError
from nncc.runtime.session import open_session, run
from small_models import write


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    return [{"x": rng.random((1, 4), dtype=np.float32)} for _ in range(n)]


def affine(path, scale, shift=0.0, outputs="float[N, 4] y", body=""):
    """y = scale · x + shift, with more outputs where asked."""
    return write(
        path,
        f"g (float[N, 4] x) => ({outputs}) {{ s = Mul(x, scale) y = Add(s, shift) {body} }}",
        scale=np.float32(scale),
        shift=np.float32(shift),
    )


def test_a_model_against_itself_is_equal(tmp_path):
    path, told = affine(tmp_path / "m.onnx", 2), []

    found = prove(path, path, images(3), "synthetic", lambda *a: told.append(a))

    assert found.sqnr_db == math.inf
    assert found.max_abs_diff == 0
    assert found.top1_agreement == 1
    assert found.per_output == {"y": (math.inf, 0.0)}
    assert (found.inputs, found.n, found.warnings) == ("synthetic", 3, ())
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_numbers_of_a_trained_net_are_those_of_numpy(tmp_path):
    reference, compressed = ref_model("lenet5"), tmp_path / "coarse.onnx"
    model = onnx.load(reference)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            step = np.abs(array).max() / 7
            coarse = (np.round(array / step) * step).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(coarse, tensor.name))
    onnx.save(model, compressed)
    name = model.graph.input[0].name
    rng = np.random.default_rng(0)
    feeds = [{name: rng.random((2, 1, 28, 28), dtype=np.float32)} for _ in range(20)]

    found = prove(reference, compressed, feeds, "calibration")

    a, b = open_session(reference), open_session(compressed)
    y = np.concatenate([next(iter(run(a, f).values())) for f in feeds]).astype(np.float64)
    z = np.concatenate([next(iter(run(b, f).values())) for f in feeds]).astype(np.float64)
    assert found.sqnr_db == pytest.approx(
        10 * np.log10((y**2).sum() / ((y - z) ** 2).sum()), rel=1e-9
    )
    assert 3 < found.sqnr_db < 40  # four bits cost something, not everything
    assert found.max_abs_diff == np.abs(y - z).max()
    assert found.top1_agreement == (y.argmax(-1) == z.argmax(-1)).mean()
    assert found.n == 20


@pytest.mark.parametrize("gain_db", [20, 60])
def test_an_error_of_one_part_in_a_hundred_is_forty_decibel(tmp_path, gain_db):
    scale = 1 + 10 ** (-gain_db / 20)
    a, b = affine(tmp_path / "a.onnx", 1), affine(tmp_path / "b.onnx", scale)

    found = prove(a, b, images(5), "synthetic")

    # float32 holds 1.001 to 6e-8: 60 dB to 6e-5 of the error.
    assert found.sqnr_db == pytest.approx(gain_db, abs=1e-2)


def test_large_models_are_loaded_one_at_a_time_with_the_same_result(tmp_path, monkeypatch):
    a, b = affine(tmp_path / "a.onnx", 1), affine(tmp_path / "b.onnx", 1.01)
    together = prove(a, b, images(4), "synthetic")
    monkeypatch.setattr(prove_module, "ONE_AT_A_TIME", 0)

    assert prove(a, b, images(4), "synthetic") == together


def test_new_nan_is_a_failure_that_is_named(tmp_path):
    outputs = "float[N, 4] y, float[N, 4] z"
    a = affine(tmp_path / "a.onnx", 1, outputs=outputs, body="z = Abs(x)")
    b = affine(tmp_path / "b.onnx", math.nan, outputs=outputs, body="z = Abs(x)")

    found = prove(a, b, images(2), "synthetic")

    assert found.sqnr_db == -math.inf
    assert found.max_abs_diff == math.inf
    assert found.per_output == {"y": (-math.inf, math.inf), "z": (math.inf, 0.0)}
    assert found.warnings == ("output 'y' became NaN or infinite at 8 of 8 places",)


def test_places_where_the_original_is_infinite_say_nothing(tmp_path):
    body = "=> (float[N, 4] y) { "
    a = write(tmp_path / "a.onnx", f"g (float[N, 4] x) {body} y = Log(x) }}")
    b = write(tmp_path / "b.onnx", f"g (float[N, 4] x) {body} l = Log(x) y = Abs(l) }}")
    feeds = [{"x": np.array([[0, 1, 2, 3]], np.float32)}]

    same, other = prove(a, a, feeds, "synthetic"), prove(a, b, feeds, "synthetic")

    assert (same.sqnr_db, same.max_abs_diff, same.warnings) == (math.inf, 0, ())
    assert (other.sqnr_db, other.max_abs_diff) == (math.inf, 0)
    assert "differs at 1 places where the original is NaN or infinite" in other.warnings[0]


def test_integers_are_compared_exactly_and_do_not_blur_the_sqnr(tmp_path):
    outputs = "float[N, 4] y, int64[N, 1] label, bool[N, 4] mask"
    body = "label = ArgMax<axis = -1>(y) half = Constant<value_float = 0.5>() "
    body += "mask = Less(y, half)"
    a = affine(tmp_path / "a.onnx", 1, outputs=outputs, body=body)
    b = affine(tmp_path / "b.onnx", -1, outputs=outputs, body=body)
    feeds = [{"x": np.array([[0.1, 0.2, 0.3, 0.9]], np.float32)}]

    found = prove(a, b, feeds, "synthetic")

    assert found.sqnr_db == pytest.approx(-20 * math.log10(2))  # the error is twice the signal
    assert found.top1_agreement == 0
    assert found.max_abs_diff == 3  # argmax 0 for 3
    assert found.warnings == (
        "output 'label': 1 of 1 exact values differ",
        "output 'mask': 1 of 4 exact values differ",
    )


def test_without_classes_there_is_no_top1(tmp_path):
    text = "g (float[N] x) => (float[N] y) { y = Neg(x) }"
    path = write(tmp_path / "m.onnx", text)

    found = prove(path, path, [{"x": np.ones(3, np.float32)}], "synthetic")

    assert found.top1_agreement is None


def test_sequences_and_strings_are_compared_part_by_part(tmp_path):
    text = """g (float[N, 4] x, string[M] s) => (seq(float[N, 4]) y, string[M] t) {{
        n = {op}(x) y = SequenceConstruct(x, n) t = Identity(s) }}"""
    a = write(tmp_path / "a.onnx", text.format(op="Neg"))
    b = write(tmp_path / "b.onnx", text.format(op="Abs"))
    feeds = [{"x": np.ones((1, 4), np.float32), "s": np.array(["ä", ""], dtype=object)}]

    same, other = prove(a, a, feeds, "synthetic"), prove(a, b, feeds, "synthetic")

    assert (same.sqnr_db, same.warnings) == (math.inf, ())
    # Signal 8 (two parts of four ones), noise 4 · 2² = 16.
    assert other.sqnr_db == pytest.approx(10 * math.log10(8 / 16))
    assert other.per_output["t"] == (math.inf, 0.0)


def test_another_shape_is_a_failure_that_is_named(tmp_path):
    text = "g (float[N, 4] x) => (float[] y) {{ y = {op}(x) }}"
    a = write(tmp_path / "a.onnx", text.format(op="Neg"))
    b = write(tmp_path / "b.onnx", text.format(op="Transpose"))

    found = prove(a, b, images(2), "synthetic")

    assert found.sqnr_db == -math.inf
    assert found.warnings == ("output 'y' came out as float32 [4, 1], not float32 [1, 4]",)


def test_half_precision_is_summed_without_overflow(tmp_path):
    text = "g (float16[N, 4] x) => (float16[N, 4] y) {{ y = {op}(x) }}"
    a = write(tmp_path / "a.onnx", text.format(op="Neg"))
    b = write(tmp_path / "b.onnx", text.format(op="Abs"))
    feeds = [{"x": np.full((1, 4), 60000, np.float16)}]

    found = prove(a, b, feeds, "synthetic")

    assert found.max_abs_diff == 2 * float(np.float16(60000))  # above float16's largest
    assert found.sqnr_db == pytest.approx(-20 * math.log10(2))


def test_a_compiled_model_that_does_not_run_is_our_fault(tmp_path):
    good = affine(tmp_path / "a.onnx", 1)
    bad = write(tmp_path / "b.onnx", "g (float[N, 4] x) => (float[N, 4] y) { y = NoOp(x) }")

    with pytest.raises(Postcondition, match=r"not run, the original does \(.*report this as"):
        prove(good, bad, images(1), "synthetic")


def test_other_output_names_are_our_fault(tmp_path):
    a = affine(tmp_path / "a.onnx", 1)
    b = affine(tmp_path / "b.onnx", 1, outputs="float[N, 4] s")

    with pytest.raises(Postcondition, match="outputs are s, not y"):
        prove(a, b, images(1), "synthetic")


def test_inputs_that_do_not_fit_are_the_callers(tmp_path):
    path = affine(tmp_path / "a.onnx", 1)

    with pytest.raises(ModelError, match="input 'x': no value was given"):
        prove(path, path, [{}], "synthetic")


def test_without_samples_nothing_is_proved(tmp_path):
    path = affine(tmp_path / "a.onnx", 1)

    with pytest.raises(UsageError, match="no samples"):
        prove(path, path, [], "synthetic")
