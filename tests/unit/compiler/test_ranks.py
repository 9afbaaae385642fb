"""Low-rank candidates by what they do to the outputs of a trained net."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

import small_models
from models import ref_model
from nncc.compiler.allocation.allocate import minimise_sum
from nncc.compiler.allocation.ranks import PROBES, measured_surveys, probed, spread
from nncc.compiler.allocation.survey import Search, are_measured, survey, table
from nncc.compiler.build import moments_of
from nncc.compiler.clock import Clock
from nncc.compiler.fitting.crossed import thin
from nncc.compiler.fitting.fit import fit
from nncc.compiler.fitting.ranks_fit import moved, nearest_fit
from nncc.compiler.fitting.sensitivity import divergence
from nncc.compiler.options import CompileOptions
from nncc.compiler.prepare import prepared
from nncc.compiler.work import Work
from nncc.compiler.writing.save import write
from nncc.device_profiles.profile import Lattice
from nncc.device_profiles.registry import load
from nncc.passes.forms import LowRank
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """lenet5 with smooth noise to fit on and other noise to judge by."""
    folder = tmp_path_factory.mktemp("ranks")
    path = folder / "images.npz"
    noise = np.random.default_rng(0).uniform(0, 4, (32, 1, 7, 7)).astype(np.float32)
    images = np.minimum(noise.repeat(4, 2).repeat(4, 3), 1)
    np.savez(path, x=images)
    options = CompileOptions(recipe="low-rank", macs=0.5, calib=str(path))
    work = Work(folder, False)
    return prepared(ref_model("lenet5"), load("raspberry-pi-5"), options, work, None, Clock())


@pytest.fixture(scope="module")
def moments(ready, tmp_path_factory):
    work = Work(tmp_path_factory.mktemp("moments"), False)
    return moments_of(ready, CompileOptions(recipe="low-rank", macs=0.5), work, Clock())


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("NNCC_CACHE_DIR", str(cache))


def surveys_of(ready, moments):
    search = Search(Lattice(8, 8), schemes=(0, 1), most_blocks=1, exact=False)
    return survey(ready.sites, search, moments=moments, jobs=1)


def measured(ready, moments, clock=None):
    surveys = surveys_of(ready, moments)
    return measured_surveys(ready, surveys, moments, "macs", clock or Clock())


def outputs(path, feeds):
    session = ort.InferenceSession(str(path))
    names = [value.name for value in session.get_outputs()]
    return [dict(zip(names, session.run(None, feed), strict=True)) for feed in feeds]


def test_errors_with_moments_are_those_of_the_fits(ready, moments):
    for entry in surveys_of(ready, moments):
        picked = [at for at, form in enumerate(entry.forms) if isinstance(form, LowRank)]
        for at in picked[:: max(len(picked) // 2, 1)]:
            plan = Plan({entry.site.name: entry.forms[at]})
            found = fit(ready.sites, plan, moments, jobs=1)[entry.site.name]
            # single precision and damping where little is left
            assert found.error_out == pytest.approx(entry.frobenius[at], rel=0.02, abs=2e-3)


def test_the_divergence_of_a_candidate_is_that_of_the_compiled_model(ready, moments, tmp_path):
    """The whole model is compressed, written and run, on all the samples of the fit."""
    reference = outputs(ready.original, ready.fit_feeds)
    judged = [s for s in measured(ready, moments) if not thin(s.site, moments)]
    assert judged, "the others are judged by samples that their fits did not see"
    for entry in judged:
        for at in probed(entry, "macs")[::4]:
            plan = Plan({entry.site.name: entry.forms[at]})
            found = fit(ready.sites, plan, moments, jobs=1)[entry.site.name]
            model = compress_weights(
                ready.model,
                plan,
                {entry.site.name: found.term},
                bias_deltas={entry.site.name: found.bias_delta},
            )
            write(model, tmp_path / "one.onnx")
            run = outputs(tmp_path / "one.onnx", ready.fit_feeds)
            expected = np.mean([divergence(y, z) for y, z in zip(reference, run, strict=True)])
            assert entry.divergence[at] >= 0.98 * expected  # never less for more error
            assert entry.divergence[at] <= 1.02 * expected + 1e-3


def test_probes_are_few_and_nothing_beats_them(ready, moments):
    for entry in surveys_of(ready, moments):
        cost, error = entry.cost("macs"), entry.frobenius
        for at in probed(entry, "macs"):
            cheaper = (cost <= cost[at]) & (error < error[at])
            assert not cheaper[1:].any()
            assert cost[at] < cost[0]
        assert len(probed(entry, "macs")) <= PROBES
        assert len(probed(entry, "macs")) > 0 or len(entry.useful("macs")) == 1


def test_between_probes_more_error_is_never_less_divergence(ready, moments):
    for entry in surveys_of(ready, moments):
        probes = probed(entry, "macs")
        rng = np.random.default_rng(0)
        found = rng.uniform(0, 1, len(probes))  # as noisy as it gets
        values = spread(entry, probes, {entry.site.name: found})
        order = np.lexsort((values, entry.frobenius))
        assert values[0] == 0
        assert (np.diff(values[order][entry.frobenius[order] > 0]) >= -1e-12).all()


def test_without_samples_nothing_is_measured(ready, moments):
    surveys = surveys_of(ready, {})
    alone = replace(ready, fit_feeds=())
    assert measured_surveys(alone, surveys, {}, "macs", Clock()) == surveys
    assert not are_measured(surveys)
    assert are_measured(measured(ready, moments))


def test_a_measurement_is_kept_and_repeated_to_the_last_bit(ready, moments, monkeypatch):
    first = measured(ready, moments)
    heard = []
    again = measured(ready, moments, Clock(on_event=heard.append))
    monkeypatch.setenv("NNCC_CACHE_DIR", "/dev/null")  # nothing can be kept there
    fresh = measured(ready, moments)
    assert not [event for event in heard if event.total]
    for one, two, three in zip(first, again, fresh, strict=True):
        np.testing.assert_array_equal(one.divergence, two.divergence)
        np.testing.assert_array_equal(one.divergence, three.divergence)


def test_a_layer_that_hardly_matters_gives_up_its_rank_first(tmp_path):
    """Two equal layers, one counted a hundredth: their own errors cannot tell them apart."""
    rng = np.random.default_rng(0)
    fall = np.arange(1, 33) ** -0.5
    tensors = {name: rng.standard_normal((32, 32)) * fall for name in ("a", "b")}
    path = small_models.write(
        tmp_path / "two.onnx",
        """two (float[N, 32] x) => (float[N, 32] y) {
            u = MatMul (x, a)
            v = MatMul (x, b)
            w = Mul (v, little)
            y = Add (u, w)
        }""",
        little=np.float32(0.01),
        **{name: array.astype(np.float32) for name, array in tensors.items()},
    )
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((64, 32)).astype(np.float32))
    options = CompileOptions(recipe="low-rank", macs=0.5, calib=str(tmp_path / "x.npz"))
    work = Work(tmp_path, False)
    ready = prepared(path, load("raspberry-pi-5"), options, work, None, Clock())
    moments = moments_of(ready, options, work, Clock())
    surveys = survey(ready.sites, Search(Lattice(1, 1)), moments=moments, jobs=1)

    def ranks(surveys) -> list[int]:
        entries = table(surveys, "frobenius", "macs")
        chosen = minimise_sum(entries, 0.5 * 2 * 32 * 32).choice
        forms = [
            entry.forms[int(entry.useful("macs")[at])]
            for entry, at in zip(surveys, chosen, strict=True)
        ]
        return [getattr(form, "j", 32) for form in forms]

    a, b = ranks(surveys)
    assert abs(a - b) <= 2
    a, b = ranks(measured_surveys(ready, surveys, moments, "macs", Clock()))
    assert a > 3 * b


def test_the_nearest_fit_is_no_farther_than_fits_apart(ready, moments, tmp_path):
    plan = Plan({site.name: LowRank(8) for site in ready.sites[1:3]})
    apart = fit(ready.sites, plan, moments, jobs=1)
    nearest = nearest_fit(ready, plan, moments, Clock(), jobs=1)
    assert nearest.keys() == apart.keys()
    path = tmp_path / "model.onnx"
    assert moved(ready, plan, nearest, path) <= moved(ready, plan, apart, path)
    plain = nearest_fit(ready, plan, {}, Clock(), jobs=1)
    assert moved(ready, plan, apart, path) < moved(ready, plan, plain, path)
