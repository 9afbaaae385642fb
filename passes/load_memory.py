"""Memory while a model is loaded: the weights, and what unfolding them leaves behind.

A runtime that folds constants keeps every result until it has folded them all: between a
packed weight and the dense one lie a few arrays of the dense size. Estimate: copies · (dense
weights) + all results of constant nodes but the last of each chain, as measured for ONNX
Runtime 1.31 (AlexNet and VGG16: within 15 %).
"""

import math
from collections.abc import Sequence

import onnx
import onnx_ir as ir

from ..device_profiles.profile import DeviceProfile

SHARE = 2
"""A load may take one part in this many of a device's memory."""


def result_bytes(
    nodes: Sequence[ir.Node], initializers: Sequence[ir.Value], opset: int
) -> dict[str, int]:
    """Bytes of what each of some constant nodes computes, by the name of the value.

    Sizes that shape inference does not find count as nothing.
    """
    if not nodes:
        return {}
    graph = onnx.GraphProto(name="constants")
    for value in initializers:
        assert value.const_value is not None
        graph.initializer.append(ir.to_proto(value.const_value))
    graph.node.extend(ir.to_proto(node) for node in nodes)
    last = nodes[-1].outputs[0].name or ""
    graph.output.append(onnx.ValueInfoProto(name=last))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return {
        info.name: _bytes(info.type.tensor_type)
        for info in (*inferred.graph.value_info, *inferred.graph.output)
    }


def load_bytes(dense_bytes: int, temporary_bytes: int, profile: DeviceProfile) -> int:
    """Peak memory of loading a model with weights of `dense_bytes` once they are unfolded."""
    return (
        profile.build_weight_copies * dense_bytes
        + profile.build_workspace_bytes
        + temporary_bytes
    )


def too_much(dense_bytes: int, temporary_bytes: int, profile: DeviceProfile) -> str:
    """Why the device should not unfold so much while loading; "" where it may."""
    if profile.memory_bytes is None or not temporary_bytes:
        return ""
    need, room = (
        load_bytes(dense_bytes, temporary_bytes, profile),
        profile.memory_bytes // SHARE,
    )
    if need <= room:
        return ""
    return (
        f"unfolding the weights would take {need >> 20} MiB while loading; half the memory of "
        f"{profile.name} is {room >> 20} MiB"
    )


def _bytes(kind: onnx.TypeProto.Tensor) -> int:
    if not kind.HasField("shape") or not kind.elem_type:
        return 0
    sizes = [dim.dim_value for dim in kind.shape.dim]
    return math.prod(sizes) * onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
