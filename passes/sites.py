"""Sites: the constant weights of a model where they are used, or why they are left alone."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from .geometry import Extent, Geometry, Weights, distinct_schemes
from .model import Model

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
_WEIGHT_AT: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
}
_LEFT_ALONE: Mapping[str, str] = {
    "LSTM": "recurrent weight: its products are inside one operator",
    "GRU": "recurrent weight: its products are inside one operator",
    "RNN": "recurrent weight: its products are inside one operator",
    "Gather": "table that is looked up, not multiplied",
    "GatherND": "table that is looked up, not multiplied",
    "Einsum": "general contraction",
}
_LISTED_FROM = 256
"""Constants of other operators are listed from this many elements, in two or more axes."""


@dataclass(frozen=True)
class Site:
    """A constant weight at the node that multiplies by it.

    Args:
        name: name of the node.
        op: Conv, ConvTranspose, Gemm or MatMul.
        shape: (groups, outputs, inputs, *kernel), as forms see the weight.
        geometry: how it is applied.
        weight_name: the initialiser.
        input_name, output_name: the values read and written.
        shares: other sites that read the same initialiser, all in the same way.
        is_kept: whether the initialiser stays in the file anyway, read by something else too.
        node: the node in the model it was found in.
        position: which input of the node the weight is.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    geometry: Geometry
    weight_name: str
    input_name: str
    output_name: str
    shares: tuple[str, ...] = ()
    is_kept: bool = False
    node: ir.Node = field(repr=False, compare=False, kw_only=True)
    position: int = field(kw_only=True)

    @property
    def weights(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> ir.DataType:
        """Element type in the file."""
        return _tensor(self.node.inputs[self.position]).dtype

    @property
    def schemes(self) -> tuple[int, ...]:
        """Foldings that differ for this layer."""
        return distinct_schemes(self.geometry)

    @property
    def macs(self) -> int | None:
        """Multiply-adds of the layer as it is; None where positions are unknown."""
        return self.geometry.as_kernel(self.shape[1], self.shape[2], self.shape[0]).macs

    def W(self) -> Weights:
        """The weight, float32, of `shape`; read from the file at every call.

        A Gemm's alpha is multiplied in.
        """
        array = _tensor(self.node.inputs[self.position]).numpy()
        g, m, c, *kernel = self.shape
        if self.op == "Conv":
            W = array.reshape(self.shape)
        elif self.op == "ConvTranspose":
            W = array.reshape(g, c, m, *kernel).swapaxes(1, 2)
        else:
            matrix = array.reshape(array.shape[-2:])
            stored_as_outputs = self.geometry.weight_is_left != gemm_transposes(self)
            W = (matrix if stored_as_outputs else matrix.T)[None]
        alpha = _alpha(self)
        W = np.asarray(W, dtype=np.float32)
        return np.ascontiguousarray(W if alpha == 1.0 else W * np.float32(alpha))


@dataclass(frozen=True)
class Skipped:
    """A constant that no form is offered for, and why.

    Args:
        name: name of the node that uses it.
        op: its operator.
        reason: why it is left alone.
        weights: number of elements.
        shape: its shape in the file.
        weight_name: the initialiser.
        width: bits of an element.
    """

    name: str
    op: str
    reason: str
    weights: int
    shape: tuple[int, ...] = ()
    weight_name: str = ""
    width: int = 32


def find_sites(
    model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[list[Site], list[Skipped]]:
    """Every weight that can be compressed, in graph order, and every one that is left alone.

    Args:
        model: a normalised model (constants lifted to initialisers, unique node names).
        shapes: sizes of values for one sample, by value name, to count positions with. The
            graph's own shapes are used where a name is missing.
    """
    sites: list[Site] = []
    skipped: list[Skipped] = []
    for node in _nodes(model.graph_model.graph):
        for position, value in enumerate(node.inputs):
            tensor = None if value is None else ir.convenience.get_const_tensor(value)
            if tensor is None:
                continue
            if position in _WEIGHT_AT.get(node.op_type, ()) and node.domain == "":
                found = _site(node, position, tensor, shapes or {})
                if isinstance(found, Site):
                    sites.append(found)
                elif found is not None:
                    skipped.append(found)
            elif _is_matrix(tensor) and tensor.dtype in _FLOATS:
                reason = _LEFT_ALONE.get(node.op_type, "not the weight of a linear layer")
                skipped.append(_skipped(node, position, tensor, reason))
    return _grouped(sites, skipped)


def skipped_weights(sites: Iterable[Site], skipped: Iterable[Skipped]) -> int:
    """Number of weights that only what is left alone reads, each counted once."""
    seen = {site.weight_name for site in sites}
    total = 0
    for entry in skipped:
        total += 0 if entry.weight_name in seen else entry.weights
        seen.add(entry.weight_name)
    return total


def gemm_transposes(site: Site) -> bool:
    """Whether the Gemm reads its weight transposed."""
    if site.op != "Gemm":
        return False
    return bool(_int(site.node, "transA" if site.position == 0 else "transB", 0))


def gemm_transposes_input(site: Site) -> bool:
    """Whether the Gemm reads its other operand transposed."""
    if site.op != "Gemm":
        return False
    return bool(_int(site.node, "transB" if site.position == 0 else "transA", 0))


def _grouped(
    sites: Sequence[Site], skipped: Sequence[Skipped]
) -> tuple[list[Site], list[Skipped]]:
    """The sites, told who else reads their weight.

    One term stands for one matrix: a weight that is read in two ways (transposed, scaled or
    grouped otherwise: tied autoencoders) is left alone.
    """
    by_weight: dict[str, list[Site]] = {}
    for site in sites:
        by_weight.setdefault(site.weight_name, []).append(site)
    readers = {(site.node, site.position) for site in sites}
    alone = list(skipped)
    found: list[Site] = []
    for site in sites:
        users = by_weight[site.weight_name]
        other = next((user for user in users if _reading(user) != _reading(site)), None)
        value = site.node.inputs[site.position]
        assert value is not None, "a site's weight is there"
        if other is not None:
            reason = f"its weight is read in another way by {other.name!r}"
            alone.append(_skipped(site.node, site.position, _tensor(value), reason))
            continue
        uses = {(use.node, use.idx) for use in value.uses()}
        is_kept = value.is_graph_output() or not uses <= readers
        shares = tuple(user.name for user in users if user is not site)
        found.append(replace(site, shares=shares, is_kept=is_kept))
    return found, alone


def _reading(site: Site) -> tuple[object, ...]:
    """What makes the matrix of a site out of the initialiser."""
    as_outputs = site.geometry.weight_is_left != gemm_transposes(site)
    return site.op == "ConvTranspose", site.shape, as_outputs, _alpha(site)


def _site(
    node: ir.Node,
    position: int,
    tensor: ir.TensorProtocol,
    shapes: Mapping[str, tuple[int, ...]],
) -> Site | Skipped | None:
    if tensor.dtype not in _FLOATS:
        return _skipped(
            node, position, tensor, f"already quantised ({tensor.dtype.name.lower()})"
        )
    if tensor.dtype == ir.DataType.DOUBLE:
        return _skipped(node, position, tensor, "float64: no target computes in it")
    if node.op_type in ("MatMul", "Gemm"):
        return _product(node, position, tensor, shapes)
    return _convolution(node, tensor, shapes)


def _convolution(
    node: ir.Node, tensor: ir.TensorProtocol, shapes: Mapping[str, tuple[int, ...]]
) -> Site | Skipped:
    dims = tuple(int(d) for d in tensor.shape.numpy())
    rank = len(dims) - 2
    if rank < 1:
        return _skipped(node, 1, tensor, "a convolution without kernel axes")
    transposed = node.op_type == "ConvTranspose"
    groups = _int(node, "group", 1)
    kernel = dims[2:]
    if transposed:
        shape = (groups, dims[1], dims[0] // groups, *kernel)
    else:
        shape = (groups, dims[0] // groups, dims[1], *kernel)
    explicit_size = bool(_ints(node, "output_shape", ()))
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET") or "NOTSET"
    x, y = node.inputs[0], node.outputs[0]
    if explicit_size:
        return _skipped(node, 1, tensor, "output size given by the attribute output_shape")
    geometry = Geometry(
        "ConvTranspose" if transposed else "Conv",
        groups,
        kernel,
        _ints(node, "strides", (1,) * rank),
        _ints(node, "dilations", (1,) * rank),
        _ints(node, "pads", (0,) * (2 * rank)),
        _ints(node, "output_padding", (0,) * rank) if transposed else (),
        auto_pad,
        in_extent=_positions(x, shapes),
        out_extent=_positions(y, shapes),
    )
    return Site(
        _name(node),
        node.op_type,
        shape,
        geometry,
        _value_name(node.inputs[1]),
        _value_name(x),
        _value_name(y),
        node=node,
        position=1,
    )


def _product(
    node: ir.Node,
    position: int,
    tensor: ir.TensorProtocol,
    shapes: Mapping[str, tuple[int, ...]],
) -> Site | Skipped | None:
    other = node.inputs[1 - position]
    if other is not None and ir.convenience.get_const_tensor(other) is not None:
        return (
            _skipped(node, position, tensor, "product of two constants") if position else None
        )
    dims = tuple(int(d) for d in tensor.shape.numpy())
    if len(dims) < 2:
        return _skipped(node, position, tensor, "a vector: nothing to factorise")
    if math.prod(dims[:-2]) != 1:
        return _skipped(
            node, position, tensor, "a batch of matrices: each multiplies another input"
        )
    left = position == 0
    rows, columns = dims[-2:]
    name = "transA" if left else "transB"
    swap = bool(_int(node, name, 0)) if node.op_type == "Gemm" else False
    if swap:
        rows, columns = columns, rows
    m, n = (rows, columns) if left else (columns, rows)
    known = None if other is None else _dims(other, shapes)
    rank = None if other is None or other.shape is None else len(other.shape)
    geometry = Geometry(
        "MatMul",
        weight_is_left=left,
        lead=dims[:-2],
        input_rank=2 if node.op_type == "Gemm" else len(known) if known is not None else rank,
    )
    if known is not None:
        extent = (math.prod(known) // n,) if n else (0,)
        geometry = replace(geometry, in_extent=extent, out_extent=extent)
    return Site(
        _name(node),
        node.op_type,
        (1, m, n),
        geometry,
        _value_name(node.inputs[position]),
        _value_name(other),
        _value_name(node.outputs[0]),
        node=node,
        position=position,
    )


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(graph)


def _is_matrix(tensor: ir.TensorProtocol) -> bool:
    """Whether a constant is big enough to be a weight: no bias, scale or shape."""
    wide = [size for size in tensor.shape.numpy() if size > 1]
    return len(wide) > 1 and math.prod(wide) >= _LISTED_FROM


def _skipped(node: ir.Node, position: int, tensor: ir.TensorProtocol, reason: str) -> Skipped:
    dims = tuple(int(d) for d in tensor.shape.numpy())
    return Skipped(
        _name(node),
        node.op_type,
        reason,
        math.prod(dims),
        dims,
        _value_name(node.inputs[position]),
        int(8 * tensor.dtype.itemsize),
    )


def _tensor(value: ir.Value | None) -> ir.TensorProtocol:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    assert tensor is not None, "a site's weight is constant"
    return tensor


def _name(node: ir.Node) -> str:
    return node.name or f"{node.op_type}:{_value_name(node.outputs[0])}"


def _value_name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


def _dims(value: ir.Value, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    if value.name is not None and value.name in shapes:
        return shapes[value.name]
    if value.shape is None:
        return None
    sizes = [d for d in value.shape if isinstance(d, int)]
    return tuple(sizes) if len(sizes) == len(value.shape) else None


def _positions(value: ir.Value | None, shapes: Mapping[str, tuple[int, ...]]) -> Extent:
    dims = None if value is None else _dims(value, shapes)
    return None if dims is None else (dims[0], *dims[2:])


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes.get_int(name, default)


def _alpha(site: Site) -> float:
    return site.node.attributes.get_float("alpha", 1.0) if site.op == "Gemm" else 1.0


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(node.attributes.get_ints(name, default))
