"""A term in a layer's graph, run by ONNX Runtime, and the independent reference beside it."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from layers import Layer
from nncc.passes.emitter import SiteEmitter
from nncc.passes.forms import Form, Term
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import Site, find_sites


def model_of(layer: Layer) -> Model:
    return Model(ir.from_proto(layer.model), layer.name, "0" * 64)


def site_of(layer: Layer) -> Site:
    """The one site of a layer."""
    (site,), skipped = find_sites(model_of(layer))
    assert not skipped
    return site


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The first output, computed node by node: no optimisation mends or hides anything."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return np.asarray(session.run(None, feeds)[0])


def substituted(layer: Layer, form: Form, term: Term) -> onnx.ModelProto:
    """The layer's model with its weight replaced by the term's nodes."""
    name = site_of(layer).name
    model = compress_weights(model_of(layer), Plan({name: form}), {name: term})
    return ir.to_proto(model.graph_model)


def dense_with(layer: Layer, W: np.ndarray) -> onnx.ModelProto:
    """The layer's model with its weight replaced by W, the independent reference."""
    model = onnx.ModelProto()
    model.CopyFrom(layer.model)
    (site,), _ = find_sites(Model(ir.from_proto(model), "", ""))
    tensor = next(t for t in model.graph.initializer if t.name == "W")
    g, m, c, *kernel = site.shape
    if site.op == "Conv":
        array = W.reshape(g * m, c, *kernel)
    elif site.op == "ConvTranspose":
        array = np.concatenate([np.moveaxis(group, 0, 1) for group in W])
    else:
        node = model.graph.node[0]
        flags = {a.name: a for a in node.attribute}
        alpha = flags["alpha"].f if "alpha" in flags else 1.0
        mine = "transA" if site.geometry.weight_is_left else "transB"
        stored = W[0] if site.geometry.weight_is_left else W[0].T
        array = (stored.T if mine in flags and flags[mine].i else stored) / alpha
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), "W"))
    return model


def decoded(term: Term, opset: int = 11) -> np.ndarray | None:
    """The matrix that a term's nodes unfold; None where there are none."""
    emitter = SiteEmitter("w", ir.DataType.FLOAT, set(), {})
    value = term.decode(emitter)
    if value is None:
        return None
    value.shape = None
    graph = ir.Graph(
        [],
        [value],
        nodes=emitter.nodes,
        initializers=emitter.initializers,
        opset_imports={"": opset},
    )
    return run(ir.to_proto(ir.Model(graph, ir_version=7)), {})
