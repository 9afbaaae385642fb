"""CompressWeights: puts terms in the place of the weights they stand for."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .absorb import absorb_bias
from .emitter import SiteEmitter
from .forms import ColumnsTerm, FiltersTerm, Term, text
from .lowering import Lowering, reweight
from .model import Model
from .packed import DOMAIN, packed, packed_product
from .plan import Plan
from .removal.remove_filters import shrink
from .sites import Site, find_sites, gemm_transposes_input


def compress_weights(
    model: Model,
    plan: Plan,
    terms: Mapping[str, Term],
    lowerings: Mapping[str, Lowering] = MappingProxyType({}),
    bias_deltas: Mapping[str, npt.NDArray[np.float64]] = MappingProxyType({}),
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> Model:
    """The model with every changed site of the plan replaced by its term's nodes.

    Node names, other nodes, metadata, inputs and outputs stay; weights that nothing reads any
    more are dropped. Filters of zeros leave the graph where it allows that, and its readers
    read less (`remove_filters`); where it does not, a warning says why.

    Args:
        model: a normalised model; it is left as it is.
        plan: form of every site.
        terms: the fitted term of every changed site.
        lowerings: how each term is lowered; executed where none is given.
        bias_deltas: what is added to the bias of a changed site, (g · m,) by site name.
        shapes: sizes of values, by name, where the model does not declare them.
    """
    copy = model.copied()
    taken = _names(copy.graph_model.graph)
    shared: dict[str, dict[str, ir.Value]] = {}
    common: dict[ir.Graph, dict[bytes, ir.Value]] = {}
    structured: set[str] = set()
    for site in find_sites(copy, shapes)[0]:
        if site.name in terms:
            made = shared.setdefault(site.weight_name, {})
            owner = _owner(site)
            lowering = lowerings.get(site.name, Lowering("executed"))
            emitter = SiteEmitter(
                site.name,
                site.dtype,
                taken,
                _provenance(site, text(plan.form(site.name))),
                made,
                common.setdefault(owner, {}),
                unfolds=lowering.unfolds,
            )
            if site.name in bias_deltas:
                absorb_bias(site, bias_deltas[site.name], emitter)
            way = lowering.way
            if way in ("executed", "packed"):
                _replace(site, terms[site.name], emitter, is_packed=way == "packed")
                if way == "packed":
                    copy.graph_model.graph.opset_imports.setdefault(DOMAIN, 1)
            else:
                reweight(site, terms[site.name], way, emitter, made)
            if isinstance(terms[site.name], FiltersTerm | ColumnsTerm):
                structured |= {site.name, *(node.name or "" for node in emitter.nodes)}
    if structured:
        removals = shrink(copy.graph_model, frozenset(structured))
        copy = copy.warned(*(r.told for r in removals if r.is_held))
    RemoveUnusedNodesPass()(copy.graph_model)
    _drop_unused_initializers(copy.graph_model.graph)
    return copy


def _provenance(site: Site, form: str) -> dict[str, str]:
    return {"nncc.pass": "CompressWeights", "nncc.source": site.name, "nncc.form": form}


def _owner(site: Site) -> ir.Graph:
    """The graph of the weight: bodies of If and Loop that share it see what stands there."""
    weight = site.node.inputs[site.position]
    assert weight is not None, "a site's weight is there"
    assert isinstance(weight.graph, ir.Graph), "an initialiser stands in a graph"
    return weight.graph


def _replace(site: Site, term: Term, emitter: SiteEmitter, *, is_packed: bool) -> None:
    node = site.node
    graph, owner = node.graph, _owner(site)
    assert isinstance(graph, ir.Graph), "a site stands in a graph"
    x = node.inputs[1 - site.position if site.geometry.op == "MatMul" else 0]
    assert x is not None, "a linear layer reads something"
    if gemm_transposes_input(site):
        x = emitter.node("Transpose", [x], "transpose", {"perm": (1, 0)})
    operands = packed(site, term) if is_packed else None
    if operands is None:
        y = term.lower(emitter, x, site.geometry)
    else:
        y = packed_product(operands, emitter, x)
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
    if site.geometry.op != "MatMul":
        last = _last_convolution(y)
        if last is None:  # what ends the term moves outputs: the bias comes behind it
            sizes = [1, -1, *(1 for _ in site.geometry.kernel)]
            return emitter.node("Add", [y, emitter.reshape(bias, sizes, "bias")], "add")
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
    if site.geometry.kernel:  # one number a channel, along axis 1
        bias = emitter.reshape(bias, [-1, *(1 for _ in site.geometry.kernel)], "bias")
    return emitter.node("Add", [y, bias], "add")


def _last_convolution(y: ir.Value) -> ir.Node | None:
    """The convolution that ends a term, or the first of the branches that are added up."""
    last = y.producer()
    assert last is not None, "a term lowers to at least one node"
    if last.op_type in ("Conv", "ConvTranspose"):
        return last
    if last.op_type != "Add":
        return None
    found = (_last_convolution(branch) for branch in last.inputs if branch is not None)
    return next((node for node in found if node is not None), None)


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
