"""Stamping an older opset: allowed only where ONNX Runtime computes the same at both."""

import warnings
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from nets import build
from nncc.passes.model import Model
from nncc.passes.opset_change import change, stamp

ULPS = 16  # kernels of different versions may add in another order


def outputs(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def restamped(model: Model, opset: int) -> Model:
    """A copy stamped with an older operator set, in IR version 7 as old parsers want it."""
    copy = model.copied()
    stamp(copy.graph_model, opset)
    copy.graph_model.ir_version = 7
    return copy


def arrays_only(case: Any) -> dict[str, np.ndarray] | None:
    """The inputs of a conformance case by name; None where one is no array."""
    values = case.data_sets[0][0]
    if any(not isinstance(value, np.ndarray | np.generic) for value in values):
        return None
    names = [value.name for value in case.model.graph.input]
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def stampable_cases(target: int):
    """Conformance cases newer than `target` whose nodes are all free of `change`."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases("")
    for case in cast("list[Any]", cases):
        opset = next((o.version for o in case.model.opset_import if o.domain == ""), 0)
        if opset <= target or case.model.functions:
            continue
        model = ir.from_proto(case.model)
        nodes = [node for node in model.graph.all_nodes() if node.domain == ""]
        if nodes and not any(change(node, opset, target) for node in nodes):
            yield case, Model(model, case.name, "")


@pytest.mark.parametrize("target", [13, 17])
def test_what_is_called_unchanged_computes_the_same_in_onnx_runtime(target):
    """Over the operator conformance cases of onnx; 3 to 7 s: a thousand sessions are made."""
    compared = 0
    for case, model in stampable_cases(target):
        feeds = arrays_only(case)
        if feeds is None:
            continue
        try:
            expected = outputs(case.model, feeds)
        except Exception:  # noqa: BLE001 - the runtime lacks this operator or type
            continue
        stamped = ir.to_proto(restamped(model, target).graph_model)
        onnx.checker.check_model(stamped)
        for before, after in zip(expected, outputs(stamped, feeds), strict=True):
            if isinstance(before, np.ndarray) and before.dtype.kind == "f":
                scale = np.max(np.abs(before), initial=0)
                near = ULPS * np.finfo(before.dtype).eps * (scale if np.isfinite(scale) else 1)
                np.testing.assert_allclose(after, before, rtol=0, atol=near, err_msg=case.name)
            elif isinstance(before, np.ndarray):
                np.testing.assert_array_equal(after, before, err_msg=case.name)
        compared += 1
    assert compared > 300


def node(op_type: str, inputs: int = 1, outputs: int = 1, **attributes: Any) -> ir.Node:
    return ir.node(
        op_type,
        [ir.Value(name=f"x{i}") for i in range(inputs)],
        attributes,
        num_outputs=outputs,
    )


@pytest.mark.parametrize(
    ("subject", "current", "target", "why"),
    [
        (node("Relu"), 25, 13, None),
        (node("Conv", 3), 22, 11, None),
        (node("Gelu"), 20, 13, "came with opset 20"),
        (node("LayerNormalization", 2), 17, 13, "came with opset 17"),
        (node("ReduceMean", 2), 18, 13, "takes more inputs or outputs since opset 18"),
        (node("ReduceMean", 1, keepdims=0), 18, 13, None),
        (node("Split", 1, 2, num_outputs=2), 18, 13, "attribute 'num_outputs' since opset 18"),
        (node("Reshape", 2, allowzero=0), 19, 13, None),
        (node("Reshape", 2, allowzero=1), 19, 13, "attribute 'allowzero' since opset"),
        (node("Pad", 2, mode="wrap"), 19, 13, "mode='wrap' came with opset 19"),
        (node("AveragePool", ceil_mode=1, kernel_shape=[2]), 19, 13, "ceil_mode=1"),
        (node("AveragePool", kernel_shape=[2]), 19, 13, None),
        (node("RoiAlign", 3), 16, 13, "computes differently since opset 16"),
        (
            node("ScatterND", 3, reduction="add"),
            16,
            13,
            "attribute 'reduction' since opset 16",
        ),
    ],
    ids=lambda value: value.op_type if isinstance(value, ir.Node) else "",
)
def test_a_change_is_told_with_the_version_it_came_with(subject, current, target, why):
    got = change(subject, current, target)
    assert got is None if why is None else why in (got or "")


def test_an_element_type_that_came_later_is_a_change():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.INT32))
    assert change(ir.node("Relu", [x]), 14, 13) == "takes int32 only since opset 14"


def test_attributes_that_say_their_default_are_dropped_by_the_stamp():
    x, shape = ir.Value(name="x"), ir.Value(name="s")
    reshape = ir.node("Reshape", [x, shape], {"allowzero": 0})
    graph = ir.Graph([x, shape], reshape.outputs, nodes=[reshape], opset_imports={"": 19})
    stamped = restamped(Model(ir.Model(graph, ir_version=10), "m", ""), 13)
    assert stamped.opset == 13
    assert stamped.graph_model.ir_version == 7
    assert not stamped.graph_model.graph.node(0).attributes
    assert reshape.attributes  # the original is untouched


def test_a_stamped_network_is_bit_equal_in_onnx_runtime():
    proto = build("resnet20", "he", opset=21)
    stamped = restamped(Model(ir.from_proto(proto), "m", ""), 13)
    x = {"input": np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)}
    (before,), (after,) = outputs(proto, x), outputs(ir.to_proto(stamped.graph_model), x)
    np.testing.assert_array_equal(before, after)
