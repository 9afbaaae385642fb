"""All families of forms compete, and budgets are held by what is stored and run."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nncc
from nncc.compiler.allocation.bits import all_in
from nncc.compiler.allocation.mixed_limits import limits, wanted
from nncc.compiler.allocation.mixed_plan import mixed_layers, mixed_plan
from nncc.compiler.allocation.mixed_row import Candidate, MixedRow, dense_candidate
from nncc.compiler.allocation.solve import minimise_sum_of
from nncc.compiler.build import moments_of
from nncc.compiler.clock import Clock
from nncc.compiler.costs import costs
from nncc.compiler.fitting.fit import metric_of
from nncc.compiler.fitting.ranks_fit import nearest_fit
from nncc.compiler.options import CompileOptions
from nncc.compiler.prepare import prepared
from nncc.compiler.work import Work
from nncc.device_profiles.errors import UsageError
from nncc.device_profiles.registry import load
from nncc.passes.forms import Dense, LowRank, kernel_macs, squared_error
from nncc.passes.half_store import half_floats, store_halves
from nncc.passes.lowering import runs_dense
from small_models import image, residual_net

TARGET = load("raspberry-pi-5")
ASKED = {"size": 0.25, "macs": 0.8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A net, and samples of smooth noise."""
    folder = tmp_path_factory.mktemp("mixed")
    residual_net(folder / "net.onnx", channels=16, side=8)
    np.savez(
        folder / "samples.npz", x=np.concatenate([image(8, seed)["x"] for seed in range(24)])
    )
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("NNCC_CACHE_DIR", str(cache))


@pytest.fixture(scope="module")
def options(folder):
    return CompileOptions(calib=str(folder / "samples.npz"), jobs=1, **ASKED)


@pytest.fixture(scope="module")
def ready(folder, options):
    return prepared(folder / "net.onnx", TARGET, options, Work(folder, False), None, Clock())


@pytest.fixture(scope="module")
def moments(ready, options, tmp_path_factory):
    return moments_of(ready, options, Work(tmp_path_factory.mktemp("work"), False), Clock())


@pytest.fixture(scope="module")
def found(ready):
    return costs(ready.model, ready.shapes, ready.sites, TARGET)


@pytest.fixture(scope="module")
def layers(ready, moments, found, options, cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNCC_CACHE_DIR", str(cache))
        return mixed_layers(ready, moments, found, TARGET, options, Clock())


def test_every_family_competes(layers):
    families = {c.family for layer in layers for c in layer.row.candidates}
    assert {"dense", "low-rank", "codes", "nested", "train"} <= families


def test_dense_comes_first_and_loses_nothing(layers):
    for layer in layers:
        assert layer.row.candidates[0].form == Dense()
        assert layer.row.divergences()[0] == 0


def test_what_is_measured_has_the_bits_and_the_error_of_its_term(layers, moments):
    for layer in layers:
        W, metric = layer.site.W(), metric_of([layer.site], moments)
        tried = [c for c in layer.row.candidates[1:] if c.is_fitted]
        for candidate in tried[:: max(len(tried) // 4, 1)]:
            term = candidate.form.compress(W, metric=metric)
            assert term.cost().bits == candidate.bits
            error = squared_error(W, term, metric) / metric.energy(W)
            np.testing.assert_allclose(error, candidate.error, rtol=1e-6, atol=1e-12)


def test_low_rank_is_known_in_closed_form(layers, moments):
    for layer in layers:
        plain = [
            c for c in layer.row.candidates if isinstance(c.form, LowRank) and not c.form.u
        ]
        W, metric = layer.site.W(), metric_of([layer.site], moments)
        for candidate in [c for c in plain if not c.is_fitted][:1]:
            term = candidate.form.compress(W, metric=metric)
            assert term.cost().bits == candidate.bits
            error = squared_error(W, term, metric) / metric.energy(W)
            np.testing.assert_allclose(error, candidate.error, rtol=0.02, atol=1e-6)


def test_prices_are_those_of_the_kernels(layers, found):
    for layer in layers:
        site = layer.site
        dense = found.of(site).seconds
        for candidate in layer.row.candidates:
            kernels = candidate.form.kernels(site.shape, site.geometry)
            assert candidate.macs == kernel_macs(kernels)
            seconds = found.of(site, candidate.form).seconds
            # less than three percent faster is no faster: a prediction cannot tell it
            assert candidate.seconds == pytest.approx(
                dense if 0.97 * dense <= seconds <= dense else seconds
            )


def test_what_folds_at_load_costs_the_time_of_the_dense_layer(layers):
    for layer in layers:
        for candidate in layer.row.candidates:
            if candidate.family in ("codes", "sum") and runs_dense(candidate.form, layer.site):
                assert candidate.seconds == layer.row.dense.seconds


def test_two_budgets_are_held_by_what_is_stored_and_run(ready, moments, found, options):
    planned = mixed_plan(ready, moments, found, TARGET, options, Clock())
    assert planned.budget_met
    fitted = nearest_fit(ready, planned.plan, moments, Clock())
    terms = {name: entry.term for name, entry in fitted.items()}
    halves = half_floats(store_halves(ready.model))
    assert all_in(ready.model, ready.sites, terms, halves) <= 32 * options.size
    kernels = [planned.plan.form(s.name).kernels(s.shape, s.geometry) for s in ready.sites]
    whole = sum(site.macs for site in ready.sites)
    assert sum(map(kernel_macs, kernels)) <= options.macs * whole


def test_what_cannot_be_held_says_what_can(ready, moments, found, options):
    asked = options.model_copy(update={"size": 0.03, "macs": 0.01})
    planned = mixed_plan(ready, moments, found, TARGET, asked, Clock())
    assert not planned.budget_met
    said = " ".join(planned.undone)
    assert "no plan holds it" in said
    words = said.replace(",", " ").split()
    alone = [float(words[i + 1]) for i, word in enumerate(words) if word == "--macs"]
    for macs in alone:
        again = asked.model_copy(update={"macs": macs})
        assert mixed_plan(ready, moments, found, TARGET, again, Clock()).budget_met


def test_the_same_request_is_answered_alike(
    ready, moments, found, options, tmp_path, monkeypatch
):
    first = mixed_plan(ready, moments, found, TARGET, options, Clock())
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path))
    fresh = mixed_plan(ready, moments, found, TARGET, options, Clock())
    assert first.plan.dumps() == fresh.plan.dumps()


@pytest.mark.usefixtures("layers")
def test_what_was_measured_is_not_measured_again(ready, moments, found, options):
    heard = []
    clock = Clock(on_event=lambda event: heard.append((event.stage, event.total)))
    again = options.model_copy(update={"size": 0.24, "macs": 0.85})
    mixed_layers(ready, moments, found, TARGET, again, clock)
    assert not [total for stage, total in heard if stage == "sensitivity" and total]


def test_without_calibration_a_proxy_is_named(ready, found, options):
    asked = options.model_copy(update={"calib": None, "macs": 0.9})
    planned = mixed_plan(ready, {}, found, TARGET, asked, Clock())
    assert planned.budget_met
    assert "without --calib" in " ".join(planned.undone)


@given(st.integers(0, 2**32 - 1))
def test_the_optimum_is_among_what_solvers_look_at(seed):
    """Against every combination of three layers of six candidates, two budgets."""
    rng = np.random.default_rng(seed)
    rows = []
    for at in range(3):
        found = [dense_candidate(32.0, 10.0, 10.0)]
        for _ in range(5):
            error, bits, seconds = rng.uniform(0, 1), rng.integers(1, 33), rng.integers(1, 12)
            found.append(
                Candidate(
                    LowRank(1), "low-rank", error, float(bits), 1.0, float(seconds),
                    is_fitted=True, divergence=error,
                )
            )  # fmt: skip
        rows.append(MixedRow(str(at), tuple(found), 1))
    budgets = {"bits": float(rng.integers(20, 97)), "seconds": float(rng.integers(8, 31))}
    table = [row.choices(["bits", "seconds"]) for row in rows]
    within = [
        sum(float(e.value[i]) for e, i in zip(table, choice, strict=True))
        for choice in itertools.product(range(6), repeat=3)
        if all(
            sum(float(e.costs[name][i]) for e, i in zip(table, choice, strict=True)) <= most
            for name, most in budgets.items()
        )
    ]
    if within:
        assert minimise_sum_of(table, budgets).value == pytest.approx(min(within))


def test_divergence_rises_with_the_error_in_a_family(layers):
    for layer in layers:
        found = layer.row.divergences()
        for family in ("low-rank", "nested", "train"):
            at = [i for i, c in enumerate(layer.row.candidates) if c.family == family]
            order = sorted(at, key=lambda i: layer.row.candidates[i].error)
            assert (np.diff(found[order]) >= -1e-12).all()


def test_the_limits_are_those_asked_for(ready, layers, found, options):
    asked = limits(ready, [layer.row for layer in layers], options, TARGET, found)
    assert [limit.quantity for limit in asked] == ["bits", "macs"]
    assert [limit.quantity for limit in asked] == list(wanted(options).quantities)
    assert asked[0].most == pytest.approx(0.25 * asked[0].total)
    assert asked[1].most == pytest.approx(asked[1].total * options.macs)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"size": 0.5, "bits": 4.0}, "two budgets at once"),
        ({"macs": 0.5, "speedup": 2.0}, "two budgets at once"),
        ({"size": 0.5, "macs": 0.5, "speedup": 2.0}, "3 budgets at once"),
        ({"size": 0.5, "macs": 0.5, "recipe": "low-rank"}, "auto holds both"),
    ],
)
def test_budgets_that_no_plan_could_be_held_to_are_refused(folder, asked, message):
    with pytest.raises(UsageError) as error:
        nncc.compile(folder / "net.onnx", TARGET.name, output=folder / "build", **asked)
    assert message in f"{error.value.what} {error.value.hint}"
