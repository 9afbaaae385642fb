"""Each form of an operator computes in ONNX Runtime what the newer one does, at two sizes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from lowered import OLD, lowered, one_node, profile, relative, run
from nncc.passes.check import check

Rng = np.random.Generator
Inputs = Mapping[str, np.ndarray | None]
TOLERANCE = 1e-5
"""Relative; sums are taken in another order."""


@dataclass(frozen=True)
class Case:
    """An operator at an opset, inputs of a size, and which of them are constants.

    Args:
        only_static: sizes must be known for it to be rewritten.
        targets: where it is tried.
    """

    op: str
    opset: int
    inputs: Callable[[Rng, int], Inputs]
    constants: tuple[str, ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    outputs: int = 1
    only_static: bool = False
    targets: tuple[str, ...] = OLD

    def __str__(self) -> str:
        told = "-".join(f"{k}_{v}".replace(" ", "") for k, v in self.attributes.items())
        return f"{self.op}{self.opset}{'-' + told if told else ''}"


def x(*shape: int | str, kind: str = "float32") -> Callable[[Rng, int], Inputs]:
    """One input; "n" in its shape is the size that changes."""
    return lambda rng, n: {"x": values(rng, n, shape, kind)}


def values(rng: Rng, n: int, shape: tuple[int | str, ...], kind: str) -> np.ndarray:
    sizes = [n if size == "n" else int(size) for size in shape]
    if kind == "bool":
        return rng.random(sizes) < 0.5
    if kind.startswith("int"):
        return rng.integers(-9, 9, sizes).astype(kind)
    return rng.standard_normal(sizes).astype(kind)


def given(
    inputs: Callable[[Rng, int], Inputs], **fixed: object
) -> Callable[[Rng, int], Inputs]:
    """The inputs and constants behind them; None leaves one out."""
    arrays = {k: None if v is None else np.asarray(v) for k, v in fixed.items()}
    return lambda rng, n: {**inputs(rng, n), **arrays}


def ints(*items: int) -> np.ndarray:
    return np.array(items, np.int64)


def f32(*items: float) -> np.ndarray:
    return np.array(items, np.float32)


REDUCTIONS = [
    Case(op, 18, given(x("n", 5, 4), axes=ints(*axes)), ("axes",), {"keepdims": keep})
    for op in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceL1",
               "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
    for axes, keep in (((-1,), 1), ((0, 2), 0))
]  # fmt: skip
AXES = [
    Case("ReduceSum", 13, x("n", 3), (), {"noop_with_empty_axes": 1}),
    Case("ReduceSum", 13, x("n", 3), (), {"keepdims": 0}),
    Case("ReduceMax", 20, given(x("n", 3, kind="bool"), axes=ints(1)), ("axes",)),
    Case("Squeeze", 13, given(x("n", 1, 3, 1), axes=ints(1, -1)), ("axes",)),
    Case("Unsqueeze", 13, given(x("n", 3), axes=ints(0, -1)), ("axes",)),
    Case("Split", 13, given(x("n", 6), s=ints(1, 2, 3)), ("s",), {"axis": 1}, 3),
    Case("Split", 18, x("n", 7), (), {"axis": -1, "num_outputs": 3}, 3),
    Case("Split", 18, x(3, "n"), (), {"axis": 1, "num_outputs": 2}, 2),
    Case("Split", 18, x(8, "n"), (), {"axis": 0, "num_outputs": 4}, 4),
]
PADS = [
    Case("Pad", 18, given(x("n", 2, 3, 4), p=ints(1, 2, 0, 3), v=None, a=ints(2, -1)),
         ("p", "a"), {"mode": mode})
    for mode in ("constant", "edge", "reflect")
] + [
    Case("Pad", 19, given(x("n", 3, 4), p=ints(0, 1, 2, 0, 0, 3)), ("p",), {"mode": "wrap"}),
    Case("Pad", 18, given(x("n", 3), p=ints(1, 2, 0, 1), v=np.float32(7)), ("p", "v")),
]  # fmt: skip
SHAPES = [
    Case("Shape", 15, x("n", 4, "n"), (), {"start": start, "end": end})
    for start, end in ((1, 2), (-2, 99), (0, 1), (2, 1))
] + [
    Case("Reshape", 14, given(x("n", 6), s=ints(-1, 3)), ("s",), {"allowzero": 1}),
    Case("Size", 13, x("n", 4)),
    Case("EyeLike", 9, x(3, 5), (), {"k": 1, "dtype": 1}, only_static=True),
    Case("Identity", 19, x("n", 3, kind="int64")),
]
ELEMENTWISE = [
    Case("Reciprocal", 13, x("n", 3)),
    Case("Sign", 13, x("n", 3)),
    Case("Round", 11, lambda rng, n: {"x": values(rng, n, ("n", 8), "int64").astype("f") / 2}),
    Case("Celu", 12, x("n", 3), (), {"alpha": 0.7}),
    Case("IsNaN", 13, lambda rng, n: {"x": np.where(rng.random((n, 3)) < 0.4, np.nan, 1.0)
                                      .astype(np.float32)}),
    Case("IsInf", 10, lambda rng, n: {"x": rng.choice(f32(-np.inf, np.inf, 2), (n, 5))}),
    Case("IsInf", 10, lambda rng, n: {"x": rng.choice(f32(-np.inf, np.inf, 2), (n, 5))},
         (), {"detect_negative": 0}),
    Case("Clip", 13, given(x("n", 3), a=np.float32(-0.5), b=np.float32(0.5)), ("a", "b")),
    Case("Clip", 13, given(x("n", kind="int64"), a=np.int64(-2), b=np.int64(3)), ("a", "b")),
    Case("Clip", 13, given(x("n", 3, kind="int32"), a=None, b=np.int32(3)), ("b",)),
    Case("Pow", 13, given(x("n", 3), p=np.float32(3)), ("p",)),
    Case("Pow", 15, lambda rng, n: {"x": rng.random((n, 3), np.float32), "p": ints(2, 1, 3)}),
    Case("Pow", 15, given(x("n", 3, kind="int64"), p=ints(2, 1, 3)), ("p",)),
    Case("Dropout", 13, given(x("n", 3), r=np.float32(0.3)), ("r",)),
    Case("Dropout", 22, x("n", 3), (), {}, 2),
    Case("CastLike", 19, given(x("n", 3), like=ints(1)), ("like",)),
    Case("Cast", 19, x("n", 3), (), {"to": 7, "saturate": 1}),
]  # fmt: skip


def pair(kind: str, other: Callable[[np.ndarray, Rng], np.ndarray] | None = None):
    """Two inputs of one shape, some entries equal."""

    def made(rng: Rng, n: int) -> Inputs:
        a = values(rng, n, ("n", 6), kind)
        b = rng.permuted(a, axis=1) if other is None else other(a, rng)
        return {"a": a, "b": b}

    return made


def positive(a: np.ndarray, rng: Rng) -> np.ndarray:
    return rng.integers(1, 5, a.shape).astype(a.dtype)


def either_sign(a: np.ndarray, rng: Rng) -> np.ndarray:
    return (rng.integers(1, 5, a.shape) * rng.choice([-1, 1], a.shape)).astype(a.dtype)


PAIRS = [
    *(Case(op, 16, pair(kind)) for op in ("GreaterOrEqual", "LessOrEqual")
      for kind in ("float32", "int64")),
    *(Case(op, 13, pair(kind)) for op in ("Max", "Min") for kind in ("int64", "int32")),
    Case("Xor", 7, pair("bool")),
    Case("Equal", 19, pair("bool")),
    *(Case("Mod", 13, pair(kind, other)) for kind in ("int64", "int32")
      for other in (positive, either_sign)),
    Case("Mod", 13, pair("float32", either_sign), (), {"fmod": 1}),
    Case("MatMul", 13, lambda rng, n: {"a": values(rng, n, ("n", 4), "int32"),
                                       "b": values(rng, n, (4, 3), "int32")}),
]  # fmt: skip
ALONG = [
    *(Case(op, 13, x("n", 3, 4), (), {"axis": axis})
      for op in ("Softmax", "LogSoftmax", "Hardmax") for axis in (0, 1, -1)),
    Case("ArgMax", 13, lambda rng, n: {"x": rng.integers(0, 3, (n, 8)).astype(np.float32)}, (),
         {"axis": 1, "select_last_index": 1}),
    Case("ArgMin", 13, lambda rng, n: {"x": rng.integers(0, 3, (n, 8)).astype(np.float32)}, (),
         {"axis": -1, "keepdims": 0, "select_last_index": 1}),
    *(Case("CumSum", 14, given(x("n", 5, kind=kind), axis=np.int64(axis)), ("axis",),
           {"exclusive": exclusive, "reverse": reverse})
      for kind in ("float32", "int32") for axis in (0, 1)
      for exclusive, reverse in ((0, 0), (1, 1))),
    *(Case("OneHot", 11, given(lambda rng, n: {"i": rng.integers(-4, 5, (n, 3))},
                               depth=np.int64(5), values=f32(0.5, 2.0)),
           ("depth", "values"), {"axis": axis}) for axis in (-1, 1)),
    Case("LpNormalization", 22, x("n", 4), (), {"axis": 1, "p": 1}),
]  # fmt: skip
EINSUMS = [
    Case("Einsum", 12, lambda rng, n, sizes=sizes: {
        name: values(rng, n, size, "float32")
        for name, size in zip("ab", sizes, strict=False)}, (), {"equation": equation})
    for equation, sizes in (
        ("bij,bjk->bik", (("n", 3, 4), ("n", 4, 5))),
        ("bhid,bhjd->bhij", (("n", 2, 3, 4), ("n", 2, 5, 4))),
        ("ij->ji", ((3, "n"),)),
        ("ijk->ik", (("n", 3, 4),)),
        ("i,j->ij", (("n",), (4,))),
        ("bthc,bshc->bhts", (("n", 3, 2, 4), ("n", 5, 2, 4))),
        ("...ij,jk->...ik", (("n", 2, 3, 4), (4, 5))),
        ("nchw,kc->nkhw", (("n", 3, 4, 5), (6, 3))),
        ("ij,ij->", (("n", 3), ("n", 3))),
    )
]  # fmt: skip
INDEXED = [
    Case("GatherND", 13, given(x(2, 3, 4), i=np.array([[[0], [-1]], [[1], [2]]])), ("i",),
         {"batch_dims": 1}, only_static=True),
    Case("GatherND", 13, given(x(2, 3, 4), i=np.array([[0, 1], [1, -2]])), ("i",),
         only_static=True),
    Case("GatherElements", 13, given(x(3, 4), i=np.array([[0, -1, 2], [1, 1, 0]])), ("i",),
         {"axis": 1}, only_static=True),
    *(Case("ScatterND", 18, given(x(4, 3), i=ints(1, 3, 1)[:, None], u=np.ones((3, 3), "f")),
           ("i",), {"reduction": how}, only_static=True)
      for how in ("add", "mul", "max", "min")),
    Case("ScatterND", 16, given(x(4, 3), i=np.array([[1, 0], [3, -1]]), u=f32(5, 6)), ("i",),
         only_static=True),
    Case("ScatterElements", 18, given(x(4, 3), i=np.array([[0, 1, 1], [-1, 2, 0]]),
                                      u=np.full((2, 3), 2, np.float32)),
         ("i",), {"axis": 0, "reduction": "add"}, only_static=True),
]  # fmt: skip
WINDOWS = [
    Case("Conv", 13, lambda rng, n: {"x": values(rng, n, ("n", 3, 9), "float32"),
                                     "w": values(rng, n, (4, 3, 3), "float32"),
                                     "b": values(rng, n, (4,), "float32")},
         ("w", "b"), {"pads": [1, 2], "strides": [2], "dilations": [2]}),
    Case("ConvTranspose", 13, lambda rng, n: {"x": values(rng, n, ("n", 3, 9), "float32"),
                                              "w": values(rng, n, (3, 4, 3), "float32")},
         ("w",), {"pads": [1, 0], "strides": [2], "output_padding": [1]}),
    Case("MaxPool", 12, x("n", 3, 9), (),
         {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    Case("AveragePool", 22, x("n", 3, 9), (), {"kernel_shape": [3], "pads": [1, 0]}),
    *(Case("AveragePool", 19, x(2, 3, 9, 8), (),
           {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1,
            "count_include_pad": include}, only_static=True) for include in (0, 1)),
    Case("AveragePool", 19, x(2, 3, 9, 8), (),
         {"kernel_shape": [2, 2], "dilations": [2, 3]}, only_static=True),
    Case("AveragePool", 19, x("n", 3, 8, 8), (),
         {"kernel_shape": [2, 2], "dilations": [1, 1], "strides": [1, 1], "ceil_mode": 1}),
    Case("MaxPool", 22, x(2, 3, 7, 7), (), {"kernel_shape": [2, 2], "strides": [3, 3],
                                            "pads": [0, 0, 1, 1], "ceil_mode": 1},
         only_static=True),
    Case("LpPool", 18, x("n", 3, 8, 8), (),
         {"kernel_shape": [2, 3], "strides": [2, 1], "p": 2}),
    Case("GlobalLpPool", 9, x("n", 3, 4, 5), (), {"p": 1}, targets=("jetson-nano-jp44",)),
    Case("BatchNormalization", 15, lambda rng, n: {
        "x": values(rng, n, ("n", 3, 4), "float32"), **{
            name: rng.random(3, np.float32) + 0.5 for name in ("s", "b", "m", "v")}},
        ("s", "b", "m", "v"), {"training_mode": 1}, 3, targets=("jetson-nano",)),
]  # fmt: skip
RECURRENT = [
    Case(op, 14, lambda rng, n, gates=gates: {
        "x": values(rng, n, ("n", 5, 3), "float32"),
        "w": values(rng, n, (1, gates * 2, 3), "float32"),
        "r": values(rng, n, (1, gates * 2, 2), "float32")},
        ("w", "r"), {"hidden_size": 2, "layout": 1}, 2)
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
]  # fmt: skip
CASES = [
    *REDUCTIONS, *AXES, *PADS, *SHAPES, *ELEMENTWISE, *PAIRS, *ALONG, *EINSUMS, *INDEXED,
    *WINDOWS,
]  # fmt: skip


TRIED = [
    pytest.param(
        case, target, dynamic, id=f"{case}-{target}-{'dynamic' if dynamic else 'static'}"
    )
    for case in CASES
    for target in case.targets
    for dynamic in ((False,) if case.only_static else (True, False))
]


@pytest.mark.parametrize(("case", "target", "dynamic"), TRIED)
def test_the_older_form_computes_the_same(case, target, dynamic):
    rng = np.random.default_rng(len(str(case)))
    sizes = (2, 5) if dynamic else (3,)
    feeds = [case.inputs(rng, n) for n in sizes]
    proto = model_of(case, feeds[0], dynamic)
    device = profile(target)
    done, made = lowered(proto, device)
    assert not done.refused, done.refused
    assert not (found := check(done.model, device)), found
    assert made.ir_version <= device.max_ir_version
    assert made.opset_import[0].version <= device.max_opset
    onnx.checker.check_model(made, full_check=True)
    for feed in feeds:
        arrays = {name: array for name, array in feed.items() if array is not None}
        same_constants = {k: v for k, v in feeds[0].items() if k in case.constants}
        arrays |= {k: v for k, v in same_constants.items() if v is not None}
        for want, got in zip(run(proto, arrays), run(made, arrays), strict=True):
            assert relative(np.asarray(want), np.asarray(got)) <= TOLERANCE


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("case", RECURRENT, ids=str)
def test_a_batch_in_front_is_transposed(case, target):
    """ONNX Runtime has no kernel for layout 1: onnx's reference computes what is expected."""
    feed = case.inputs(np.random.default_rng(0), 2)
    proto = one_node(case.op, feed, opset=case.opset, outputs=2, constants=case.constants,
                     dynamic=False, **case.attributes)  # fmt: skip
    done, made = lowered(proto, profile(target))
    assert not done.refused, done.refused
    expected = ReferenceEvaluator(proto).run(None, dict(feed))
    for want, got in zip(expected, run(made, dict(feed)), strict=True):
        assert relative(np.asarray(want), np.asarray(got)) <= TOLERANCE


@pytest.mark.parametrize(
    ("op", "target"), [("Where", OLD[1]), ("Equal", OLD[0]), ("Equal", OLD[1])]
)
def test_truth_values_are_compared_and_chosen_by_logic(op, target):
    rng = np.random.default_rng(0)
    c, a, b = (rng.random((4, 3)) < 0.5 for _ in range(3))
    feed = {"c": c, "a": a, "b": b} if op == "Where" else {"a": a, "b": b}
    values = [helper.make_tensor_value_info(k, TensorProto.BOOL, ["n", 3]) for k in feed]
    end = helper.make_tensor_value_info("y", TensorProto.BOOL, ["n", 3])
    graph = helper.make_graph(
        [helper.make_node(op, [*feed], ["y"], name="it")], "g", values, [end]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)])
    _, made = lowered(proto, profile(target))
    assert op not in {node.op_type for node in made.graph.node}
    want = np.where(c, a, b) if op == "Where" else a == b
    np.testing.assert_array_equal(run(made, feed)[0], want)


def model_of(case: Case, feed: Inputs, dynamic: bool) -> onnx.ModelProto:
    """One node; where `dynamic`, the axes that change with the size have a name."""
    proto = one_node(
        case.op,
        feed,
        opset=case.opset,
        outputs=case.outputs,
        constants=case.constants,
        dynamic=False,
        **case.attributes,
    )
    if not dynamic:
        return proto
    other = case.inputs(np.random.default_rng(0), 5)
    for value in proto.graph.input:
        array, wide = feed[value.name], other[value.name]
        assert array is not None and wide is not None
        for at, (size, changed) in enumerate(zip(array.shape, wide.shape, strict=True)):
            if size != changed:
                value.type.tensor_type.shape.dim[at].dim_param = "n"
    for value in proto.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_param = f"{value.name}_any"
            dim.ClearField("dim_value")
        for at, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{at}"
    return proto
