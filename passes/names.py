"""NameNodes: every node has one name of its own, that every tool after us can carry."""

import re

import onnx_ir as ir

SOURCE = "nncc.source"
"""Metadata key: the name that the node had in the file."""


def name_nodes(model: ir.Model) -> bool:
    """Gives every node, bodies included, a unique name of [A-Za-z0-9_./].

    A name that can stay does. An unnamed node is named after its operator and first output, so
    the name is the same in every run. A changed name is kept in the node's metadata. Weights
    that carry one name in two graphs are told apart too.
    """
    changed = False
    nodes = [node for graph in model.graphs() for node in graph]
    taken: set[str] = set()
    good: set[ir.Node] = set()  # names that can stay go first: nobody else may take them
    for node in nodes:
        if node.name and legal(node.name) == node.name and node.name not in taken:
            taken.add(node.name)
            good.add(node)
    for node in nodes:
        if node in good:
            continue
        old = node.name or ""
        output = next((v.name for v in node.outputs if v.name), "")
        wanted = legal(old) or legal(f"{node.op_type}.{output}")
        new = _free(wanted, taken)
        taken.add(new)
        if new != old:
            if old:
                node.metadata_props.setdefault(SOURCE, old)
            node.name = new
            changed = True
    return _tell_weights_apart(model) or changed


def originals(model: ir.Model) -> dict[str, str]:
    """Name of every node to the name it, or what it was made of, had in the file.

    For reports: an error about `block_1_conv/sqrt` is about the file's `block:1/conv`.
    """
    return {
        str(node.name): node.metadata_props.get(SOURCE, str(node.name))
        for graph in model.graphs()
        for node in graph
    }


def legal(name: str) -> str:
    """The name with every other character replaced by an underscore.

    Example:
        >>> legal("model/conv:0")
        'model/conv_0'
    """
    return re.sub(r"[^A-Za-z0-9_./]", "_", name)


def _tell_weights_apart(model: ir.Model) -> bool:
    changed = False
    main = model.graph
    taken = {str(v.name) for v in main.inputs} | set(main.initializers)
    taken |= {str(v.name) for g in model.graphs() for node in g for v in node.outputs}
    for graph in model.graphs():
        if graph is main:
            continue
        for name, value in list(graph.initializers.items()):
            if name in taken and not value.is_graph_output() and not value.is_graph_input():
                del graph.initializers[name]
                value.name = _free(name, taken)
                graph.register_initializer(value)
                changed = True
            taken.add(str(value.name))
    return changed


def _free(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name
