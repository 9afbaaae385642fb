"""Models lowered for an old device, and what they then compute beside the original."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from nncc.device_profiles.profile import DeviceProfile
from nncc.device_profiles.registry import load
from nncc.passes.check import check
from nncc.passes.legalise import Legalised, legalise
from nncc.passes.model import Model

Arrays = Mapping[str, np.ndarray]
OLD = ("jetson-nano", "jetson-nano-jp44")
"""Opset 13 and IR 7; opset 11 and IR 6."""


@dataclass(frozen=True)
class Outcome:
    """A lowered model beside its original.

    Args:
        legalised: what legalisation made.
        proto: the same, as it is written to a file.
        expected, got: outputs of the original and of the lowered model, in order.
    """

    legalised: Legalised
    proto: onnx.ModelProto
    expected: Sequence[np.ndarray]
    got: Sequence[np.ndarray]

    @property
    def operators(self) -> list[str]:
        return [node.op_type for node in self.proto.graph.node]

    @property
    def difference(self) -> float:
        """Largest difference of any output, relative to that output's largest value."""
        pairs = zip(self.expected, self.got, strict=True)
        return max((relative(a, b) for a, b in pairs), default=0.0)


def relative(want: np.ndarray, got: np.ndarray) -> float:
    """max |want − got| / max |want|; what is not finite must be so in the same places."""
    assert want.shape == got.shape, f"shape {got.shape} for {want.shape}"
    assert want.dtype == got.dtype, f"{got.dtype} for {want.dtype}"
    if want.dtype.kind in "biu":
        return float(np.any(want != got))
    a, b = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    np.testing.assert_array_equal(a[~finite], b[~finite])
    assert np.isfinite(b[finite]).all(), "not finite where the original is"
    scale = np.abs(a[finite]).max(initial=0.0)
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0) / max(scale, 1e-30))


def one_node(
    op: str,
    inputs: Mapping[str, np.ndarray | None],
    *,
    opset: int,
    outputs: int = 1,
    constants: Sequence[str] = (),
    dynamic: bool = True,
    domain: str = "",
    **attributes,
) -> onnx.ModelProto:
    """A model of one node; inputs named in `constants` are initialisers, None is left out.

    Where `dynamic`, every axis of every input has a name in place of a size.
    """
    names = [name if array is not None else "" for name, array in inputs.items()]
    made = [f"y{at}" for at in range(outputs)]
    node = helper.make_node(op, names, made, name="it", domain=domain, **attributes)
    given = {name: array for name, array in inputs.items() if array is not None}
    values = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            [f"{name}_{at}" for at in range(array.ndim)] if dynamic else array.shape,
        )
        for name, array in given.items()
        if name not in constants
    ]
    tensors = [numpy_helper.from_array(given[name], name) for name in constants]
    ends = [helper.make_empty_tensor_value_info(name) for name in made]
    graph = helper.make_graph([node], "one", values, ends, tensors)
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    for at, array in enumerate(defined(model, given)):
        sizes = [f"y{at}_{axis}" if dynamic else size for axis, size in enumerate(array.shape)]
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        model.graph.output[at].CopyFrom(
            helper.make_tensor_value_info(made[at], element, sizes)
        )
    return model


def profile(name: str = "jetson-nano") -> DeviceProfile:
    """The profile of a target that is read from a file."""
    return load(name)


def lowered(
    proto: onnx.ModelProto, target: DeviceProfile
) -> tuple[Legalised, onnx.ModelProto]:
    """`legalise` alone, and what it made as it is written."""
    done = legalise(Model(ir.from_proto(proto), "test", "0" * 64), target)
    return done, ir.to_proto(done.model.graph_model)


def run(proto: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray]:
    """The outputs in ONNX Runtime, as written: nothing is fused or folded."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    needed = {value.name for value in proto.graph.input}
    return session.run(  # pyright: ignore[reportReturnType]
        None, {n: array for n, array in feeds.items() if n in needed}
    )


def defined(proto: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray]:
    """What the model should give: `run`, or onnx's own reference where the runtime cannot."""
    try:
        return run(proto, feeds)
    except Exception:  # noqa: BLE001 - onnxruntime's kinds are not exported
        made = ReferenceEvaluator(proto).run(None, dict(feeds))
        return made  # pyright: ignore[reportReturnType]


def outcome(proto: onnx.ModelProto, feeds: Arrays, target: str = "jetson-nano") -> Outcome:
    """The model lowered for `target`, valid there, and both run on the same feeds."""
    device = profile(target)
    done, made = lowered(proto, device)
    assert not done.refused, done.refused
    assert not (found := check(done.model, device)), found
    assert made.opset_import[0].version <= device.max_opset
    assert made.ir_version <= device.max_ir_version
    onnx.checker.check_model(made, full_check=True)
    return Outcome(done, made, defined(proto, feeds), run(made, feeds))
