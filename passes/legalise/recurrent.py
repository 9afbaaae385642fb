"""Recurrent layers with the batch in front (`layout`, opset 14)."""

import onnx_ir as ir

from .known import first_of, input_of
from .lowering import Builder

Values = tuple[ir.Value, ...]


def time_first(node: ir.Node, builder: Builder) -> Values | None:
    """LSTM, GRU, RNN with layout 1 as layout 0 between transposes."""
    if node.attributes.get_int("layout", 0) != 1:
        return None
    inputs: list[ir.Value | None] = list(node.inputs)
    inputs[0] = builder.transpose(first_of(node), [1, 0, 2])
    for at in (5, 6):  # the initial states
        state = input_of(node, at)
        if state is not None:
            inputs[at] = builder.transpose(state, [1, 0, 2])
    attributes = {n: a.value for n, a in node.attributes.items() if n != "layout"}
    made = builder.op(node.op_type, *inputs, outputs=len(node.outputs), **attributes)
    results = (made,) if isinstance(made, ir.Value) else made
    perms = ([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])
    return tuple(
        builder.transpose(value, perm) if node.outputs[at].name else value
        for at, (value, perm) in enumerate(zip(results, perms, strict=False))
    )
