"""Moments of what layers read, held against patches cut out one by one."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from layers import Layer, layers
from nncc.compiler.fitting.moments import Moments, collect
from nncc.passes.model import Model
from nncc.passes.sites import Site, find_sites


def model_of(proto: onnx.ModelProto) -> Model:
    return Model(ir.from_proto(proto), "layer", "0" * 64)


def moments_of(layer: Layer, **options) -> tuple[Site, Moments]:
    model = model_of(layer.model)
    (site,), _ = find_sites(model)
    feeds = [layer.feeds, {"x": layer.feeds["x"] * 2 + 1}]
    return site, collect(model, feeds, [site], **options)[site.name]


def outputs_of_every_weight(layer: Layer, site: Site, x: np.ndarray) -> np.ndarray:
    """The patches (g, n, positions): the runtime's answer to weights that are unit vectors.

    Each weight of the first output of each group is set to one in turn, so that the output is
    the patch's entry; this knows nothing of strides, pads or orders but what the runtime does.
    """
    import onnxruntime as ort

    g, m, c, *kernel = site.shape
    patches = []
    for at in itertools.product(range(c), *map(range, kernel)):
        W = np.zeros(site.shape, np.float32)
        W[(slice(None), 0, *at)] = 1
        proto = onnx.ModelProto()
        proto.CopyFrom(layer.model)
        node = proto.graph.node[0]
        if site.op == "Conv":
            stored = W.reshape(g * m, c, *kernel)
        elif site.op == "ConvTranspose":
            stored = W.swapaxes(1, 2).reshape(g * c, m, *kernel)
        else:
            flags = {a.name: a for a in node.attribute}
            left = site.geometry.weight_is_left
            mine = "transA" if left else "transB"
            stored = W[0] if left else W[0].T
            stored = stored.T if mine in flags and flags[mine].i else stored
            for name in ("alpha", "beta"):
                if name in flags:
                    flags[name].f = 1.0 if name == "alpha" else 0.0
        for tensor in proto.graph.initializer:
            if tensor.name == "W":
                array = np.ascontiguousarray(stored, np.float32)
            else:
                array = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(proto.SerializeToString(), options)
        y = session.run(None, {"x": x})[0]
        if site.geometry.op == "MatMul":
            axis = -2 if site.geometry.weight_is_left and y.ndim > 1 else -1
            patches.append(np.moveaxis(y, axis, 0)[:1].reshape(1, -1))
        else:
            patches.append(np.moveaxis(y, 1, 0)[::m].reshape(g, -1))
    return np.stack(patches, axis=1).astype(np.float64)


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.name)
def test_moments_are_those_of_the_patches_that_the_runtime_multiplies(layer: Layer):
    site, found = moments_of(layer)
    x = layer.feeds["x"]
    X = np.concatenate(
        [outputs_of_every_weight(layer, site, value) for value in (x, x * 2 + 1)], axis=2
    )
    mean = X.mean(axis=2)
    centred = X - mean[:, :, None]
    covariance = centred @ centred.swapaxes(1, 2) / X.shape[2]
    assert found.count == X.shape[2]
    scale = np.abs(covariance).max()  # sums of products in float32
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.covariance, covariance, rtol=0, atol=1e-5 * scale)


def collected(layer: Layer, samples: int = 6, **options) -> Moments:
    model = model_of(layer.model)
    (site,), _ = find_sites(model)
    feeds = [{"x": layer.feeds["x"] * (1 + at)} for at in range(samples)]
    return collect(model, feeds, [site], **options)[site.name]


def named(name: str) -> Layer:
    return next(layer for layer in layers() if layer.name == name)


WIDE = named("conv strided")


def test_neither_threads_nor_the_memory_allowed_change_a_moment():
    whole = collected(WIDE, jobs=1)
    least = 8 * whole.covariance.size
    small = collected(WIDE, jobs=2, memory=least)
    np.testing.assert_array_equal(small.covariance, whole.covariance)
    np.testing.assert_array_equal(small.mean, whole.mean)


def test_a_covariance_beyond_the_memory_is_left_out_and_its_mean_is_not():
    whole = collected(WIDE)
    small = collected(WIDE, memory=8 * whole.covariance.size - 1)
    assert small.covariance is None
    assert small.metric().is_identity
    np.testing.assert_array_equal(small.mean, whole.mean)


def test_of_many_positions_a_part_stands_for_all():
    whole, part = collected(WIDE), collected(WIDE, most_patches=60)
    assert part.count == whole.count  # every one that was drawn counts for several
    size = np.abs(whole.mean).max() + np.sqrt(whole.covariance.max())
    assert 0 < np.abs(part.mean - whole.mean).max() < size
    again = collected(WIDE, most_patches=60)
    np.testing.assert_array_equal(part.covariance, again.covariance)


def test_moments_in_a_folder_are_found_again_and_those_of_other_samples_are_not(tmp_path):
    first = collected(WIDE, folder=tmp_path)
    heard = []
    again = collected(WIDE, folder=tmp_path, on_sample=lambda *at: heard.append(at))
    np.testing.assert_array_equal(again.covariance, first.covariance)
    assert not heard
    other = collected(WIDE, samples=5, folder=tmp_path, on_sample=lambda *at: heard.append(at))
    assert len(heard) == 5
    assert not np.array_equal(other.covariance, first.covariance)


def test_a_broken_file_of_moments_is_made_again(tmp_path):
    first = collected(WIDE, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    again = collected(WIDE, folder=tmp_path)
    np.testing.assert_array_equal(again.covariance, first.covariance)


def test_a_value_that_is_not_finite_says_nothing():
    model = model_of(WIDE.model)
    (site,), _ = find_sites(model)
    feeds = [WIDE.feeds, {"x": WIDE.feeds["x"] * np.inf}]
    assert dict(collect(model, feeds, [site])) == {}


def test_a_large_mean_costs_the_covariance_no_digits():
    layer = named("matmul right")
    near = collected(layer, samples=1)
    feeds = {"x": layer.feeds["x"] + 1000}
    model = model_of(layer.model)
    (site,), _ = find_sites(model)
    far = collect(model, [feeds], [site])[site.name]
    # the input itself is rounded to 6e-5 there; squares about zero would be to 0.06
    atol = 1e-3 * np.abs(near.covariance).max()
    np.testing.assert_allclose(far.covariance, near.covariance, rtol=0, atol=atol)
