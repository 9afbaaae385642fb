"""Fusion: the kernels that a runtime launches for a graph, as the cost model sees them.

Runtimes run a convolution with what follows it in one launch. What follows differs little
between them: a bias, a normalisation that was not folded, an activation and, once, the other
side of a residual connection. A few differences remain, and `Rules` names them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..device_profiles.cost.cpu import is_blocked, path
from ..device_profiles.cost.fused import FusedKernel
from ..device_profiles.kernel import Kernel
from ..device_profiles.profile import Runtime
from .geometry import Geometry
from .model import Model
from .sites import Site

Shapes = Mapping[str, tuple[int, ...]]

_ACTIVATIONS = {
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSigmoid", "HardSwish", "Elu", "Selu",
    "Softplus", "ThresholdedRelu",
}  # fmt: skip
_POINTWISE = _ACTIVATIONS | {
    "Abs", "Add", "And", "Cast", "Ceil", "Div", "Equal", "Erf", "Exp", "Floor", "Greater",
    "Less", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal",
    "Round", "Sign", "Sqrt", "Sub", "Sum", "Where",
}  # fmt: skip
_VIEWS = {
    "Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze",
}  # fmt: skip
_ORT_ACTIVATIONS = {"Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSigmoid"}
_ANY_LAYOUT = _ORT_ACTIVATIONS | {
    "Add",
    "AveragePool",
    "Concat",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "MaxPool",
    "Mul",
    "Sum",
}
REORDER = "Reorder"
"""The launch of a change of layout."""
_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Rules:
    """What one runtime fuses.

    Args:
        activations: operators that run inside the convolution before them.
        joins_pointwise: whether chains of element-wise operators are one launch.
        concat_is_free: whether producers write into the joined tensor themselves.
    """

    activations: frozenset[str]
    joins_pointwise: bool
    concat_is_free: bool


RULES: Mapping[Runtime, Rules] = {
    "onnxruntime": Rules(frozenset(_ORT_ACTIVATIONS), False, False),
    "tensorrt": Rules(frozenset(_ACTIVATIONS), True, True),
}


def fused_kernels(
    model: Model,
    shapes: Shapes,
    runtime: Runtime,
    sites: Sequence[Site] = (),
    *,
    block: int = 1,
) -> list[FusedKernel]:
    """The launches of the top-level graph, in order.

    Nodes whose sizes are unknown, and bodies of If and Loop, are not in it: `uncounted` names
    them.

    Args:
        model: normalised.
        shapes: size of every value, by name (see runtime.probe).
        runtime: whose fusions.
        sites: those of the model, for the geometry of linear nodes.
        block: channels of a block of the runtime's own layout; changes of layout are launches
            too. 1 where it has none.
    """
    rules, known = RULES[runtime], {site.name: site for site in sites}
    taken: set[ir.Node] = set()
    seen: set[ir.Node] = set()
    kernels: list[FusedKernel] = []
    blocked: set[ir.Value] = set()
    for node in model.graph_model.graph:
        seen.add(node)
        if node in taken or node.op_type in _VIEWS or not _is_sized(node, shapes):
            continue
        if node.op_type == "Concat" and rules.concat_is_free:
            continue
        followers = list(_followers(node, rules, taken, seen))
        taken.update(followers)
        kernel = _kernel(node, followers, shapes, known.get(node.name or ""))
        if block > 1:
            kernels += _reorders(node, followers, kernel, shapes, block, blocked)
        kernels.append(kernel)
    return kernels


def _reorders(
    node: ir.Node,
    followers: Sequence[ir.Node],
    kernel: FusedKernel,
    shapes: Shapes,
    block: int,
    blocked: set[ir.Value],
) -> Iterator[FusedKernel]:
    """Changes of layout before a launch; notes what it writes in the blocked layout.

    `blocked` holds the values in the blocked layout so far; it is added to.
    """
    inside = {node, *followers}
    values = [
        value
        for n in inside
        for value in n.inputs
        if value is not None
        and value.producer() not in inside
        and ir.convenience.get_const_tensor(value) is None
    ]
    out = (followers[-1] if followers else node).outputs[0]
    is_conv = kernel.linear is not None and is_blocked(kernel, block)
    follows = node.op_type in _ANY_LAYOUT and bool(values) and values[0] in blocked
    wants = is_conv or follows
    if wants:
        blocked.add(out)
        if is_conv and path(kernel, block) == "stem":
            return  # reads the ordinary layout itself
    for value in values:
        if (value in blocked) != wants:
            size = 2 * _size(value, shapes)
            yield FusedKernel(REORDER, None, size // 2, size // 2, name=node.name or "")
            if not wants:
                blocked.discard(value)  # done once, whoever reads it next


def reordered(kernels: Sequence[FusedKernel], block: int) -> list[FusedKernel]:
    """A chain of convolutions in a blocked net, with the changes of layout it needs.

    The tensors around the chain are in the blocked layout, as they are around a convolution
    that was not factorised.
    """
    made: list[FusedKernel] = []
    state = True
    for kernel in kernels:
        wants = is_blocked(kernel, block)
        if wants != state:
            size = _read(kernel.linear) if kernel.linear else kernel.read
            made.append(FusedKernel(REORDER, None, size, size, name=kernel.name))
        made.append(kernel)
        state = wants
    if not state and made:
        size = made[-1].written
        made.append(FusedKernel(REORDER, None, size, size, name=made[-1].name))
    return made


def uncounted(model: Model, shapes: Shapes) -> list[str]:
    """Names of nodes that `fused_kernels` cannot size; empty for an ordinary net."""
    return [
        node.name or node.op_type
        for node in model.graph_model.graph
        if node.op_type not in _VIEWS and not _is_sized(node, shapes)
    ]


def replacement(original: FusedKernel, kernels: Sequence[Kernel]) -> list[FusedKernel]:
    """The launches of factors in the place of one kernel; the last takes over what was fused.

    Args:
        original: the launch of the dense layer.
        kernels: `Form.kernels` of the form; positions known.
    """
    made = [alone(kernel, name=original.name) for kernel in kernels]
    assert original.linear is not None, "only a linear kernel is replaced"
    extra = original.read - _read(original.linear)
    last = made[-1]
    made[-1] = FusedKernel(
        last.op,
        last.linear,
        last.read + max(extra, 0),
        original.written,
        last.strides,
        original.fused,
        original.name,
    )
    return made


def alone(kernel: Kernel, name: str = "") -> FusedKernel:
    """One linear kernel with nothing fused; unknown positions count as one."""
    return FusedKernel(
        kernel.op, kernel, _read(kernel), _written(kernel), _strides(kernel), (), name
    )


def _is_sized(node: ir.Node, shapes: Shapes) -> bool:
    if any(isinstance(a.value, ir.Graph) for a in node.attributes.values()):
        return False
    return bool(node.outputs) and node.outputs[0].name in shapes


def _followers(
    node: ir.Node, rules: Rules, taken: set[ir.Node], seen: set[ir.Node]
) -> Iterator[ir.Node]:
    """Nodes that run inside the launch of `node`; what they read has to be there by then."""
    is_linear = node.op_type in _LINEAR
    is_chain = rules.joins_pointwise and node.op_type in _POINTWISE
    residual = False
    at = node
    while is_linear or is_chain:
        then = _only_user(at)
        if then is None or then in taken or not _is_ready(then, at, seen):
            return
        op = then.op_type
        if is_chain:
            if op not in _POINTWISE:
                return
        elif op in rules.activations:
            yield then
            return
        elif op == "Add" and not residual:
            residual = _adds_tensor(then, at)
        elif op != "BatchNormalization":
            return
        yield then
        at = then


def _is_ready(node: ir.Node, source: ir.Node, seen: set[ir.Node]) -> bool:
    makers = [v.producer() for v in node.inputs if v is not None]
    return all(m is None or m is source or m in seen for m in makers)


def _adds_tensor(add: ir.Node, source: ir.Node) -> bool:
    """Whether an Add joins a second tensor, and not a constant."""
    others = [v for v in add.inputs if v is not None and v.producer() is not source]
    return any(ir.convenience.get_const_tensor(v) is None for v in others)


def _only_user(node: ir.Node) -> ir.Node | None:
    """The one node that reads what `node` makes; None where there are others or none."""
    if len([v for v in node.outputs if v.name and (v.uses() or v.is_graph_output())]) != 1:
        return None
    value = next(v for v in node.outputs if v.name and (v.uses() or v.is_graph_output()))
    users = {use.node for use in value.uses()}
    if value.is_graph_output() or len(users) != 1:
        return None
    user = next(iter(users))
    return user if user.graph is node.graph else None


def _kernel(
    node: ir.Node, followers: Sequence[ir.Node], shapes: Shapes, site: Site | None
) -> FusedKernel:
    inside = {node, *followers}
    read = sum(
        _size(value, shapes)
        for n in (node, *followers)
        for value in n.inputs
        if value is not None
        and value.producer() not in inside
        and ir.convenience.get_const_tensor(value) is None
    )
    last = followers[-1] if followers else node
    written = sum(_size(v, shapes) for v in last.outputs if v.name in shapes)
    linear = _linear(node, shapes, site)
    strides = site.geometry.strides if site is not None else _strides_of(node)
    return FusedKernel(
        node.op_type,
        linear,
        read,
        written,
        strides,
        tuple(n.op_type for n in followers),
        node.name or "",
    )


def _linear(node: ir.Node, shapes: Shapes, site: Site | None) -> Kernel | None:
    if site is not None:
        geometry: Geometry = site.geometry
        return geometry.as_kernel(site.shape[1], site.shape[2], site.shape[0])
    if node.op_type not in _LINEAR:
        return None
    sizes = [shapes.get(v.name or "") if v is not None else None for v in node.inputs[:2]]
    out = shapes[node.outputs[0].name or ""]
    left, right = sizes if len(sizes) == 2 else (None, None)
    if left is None or right is None or not left or not right:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        groups = node.attributes.get_int("group", 1) or 1
        kernel = tuple(right[2:])
        m, c = (right[0] // groups, right[1]) if node.op_type == "Conv" else (
            right[1], right[0] // groups)  # fmt: skip
        reads, writes = (left[0], *left[2:]), (out[0], *out[2:])
        return Kernel(node.op_type, groups, m, c, kernel, reads, writes)
    if node.op_type == "Gemm":
        inner = left[0] if node.attributes.get_int("transA", 0) else left[-1]
        return Kernel("MatMul", 1, out[-1], inner, (), (out[0],), (out[0],))
    if len(left) == 1 or len(right) == 1:
        return Kernel("MatMul", 1, 1, left[-1], (), (math.prod(out),), (math.prod(out),))
    batch = math.prod(out[:-2])
    shares = math.prod(right[:-2]) == 1  # one matrix for all rows
    rows = math.prod(out[:-1]) if shares else out[-2]
    return Kernel("MatMul", 1 if shares else batch, out[-1], left[-1], (), (rows,), (rows,))


def _size(value: ir.Value, shapes: Shapes) -> int:
    shape = shapes.get(value.name or "")
    return math.prod(shape) if shape is not None else 0


def _strides_of(node: ir.Node) -> tuple[int, ...]:
    found: Iterable[int] = node.attributes.get_ints("strides", ()) or ()
    return tuple(found)


def _strides(kernel: Kernel) -> tuple[int, ...]:
    """Strides as the positions show them."""
    if kernel.op != "Conv" or kernel.in_extent is None or kernel.out_extent is None:
        return ()
    pairs = zip(kernel.in_extent[1:], kernel.out_extent[1:], strict=True)
    return tuple(max(round(a / b), 1) if b else 1 for a, b in pairs)


def _read(kernel: Kernel) -> int:
    extent = kernel.in_extent
    return kernel.groups * kernel.inputs * (1 if extent is None else math.prod(extent))


def _written(kernel: Kernel) -> int:
    extent = kernel.out_extent
    return kernel.groups * kernel.outputs * (1 if extent is None else math.prod(extent))
