"""How far outputs move: the divergence, and that it is of the model with one layer changed."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from scipy.spatial.distance import jensenshannon

from nncc.compiler.fitting.moments import collect
from nncc.compiler.fitting.sensitivity import divergence, sensitivity
from nncc.passes.forms.codes.affine import Affine
from nncc.passes.forms.codes.half import Half
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites
from small_models import image, residual_net

BITS = (2, 4, 8)


def test_probabilities_are_compared_by_jensen_and_shannon():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(7), (2, 5)), rng.dirichlet(np.ones(7), (2, 5))
    want = np.mean(jensenshannon(p, q, axis=-1) ** 2)
    assert divergence({"y": p}, {"y": q}) == pytest.approx(want, rel=1e-6)
    assert divergence({"y": p}, {"y": p}) == 0


def test_other_outputs_are_compared_by_their_share_of_the_variance():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((100, 100)) * 3 + 5
    z = y + rng.standard_normal(y.shape)
    assert divergence({"y": y}, {"y": z}) == pytest.approx(1 / 9, rel=0.05)


def test_whole_numbers_are_not_compared_and_what_is_not_finite_is_infinitely_far():
    assert divergence({"n": np.arange(3)}, {"n": np.arange(3) + 1}) == 0
    assert divergence({"y": np.ones(3)}, {"y": np.array([1, np.nan, 1])}) == np.inf
    assert divergence({"y": np.ones(3)}, {"y": np.ones(4)}) == np.inf


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = residual_net(tmp_path_factory.mktemp("net") / "net.onnx", channels=8, side=8)
    model = Model(ir.load(path), "net", "0" * 64)
    sites, _ = find_sites(model)
    feeds = [image(8, seed) for seed in range(4)]
    return path, model, sites, feeds, collect(path, feeds, sites, jobs=1)


def test_it_is_the_divergence_of_the_model_with_that_layer_rewritten(net):
    path, model, sites, feeds, moments = net
    terms = {s.name: [Affine(b).compress(s.W()) for b in BITS] for s in sites}

    found = sensitivity(path, sites, terms, feeds, moments=moments)

    assert list(found) == [site.name for site in sites]
    whole = ort.InferenceSession(str(path))
    for site in (sites[0], sites[2], sites[-2]):
        for term, got in zip(terms[site.name], found[site.name], strict=True):
            delta = moments[site.name].bias_delta(site.W(), term.decompress())
            made = compress_weights(
                model,
                Plan({site.name: Affine(2)}),
                {site.name: term},
                bias_deltas={site.name: delta},
            )
            new = ort.InferenceSession(ir.to_proto(made.graph_model).SerializeToString())
            pairs = [(whole.run(None, f)[0], new.run(None, f)[0]) for f in feeds]
            want = np.mean([divergence({"y": y}, {"y": z}) for y, z in pairs])
            assert got == pytest.approx(want, rel=1e-2)


def test_finer_codes_move_the_outputs_less(net):
    path, _, sites, feeds, moments = net
    terms = {s.name: [Affine(b).compress(s.W()) for b in BITS] for s in sites}
    found = sensitivity(path, sites, terms, feeds, moments=moments)
    assert all(row[0] > row[1] > row[2] > 0 for row in found.values())


def test_layers_without_candidates_are_passed_by(net):
    path, _, sites, feeds, _ = net
    told: list[str] = []
    found = sensitivity(
        path,
        sites,
        {sites[3].name: [Half().compress(sites[3].W())]},
        feeds,
        on_done=lambda *said: told.append(said[2]),
    )
    assert list(found) == [sites[3].name]
    assert told == [site.name for site in sites]


def test_fewer_samples_are_taken_where_memory_is_short(net):
    path, _, sites, feeds, _ = net
    terms = {sites[0].name: [Affine(2).compress(sites[0].W())]}
    short = sensitivity(path, sites, terms, feeds, memory=1)
    first = sensitivity(path, sites, terms, feeds[:1])
    assert short[sites[0].name] == pytest.approx(first[sites[0].name])
