"""What a device cannot take of a model: every offending node named, before any work."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..device_profiles.profile import DeviceProfile
from .model import Model
from .opset_change import change, schema_of
from .parser_rules import constant
from .tensorrt_rules import CLAMPS_INT64, OLDEST_OPSET, violations

_STANDARD = ("", "ai.onnx")
_ORT_DOMAINS = ("ai.onnx.ml", "ai.onnx.preview", "com.microsoft", "com.microsoft.nchwc")
_FUNCTIONS_IR = 8
_MIB = 1 << 20
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Finding:
    """One thing the device cannot take.

    Args:
        node: the node, or the input, output, initializer or function; "" for the whole model.
        op: its operator; "input", "output", "initializer", "function" or "model" otherwise.
        reason: what is wrong.
        remedy: what a person can do today.
    """

    node: str
    op: str
    reason: str
    remedy: str


def check(model: Model, profile: DeviceProfile) -> list[Finding]:
    """Everything in `model` that the device of `profile` cannot take; empty when it can.

    Best asked of a normalised model: folded constants no longer offend. A model whose opset is
    newer than the device's has no finding when every node means the same there.

    Args:
        model: any model that onnx-ir reads; not changed.
        profile: the device.

    Returns:
        Findings in graph order, those of the whole model last, no doubles.
    """
    graph = model.graph_model.graph
    found = [*_functions(model, profile), *_interface_types(graph, profile)]
    functions = {(f.domain, f.name) for f in model.graph_model.functions.values()}
    for scope in _scopes(graph):
        found += _initializers(scope, profile)
    for node in graph.all_nodes():
        found += objections(node, model.opset, profile, functions)
    found += [*_age(model, profile), *_memory(graph, profile)]
    return list(dict.fromkeys(found))


def objections(
    node: ir.Node,
    opset: int,
    profile: DeviceProfile,
    functions: Collection[tuple[str, str]] = (),
) -> Iterator[Finding]:
    """Everything the device of `profile` has against one node written for `opset`.

    Args:
        node: connected; element types and shapes count where they are known.
        opset: of the default domain, of the model that the node is in.
        profile: the device.
        functions: (domain, name) of the model's local functions.

    Yields:
        Its operator, or how that changed since the device's opset; its types; its structure.
    """
    name = label(node)
    unknown = _operator(node, opset, profile, functions)
    if unknown is not None:
        yield unknown
    elif node.domain in _STANDARD and opset > profile.max_opset:
        why = change(node, opset, profile.max_opset)
        if why is not None:
            yield Finding(
                name,
                node.op_type,
                f"{why}; {profile.name} reads opset {profile.max_opset}",
                f"re-export with opset_version={profile.max_opset}",
            )
    for value in node.outputs:
        tensor = constant(value) if node.op_type == "Constant" else None
        dtype = tensor.dtype if tensor is not None else value.dtype
        reason = _foreign_type(dtype, profile)
        if reason:
            yield Finding(name, node.op_type, f"produces {reason}", _type_remedy(dtype))
        if tensor is not None and _overflows(value, tensor, profile):
            yield _overflow(name, node.op_type)
    if profile.runtime == "tensorrt":
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and (
            "int8" not in profile.precisions
        ):
            yield Finding(
                name,
                node.op_type,
                f"{profile.name} computes no int8",
                "start from the model before quantization",
            )
        for reason, remedy in violations(node, profile):
            yield Finding(name, node.op_type, reason, remedy)


def _operator(
    node: ir.Node, opset: int, profile: DeviceProfile, functions: Collection[tuple[str, str]]
) -> Finding | None:
    """A finding when the runtime has no such operator."""
    name, op = label(node), node.op_type
    if (node.domain, op) in functions:
        return None  # its definition is checked where functions are
    if node.domain in _STANDARD:
        schema = schema_of(op, opset)
        if schema is None or schema.deprecated:
            state = "does not exist" if schema is None else "is deprecated"
            return Finding(
                name,
                op,
                f"operator {op} {state} at opset {opset}",
                "re-export the model, or correct its opset_import",
            )
        if profile.operators is None or op in profile.operators:
            return None
    elif profile.operators is None and node.domain.startswith(_ORT_DOMAINS):
        return None
    full = op if node.domain in _STANDARD else f"{node.domain}::{op}"
    return Finding(
        name,
        op,
        f"{profile.runtime_title} has no operator {full}",
        "re-export with standard operators that the device lists "
        f"(opset_version={profile.max_opset})",
    )


def _functions(model: Model, profile: DeviceProfile) -> Iterator[Finding]:
    """Model-local functions: no parser before TensorRT 9 reads them, nor an IR before 8.

    Newer parsers do, but name the layers of two calls alike and refuse the second (seen with
    TensorRT-RTX 1.7.1).
    """
    if profile.runtime != "tensorrt" and profile.max_ir_version >= _FUNCTIONS_IR:
        return
    reads = profile.parser in ("tensorrt-10", "tensorrt-rtx")
    what = (
        "takes no two calls of one function"
        if reads
        else "does not read model-local functions"
    )
    for function in model.graph_model.functions.values():
        yield Finding(
            f"{function.domain}::{function.name}",
            "function",
            f"{profile.runtime_title} {what}",
            "inline them (onnx.inliner, or export without functions)",
        )


def _interface_types(graph: ir.Graph, profile: DeviceProfile) -> Iterator[Finding]:
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            reason = _foreign_type(value.dtype, profile)
            if reason:
                yield Finding(
                    value.name or "", kind, f"is {reason}", _type_remedy(value.dtype)
                )
            elif profile.runtime == "tensorrt" and not _is_plain(value):
                yield Finding(
                    value.name or "",
                    kind,
                    f"is no tensor, and {profile.runtime_title} takes nothing else",
                    "export it as tensors",
                )


def _initializers(graph: ir.Graph, profile: DeviceProfile) -> Iterator[Finding]:
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        reason = _foreign_type(tensor.dtype, profile)
        if reason:
            yield Finding(name, "initializer", f"is {reason}", _type_remedy(tensor.dtype))
        elif _overflows(value, tensor, profile):
            yield _overflow(name, "initializer")


def _is_plain(value: ir.Value) -> bool:
    """Whether a value is a tensor, as far as is known."""
    return value.type is None or isinstance(value.type, ir.TensorType)


def _foreign_type(dtype: ir.DataType | None, profile: DeviceProfile) -> str:
    """What to call an element type that the device does not take; "" when it does."""
    if dtype is None or dtype == ir.DataType.UNDEFINED:
        return ""
    name = dtype.name.lower()
    return (
        ""
        if name in profile.dtypes
        else f"{name}, which {profile.runtime_title} does not take"
    )


def _type_remedy(dtype: ir.DataType | None) -> str:
    if dtype in (ir.DataType.DOUBLE, ir.DataType.BFLOAT16):
        return "export in float32 (model.float() in torch)"
    if dtype is not None and dtype.is_integer():
        return "use int32 instead, or move the conversion out of the model"
    return "export in float32"


def _overflows(value: ir.Value, tensor: ir.TensorProtocol, profile: DeviceProfile) -> bool:
    """Whether an int64 constant leaves int32, where the parser would clamp it.

    The ends of a Slice may: "to the end" is written as the largest int64, and clamped it still
    means the end.
    """
    if profile.parser not in CLAMPS_INT64:
        return False
    if tensor.dtype != ir.DataType.INT64 or tensor.size == 0:
        return False
    if all(node.op_type == "Slice" and at in (1, 2) for node, at in value.uses()):
        return False
    array = tensor.numpy()
    return bool(array.min() < _INT32.min or array.max() > _INT32.max)


def _overflow(name: str, op: str) -> Finding:
    return Finding(
        name,
        op,
        "int64 values beyond int32 would be clamped",
        "use values within int32",
    )


def _age(model: Model, profile: DeviceProfile) -> Iterator[Finding]:
    """An operator set older than the parser reads."""
    oldest = OLDEST_OPSET[profile.parser] if profile.parser else 0
    if 0 < model.opset < oldest:
        yield Finding(
            "",
            "model",
            f"is written in opset {model.opset}; "
            f"{profile.runtime_title} reads {oldest} and newer",
            f"re-export with an opset_version of {oldest} to {profile.max_opset}",
        )


def _memory(graph: ir.Graph, profile: DeviceProfile) -> Iterator[Finding]:
    """Peak memory of a load or build: copies · weights + workspace, against the device's."""
    if profile.memory_bytes is None:
        return
    weights = weight_bytes(graph)
    need = profile.build_weight_copies * weights + profile.build_workspace_bytes
    if need > profile.memory_bytes:
        workspace = (
            f" + {profile.build_workspace_bytes // _MIB} MiB of workspace"
            if profile.build_workspace_bytes
            else ""
        )
        yield Finding(
            "",
            "model",
            f"needs about {need // _MIB} MiB to build or load "
            f"({profile.build_weight_copies} x {weights // _MIB} MiB of weights{workspace}); "
            f"{profile.name} has {profile.memory_bytes // _MIB} MiB",
            "compress it further (--size), or store the weights in float16",
        )


def weight_bytes(graph: ir.Graph) -> int:
    """Bytes of all constants of a graph, its subgraphs and its Constant nodes."""
    total = sum(
        value.const_value.nbytes
        for scope in _scopes(graph)
        for value in scope.initializers.values()
        if value.const_value is not None
    )
    for node in graph.all_nodes():
        if node.op_type == "Constant":
            tensor = constant(node.outputs[0])
            total += tensor.nbytes if tensor is not None else 0
    return total


def _scopes(graph: ir.Graph) -> list[ir.Graph]:
    """The graph and every subgraph in it."""
    return [graph, *graph.subgraphs()]


def label(node: ir.Node) -> str:
    """What to call a node: its name, or its first output where it has none."""
    if node.name:
        return node.name
    return f"(unnamed, makes {node.outputs[0].name!r})" if node.outputs else "(unnamed)"
