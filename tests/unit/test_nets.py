"""The test networks are the published ones: layers, weights, and the fixed random arrays."""

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from nets import NETS, build, layers, weights

# Layers and weights without bias: facts of the published architectures.
SIZES = {
    "resnet20": (22, 270_896),
    "resnet18": (21, 11_678_912),
    "resnet50": (54, 25_502_912),
    "vgg16": (16, 138_344_128),
    "vgg16-cifar": (14, 14_715_584),
    "alexnet": (8, 61_090_496),
    "mobilenet-v2": (53, 3_469_760),
}


@pytest.mark.parametrize("name", sorted(NETS))
def test_layers_and_weights_are_those_of_the_published_net(name):
    shapes = [shape for _, shape in layers(name)]
    assert (len(shapes), sum(map(math.prod, shapes))) == SIZES[name]


@pytest.mark.parametrize("name", sorted(set(NETS) - {"vgg16"}))
@pytest.mark.parametrize("opset", [9, 13, 21])
def test_models_are_valid_and_run(name, opset):
    model = build(name, "noise", batch="N", opset=opset)
    onnx.checker.check_model(model, full_check=True)
    session: Any = onnxruntime.InferenceSession(model.SerializeToString())
    side = NETS[name][1]
    (y,) = session.run(None, {"input": np.ones((2, 3, side, side), np.float32)})
    assert y.shape == (2, NETS[name][2])
    assert np.isfinite(y).all()


def test_nodes_are_named_like_torch_modules():
    names = {node.name for node in build("resnet18", "noise").graph.node}
    assert {"conv1", "layer1.0.conv1", "layer2.0.downsample.0", "fc"} <= names


def test_weight_indices_follow_registration_order():
    names = [name for name, _ in layers("resnet50")]
    first = [f"layer1.0.{part}" for part in ("conv1", "conv2", "conv3", "downsample.0")]
    assert names[:5] == ["conv1", *first]
    assert names[-1] == "fc"


def test_decaying_weights_have_the_stated_spectrum_and_norm():
    W = weights((64, 32, 3, 3), 7, "decay").reshape(64, -1).astype(np.float64)
    sigma = np.linalg.svd(W, compute_uv=False)
    np.testing.assert_allclose(sigma / sigma[0], np.arange(1, 65) ** -0.7, rtol=1e-5)
    assert np.linalg.norm(W) == pytest.approx(math.sqrt(2 / 288) * math.sqrt(64 * 288))


@pytest.mark.parametrize(
    ("spec", "budget", "used", "error"),
    [("he", 81_840, 79_792, 0.331873), ("decay", 80_496, 80_320, 0.092616)],
)
def test_the_arrays_are_those_the_allocation_bars_were_measured_on(spec, budget, used, error):
    """A few lines of independent min-max over (j, k) give the published optimum."""
    tables = []
    for idx, (_, shape) in enumerate(layers("resnet20")):
        W = weights(shape, idx, spec).astype(np.float64).reshape(shape[0], -1)
        blocks = [k for k in range(1, shape[1] + 1) if shape[1] % k == 0]
        curves = {k: sigmas(W, k) / sigmas(W, 1)[0] for k in blocks}
        tables.append((W.shape, {k: np.append(v, 0) for k, v in curves.items()}))
    candidates = np.unique(np.concatenate([v for _, d in tables for v in d.values()]))
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if size(tables, candidates[middle]) <= budget else (middle + 1, high)
        )
    assert size(tables, candidates[low]) == used
    assert candidates[low] == pytest.approx(error, abs=1e-6)


def sigmas(W: np.ndarray, k: int) -> np.ndarray:
    """The largest of the k column blocks' singular values, rank by rank."""
    return np.max([np.linalg.svd(B, compute_uv=False) for B in np.split(W, k, axis=1)], axis=0)


def size(tables, eps: float) -> int:
    """Weights when each layer takes its cheapest (j, k) with error at most eps, or stays."""
    total = 0
    for (m, n), curves in tables:
        best = m * n
        for k, errors in curves.items():
            j = max(1, int(np.argmax(errors <= eps)))
            if j < len(errors):
                best = min(best, j * (k * m + n))
        total += best
    return total
