"""Legalise: a graph that says the same in the operators that the device reads."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from ...device_profiles.profile import DeviceProfile
from ..model import Model
from ..opset_change import change, ill_typed, stamp
from ..quiet import quiet_libraries
from ..tensorrt_rules import violations
from .infer import infer_model, refine
from .known import Refused
from .lowering import Builder, Goal
from .table import TABLE

STANDARD = ("", "ai.onnx")
DEEPEST = 12
"""Lowerings of lowerings of one node; more would be a lowering that makes what it replaces."""


@dataclass(frozen=True)
class Change:
    """One node that was rewritten.

    Args:
        node, op: its name and operator in the given model.
        what: why it could not stay.
    """

    node: str
    op: str
    what: str


@dataclass(frozen=True)
class Refusal:
    """One node that stays as it is although the target does not take it.

    Args:
        node, op: its name and operator.
        reason: why it cannot be rewritten.
        remedy: what a person can do.
    """

    node: str
    op: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Legalised:
    """What legalisation made of a model.

    Args:
        model: stamped for the device; valid there when nothing was refused.
        changes: every node of the given model that was rewritten, in graph order.
        refused: every node that the device does not take and that could not be rewritten.
    """

    model: Model
    changes: tuple[Change, ...] = ()
    refused: tuple[Refusal, ...] = ()

    @property
    def summary(self) -> str:
        """One line for people; empty when nothing was rewritten."""
        if not self.changes:
            return ""
        counts = Counter(change.op for change in self.changes)
        told = ", ".join(f"{op} x{n}" if n > 1 else op for op, n in counts.most_common())
        number = len(self.changes)
        plural = "s" if number > 1 else ""
        return f"{number} node{plural} rewritten for opset {self.model.opset}: {told}"


def legalise(model: Model, profile: DeviceProfile) -> Legalised:
    """The model in the opset, IR version and operators of a device; the given one is kept.

    A node is rewritten when it does not mean the same at the written opset, when its operator
    is not in the profile's list, or when the rules of the device's parser object to it. What
    a rewrite makes is looked at again. Names, types, shapes and order of inputs and outputs
    stay, and so does every node that needs no change.

    Args:
        model: best normalised: constants that a lowering must know are folded then.
        profile: the device.
    """
    goal = Goal(min(model.opset, profile.max_opset), profile)
    if not _needs_work(model, goal):
        return Legalised(model)
    copy = model.copied()
    graph_model = copy.graph_model
    outputs = list(graph_model.graph.outputs)
    interface = [(value.name, value.type, value.shape) for value in outputs]
    infer_model(graph_model, model.opset)
    run = _Run(goal, model.opset, _names(graph_model))
    run.lower_all(graph_model.graph)
    if run.changes:
        with quiet_libraries():
            RemoveUnusedNodesPass()(graph_model)
        _drop_unused_initializers(graph_model)
        RemoveUnusedOpsetsPass()(graph_model)
        graph_model.opset_imports.setdefault("", model.opset)
    graph_model.ir_version = min(graph_model.ir_version, profile.max_ir_version)
    if model.opset > goal.opset:
        stamp(graph_model, goal.opset)
    for value, (name, kind, shape) in zip(graph_model.graph.outputs, interface, strict=True):
        assert value.name == name, f"output {name!r} was renamed to {value.name!r}"
        value.type, value.shape = kind or value.type, shape
    return Legalised(replace(copy), tuple(run.changes), run.refused)


def objection(node: ir.Node, opset: int, goal: Goal) -> str | None:
    """Why a node written for `opset` cannot stay as it is; None where it can."""
    if node.domain not in STANDARD:
        full = f"{node.domain}::{node.op_type}"
        known = goal.profile.operators is None or full in goal.profile.operators
        return None if known else f"is not a standard operator: {full}"
    if opset > goal.opset:
        why = change(node, opset, goal.opset)
        if why is not None:
            return why
    operators = goal.profile.operators
    if operators is not None and node.op_type not in operators:
        return f"is no operator of {goal.profile.name}"
    return next((reason for reason, _ in violations(node, goal.profile)), None)


def _needs_work(model: Model, goal: Goal) -> bool:
    """Whether anything can be to do; true as well where only inferred types would tell."""
    graph_model = model.graph_model
    if model.opset > goal.opset or graph_model.ir_version > goal.profile.max_ir_version:
        return True
    if goal.profile.runtime == "tensorrt":
        return True
    nodes = graph_model.graph.all_nodes()
    return any(objection(node, model.opset, goal) is not None for node in nodes)


@dataclass(frozen=True)
class _Item:
    """A node to look at, and the node of the given model that it comes from."""

    node: ir.Node
    source: str
    op: str
    depth: int = 0


class _Run:
    """One legalisation in flight: the worklist and what came of it."""

    def __init__(self, goal: Goal, opset: int, taken: set[str]) -> None:
        self.changes: list[Change] = []
        self._refused: list[tuple[ir.Node, Refusal]] = []
        self._goal, self._opset, self._taken = goal, opset, taken

    def lower_all(self, graph: ir.Graph) -> None:
        """Lowers every node and what becomes of it, bodies included."""
        work = deque(_Item(node, node.name or "", _key(node)) for node in _inside_out(graph))
        while work:
            item = work.popleft()
            if item.node.graph is None:
                continue
            opset = self._goal.opset if item.depth else self._opset
            why = objection(item.node, opset, self._goal)
            given_so = why is None and not item.depth
            if why is None:
                why = ill_typed(item.node, opset)
            if why is None:
                continue
            made = self._lower(item, opset, why, may_stay=given_so)
            if made is not None:
                work.extendleft(
                    replace(item, node=n, depth=item.depth + 1) for n in made[::-1]
                )

    def _lower(
        self, item: "_Item", opset: int, why: str, may_stay: bool
    ) -> list[ir.Node] | None:
        """Replaces a node; the nodes made, or None where it stays.

        One that `may_stay` is no refusal: the file says it in a way that the definition does
        not list, and the runtime may take it all the same.
        """
        node, depth = item.node, item.depth
        refusal: Refused | None = None
        key = _key(node)
        for lowering in TABLE.get(key, ()) if depth < DEEPEST else ():
            taken = set(self._taken)
            builder = Builder(self._goal, node, opset, taken)
            try:
                values = lowering(node, builder)
            except Refused as error:
                refusal = refusal or error
                continue
            if values is None:
                continue
            self._taken |= taken
            if depth == 0:
                self.changes.append(Change(item.source, key, why))
            _splice(node, builder, values)
            return builder.nodes
        if not may_stay:
            self._refuse(item, why, refusal)
        return None

    def _refuse(self, item: "_Item", why: str, refusal: Refused | None) -> None:
        """Notes a node that stays; a parser's rule without a lowering is `check`'s to tell."""
        rules = {reason for reason, _ in violations(item.node, self._goal.profile)}
        if refusal is None and why in rules:
            return
        reason = why if refusal is None else f"{why}, and {refusal.reason}"
        remedy = (
            f"re-export with opset_version={self._goal.opset} and standard operators"
            if refusal is None
            else refusal.remedy
        )
        if _key(item.node) != item.op:
            reason = f"is made of {_key(item.node)}, which {reason}"
        self._refused.append((item.node, Refusal(item.source, item.op, reason, remedy)))

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """What stays, as far as something still needs it; one of a node."""
        left = [refusal for node, refusal in self._refused if node.graph is not None]
        return tuple({refusal.node: refusal for refusal in reversed(left)}.values())[::-1]


def _splice(node: ir.Node, builder: Builder, values: Sequence[ir.Value | None]) -> None:
    """Puts what a builder made in the place of a node; values keep the names they had."""
    graph = node.graph
    assert isinstance(graph, ir.Graph), "a node stands in a graph"
    new: list[ir.Value] = []
    fresh = {value for made in builder.nodes for value in made.outputs}
    for old, value in zip(_used(node), _present(node, values), strict=True):
        if old.is_graph_output() and (value not in fresh or value in new):
            value = builder.op("Identity", value)
            fresh.add(value)
        new.append(value)
    if len(builder.nodes) == 1:
        builder.nodes[0].name = node.name
    for value in builder.initializers:
        graph.register_initializer(value)
    graph.insert_after(node, builder.nodes)
    for old, value in zip(_used(node), new, strict=True):
        value.type = value.type or old.type
        if value in fresh:
            refine(value, old.shape)
            name, old.name = old.name, None
            value.name = name
            fresh.discard(value)
        old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _key(node: ir.Node) -> str:
    """The operator as the table writes it."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}::{node.op_type}"


def _inside_out(graph: ir.Graph) -> Iterator[ir.Node]:
    """All nodes in order, those of a body before the node that holds it."""
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _inside_out(attribute.as_graph())
        yield node


def _used(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.outputs if value.uses() or value.is_graph_output()]


def _present(node: ir.Node, values: Sequence[ir.Value | None]) -> Iterator[ir.Value]:
    """What stands for each output that something reads."""
    for at, old in enumerate(node.outputs):
        if old.uses() or old.is_graph_output():
            value = values[at] if at < len(values) else None
            assert value is not None, f"a lowering of {node.op_type} left out output {at}"
            yield value


def _names(model: ir.Model) -> set[str]:
    """Names of all nodes and values."""
    names: set[str] = set()
    for graph in model.graphs():
        names.update(str(name) for name in graph.initializers)
        names.update(str(value.name) for value in graph.inputs)
        for node in graph:
            names.add(str(node.name))
            names.update(str(value.name) for value in node.outputs)
    return names


def _drop_unused_initializers(model: ir.Model) -> None:
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                del graph.initializers[name]
