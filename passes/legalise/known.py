"""What is known of a value before anything runs: its constant, element type and rank."""

import numpy as np
import onnx_ir as ir

from ..constants import Array

Axes = tuple[int, ...]


class Refused(Exception):
    """A node cannot be lowered. Internal: it becomes a finding and is never seen by people.

    Args:
        reason: why, in words that follow the node's name.
        remedy: what a person can do.
    """

    def __init__(self, reason: str, remedy: str = "re-export the model without it") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def tensor_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initialiser or Constant node that nobody can replace."""
    if value is None or value.is_graph_input():
        return None
    producer = value.producer()
    if producer is not None and set(producer.attributes) & {"sparse_value"}:
        return None
    return ir.convenience.get_const_tensor(value)


def known(value: ir.Value | None) -> Array | None:
    """The array of a constant value; None where it is computed or absent."""
    tensor = tensor_of(value)
    return None if tensor is None else tensor.numpy()


def known_ints(value: ir.Value, what: str) -> tuple[int, ...]:
    """A constant list of whole numbers, such as axes or sizes.

    Raises:
        Refused: it is computed; `what` names it.
    """
    array = known(value)
    if array is None:
        raise Refused(f"its {what} are computed", f"fix the {what} when exporting")
    return tuple(int(item) for item in np.atleast_1d(array).ravel())


def rank_of(value: ir.Value) -> int:
    """Number of axes.

    Raises:
        Refused: it is not known.
    """
    if value.shape is None:
        raise Refused(f"the rank of {value.name!r} is unknown", "fix the sizes with --shape")
    return len(value.shape)


def dtype_of(value: ir.Value | None) -> ir.DataType:
    """Element type.

    Raises:
        Refused: it is not known.
    """
    if value is None or value.dtype is None:
        name = value.name if value is not None else ""
        raise Refused(f"the element type of {name!r} is unknown", "declare its type")
    return value.dtype


def sizes_of(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Sizes of the axes, None where one is dynamic; None where even the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def static_sizes(value: ir.Value, what: str = "sizes") -> tuple[int, ...]:
    """Sizes of all axes.

    Raises:
        Refused: one is dynamic.
    """
    sizes = sizes_of(value)
    if sizes is None or any(size is None for size in sizes):
        raise Refused(
            f"the {what} of {value.name!r} are dynamic", "fix the sizes with --shape"
        )
    return tuple(size for size in sizes if size is not None)


def from_front(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in the order given.

    Example:
        >>> from_front((-1, 0), 3)
        (2, 0)
    """
    return tuple(axis % rank if rank else axis for axis in axes)


def input_of(node: ir.Node, at: int) -> ir.Value | None:
    """An input; None where it is left out."""
    return node.inputs[at] if at < len(node.inputs) else None


def first_of(node: ir.Node, at: int = 0) -> ir.Value:
    """An input that the definition requires."""
    value = input_of(node, at)
    assert value is not None, f"{node.op_type} has an input {at}"
    return value


def is_used(node: ir.Node, at: int) -> bool:
    """Whether anything reads an output of the node."""
    if at >= len(node.outputs):
        return False
    value = node.outputs[at]
    return bool(value.uses()) or value.is_graph_output()
