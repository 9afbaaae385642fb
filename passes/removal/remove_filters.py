"""RemoveFilters: filters of zeros leave the graph, and their readers read less."""

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..model import Model
from .agree import agreed
from .flow import Channels, Flow, Mask
from .layers import without_columns, without_rows
from .nodes import follow


@dataclass(frozen=True)
class Removal:
    """What became of the zero filters of one layer.

    Args:
        layer: name of the node.
        filters: how many of its filters are zero.
        removed: how many filters are gone; others that nothing needs may be among them.
        reason: why some stay; empty where all are gone.
    """

    layer: str
    filters: int
    removed: int
    reason: str = ""

    @property
    def is_held(self) -> bool:
        """Whether filters stay that a person expects to be gone; one may carry the others."""
        return bool(self.reason) and self.filters - self.removed > 1

    @property
    def told(self) -> str:
        """One sentence for people."""
        stay = max(self.filters - self.removed, 1)
        what = f"{stay} of {self.filters} filters of zeros stay"
        return f"layer {self.layer!r}: {what}: {self.reason}" if self.reason else ""


def remove_filters(
    model: Model, layers: Collection[str] | None = None
) -> tuple[Model, tuple[Removal, ...]]:
    """The model without the channels that carry nothing, and what became of each layer.

    A filter of zeros gives its bias everywhere. It is followed through activations, pooling,
    depthwise convolutions, normalisations, sums and concatenations to the layers that read
    it, which lose an input each. They take a constant into their own bias; where padding
    meets it, or there is no bias, one constant channel stays and carries all of them, at its
    own scale. Both branches of a sum have to lose the same channels. Where something else
    needs a channel (an output of the model, a node that mixes channels) it stays, with the
    reason. Likewise filters go that only columns of zeros read, or none at all, of the named
    layers. The function computed is the same, but for rounding.

    Args:
        model: a normalised model; it is left as it is.
        layers: names of the nodes whose zero filters and columns count; all where None.
    """
    copy = model.copied()
    found = shrink(copy.graph_model, None if layers is None else frozenset(layers))
    return copy, found


def shrink(model: ir.Model, layers: frozenset[str] | None) -> tuple[Removal, ...]:
    """`remove_filters`, in place."""
    graph = model.graph
    flow = Flow(graph, layers)
    for node in graph:
        follow(flow, node)
    gone, reasons = agreed(flow)
    for read in flow.reads:
        if gone[read.value].any():
            without_columns(flow, read, gone[read.value])
    for made in flow.makers:
        if gone[made.value].any():
            without_rows(flow, made, gone[made.value])
    for change in flow.changes:
        change(gone)
    for value, found in flow.channels.items():
        _resize(value, found, gone[value])
    RemoveUnusedNodesPass()(model)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
    removals: list[Removal] = []
    for made in flow.makers:
        zero, out = made.zero, gone[made.value]
        if zero.any() or out.any():
            why = reasons.get(made.value, "") if (zero & ~out).any() else ""
            name = made.node.name or made.node.op_type
            removals.append(Removal(name, int(zero.sum()), int(out.sum()), why))
    return tuple(removals)


def _resize(value: ir.Value, found: Channels, gone: Mask) -> None:
    """The shape of a value that has lost channels."""
    if value.shape is None or not gone.any():
        return
    sizes = list(value.shape)
    at = 1 if found.is_image else len(sizes) - 1
    sizes[at] = int((~gone).sum())
    value.shape = ir.Shape(sizes)
