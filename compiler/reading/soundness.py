"""The inside of an ONNX file: every name means one thing, and the graph can be computed."""

import graphlib
from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir

from ...device_profiles.errors import ModelError, UnsupportedOp

Nodes = Iterable[onnx.NodeProto]

MAX_BODIES = 30
"""Bodies within bodies: three messages each, of the 96 that a file may nest."""
MAX_NODES = 2_000_000
LARGEST_SIZE = 2**31 - 1
_POSITIVE = frozenset(
    {
        "blocksize",
        "dilations",
        "group",
        "hidden_size",
        "kernel_shape",
        "num_groups",
        "num_outputs",
        "pooled_shape",
        "q_num_heads",
        "kv_num_heads",
        "size",
        "strides",
    }
)
_AGAIN = "export the model again"
_RUNTIME_DOMAINS = frozenset(
    {
        "ai.onnx.ml",
        "ai.onnx.training",
        "ai.onnx.preview.training",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
        "org.pytorch.aten",
    }
)
"""Operator sets beyond ONNX's own that ONNX Runtime may know; it has the last word."""


def check_names(model: onnx.ModelProto, where: str) -> None:
    """Every graph and function assigns a name once and knows the operators it calls.

    Raises:
        ModelError: a name assigned twice.
        UnsupportedOp: an operator that no operator set here has.
    """
    functions = {(f.domain, f.name) for f in model.functions}
    versions = {_domain(entry.domain): entry.version for entry in model.opset_import}
    for graph, place in graphs(model):
        taken: set[str] = set()
        initial = [t.name for t in graph.initializer]
        initial += [s.values.name for s in graph.sparse_initializer]
        for kind, names in (
            ("input", [v.name for v in graph.input]),
            ("initialiser", initial),
            ("output", [v.name for v in graph.output]),
        ):
            twice = _repeated(names)
            if twice is not None:
                raise ModelError(
                    f"{kind} '{twice}' is declared twice in {place}", where=where, hint=_AGAIN
                )
        taken.update(v.name for v in graph.input)
        taken.update(initial)
        for node in graph.node:
            for name in node.output:
                if name and name in taken:
                    raise ModelError(
                        f"'{name}' is assigned twice in {place}", where=where, hint=_AGAIN
                    )
                taken.add(name)
        _check_operators(graph.node, functions, versions, where)
    for function in model.functions:
        own = {_domain(entry.domain): entry.version for entry in function.opset_import}
        _check_operators(function.node, functions, own, where)


def check_attributes(model: onnx.ModelProto, where: str) -> None:
    """Sizes in attributes are positive and of this world: native code divides by them.

    A ConvTranspose of 0 groups or a DepthToSpace of blocks of 2^40 ends the process inside
    shape inference, with no exception to catch.

    Raises:
        ModelError: names the node and the attribute.
    """
    for nodes in (*(g.node for g, _ in graphs(model)), *(f.node for f in model.functions)):
        for node in nodes:
            if node.domain not in ("", "ai.onnx"):
                continue
            for attribute in node.attribute:
                if attribute.name not in _POSITIVE:
                    continue
                numbers = list(attribute.ints)
                if attribute.type == onnx.AttributeProto.INT:
                    numbers.append(attribute.i)
                wrong = [n for n in numbers if not 1 <= n <= LARGEST_SIZE]
                if wrong:
                    raise ModelError(
                        f"attribute {attribute.name} is {wrong[0]}",
                        where=f"{where}: node '{node.name}' ({node.op_type})",
                        hint=_AGAIN,
                    )


def check_graph(model: ir.Model, where: str) -> None:
    """Every value that is read comes from somewhere, and nothing waits for itself.

    Nodes are sorted on the way.

    Raises:
        ModelError: a missing initialiser, an output that nothing computes, or a cycle.
    """
    for graph in model.graphs():
        for node in graph:
            for value in node.inputs:
                if value is not None and _is_dangling(value):
                    raise ModelError(
                        f"reads '{value.name}', which is no input, no initialiser and no"
                        " earlier output",
                        where=f"{where}: {_label(node)}",
                        hint=_AGAIN,
                    )
        for value in graph.outputs:
            if _is_dangling(value):
                raise ModelError(
                    f"output '{value.name}' is computed by no node", where=where, hint=_AGAIN
                )
    if not model.graph.outputs:
        raise ModelError("the graph has no output", where=where, hint=_AGAIN)
    try:
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
    except ValueError as error:
        raise ModelError(
            "the graph has a cycle: some node waits for its own output",
            where=where,
            hint=_AGAIN,
        ) from error


def check_functions(model: ir.Model, where: str) -> None:
    """Refuses functions that call themselves, or that unfold to an absurd number of nodes.

    Forty functions, each of which calls the one before twice, are 2^40 nodes when inlined.

    Raises:
        ModelError: a circle of calls, or more than MAX_NODES nodes.
    """
    calls = {
        key: [n.op_identifier() for n in function.all_nodes()]
        for key, function in model.functions.items()
    }
    order = graphlib.TopologicalSorter(
        {key: {name for name in names if name in calls} for key, names in calls.items()}
    )
    try:
        bottom_up = list(order.static_order())
    except graphlib.CycleError as error:
        raise ModelError("a function calls itself", where=where, hint=_AGAIN) from error
    sizes: dict[ir.OperatorIdentifier, int] = {}
    for key in bottom_up:
        sizes[key] = sum(sizes.get(name, 1) for name in calls[key])
    total = sum(sizes.get(node.op_identifier(), 1) for node in model.graph.all_nodes())
    if total > MAX_NODES:
        raise ModelError(
            f"{total:,} nodes once its functions are unfolded", where=where, hint=_AGAIN
        )


def check_depth(graph: ir.Graph, where: str) -> None:
    """Refuses bodies within bodies beyond what can be written to a file.

    Raises:
        ModelError: more than MAX_BODIES levels.
    """
    level = [graph]
    for _ in range(MAX_BODIES + 1):
        attributes = [a for g in level for node in g for a in node.attributes.values()]
        level = [a.as_graph() for a in attributes if a.type == ir.AttributeType.GRAPH]
        level += [
            g for a in attributes if a.type == ir.AttributeType.GRAPHS for g in a.as_graphs()
        ]
        if not level:
            return
    raise ModelError(
        f"bodies of If and Loop are nested more than {MAX_BODIES} deep",
        where=where,
        hint="flatten the control flow",
    )


def graphs(model: onnx.ModelProto) -> Iterator[tuple[onnx.GraphProto, str]]:
    """Every graph of the model, bodies included; a stack, so that depth costs nothing."""
    waiting: list[tuple[onnx.GraphProto, str]] = [(model.graph, "the graph")]
    waiting += _bodies([node for f in model.functions for node in f.node])
    while waiting:
        graph, place = waiting.pop()
        yield graph, place
        waiting += _bodies(graph.node)


def _bodies(nodes: Nodes) -> list[tuple[onnx.GraphProto, str]]:
    found: list[tuple[onnx.GraphProto, str]] = []
    for node in nodes:
        for attribute in node.attribute:
            place = f"the {attribute.name} of {node.op_type} '{node.name}'"
            if attribute.HasField("g"):
                found.append((attribute.g, place))
            found += [(graph, place) for graph in attribute.graphs]
    return found


def _check_operators(
    nodes: Nodes, functions: set[tuple[str, str]], versions: dict[str, int], where: str
) -> None:
    for node in nodes:
        domain = _domain(node.domain)
        if (node.domain, node.op_type) in functions:
            continue
        here = f"{where}: node '{node.name}' ({node.op_type})"
        if domain == "":
            version = versions.get("", 0)
            if not onnx.defs.has(node.op_type, version):
                raise UnsupportedOp(
                    f"operator {node.op_type} does not exist in opset {version}",
                    where=here,
                    hint="export with another opset",
                )
        elif domain not in _RUNTIME_DOMAINS:
            raise UnsupportedOp(
                f"operator {node.op_type} of the unknown domain '{domain[:80]}'",
                where=here,
                hint="export the model with standard ONNX operators",
            )


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _repeated(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _is_dangling(value: ir.Value) -> bool:
    return (
        value.producer() is None and not value.is_graph_input() and not value.is_initializer()
    )


def _label(node: ir.Node) -> str:
    return f"node '{node.name}' ({node.op_type})"
