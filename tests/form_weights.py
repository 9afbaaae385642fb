"""Weights, input moments and the runtime's own unfolding, for tests of forms."""

import math

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from nncc.passes.emitter import SiteEmitter
from nncc.passes.forms.metric import Metric

SHAPE = (2, 6, 4, 3, 3)


def weight(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def moments(shape=SHAPE, seed=1, samples=3):
    """Covariances of correlated inputs of very different sizes; `samples` times n of them."""
    rng = np.random.default_rng(seed)
    n = math.prod(shape[2:])
    mix = rng.standard_normal((shape[0], n, n)) * np.exp(rng.standard_normal(n))
    X = rng.standard_normal((shape[0], max(int(samples * n), 1), n)) @ mix
    return Metric(np.einsum("gki,gkj->gij", X, X) / X.shape[1])


def identity(shape=SHAPE):
    return Metric(
        np.broadcast_to(
            np.eye(math.prod(shape[2:])), (shape[0],) + (math.prod(shape[2:]),) * 2
        )
    )


def unfolded(term, opset=11):
    """The matrix that a term's nodes make in ONNX Runtime."""
    emitter = SiteEmitter("site", ir.DataType.FLOAT, set(), {})
    y = term.decode(emitter)
    if y is None:
        return None
    y.name = "y"
    graph = ir.Graph(
        [],
        [y],
        nodes=emitter.nodes,
        initializers=emitter.initializers,
        opset_imports={"": opset},
        name="decode",
    )
    proto = ir.to_proto(ir.Model(graph, ir_version=7))
    return ort.InferenceSession(proto.SerializeToString()).run(None, {})[0]
