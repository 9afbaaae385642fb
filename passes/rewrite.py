"""CompressWeights: puts terms in the place of the weights they stand for."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .emitter import SiteEmitter
from .forms import Term, text
from .model import Model
from .plan import Plan
from .sites import Site, find_sites, gemm_transposes_input


def compress_weights(model: Model, plan: Plan, terms: Mapping[str, Term]) -> Model:
    """The model with every changed site of the plan replaced by its term's nodes.

    Node names, other nodes, metadata, inputs and outputs stay; weights that nothing reads any
    more are dropped.

    Args:
        model: a normalised model; it is left as it is.
        plan: form of every site.
        terms: the fitted term of every changed site.
    """
    copy = model.copied()
    taken = _names(copy.graph_model.graph)
    shared: dict[str, dict[str, ir.Value]] = {}
    for site in find_sites(copy)[0]:
        if site.name in terms:
            made = shared.setdefault(site.weight_name, {})
            _replace(site, terms[site.name], text(plan.form(site.name)), taken, made)
    RemoveUnusedNodesPass()(copy.graph_model)
    _drop_unused_initializers(copy.graph_model.graph)
    return copy


def _replace(
    site: Site, term: Term, form: str, taken: set[str], shared: dict[str, ir.Value]
) -> None:
    node = site.node
    graph = node.graph
    assert isinstance(graph, ir.Graph), "a site stands in a graph"
    emitter = SiteEmitter(
        site.name,
        site.dtype,
        taken,
        {"nncc.pass": "CompressWeights", "nncc.source": site.name, "nncc.form": form},
        shared,
    )
    weight = node.inputs[site.position]
    assert weight is not None, "a site's weight is there"
    owner = weight.graph  # bodies of If and Loop that share the weight see what stands there
    assert isinstance(owner, ir.Graph), "an initialiser stands in a graph"
    x = node.inputs[1 - site.position if site.geometry.op == "MatMul" else 0]
    assert x is not None, "a linear layer reads something"
    if gemm_transposes_input(site):
        x = emitter.node("Transpose", [x], "transpose", {"perm": (1, 0)})
    y = term.lower(emitter, x, site.geometry)
    y = _with_bias(site, emitter, y)
    for value in emitter.initializers:
        owner.register_initializer(value)
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], emitter.nodes, [node.outputs[0]], [y]
    )


def _with_bias(site: Site, emitter: SiteEmitter, y: ir.Value) -> ir.Value:
    """The layer's own bias, taken by the last convolution or added behind a product."""
    node = site.node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return y
    last = y.producer()
    assert last is not None, "a term lowers to at least one node"
    if last.op_type in ("Conv", "ConvTranspose"):
        last.resize_inputs(3)
        last.replace_input_with(2, bias)
        return y
    beta = node.attributes.get_float("beta", 1.0)
    if beta == 0.0:
        return y
    if beta != 1.0:
        constant = ir.convenience.get_const_tensor(bias)
        if constant is None:
            factor = emitter.constant(np.array(beta, np.float32), "beta")
            bias = emitter.node("Mul", [bias, factor], "beta")
        else:
            scaled = constant.numpy().astype(np.float32) * np.float32(beta)
            bias = emitter.constant(scaled, "bias")
    return emitter.node("Add", [y, bias], "add")


def _names(graph: ir.Graph) -> set[str]:
    """Names of all nodes and values."""
    names: set[str] = set()

    def note(values: Mapping[str, ir.Value]) -> None:
        names.update(values)

    for g in (graph, *graph.subgraphs()):
        note(g.initializers)
        names.update(v.name or "" for v in g.inputs)
        for node in g:
            names.add(node.name or "")
            names.update(v.name or "" for v in node.outputs)
    return names


def _drop_unused_initializers(graph: ir.Graph) -> None:
    for g in (graph, *graph.subgraphs()):
        for name, value in list(g.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del g.initializers[name]
