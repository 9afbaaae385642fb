"""Each pass keeps the function: outputs of ONNX Runtime before and after, on equal inputs."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from models import REF_DIGESTS, ref_model, wheel_model
from nncc.compiler.writing.save import check_file, write
from nncc.passes.model import Model
from nncc.passes.normalise import normalise
from nncc.runtime.session import open_session, run

RNG = np.random.default_rng(0)
Floats = NDArray[np.float32]


def floats(*shape: int) -> Floats:
    return RNG.standard_normal(shape).astype(np.float32)


def value(name: str, *sizes: int | str, kind: int = T.FLOAT) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, kind, sizes)


def build(
    nodes: list[onnx.NodeProto],
    x: tuple[int | str, ...],
    weights: dict[str, NDArray],
    *,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 13,
    kind: int = T.FLOAT,
) -> Model:
    graph = h.make_graph(
        nodes,
        "g",
        [value("x", *x, kind=kind)],
        [h.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    for info in graph.output:
        info.type.tensor_type.elem_type = kind
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=8)
    proto = onnx.shape_inference.infer_shapes(proto)  # outputs must declare a shape
    del proto.graph.value_info[:]
    return Model(ir.from_proto(proto), "test", "0" * 64)


def ops(model: Model) -> list[str]:
    return [node.op_type for graph in model.graph_model.graphs() for node in graph]


def same(before: Model, after: Model, feeds: dict[str, NDArray], folder: Path) -> None:
    """Equal outputs, but for reordered float sums, relative to the largest."""
    write(before, folder / "before.onnx")
    write(after, folder / "after.onnx")
    check_file(folder / "after.onnx")
    want = run(open_session(folder / "before.onnx", optimise=False), feeds)
    got = run(open_session(folder / "after.onnx", optimise=False), feeds)
    assert list(want) == list(got)
    for name, array in want.items():
        eps = float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else 0.0
        atol = 100 * eps * max(1.0, float(np.abs(array).max(initial=0)))
        np.testing.assert_allclose(got[name], array, rtol=0, atol=atol)


def norm(channels: int, dtype: type = np.float32) -> dict[str, NDArray]:
    return {
        "gamma": floats(channels).astype(dtype),
        "beta": floats(channels).astype(dtype),
        "mean": floats(channels).astype(dtype),
        "var": (np.abs(floats(channels)) + 0.5).astype(dtype),
    }


def batchnorm(x: str, y: str = "y", **attributes: object) -> onnx.NodeProto:
    inputs = [x, "gamma", "beta", "mean", "var"]
    return h.make_node("BatchNormalization", inputs, [y], name="bn", **attributes)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("opset", [7, 9, 13, 15])
@pytest.mark.parametrize(
    ("op", "x", "weight", "attributes"),
    [
        ("Conv", (2, 4, 9), (6, 4, 3), {}),
        ("Conv", (2, 4, 9, 8), (6, 4, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 1]}),
        ("Conv", (2, 4, 9, 8), (6, 2, 3, 3), {"group": 2, "dilations": [2, 1]}),
        ("Conv", (1, 4, 5, 6, 7), (6, 4, 2, 2, 2), {}),
        ("ConvTranspose", (2, 4, 5, 6), (4, 6, 3, 3), {"strides": [2, 2]}),
        ("ConvTranspose", (2, 4, 5, 6), (4, 3, 3, 3), {"group": 2}),
        ("Gemm", (5, 4), (4, 6), {}),
        ("Gemm", (5, 4), (6, 4), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
        ("MatMul", (5, 4), (4, 6), {}),
    ],
)
def test_batchnorm_goes_into_the_layer_before(
    op: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    attributes: dict,
    opset: int,
    bias: bool,
    tmp_path: Path,
) -> None:
    weights = {"W": floats(*weight), **norm(6)}
    if bias:
        weights["b"] = floats(6)
    if op == "MatMul":
        nodes = [h.make_node("MatMul", ["x", "W"], ["m" if bias else "c"])]
        nodes += [h.make_node("Add", ["b", "m"], ["c"])] if bias else []
    elif op == "Gemm" and not bias and opset < 11:
        weights["b"] = np.zeros(6, np.float32)
        nodes = [h.make_node(op, ["x", "W", "b"], ["c"], **attributes)]
    else:
        nodes = [h.make_node(op, ["x", "W", *(["b"] if bias else [])], ["c"], **attributes)]
    before = build([*nodes, batchnorm("c")], x, weights, opset=opset)
    after = normalise(before)
    assert "BatchNormalization" not in ops(after)
    assert len(ops(after)) == (2 if op == "MatMul" else 1)
    same(before, after, {"x": floats(*x)}, tmp_path)


def conv_norm(**attributes: object) -> list[onnx.NodeProto]:
    return [h.make_node("Conv", ["x", "W"], ["c"]), batchnorm("c", **attributes)]


def test_batchnorm_stays_where_the_weight_is_shared(tmp_path: Path) -> None:
    nodes = [*conv_norm(), h.make_node("Conv", ["x", "W"], ["z"])]
    before = build(
        nodes, (1, 4, 5, 5), {"W": floats(6, 4, 3, 3), **norm(6)}, outputs=("y", "z")
    )
    after = normalise(before)
    assert "BatchNormalization" in ops(after)
    same(before, after, {"x": floats(1, 4, 5, 5)}, tmp_path)


def test_batchnorm_stays_where_the_convolution_is_read_elsewhere(tmp_path: Path) -> None:
    nodes = [*conv_norm(), h.make_node("Relu", ["c"], ["z"])]
    before = build(
        nodes, (1, 4, 5, 5), {"W": floats(6, 4, 3, 3), **norm(6)}, outputs=("y", "z")
    )
    after = normalise(before)
    assert "BatchNormalization" in ops(after)
    same(before, after, {"x": floats(1, 4, 5, 5)}, tmp_path)


def test_batchnorm_in_training_stays() -> None:
    before = build(
        conv_norm(training_mode=1),
        (1, 4, 5, 5),
        {"W": floats(6, 4, 3, 3), **norm(6)},
        opset=15,
    )
    assert "BatchNormalization" in ops(normalise(before))


def test_batchnorm_of_training_outputs_in_an_old_opset_stays() -> None:
    node = h.make_node(
        "BatchNormalization",
        ["c", "gamma", "beta", "mean", "var"],
        ["y", "m", "v", "sm", "sv"],
    )
    nodes = [h.make_node("Conv", ["x", "W"], ["c"]), node]
    before = build(nodes, (1, 4, 5, 5), {"W": floats(6, 4, 3, 3), **norm(6)}, opset=9)
    assert "BatchNormalization" in ops(normalise(before))


def test_batchnorm_in_half_precision_is_rounded_once(tmp_path: Path) -> None:
    weights = {"W": floats(6, 4, 3, 3).astype(np.float16), **norm(6, np.float16)}
    before = build(conv_norm(), (1, 4, 5, 5), weights, kind=T.FLOAT16)
    after = normalise(before)
    assert ops(after) == ["Conv"]
    assert all(
        v.dtype == ir.DataType.FLOAT16 for v in after.graph_model.graph.initializers.values()
    )
    same(before, after, {"x": floats(1, 4, 5, 5).astype(np.float16)}, tmp_path)


def test_batchnorm_whose_scale_overflows_half_precision_stays() -> None:
    weights = {"W": np.full((6, 4, 3, 3), 6e4, np.float16), **norm(6, np.float16)}
    weights["gamma"][:] = 100
    before = build(conv_norm(), (1, 4, 5, 5), weights, kind=T.FLOAT16)
    assert "BatchNormalization" in ops(normalise(before))


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (), (1,), (1, 1, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_constant_added_per_channel_becomes_the_bias(
    shape: tuple[int, ...], bias: bool, tmp_path: Path
) -> None:
    weights = {"W": floats(6, 4, 3, 3), "c": np.asarray(floats(*shape), np.float32)}
    weights |= {"b": floats(6)} if bias else {}
    nodes = [
        h.make_node("Conv", ["x", "W", *(["b"] if bias else [])], ["t"]),
        h.make_node("Add", ["c", "t"], ["y"]),
    ]
    before = build(nodes, (1, 4, 5, 5), weights)
    after = normalise(before)
    assert ops(after) == ["Conv"]
    same(before, after, {"x": floats(1, 4, 5, 5)}, tmp_path)


@pytest.mark.parametrize(
    "shape", [(5,), (5, 5), (6, 5, 5), (1, 1, 5), (2, 6, 1, 1), (1, 1, 6, 1, 1)]
)
def test_constant_that_differs_along_another_axis_stays_an_add(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    nodes = [h.make_node("Conv", ["x", "W"], ["t"]), h.make_node("Add", ["t", "c"], ["y"])]
    before = build(nodes, (1, 4, 7, 7), {"W": floats(6, 4, 3, 3), "c": floats(*shape)})
    after = normalise(before)
    assert ops(after) == ["Conv", "Add"]
    same(before, after, {"x": floats(1, 4, 7, 7)}, tmp_path)


def test_matmul_and_add_stay_two_nodes() -> None:
    nodes = [h.make_node("MatMul", ["x", "W"], ["t"]), h.make_node("Add", ["t", "b"], ["y"])]
    before = build(nodes, (3, 4), {"W": floats(4, 5), "b": floats(5)})
    assert ops(normalise(before)) == ["MatMul", "Add"]


@pytest.mark.parametrize("opset", [7, 8, 9, 13])
def test_weight_computed_from_constants_is_folded(opset: int, tmp_path: Path) -> None:
    nodes = [
        h.make_node("Constant", [], ["k"], value=numpy_helper.from_array(floats(200, 100))),
        h.make_node("Transpose", ["k"], ["kt"], perm=[1, 0]),
        h.make_node("Identity", ["kt"], ["W"]),
        h.make_node("MatMul", ["x", "W"], ["y"]),
    ]
    before = build(nodes, (3, 100), {}, opset=opset)
    after = normalise(before)
    assert ops(after) == ["MatMul"]
    same(before, after, {"x": floats(3, 100)}, tmp_path)


RECIPES = {
    "Expand": (
        [h.make_node("Expand", ["one", "size"], ["W"])],
        {"one": floats(1), "size": np.array([512, 512])},
    ),
    "Tile": (
        [h.make_node("Tile", ["row", "times"], ["W"])],
        {"row": floats(1, 512), "times": np.array([512, 1])},
    ),
    "ConstantOfShape": (
        [h.make_node("ConstantOfShape", ["size"], ["W"])],
        {"size": np.array([512, 512])},
    ),
    "codebook": (
        [
            h.make_node("Cast", ["index"], ["i"], to=T.INT32),
            h.make_node("Gather", ["table", "i"], ["W"]),
        ],
        {"table": floats(256), "index": RNG.integers(0, 256, (512, 512)).astype(np.uint8)},
    ),
    "int8 times scale": (
        [
            h.make_node("Cast", ["q"], ["f"], to=T.FLOAT),
            h.make_node("Mul", ["f", "scale"], ["W"]),
        ],
        {"q": RNG.integers(-128, 127, (512, 512)).astype(np.int8), "scale": floats(1)},
    ),
    "DequantizeLinear": (
        [h.make_node("DequantizeLinear", ["q", "scale"], ["W"])],
        {
            "q": RNG.integers(-128, 127, (512, 512)).astype(np.int8),
            "scale": np.float32(0.1) * np.ones((), np.float32),
        },
    ),
    "half cast up": (
        [h.make_node("Cast", ["h"], ["W"], to=T.FLOAT)],
        {"h": floats(512, 512).astype(np.float16)},
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_small_recipe_for_a_large_weight_stays_small(recipe: str, tmp_path: Path) -> None:
    nodes, weights = RECIPES[recipe]
    before = build([*nodes, h.make_node("MatMul", ["x", "W"], ["y"])], (3, 512), weights)
    after = normalise(before)
    size = write(before, tmp_path / "a.onnx")
    assert write(after, tmp_path / "b.onnx") < size + 4096
    same(before, after, {"x": floats(3, 512)}, tmp_path)


def test_recipe_for_an_absurd_tensor_is_never_computed() -> None:
    size = np.array([1 << 20, 1 << 20])
    nodes = [
        h.make_node("Expand", ["one", "size"], ["W"]),
        h.make_node("ReduceMax", ["W"], ["m"], keepdims=0),
        h.make_node("Add", ["x", "m"], ["y"]),
    ]
    before = build(nodes, (3,), {"one": floats(1), "size": size})
    assert ops(normalise(before)) == ["Expand", "ReduceMax", "Add"]


ONE, HALF, NIL = (np.array(number, np.float32) for number in (1, 0.5, 0))
NO_OPS: list[tuple[list[str], dict[str, NDArray], list[str]]] = [
    (["Identity", "x"], {}, []),
    (["Dropout", "x"], {}, []),
    (["Dropout", "x", "c", "no"], {"c": HALF, "no": np.array(False)}, []),
    (["Dropout", "x", "c", "yes"], {"c": HALF, "yes": np.array(True)}, ["Dropout"]),
    (["Mul", "c", "x"], {"c": ONE}, []),
    (["Mul", "x", "c"], {"c": ONE.reshape(1, 1)}, []),
    (["Mul", "x", "c"], {"c": ONE.reshape(1, 1, 1)}, ["Mul"]),
    (["Div", "x", "c"], {"c": ONE}, []),
    (["Div", "c", "x"], {"c": ONE}, ["Div"]),
    (["Sub", "x", "c"], {"c": NIL}, []),
    (["Sub", "c", "x"], {"c": NIL}, ["Sub"]),
]


@pytest.mark.parametrize(("node", "weights", "left"), NO_OPS)
def test_node_that_passes_a_value_on_is_taken_out(
    node: list[str], weights: dict[str, NDArray], left: list[str], tmp_path: Path
) -> None:
    op, *inputs = node
    nodes = [h.make_node(op, inputs, ["t"]), h.make_node("Relu", ["t"], ["y"])]
    before = build(nodes, (3, 4), weights)
    after = normalise(before)
    assert ops(after) == [*left, "Relu"]
    if "Dropout" not in left:
        same(before, after, {"x": floats(3, 4)}, tmp_path)


def test_cast_to_the_same_type_is_taken_out() -> None:
    nodes = [h.make_node("Cast", ["x"], ["t"], to=T.FLOAT), h.make_node("Relu", ["t"], ["y"])]
    assert ops(normalise(build(nodes, (3, 4), {}))) == ["Relu"]


def test_identity_between_input_and_output_stays() -> None:
    before = build([h.make_node("Identity", ["x"], ["y"])], (3,), {})
    assert ops(normalise(before)) == ["Identity"]


def test_identity_before_an_output_keeps_the_outputs_name(tmp_path: Path) -> None:
    nodes = [h.make_node("Relu", ["x"], ["t"]), h.make_node("Identity", ["t"], ["y"])]
    before = build(nodes, (3,), {})
    after = normalise(before)
    assert ops(after) == ["Relu"]
    assert [v.name for v in after.graph_model.graph.outputs] == ["y"]
    same(before, after, {"x": floats(3)}, tmp_path)


def test_two_outputs_of_one_value_keep_both_names(tmp_path: Path) -> None:
    nodes = [
        h.make_node("Relu", ["x"], ["y"]),
        h.make_node("Identity", ["y"], ["z"]),
        h.make_node("Identity", ["y"], ["w"]),
    ]
    before = build(nodes, (3,), {}, outputs=("y", "z", "w"))
    after = normalise(before)
    same(before, after, {"x": floats(3)}, tmp_path)


def branches() -> Model:
    """If with weights inside both bodies, one name in both, and one captured from outside."""
    inner = floats(4, 4)
    yes = h.make_graph(
        [
            h.make_node("Constant", [], ["W"], value=numpy_helper.from_array(inner)),
            h.make_node("Identity", ["W"], ["Wi"]),
            h.make_node("MatMul", ["x", "Wi"], ["t"], name="same"),
            h.make_node("Identity", ["outer"], ["o"]),
            h.make_node("Add", ["t", "o"], ["r"]),
        ],
        "yes",
        [],
        [value("r", 2, 4)],
    )
    no = h.make_graph(
        [
            h.make_node("MatMul", ["x", "W"], ["t"], name="same"),
            h.make_node("Identity", ["outer"], ["r"]),
        ],
        "no",
        [],
        [h.make_tensor_value_info("r", T.FLOAT, None)],
        [numpy_helper.from_array(2 * inner, "W")],
    )
    nodes = [
        h.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        h.make_node("Greater", ["sum", "nil"], ["cond"]),
        h.make_node("Mul", ["x", "two"], ["outer"]),
        h.make_node("If", ["cond"], ["y"], name="same", then_branch=yes, else_branch=no),
    ]
    weights = {"nil": np.array(0, np.float32), "two": np.array(2, np.float32)}
    return build(nodes, (2, 4), weights)


@pytest.mark.parametrize("sign", [1, -1])
def test_bodies_of_if_are_normalised_and_still_read_the_outside(
    sign: int, tmp_path: Path
) -> None:
    before = branches()
    after = normalise(before)
    x = sign * np.abs(floats(2, 4))
    same(before, after, {"x": x}, tmp_path)
    assert "Constant" not in ops(after)
    held = [n for g in after.graph_model.graphs() for n in g.initializers]
    assert len(set(held)) == len(held)


def test_every_node_has_a_name_of_its_own_that_every_tool_takes() -> None:
    nodes = [
        h.make_node("Relu", ["x"], ["a:0"], name="one/two:3"),
        h.make_node("Relu", ["a:0"], ["b"], name="one/two_3"),
        h.make_node("Relu", ["b"], ["c"]),
        h.make_node("Relu", ["c"], ["y"], name="层"),
    ]
    after = normalise(build(nodes, (3,), {}))
    graph = after.graph_model.graph
    assert [n.name for n in graph] == ["one/two_3_2", "one/two_3", "Relu.c", "_"]
    assert graph[0].metadata_props["nncc.source"] == "one/two:3"
    assert "nncc.source" not in graph[2].metadata_props


def test_normalising_twice_changes_nothing_more(tmp_path: Path) -> None:
    model = Model(ir.load(wheel_model("pp-ocr-cls")), "cls", "0" * 64)
    once = normalise(model)
    write(once, tmp_path / "a.onnx")
    write(normalise(once), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_given_model_is_left_as_it_is(tmp_path: Path) -> None:
    model = Model(ir.load(wheel_model("pp-ocr-cls")), "cls", "0" * 64)
    write(model, tmp_path / "a.onnx")
    normalise(model)
    write(model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("name", REF_DIGESTS)
def test_net_that_is_normal_already_keeps_its_layers(name: str) -> None:
    model = Model(ir.load(ref_model(name)), name, "0" * 64)
    assert Counter(ops(normalise(model))) == Counter(ops(model))


def test_orientation_classifier_loses_its_norms_and_separate_biases() -> None:
    model = Model(ir.load(wheel_model("pp-ocr-cls")), "cls", "0" * 64)
    found = Counter(ops(normalise(model)))
    assert found["Conv"] == 53
    assert not found["BatchNormalization"] and not found["Constant"]
    assert all(
        len(node.inputs) == 3
        for node in normalise(model).graph_model.graph
        if node.op_type == "Conv"
    )
