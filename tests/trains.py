"""Terms on one-layer models: lowered beside decompressed, and unfolded in a graph."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from layers import Layer
from nncc.passes.emitter import SiteEmitter
from nncc.passes.forms import Term
from nncc.passes.model import Model
from nncc.passes.sites import Site, find_sites


def site_of(layer: Layer) -> Site:
    """The layer's one site."""
    (site,), _ = find_sites(Model(ir.from_proto(layer.model), layer.name, ""))
    return site


def session(proto: onnx.ModelProto, *, optimised: bool = False, path=None):
    """ONNX Runtime on the model, as written or fully optimised and saved to `path`."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = (
        level.ORT_ENABLE_BASIC if optimised else level.ORT_DISABLE_ALL
    )
    if path is not None:
        options.optimized_model_filepath = str(path)
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def lowered(layer: Layer, term: Term):
    """What the layer computes, bias left out, with the term's own nodes in its place."""
    site = site_of(layer)
    x, feed = next(iter(layer.feeds.items()))
    if "transA" in str(layer.model.graph.node[0]) and site.geometry.op == "MatMul":
        flags = {a.name: a.i for a in layer.model.graph.node[0].attribute}
        other = "transB" if site.geometry.weight_is_left else "transA"
        feed = feed.T if flags.get(other) else feed
    value = ir.Value(name=x, shape=ir.Shape(feed.shape), type=ir.TensorType(ir.DataType.FLOAT))
    emitter = SiteEmitter("layer", ir.DataType.FLOAT, set(), {})
    y = term.lower(emitter, value, site.geometry)
    return run_nodes(emitter, [value], y, {x: np.ascontiguousarray(feed)}, opset=9)[0]


def dense(layer: Layer, W: np.ndarray):
    """What the layer computes, bias left out, with a dense weight W (g, m, c, *kernel)."""
    from nncc.passes.forms.dense import DenseTerm

    return lowered(layer, DenseTerm(W))


def unfolded(term: Term, *, opset: int = 9, path=None):
    """The matrix that `decode` makes in ONNX Runtime, read through a product with I."""
    emitter = SiteEmitter("layer", ir.DataType.FLOAT, set(), {})
    W = term.decode(emitter)
    assert W is not None
    rows = term.shape[0] * term.shape[1]
    x = ir.Value(name="x", shape=ir.Shape((rows, rows)), type=ir.TensorType(ir.DataType.FLOAT))
    y = emitter.node("MatMul", [x, W], "read")
    feeds = {"x": np.eye(rows, dtype=np.float32)}
    return run_nodes(emitter, [x], y, feeds, opset=opset, path=path)[0]


def run_nodes(emitter, inputs, y, feeds, *, opset, path=None):
    """The emitted nodes as a model of `opset`, run."""
    graph = ir.Graph(
        inputs,
        [y],
        nodes=emitter.nodes,
        initializers=emitter.initializers,
        opset_imports={"": opset},
        name="emitted",
    )
    y.type = ir.TensorType(ir.DataType.FLOAT)
    proto = ir.to_proto(ir.Model(graph, ir_version=7))
    return session(proto, optimised=path is not None, path=path).run(None, feeds)


def node_types(path) -> list[str]:
    """Operators of a saved model."""
    return [node.op_type for node in onnx.load(path).graph.node]
