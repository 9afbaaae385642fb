"""The contract of a lowering: what it is given, what it makes, and how it says no."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import onnx_ir as ir

from ...device_profiles.profile import DeviceProfile
from ..constants import Array
from ..names import SOURCE, legal
from ..opset_change import schema_of
from .infer import infer_node
from .known import Refused, dtype_of, from_front, known, rank_of, sizes_of

__all__ = ["Builder", "Goal", "Lowering", "Operand", "Refused"]

Operand = ir.Value | float | int | bool | None
"""An input of a node; a bare number becomes a constant of the type of the first value."""
Attribute = (
    int | float | str | Sequence[int] | Sequence[float] | Sequence[str]
    | ir.Graph | ir.TensorProtocol | None
)  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """What the graph must become.

    Args:
        opset: operator set that is written: the smaller of the model's and the device's.
        profile: the device.
    """

    opset: int
    profile: DeviceProfile

    def takes(self, op_type: str) -> bool:
        """Whether the device lists an operator and the operator set has it."""
        operators = self.profile.operators
        listed = operators is None or op_type in operators
        return listed and schema_of(op_type, self.opset) is not None


class Builder:
    """Makes the nodes that take the place of one node; the graph is not touched.

    Nodes are named `<node>/<operator>`, unique and of [A-Za-z0-9_./], carry the metadata of
    the node they stand for, and are written for `goal.opset`. Every value made has the element
    type and shape that its definition gives it.

    Args:
        goal: what the graph must become.
        node: the node that is replaced.
        opset: operator set that `node` is written for; `goal.opset` where a lowering made it.
        taken: names in use; new ones are added.
    """

    def __init__(self, goal: Goal, node: ir.Node, opset: int, taken: set[str]) -> None:
        self.goal = goal
        self.opset = opset
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self._taken = taken
        output = next((v.name for v in node.outputs if v.name), "")
        self._base = legal(node.name or f"{node.op_type}.{output}")
        self._provenance = dict(node.metadata_props)
        self._provenance["nncc.pass"] = "Legalise"
        self._provenance.setdefault(SOURCE, node.name or self._base)
        self._provenance.setdefault("nncc.lowered", node.op_type)

    @overload
    def op(
        self, op_type: str, *inputs: Operand, outputs: Literal[1] = 1,
        dtype: ir.DataType | None = None, shape: Sequence[int | str | None] | None = None,
        domain: str = "", more: Mapping[str, Attribute] | None = None, **attributes: Attribute,
    ) -> ir.Value: ...  # fmt: skip
    @overload
    def op(
        self, op_type: str, *inputs: Operand, outputs: int,
        dtype: ir.DataType | None = None, shape: Sequence[int | str | None] | None = None,
        domain: str = "", more: Mapping[str, Attribute] | None = None, **attributes: Attribute,
    ) -> tuple[ir.Value, ...]: ...  # fmt: skip
    def op(
        self,
        op_type: str,
        *inputs: Operand,
        outputs: int = 1,
        dtype: ir.DataType | None = None,
        shape: Sequence[int | str | None] | None = None,
        domain: str = "",
        more: Mapping[str, Attribute] | None = None,
        **attributes: Attribute,
    ) -> ir.Value | tuple[ir.Value, ...]:
        """One more node, valid at `goal.opset`; its output, or all of them when `outputs` > 1.

        Args:
            op_type: the operator.
            inputs: values, None for one left out, or numbers (constants of the type of the
                first value).
            outputs: number of outputs.
            dtype: element type of the first output, where inference cannot tell.
            shape: its shape, likewise.
            domain: of the operator.
            more: attributes whose names are arguments here (dtype, shape).
            attributes: None leaves one out.

        Raises:
            Refused: the operator set that is written does not have this operator.
        """
        if not domain and schema_of(op_type, self.goal.opset) is None:
            raise Refused(
                f"needs {op_type}, which opset {self.goal.opset} does not have",
                "re-export the model with a newer opset",
            )
        like = next((v for v in inputs if isinstance(v, ir.Value)), None)
        values = [
            v if v is None or isinstance(v, ir.Value) else self.constant(v, like)
            for v in inputs
        ]
        while values and values[-1] is None:
            values.pop()
        given = {k: v for k, v in {**attributes, **(more or {})}.items() if v is not None}
        name = self._fresh(op_type)
        node = ir.node(
            op_type,
            values,
            given,
            domain=domain,
            num_outputs=outputs,
            name=name,
            metadata_props=dict(self._provenance),
        )
        for at, value in enumerate(node.outputs):
            value.name = name if outputs == 1 else f"{name}.{at}"
            self._taken.add(value.name)
        infer_node(node, self.goal.opset)
        first = node.outputs[0]
        if dtype is not None:
            first.type = ir.TensorType(dtype)
        if shape is not None:
            first.shape = ir.Shape(shape)
        self.nodes.append(node)
        return first if outputs == 1 else tuple(node.outputs)

    def constant(
        self, array: Array | float | int | bool | Sequence[int], like: ir.Value | None = None
    ) -> ir.Value:
        """A new initialiser.

        Args:
            array: an array keeps its element type unless `like` is given; whole numbers and
                sequences of them are int64, other numbers float32.
            like: a value whose element type it gets.
        """
        kind = None if like is None else dtype_of(like).numpy()
        if kind is None and not isinstance(array, np.ndarray):
            whole = np.asarray(array).dtype.kind
            kind = np.dtype({"f": np.float32, "b": np.bool_}.get(whole, np.int64))
        held = np.asarray(array, dtype=kind)
        name = self._fresh("constant")
        element = dtype_of(like) if like is not None else None
        tensor = ir.Tensor(np.ascontiguousarray(held).reshape(held.shape), element, name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(held.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.initializers.append(value)
        return value

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        """One more node like `node`, named after it, that reads `inputs`; its outputs."""
        attributes = {name: a.value for name, a in node.attributes.items()}
        made = self.op(
            node.op_type,
            *inputs,
            outputs=len(node.outputs),
            domain=node.domain,
            more=attributes,
        )
        results = (made,) if isinstance(made, ir.Value) else made
        for result, old in zip(results, node.outputs, strict=True):
            result.type = result.type or old.type
            result.shape = old.shape if result.shape is None else result.shape
        self.nodes[-1].name = self._fresh(legal(node.name or node.op_type))
        return results

    def weight(self, tensor: ir.TensorProtocol) -> ir.Value:
        """A new initialiser that shares the bytes of one there is."""
        value = ir.Value(
            name=self._fresh("constant"),
            shape=ir.Shape(tensor.numpy().shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.initializers.append(value)
        return value

    def cast(self, x: ir.Value, to: ir.DataType) -> ir.Value:
        """`x` in another element type; `x` itself where it has it."""
        if x.dtype == to:
            return x
        return self.op("Cast", x, to=int(to), dtype=to)

    def reduce(
        self, op_type: str, x: ir.Value, axes: Sequence[int] | None, keepdims: bool = True
    ) -> ir.Value:
        """A ReduceX over `axes`; None reduces all.

        Axes are an input of ReduceSum from opset 13, of the others from 18.
        """
        assert axes is None or len(axes), "to reduce nothing is not a reduction"
        if axes is None:
            return self.op(op_type, x, keepdims=int(keepdims))
        axes = self._old_axes(x, axes, 11)
        if self.goal.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.op(op_type, x, self.constant(axes), keepdims=int(keepdims))
        return self.op(op_type, x, axes=axes, keepdims=int(keepdims))

    def squeeze(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """`x` without its axes of size 1 at `axes`."""
        return self._axes_form("Squeeze", x, self._old_axes(x, axes, 11))

    def unsqueeze(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """`x` with axes of size 1 that stand at `axes` of the result."""
        if min(axes) < 0 and self.goal.opset < 11:
            axes = from_front(tuple(axes), rank_of(x) + len(axes))
        return self._axes_form("Unsqueeze", x, axes)

    def split(self, x: ir.Value, sizes: Sequence[int], axis: int) -> tuple[ir.Value, ...]:
        """`x` cut along `axis` into pieces of `sizes`; always a tuple."""
        if self.goal.opset >= 13:
            where: tuple[Operand, ...] = (x, self.constant(sizes))
            made = self.op("Split", *where, outputs=len(sizes), axis=axis)
        else:
            (axis,) = self._old_axes(x, [axis], 11)
            made = self.op("Split", x, outputs=len(sizes), axis=axis, split=tuple(sizes))
        return (made,) if isinstance(made, ir.Value) else made

    def clip(self, x: ir.Value, low: float | None, high: float | None) -> ir.Value:
        """`x` within [low, high]; None is open."""
        if self.goal.opset >= 11:
            return self.op("Clip", x, low, high)
        return self.op("Clip", x, min=low, max=high)

    def slice(
        self,
        x: ir.Value,
        starts: Sequence[int],
        ends: Sequence[int],
        axes: Sequence[int] | None = None,
        steps: Sequence[int] | None = None,
    ) -> ir.Value:
        """`x[starts:ends:steps]` along `axes`, by default the first ones."""
        axes = tuple(range(len(starts)) if axes is None else axes)
        if self.goal.opset >= 10:
            step = None if steps is None else self.constant(steps)
            where = (self.constant(starts), self.constant(ends), self.constant(axes))
            return self.op("Slice", x, *where, step)
        assert steps is None or all(s == 1 for s in steps), "Slice has steps from opset 10"
        axes = self._old_axes(x, axes, 10)
        return self.op("Slice", x, starts=tuple(starts), ends=tuple(ends), axes=axes)

    def pad(
        self,
        x: ir.Value,
        pads: Sequence[int] | ir.Value,
        value: ir.Value | float | None = None,
        mode: str = "constant",
    ) -> ir.Value:
        """`x` padded; `pads` is (begin of every axis, end of every axis)."""
        if self.goal.opset >= 11:
            where = pads if isinstance(pads, ir.Value) else self.constant(pads)
            return self.op("Pad", x, where, value, mode=mode)
        fill = known(value) if isinstance(value, ir.Value) else value
        if isinstance(pads, ir.Value) or (isinstance(value, ir.Value) and fill is None):
            raise Refused("pads by computed amounts", "re-export with opset 11 or newer")
        fill = None if fill is None else float(np.asarray(fill))
        return self.op("Pad", x, pads=tuple(pads), value=fill, mode=mode)

    def shape_of(self, x: ir.Value, start: int = 0, end: int | None = None) -> ir.Value:
        """Sizes of the axes `start` to `end` of `x`, int64; a constant where all are known."""
        sizes = sizes_of(x)
        part = None if sizes is None else sizes[start:end]
        if part is not None and None not in part:
            return self.constant(np.array(part, np.int64))
        whole = self.op("Shape", x)
        if start == 0 and end is None:
            return whole
        return self.slice(whole, [start], [np.iinfo(np.int64).max if end is None else end])

    def reshape(self, x: ir.Value, sizes: Sequence[int] | ir.Value) -> ir.Value:
        """`x` in another shape; 0 keeps an axis, -1 takes the rest."""
        return self.op(
            "Reshape", x, sizes if isinstance(sizes, ir.Value) else self.constant(sizes)
        )

    def transpose(self, x: ir.Value, perm: Sequence[int]) -> ir.Value:
        """`x` with axes in the order `perm`; `x` itself where that is its own."""
        if list(perm) == list(range(len(perm))):
            return x
        return self.op("Transpose", x, perm=tuple(perm))

    def softmax(self, x: ir.Value, axis: int, op_type: str = "Softmax") -> ir.Value:
        """Softmax (LogSoftmax, Hardmax) along one axis.

        Before opset 13 the operator takes all axes from `axis` on as one, which is the same
        only for the last.
        """
        if self.goal.opset >= 13:
            return self.op(op_type, x, axis=axis)
        rank = rank_of(x)
        axis = axis % max(rank, 1)
        perm = [at for at in range(rank) if at != axis]
        perm.insert(rank - 1, axis)
        last = self.op(op_type, self.transpose(x, perm), axis=max(rank - 1, 0))
        return self.transpose(last, [perm.index(at) for at in range(rank)])

    def _axes_form(self, op_type: str, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Axes are an input from opset 13."""
        if self.goal.opset >= 13:
            return self.op(op_type, x, self.constant(axes))
        return self.op(op_type, x, axes=tuple(axes))

    def _old_axes(self, x: ir.Value, axes: Sequence[int], since: int) -> tuple[int, ...]:
        """Axes as the written opset takes them: counted from the end only from `since` on."""
        if min(axes) < 0 and self.goal.opset < since:
            return from_front(tuple(axes), rank_of(x))
        return tuple(axes)

    def _fresh(self, part: str) -> str:
        wanted = f"{self._base}/{part}"
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name


Lowering = Callable[[ir.Node, Builder], Sequence[ir.Value | None] | None]
"""Values that take the place of the node's outputs, in order; None for one that nobody reads.

None as a whole leaves the node to the next lowering. Raises `Refused` where it cannot be done.
"""
