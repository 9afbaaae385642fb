"""If without branches: both are computed, and one is chosen."""

from collections.abc import Mapping

import onnx_ir as ir

from .known import Refused, first_of
from .lowering import Builder, Lowering
from .sizes import decided

Values = tuple[ir.Value, ...]


def taken_branch(node: ir.Node, builder: Builder) -> Values | None:
    """The body that a condition on known sizes chooses, in line.

    torch's older exporter writes x.squeeze(1) of a dynamic shape as "if the size is 1".
    """
    chosen = decided(first_of(node))
    if chosen is None:
        return None
    body = node.attributes["then_branch" if chosen else "else_branch"].as_graph()
    return tuple(_in_line(body, builder))


def both_branches(node: ir.Node, builder: Builder) -> Values | None:
    """Both bodies in line, and Where(condition, then, else) for each output.

    Only where the parser has no If and both outputs have one type and one shape, so that
    nothing is broadcast. It costs the time of both.

    Raises:
        Refused: the outputs differ in type or shape, or a body holds bodies.
    """
    if builder.goal.takes("If"):
        return None
    bodies = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for first, second in zip(bodies[0].outputs, bodies[1].outputs, strict=True):
        if not _is_alike(first, second):
            raise Refused(
                "its branches give other types or shapes, and the parser has no branches",
                "fix the condition when exporting (a constant one is folded)",
            )
    condition = first_of(node)
    made = [_in_line(body, builder) for body in bodies]
    return tuple(builder.op("Where", condition, a, b) for a, b in zip(*made, strict=True))


def _is_alike(a: ir.Value, b: ir.Value) -> bool:
    """Whether two values have one element type, one rank, and no size that tells them apart.

    Sizes that inference invented names for may be anything, and count as equal.
    """
    if a.dtype is None or a.dtype != b.dtype or a.shape is None or b.shape is None:
        return False
    if len(a.shape) != len(b.shape):
        return False
    pairs = zip(map(_told, a.shape), map(_told, b.shape), strict=True)
    return all(one is None or other is None or one == other for one, other in pairs)


def _told(size: int | ir.SymbolicDim) -> int | str | None:
    """A size as the model tells it; None where it does not."""
    if isinstance(size, int):
        return size
    name = size.value
    return None if name is None or str(name).startswith("unk__") else str(name)


def _in_line(body: ir.Graph, builder: Builder) -> list[ir.Value]:
    """The nodes of a body made anew; its outputs."""
    now: dict[ir.Value, ir.Value] = {}
    for value in body.initializers.values():
        assert value.const_value is not None, "an initialiser has a value"
        now[value] = builder.weight(value.const_value)
    for node in body:
        if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            raise Refused(
                "a branch holds a body of its own", "fix the condition when exporting"
            )
        inputs = [None if value is None else now.get(value, value) for value in node.inputs]
        now.update(zip(node.outputs, builder.copy(node, inputs), strict=True))
    return [now.get(value, value) for value in body.outputs]


LOWERINGS: Mapping[str, tuple[Lowering, ...]] = {"If": (taken_branch, both_branches)}
"""Operator to lowerings."""
