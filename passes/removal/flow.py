"""Flow: how the channels of one value of a graph become those of the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..constants import Array, constant, is_only_read_by, new_initialiser, widening

Mask = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Gone = dict[ir.Value, Mask]
Change = Callable[[Gone], None]


@dataclass(frozen=True)
class Channels:
    """The channels of one value.

    Args:
        values: (channels,) what a constant channel carries everywhere; NaN where it varies.
        rank: of an image (N, C, spatial …), whose channels lie along axis 1; 0 where they lie
            along the last axis.
    """

    values: Doubles
    rank: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def is_image(self) -> bool:
        """Whether channels lie along axis 1, before spatial axes."""
        return self.rank > 0

    @property
    def constant(self) -> Mask:
        """Which are the same number everywhere."""
        return np.isfinite(self.values)


@dataclass(frozen=True)
class Link:
    """Channel `source[i]` of one value is channel `target[i]` of another: both go or stay.

    Args:
        before, after: the values.
        source, target: numbers of the channels.
        void: (links,) where the other factor of a product is zero: what comes in is not felt.
    """

    before: ir.Value
    after: ir.Value
    source: Places
    target: Places
    void: Mask


@dataclass(frozen=True)
class Read:
    """A linear layer that reads a value.

    Args:
        value: what it reads.
        node: the layer.
        axis: of its weight (input 1), along which what it reads lies.
        takes_constant: whether its bias can take a constant over; where padding meets the
            constant or there is no bias to change, another constant channel has to carry it.
        is_named: whether zero columns mean that a channel is not needed.
        groups: of a convolution; each has to lose as many channels as the others.
    """

    value: ir.Value
    node: ir.Node
    axis: int
    takes_constant: bool
    is_named: bool
    groups: int = 1


@dataclass(frozen=True)
class Made:
    """A linear layer that makes a value.

    Args:
        value: what it makes.
        node: the layer.
        axis: of its weight (input 1), along which its outputs lie.
        zero: (channels,) which of its filters are zeros.
        groups: of a convolution; each has to lose as many filters as the others.
    """

    value: ir.Value
    node: ir.Node
    axis: int
    zero: Mask
    groups: int = 1


@dataclass
class Flow:
    """What is known of a graph, filled node by node in order; one call's own.

    Args:
        graph: of all the nodes.
        named: layers whose zero filters and columns count; None for all.
    """

    graph: ir.Graph
    named: frozenset[str] | None
    channels: dict[ir.Value, Channels] = field(default_factory=dict[ir.Value, Channels])
    links: list[Link] = field(default_factory=list[Link])
    reads: list[Read] = field(default_factory=list[Read])
    makers: list[Made] = field(default_factory=list[Made])
    held: dict[ir.Value, str] = field(default_factory=dict[ir.Value, str])
    changes: list[Change] = field(default_factory=list[Change])

    def of(self, value: ir.Value | None) -> Channels | None:
        """What is known of a value's channels."""
        return None if value is None else self.channels.get(value)

    def hold(self, value: ir.Value | None, reason: str) -> None:
        """All channels of a value stay, and why; nothing where none are known."""
        if value is not None and value in self.channels:
            self.held.setdefault(value, reason)

    def link(
        self,
        before: ir.Value,
        after: ir.Value,
        source: Places | None = None,
        target: Places | None = None,
        void: Mask | None = None,
    ) -> None:
        """Channels of one value become those of another; the same ones unless given."""
        count = self.channels[before].count
        at = np.arange(count) if source is None else source
        to = at if target is None else target
        off = np.zeros(len(at), bool) if void is None else void
        self.links.append(Link(before, after, at, to, off))

    def counts(self, node: ir.Node) -> bool:
        """Whether zeros in a layer's weight were meant."""
        return self.named is None or (node.name or "") in self.named

    def shrinks(self, node: ir.Node, at: int, axis: int, value: ir.Value) -> None:
        """A constant input of a node loses what the channels of `value` lose."""

        def change(gone: Gone) -> None:
            old = constant(node.inputs[at])
            assert old is not None, "it was constant when the graph was followed"
            if gone[value].any():
                put(self.graph, node, at, np.compress(~gone[value], old, axis=axis))

        self.changes.append(change)


def put(
    graph: ir.Graph, node: ir.Node, at: int, array: Array, like: ir.Value | None = None
) -> None:
    """Another constant for one input of a node, for this node alone.

    What is stored in 16 bits and widened at load stays so where 16 bits hold it.
    """
    old = node.inputs[at] if len(node.inputs) > at else None
    wide = widening(old)
    if wide is not None and old is not None and is_only_read_by(old, node):
        held = wide.inputs[0]
        assert held is not None and held.dtype is not None, "a Cast reads something"
        with np.errstate(over="ignore"):
            narrow = np.asarray(array).astype(held.dtype.numpy())
        if np.array_equal(narrow.astype(array.dtype), array):
            put(graph, wide, 0, narrow)
            return
    model = old if like is None else like
    assert model is not None, "a new input is like another"
    name = f"{model.name}.bias" if old is None else str(old.name)
    if len(node.inputs) <= at:
        node.resize_inputs(at + 1)
    dtype = model.dtype
    assert dtype is not None, "a constant has a type"
    fresh = np.ascontiguousarray(array).astype(dtype.numpy(), copy=False)
    node.replace_input_with(at, new_initialiser(graph, name, fresh, model))


def varying(count: int) -> Doubles:
    """Channels that carry no constants."""
    return np.full(count, np.nan)


def joined(parts: Sequence[Doubles]) -> Doubles:
    """Channels side by side."""
    return np.concatenate(parts) if parts else np.zeros(0)
