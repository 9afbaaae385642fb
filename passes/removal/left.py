"""Left: the channels that are left of layers, and of what runs between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from ...device_profiles.cost.fused import FusedKernel
from ...device_profiles.kernel import Kernel
from ..model import Model
from .flow import Flow
from .nodes import follow

Counts = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Left:
    """What is left of the channels of a graph, where that is less than there was.

    Args:
        made: by node how many channels it still makes, and of how many.
        read: by linear layer how many it still reads, and of how many.
        gathered: layers before which channels are chosen in every run, since what makes them
            makes all.
    """

    made: Counts = field(default_factory=dict[str, tuple[int, int]])
    read: Counts = field(default_factory=dict[str, tuple[int, int]])
    gathered: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.made or self.read or self.gathered)

    def kernels(self, name: str, kernels: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
        """The kernels of a layer in some form, as narrow as the graph leaves them.

        The first reads less, the last makes less; of branches that are summed only the last
        one counts as narrower.

        Args:
            name: of the layer.
            kernels: of its form, before anything around it became narrower.
        """
        made = list(kernels)
        if name in self.read and made[0].groups == 1:
            made[0] = replace(made[0], inputs=min(made[0].inputs, self.read[name][0]))
        if name in self.made:
            left, last = self.made[name][0], made[-1]
            if last.groups > 1 and last.inputs == 1:
                made[-1] = replace(last, groups=min(last.groups, left // last.outputs))
            else:
                made[-1] = replace(last, outputs=min(last.outputs, left // last.groups))
        return tuple(made)

    def launch(self, kernel: FusedKernel) -> FusedKernel:
        """A launch of the dense net, as narrow as the graph leaves it."""
        if kernel.linear is None:
            return _moved(kernel, self.made)
        (linear,) = self.kernels(kernel.name, (kernel.linear,))
        rest = replace(kernel, read=max(kernel.read - _elements(kernel.linear), 0))
        made = _moved(rest, self.made)
        return replace(made, linear=linear, read=made.read + _elements(linear))

    def before(self, kernel: FusedKernel) -> FusedKernel:
        """A launch that changes the layout of what a layer reads, likewise."""
        return _moved(kernel, self.read)


NOTHING_GONE = Left()


def left_of(before: Model, after: Model) -> Left:
    """What is left of the channels of a model once its weights are compressed.

    Args:
        before: normalised.
        after: the same after `compress_weights`.
    """
    made, read, _ = _channels(before)
    made_now, read_now, gathered = _channels(after)
    return Left(_fewer(made, made_now), _fewer(read, read_now), gathered)


def _fewer(before: Mapping[str, int], after: Mapping[str, int]) -> Counts:
    return {n: (after[n], of) for n, of in before.items() if 0 < after.get(n, of) < of}


def _channels(model: Model) -> tuple[dict[str, int], dict[str, int], frozenset[str]]:
    """Channels that every node makes, that linear layers read, and layers behind a choice."""
    graph = model.graph_model.graph
    flow = Flow(graph, None)
    made: dict[str, int] = {}
    gathered: set[str] = set()
    for node in graph:
        follow(flow, node)
        found = flow.of(node.outputs[0])
        if found is not None:
            made[_layer(node)] = found.count
        if _is_ours(node) and node.op_type == "Gather" and found is not None:
            source = node.inputs[0].producer() if node.inputs[0] is not None else None
            if source is None or _layer(source) != _layer(node):
                gathered.add(_layer(node))
    read: dict[str, int] = {}
    for entry in flow.reads:
        read.setdefault(_layer(entry.node), flow.channels[entry.value].count)
    return made, read, frozenset(gathered)


def _is_ours(node: ir.Node) -> bool:
    return node.metadata_props.get("nncc.pass") == "CompressWeights"


def _layer(node: ir.Node) -> str:
    """The layer that a node stands for: itself, or the one that it replaces."""
    return node.metadata_props["nncc.source"] if _is_ours(node) else node.name or ""


def _moved(kernel: FusedKernel, counts: Counts) -> FusedKernel:
    left, of = counts.get(kernel.name, (1, 1))
    return replace(kernel, read=kernel.read * left // of, written=kernel.written * left // of)


def _elements(kernel: Kernel) -> int:
    """Numbers that a kernel reads."""
    size = kernel.groups * kernel.inputs
    for extent in kernel.in_extent or ():
        size *= extent
    return size
