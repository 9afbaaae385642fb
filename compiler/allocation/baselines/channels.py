"""Channels that can only go together, and the layers that lose by it.

A filter that goes takes a channel with it through activations, pooling, depthwise convolutions
and sums to all layers that read it; where another layer adds to that channel, that filter goes
too. `Channels` finds these sets once; what a choice of them leaves of every layer follows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ....passes.model import Model
from ....passes.removal.agree import agreed
from ....passes.removal.flow import Flow
from ....passes.removal.nodes import follow
from ....passes.sites import Site

Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Group:
    """Sets of channels of the same layers: of them, some can go.

    Args:
        sets: numbers of the sets.
        makers: names of the sites that make them.
    """

    sets: Places
    makers: tuple[str, ...]


@dataclass(frozen=True)
class Channels:
    """The channels of a model's values as sets that go together.

    Args:
        groups: what can go.
        made: set of every filter, by name of the site.
        read: set of every input (channel, or feature of a product), by name of the site.
        given: set of every channel that a node gives, by name of the node.
    """

    groups: tuple[Group, ...]
    made: Mapping[str, Places]
    read: Mapping[str, Places]
    given: Mapping[str, Places]

    def filters(self, site: str, sets: Collection[int]) -> Places:
        """The filters of a site that are in some sets."""
        return np.flatnonzero(np.isin(self.made[site], list(sets)))

    def left(self, site: Site, gone: npt.NDArray[np.bool_]) -> float:
        """The share of a site's weights that stays once some sets are gone."""
        rows = self.made.get(site.name)
        columns = self.read.get(site.name)
        share = 1.0 if rows is None else float((~gone[rows]).mean())
        return share if columns is None else share * float((~gone[columns]).mean())

    @property
    def count(self) -> int:
        """How many sets there are."""
        found = [int(at.max(initial=-1)) for at in (*self.made.values(), *self.read.values())]
        return max(found, default=-1) + 1


def channels_of(model: Model, sites: Sequence[Site]) -> Channels:
    """The channels of a model, by what goes together.

    Layers whose channels cannot go are in no group: those at an output of the model, read by
    something that mixes channels, in groups, or with a weight that something else reads too.

    Args:
        model: normalised; it is left as it is.
        sites: found in it.
    """
    graph = model.graph_model.graph
    flow = Flow(graph, None)
    for node in graph:
        follow(flow, node)
    agreed(flow)  # holds the outputs of the model, and what bodies read
    starts: dict[ir.Value, int] = {}
    count = 0
    for value, found in flow.channels.items():
        starts[value], count = count, count + found.count
    label = _labels(flow, starts, count)
    by_node = {site.name: site for site in sites}

    def labels(value: ir.Value) -> Places:
        return label[starts[value] : starts[value] + flow.channels[value].count]

    held = {int(at) for value in flow.held if value in starts for at in labels(value)}
    makers: dict[int, set[str]] = {}
    made: dict[str, Places] = {}
    for maker in flow.makers:
        site = by_node.get(maker.node.name or "")
        sets = labels(maker.value)
        if site is None or maker.groups > 1 or site.shares or site.is_kept:
            held.update(map(int, sets))
            continue
        made[site.name] = sets
        for at in sets.tolist():
            makers.setdefault(at, set()).add(site.name)
    read: dict[str, Places] = {}
    for reader in flow.reads:
        site = by_node.get(reader.node.name or "")
        sets = labels(reader.value)
        if site is None or reader.groups > 1 or site.shares:
            held.update(map(int, sets))
        else:
            read[site.name] = sets
    for site in sites:  # a depthwise layer passes channels on: its own filters go with them
        value = site.node.outputs[0]
        if site.name not in made and value in starts and site.shape[0] > 1:
            made[site.name] = labels(value)
    needed = {int(at) for sets in read.values() for at in sets}
    given = {
        node.name or "": labels(node.outputs[0]) for node in graph if node.outputs[0] in starts
    }
    return Channels(_grouped(makers, held, needed), made, read, given)


def _labels(flow: Flow, starts: Mapping[ir.Value, int], count: int) -> Places:
    """The set of every channel of every value."""
    before = [starts[link.before] + link.source for link in flow.links]
    after = [starts[link.after] + link.target for link in flow.links]
    empty = np.zeros(0, np.int64)
    pairs = np.concatenate([empty, *before]), np.concatenate([empty, *after])
    ones = np.ones(len(pairs[0]), np.int8)
    graph = coo_matrix((ones, pairs), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def _grouped(
    makers: Mapping[int, set[str]], held: set[int], needed: set[int]
) -> tuple[Group, ...]:
    """The sets that can go, by the layers that make them."""
    found: dict[tuple[str, ...], list[int]] = {}
    for at in sorted(makers):
        if at not in held and at in needed:
            found.setdefault(tuple(sorted(makers[at])), []).append(at)
    return tuple(
        Group(np.array(sets, np.intp), names)
        for names, sets in sorted(found.items())
        if len(sets) > 1
    )
