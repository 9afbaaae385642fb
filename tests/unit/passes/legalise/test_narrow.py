"""int64 and float64 where a device has neither: narrowed in range, named where not."""

from dataclasses import replace
from typing import cast

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nncc.device_profiles.profile import DeviceProfile
from nncc.device_profiles.registry import load
from nncc.passes.legalise.narrow import narrow
from nncc.passes.model import Model

FLOAT, DOUBLE, INT64, INT32 = (
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32,
)  # fmt: skip
END = np.iinfo(np.int64).max
NANO = load("jetson-nano")


def model_of(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    x: tuple[int, list[int | str]] = (FLOAT, ["N", 8]),
    y: tuple[int, list[int | str]] = (FLOAT, ["N", "M"]),
    opset: int = 13,
) -> Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", *x)],
        [helper.make_tensor_value_info("y", *y)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=7)
    return Model(ir.from_proto(proto), "test", "0" * 64)


def node(op: str, inputs: list[str], out: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [out], name=out, **attributes)


def proto_of(model: Model) -> onnx.ModelProto:
    proto = ir.to_proto(model.graph_model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(model: Model, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto_of(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return cast(np.ndarray, session.run(None, {"x": x})[0])


def kinds(model: Model) -> dict[str, int]:
    return {t.name: t.data_type for t in proto_of(model).graph.initializer}


def holds_double(model: Model) -> bool:
    """Inner types only: what the interface says is not ours to change."""
    inferred = onnx.shape_inference.infer_shapes(proto_of(model), strict_mode=True)
    values = [v.type.tensor_type.elem_type for v in inferred.graph.value_info]
    return DOUBLE in (*values, *(t.data_type for t in inferred.graph.initializer))


def x_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def test_indices_become_int32_and_keep_their_names():
    model = model_of(
        [node("Gather", ["x", "i"], "h", axis=1), node("CumSum", ["h", "a"], "y")],
        {"i": np.array([0, -1, 3]), "a": np.array(1)},
        opset=14,
    )
    made, found = narrow(model, NANO)
    assert found == []
    assert kinds(made) == {"i": INT32, "a": INT32}
    x = x_of(2, 8)
    np.testing.assert_array_equal(run(made, x), run(model, x))


@pytest.mark.parametrize("end", [END, 2**40])
def test_the_bounds_of_a_slice_stay_and_may_mean_the_end(end):
    """What an old parser clamps still says "to the end", so nothing is found."""
    model = model_of(
        [node("Slice", ["x", "s", "e", "a"], "y")],
        {"s": np.array([1]), "e": np.array([end]), "a": np.array([1])},
    )
    assert narrow(model, NANO) == (model, [])


def test_an_index_past_int32_stays_and_is_named():
    model = model_of([node("Gather", ["x", "i"], "y", axis=1)], {"i": np.array([2**33])})
    made, (finding,) = narrow(model, NANO)
    assert (finding.node, finding.op) == ("y", "Gather")
    assert made is model or kinds(made) == {"i": INT64}


def test_sizes_that_a_definition_wants_in_int64_stay():
    model = model_of(
        [
            node("Reshape", ["x", "sizes"], "h"),
            node("Unsqueeze", ["h", "axes"], "u"),
            node("Squeeze", ["u", "axes"], "y"),
        ],
        {"sizes": np.array([0, -1]), "axes": np.array([1])},
    )
    made, found = narrow(model, NANO)
    assert (made, found) == (model, [])


def test_a_constant_with_both_kinds_of_readers_is_stored_in_both():
    model = model_of(
        [
            node("Gather", ["x", "c"], "h", axis=1),
            node("Reshape", ["h", "c"], "y"),
        ],
        {"c": np.array([0, 2])},
        y=(FLOAT, ["N", 2]),
    )
    x = x_of(3, 8)
    made, _ = narrow(model, NANO)
    assert kinds(made) == {"c": INT64, "c/int32": INT32}
    np.testing.assert_array_equal(run(made, x), x[:, [0, 2]])


def test_a_number_past_int32_is_named_with_the_node_that_reads_it():
    model = model_of(
        [node("Cast", ["x"], "i", to=INT64), node("Add", ["i", "big"], "y")],
        {"big": np.array([2**40])},
        y=(INT64, ["N", 8]),
    )
    made, (finding,) = narrow(model, NANO)
    assert (finding.node, finding.op) == ("y", "Add")
    assert f"reads {2**40} from 'big' (int64), which int32 does not hold" in finding.reason
    assert kinds(made)["big"] == INT64


def test_nothing_is_narrowed_for_onnx_runtime():
    model = model_of([node("Gather", ["x", "i"], "y", axis=1)], {"i": np.array([0])})
    assert narrow(model, load("x86-cpu")) == (model, [])


@pytest.mark.parametrize("number", [1, 2**40])
def test_a_newer_parser_has_int64_and_is_given_it(number):
    model = model_of(
        [node("Cast", ["x"], "c", to=INT64), node("Add", ["c", "big"], "h"),
         node("Gather", ["h", "i"], "y", axis=1)],
        {"big": np.array([number]), "i": np.array([0])},
        y=(INT64, ["N", 1]),
    )  # fmt: skip
    assert narrow(model, load("rtx")) == (model, [])


def test_a_graph_computed_in_float64_is_computed_in_float32():
    """A normalisation as numpy-minded code exports it."""
    model = model_of(
        [
            node("Cast", ["x"], "xd", to=DOUBLE),
            node("Sub", ["xd", "mean"], "c"),
            node("Div", ["c", "std"], "n"),
            node(
                "ConstantOfShape", ["two"], "ones", value=numpy_helper.from_array(np.ones(1))
            ),
            node("ReduceMean", ["ones"], "one", keepdims=0),
            node("Mul", ["n", "one"], "m"),
            node("Cast", ["m"], "y", to=FLOAT),
        ],
        {"mean": np.linspace(0, 1, 8), "std": np.full(8, 0.3), "two": np.array([2])},
    )
    made, found = narrow(model, NANO)
    assert found == []
    assert not holds_double(made)
    x = x_of(4, 8)
    np.testing.assert_allclose(run(made, x), run(model, x), rtol=4 * 2.0**-24, atol=1e-6)


def test_inputs_and_outputs_of_float64_stay_and_casts_stand_beside_them():
    model = model_of(
        [node("MatMul", ["x", "w"], "y")],
        {"w": np.random.default_rng(0).standard_normal((8, 4))},
        x=(DOUBLE, ["N", 8]),
        y=(DOUBLE, ["N", 4]),
    )
    made, _ = narrow(model, NANO)
    proto = proto_of(made)
    assert [n.op_type for n in proto.graph.node] == ["Cast", "MatMul", "Cast"]
    assert not holds_double(made)
    x = x_of(3, 8).astype(np.float64)
    got = run(made, x)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, run(model, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [1e300, -1e39, 1e-60])
def test_a_float64_number_that_float32_loses_is_named(number):
    model = model_of(
        [
            node("Cast", ["x"], "xd", to=DOUBLE),
            node("Add", ["xd", "c"], "h"),
            node("Cast", ["h"], "y", to=FLOAT),
        ],
        {"c": np.array([0.5, number])[:1] * 0 + number},
        y=(FLOAT, ["N", 8]),
    )
    _, (finding,) = narrow(model, NANO)
    assert (finding.node, finding.op) == ("h", "Add")
    assert f"{abs(number):.6g} from 'c' (float64)" in finding.reason


def test_infinity_fits_float32():
    model = model_of(
        [
            node("Cast", ["x"], "xd", to=DOUBLE),
            node("Min", ["xd", "c"], "h"),
            node("Cast", ["h"], "y", to=FLOAT),
        ],
        {"c": np.array([np.inf])},
        y=(FLOAT, ["N", 8]),
    )
    made, found = narrow(model, NANO)
    assert found == [] and not holds_double(made)


def test_constant_nodes_and_bodies_are_narrowed_too():
    inner = node("Constant", [], "c", value=numpy_helper.from_array(np.array(2.0), "c"))
    branch = helper.make_graph(
        [inner, node("Mul", ["xd", "c"], "a")],
        "then",
        [],
        [helper.make_tensor_value_info("a", DOUBLE, ["N", 8])],
    )
    other = helper.make_graph(
        [node("Neg", ["xd"], "b")],
        "else",
        [],
        [helper.make_tensor_value_info("b", DOUBLE, ["N", 8])],
    )
    model = model_of(
        [
            node("Cast", ["x"], "xd", to=DOUBLE),
            node("ReduceMax", ["x"], "most", keepdims=0),
            node("Greater", ["most", "zero"], "up"),
            node("If", ["up"], "i", then_branch=branch, else_branch=other),
            node("Cast", ["i"], "y", to=FLOAT),
        ],
        {"zero": np.float32(0)},
        y=(FLOAT, ["N", 8]),
    )
    made, found = narrow(model, NANO)
    assert found == [] and not holds_double(made)
    for x in (np.abs(x_of(2, 8)), -np.abs(x_of(2, 8))):
        np.testing.assert_array_equal(run(made, x), run(model, x))


def test_a_foreign_operator_keeps_its_float64():
    """What it would make of float32 nobody knows; `check` refuses the operator itself."""
    model = model_of(
        [
            node("Cast", ["x"], "xd", to=DOUBLE),
            node("Odd", ["xd"], "h", domain="com.example"),
            node("Cast", ["h"], "y", to=FLOAT),
        ],
        {},
        y=(FLOAT, ["N", 8]),
    )
    assert narrow(model, NANO)[0] is model


def test_the_order_of_weights_stays():
    model = model_of(
        [node("Gather", ["x", "i"], "h", axis=1), node("MatMul", ["h", "w"], "y")],
        {"w": x_of(2, 2000), "i": np.array([0, 1]), "unused": np.array([1])},
    )
    made, _ = narrow(model, NANO)
    assert list(made.graph_model.graph.initializers) == ["w", "i", "unused"]


def test_applied_twice_it_changes_nothing_more():
    model = model_of([node("Gather", ["x", "i"], "y", axis=1)], {"i": np.array([0])})
    once, _ = narrow(model, NANO)
    assert narrow(once, NANO)[0] is once


def test_a_device_that_takes_float64_keeps_it():
    profile: DeviceProfile = replace(NANO, dtypes=NANO.dtypes | {"double"})
    model = model_of(
        [node("MatMul", ["x", "w"], "y")],
        {"w": np.eye(8)},
        x=(DOUBLE, ["N", 8]),
        y=(DOUBLE, ["N", 8]),
    )
    assert narrow(model, profile)[0] is model
