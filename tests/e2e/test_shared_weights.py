"""Weights that several nodes read: compressed once, in one way, and counted as stored."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import nncc
from emitted import emitted, initializers, put_in_place, stored_numbers
from models import ref_model, wheel_model
from nncc.runtime.session import open_session, run
from small_models import write

IN_BRANCHES = """
g (float[N,64] x, bool c) => (float[N,64] y) {
    b = MatMul(x, W)
    y = If(c) <
        then_branch = t () => (float[N,64] p) { p = MatMul(b, W) },
        else_branch = e () => (float[N,64] q) { r = MatMul(b, W)  q = Neg(r) }
    >
}"""
ONLY_IN_BRANCHES = IN_BRANCHES.replace("b = MatMul(x, W)", "b = Relu(x)")
STRIDED = """
g (float[N,32,9,9] x) => (float[N,32,a,b] y) {
    a = Conv<pads=[1,1,1,1]>(x, W)
    r = Relu(a)
    y = Conv<strides=[2,2], dilations=[2,1]>(r, W)
}"""
SIDES = """
g (float[64,64] x) => (float[64,64] y) {
    a = MatMul(W, x)
    r = Relu(a)
    y = Gemm<transB=1>(r, W)
}"""


def near_rank_8(*shape: int) -> np.ndarray:
    """A weight that is safe to cut to rank 16, and whose cut is seen."""
    rng = np.random.default_rng(0)
    m, n = shape[0], int(np.prod(shape[1:]))
    W = rng.standard_normal((m, 8)) @ rng.standard_normal((8, n)) / np.sqrt(8)
    W += 0.1 * rng.standard_normal((m, n))
    return (W / np.sqrt(n)).reshape(shape).astype(np.float32)


def feeds_of(path: Path) -> list[dict[str, np.ndarray]]:
    """Random inputs; of a model that branches, for both branches."""
    rng = np.random.default_rng(1)
    inputs = {value.name: value for value in onnx.load(path).graph.input}
    dims = [d.dim_value or 3 for d in inputs["x"].type.tensor_type.shape.dim]
    x = rng.standard_normal(dims).astype(np.float32)
    if "c" in inputs:
        return [{"x": x, "c": np.array(answer)} for answer in (True, False)]
    return [{"x": x}]


@pytest.mark.parametrize(
    ("text", "shape", "users"),
    [
        (IN_BRANCHES, (64, 64), 3),
        (ONLY_IN_BRANCHES, (64, 64), 2),
        (STRIDED, (32, 32, 3, 3), 2),
        (SIDES, (64, 64), 2),
    ],
    ids=["in branches", "only in branches", "strided", "both sides"],
)
def test_readers_of_one_weight_share_its_factors(tmp_path, text, shape, users):
    path = write(tmp_path / "m.onnx", text, W=near_rank_8(*shape))
    done = nncc.compile(path, "x86-cpu", size=0.6, output=tmp_path / "b")
    rows, found = done.outcome.layers, emitted(done.model)
    assert [row.status for row in rows] == ["changed"] * users
    assert sum(row.weights_reference for row in rows) == np.prod(shape)
    counted = sum(row.weights_compressed for row in rows)
    if text != SIDES:  # W x and x Wᵀ want U V and Vᵀ Uᵀ
        assert len({found[row.name].stored for row in rows}) == 1
        assert stored_numbers(done.model) == counted
    plain = nncc.compile(path, "x86-cpu", recipe="none", output=tmp_path / "plain").model
    name = next(row.name for row in rows if row.op != "Gemm")
    put_in_place(plain, {name: found[name].dense}, tmp_path / "dense.onnx")
    for feeds in feeds_of(path):
        small = run(open_session(done.model), feeds)["y"]
        dense = run(open_session(tmp_path / "dense.onnx"), feeds)["y"]
        np.testing.assert_allclose(small, dense, rtol=0, atol=1e-5 * np.abs(dense).max())


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a = Gemm(x, W)  r = Relu(a)  y = Gemm<transB=1>(r, W)", (96, 64)),
        ("a = Gemm(x, W)  r = Relu(a)  y = Gemm<transB=1>(r, W)", (64, 64)),
        ("a = Gemm(x, W)  r = Relu(a)  y = Gemm<alpha=0.25>(r, W)", (64, 64)),
        ("a = MatMul(x, W)  r = Relu(a)  y = MatMul(W, r)", (64, 64)),
    ],
    ids=["autoencoder", "square autoencoder", "scaled", "left and right"],
)
def test_a_weight_that_is_read_in_two_ways_is_left_alone(tmp_path, text, shape):
    n = shape[0]
    graph = f"g (float[{n if 'W, r' in text else 'N'},{n}] x) => (float[a,b] y) {{ {text} }}"
    path = write(tmp_path / "m.onnx", graph, W=near_rank_8(*shape))
    done = nncc.compile(path, "x86-cpu", macs=0.6, output=tmp_path / "b")
    rows = done.outcome.layers
    assert [row.status for row in rows] == ["left alone"] * 2
    assert all("read in another way by" in row.reason for row in rows)
    assert sum(row.weights_reference for row in rows) == np.prod(shape)
    assert (done.outcome.exit_code, done.outcome.fidelity.max_abs_diff) == (7, 0)


def test_a_layer_whose_weight_is_also_a_table_saves_work_but_no_bytes(tmp_path):
    E = near_rank_8(96, 64)
    text = """g (int64[N] i) => (float[96,N] y) {
        h = Gather(E, i)
        t = Transpose<perm=[1,0]>(h)
        y = MatMul(E, t)
    }"""
    path = write(tmp_path / "m.onnx", text, E=E)
    done = nncc.compile(path, "x86-cpu", macs=0.6, output=tmp_path / "a")
    stored = stored_numbers(done.model)
    product, table = done.outcome.layers
    assert (product.op, product.status) == ("MatMul", "changed")
    assert product.weights_compressed == stored > E.size == product.weights_reference
    assert (table.op, table.status, table.weights_reference) == ("Gather", "left alone", 0)
    assert "stays" in product.reason
    smaller = nncc.compile(path, "x86-cpu", size=0.6, output=tmp_path / "b")
    assert (smaller.outcome.changed, smaller.outcome.exit_code) == (0, 4)


def test_what_is_left_alone_is_counted_once(tmp_path):
    """silero-vad slices each of its two recurrent weights three times."""
    source = wheel_model("silero-vad-half")
    done = nncc.compile(source, "x86-cpu", size=0.9, output=tmp_path / "b")
    sliced = [row for row in done.outcome.layers if row.op == "Slice"]
    assert [row.weights_reference for row in sliced] == [512 * 128, 0, 0, 512 * 128, 0, 0]
    rows = done.outcome.layers
    whole = sum(a.size for a in initializers(onnx.load(source)).values() if a.ndim > 1)
    assert sum(row.weights_reference for row in rows) == whole


def half_vggs() -> onnx.ModelProto:
    """vggs with every float made float16, inputs and outputs too."""
    model = onnx.load(ref_model("vggs"))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


def test_a_half_precision_net_stays_so_and_is_counted_so(tmp_path):
    done = nncc.compile(half_vggs(), "x86-cpu", size=0.6, output=tmp_path / "b")
    held = initializers(onnx.load(done.model))
    assert done.outcome.changed >= 2
    assert {a.dtype for a in held.values() if a.dtype.kind == "f"} == {np.dtype(np.float16)}
    rows = done.outcome.layers
    assert all(row.bits_reference == 16 * row.weights_reference for row in rows)
    stored = sum(a.size for a in held.values() if a.ndim > 1)
    assert sum(row.weights_compressed for row in rows) == stored
    assert done.outcome.fidelity.sqnr_db > 15
