"""Sequences of tensors: what can be said without them, and what is refused."""

import onnx_ir as ir

from .axes_forms import split
from .known import Refused, first_of, input_of, known, sizes_of
from .lowering import Builder, Lowering

Values = tuple[ir.Value, ...]


def refused(reason: str, remedy: str) -> Lowering:
    """A lowering that always says no."""

    def lowering(node: ir.Node, builder: Builder) -> None:
        del node, builder
        raise Refused(reason, remedy)

    return lowering


def sequence_at(node: ir.Node, builder: Builder) -> Values | None:
    """One tensor of a sequence that was split from, or made of, tensors in plain sight."""
    index = known(first_of(node, 1))
    producer = first_of(node).producer()
    if index is None or producer is None:
        raise Refused("picks from a sequence", "unroll the loop over the sequence")
    at = int(index.ravel()[0])
    pieces = _pieces(producer, builder)
    return (pieces[at],)


def concat_from_sequence(node: ir.Node, builder: Builder) -> Values | None:
    """Tensors of a sequence in plain sight, joined along an axis or a new one."""
    producer = first_of(node).producer()
    if producer is None:
        raise Refused("joins a sequence", "unroll the loop over the sequence")
    axis = node.attributes["axis"].as_int()
    pieces = _pieces(producer, builder)
    if node.attributes.get_int("new_axis", 0) == 1:
        pieces = [builder.unsqueeze(piece, [axis]) for piece in pieces]
    return (builder.op("Concat", *pieces, axis=axis),)


def _pieces(producer: ir.Node, builder: Builder) -> list[ir.Value]:
    """The tensors that a sequence holds."""
    if producer.op_type == "SequenceConstruct":
        return [value for value in producer.inputs if value is not None]
    if producer.op_type != "SplitToSequence":
        raise Refused("reads a sequence", "unroll the loop over the sequence")
    x, sizes = first_of(producer), input_of(producer, 1)
    axis = producer.attributes.get_int("axis", 0)
    shape = sizes_of(x)
    length = None if shape is None else shape[axis]
    asked = None if sizes is None else known(sizes)
    if length is None or (sizes is not None and asked is None):
        raise Refused("splits a dynamic axis", "fix the sizes with --shape")
    if asked is None or asked.ndim == 0:
        step = 1 if asked is None else int(asked)
        whole, rest = divmod(length, step)
        lengths = [step] * whole + ([rest] if rest else [])
    else:
        lengths = [int(n) for n in asked]
    made = list(builder.split(x, lengths, axis))
    if asked is None and producer.attributes.get_int("keepdims", 1) == 0:
        return [builder.squeeze(piece, [axis]) for piece in made]
    return made


NO_SEQUENCES: Lowering = refused(
    "sequences of tensors have no place there", "unroll the loop over the sequence"
)
NO_OPTIONALS: Lowering = refused(
    "optional values have no place there", "export without optional inputs and outputs"
)
__all__ = ["NO_OPTIONALS", "NO_SEQUENCES", "concat_from_sequence", "refused", "sequence_at",
           "split"]  # fmt: skip
