"""The recipe from end to end: bits asked for, a model that stores them and computes alike."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nncc.compiler.allocation.bits import all_in
from nncc.compiler.allocation.bits_recipe import bits_fitted, bits_planned, narrowed
from nncc.compiler.allocation.planned import Planned
from nncc.compiler.build import lowered
from nncc.compiler.clock import Clock
from nncc.compiler.fitting.fit import Fitted
from nncc.compiler.fitting.moments import Moments, collect
from nncc.compiler.options import CompileOptions
from nncc.compiler.prepare import Ready, prepared
from nncc.compiler.work import Work
from nncc.device_profiles.registry import load
from nncc.passes.half_store import half_floats, store_halves
from nncc.passes.model import Model
from nncc.passes.rewrite import compress_weights
from small_models import image, residual_net

HOST = load("host")


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Ready:
    folder = tmp_path_factory.mktemp("recipe")
    path = residual_net(folder / "net.onnx", channels=8, side=8)
    samples = np.concatenate([image(8, seed)["x"] for seed in range(24)])
    np.savez(folder / "samples.npz", x=samples)
    options = CompileOptions(calib=str(folder / "samples.npz"))
    return prepared(path, HOST, options, Work(folder, False), None, Clock())


@pytest.fixture(scope="module")
def moments(ready) -> Mapping[str, Moments]:
    return collect(ready.written, ready.fit_feeds, ready.sites, jobs=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A work folder in which measurements are found again."""
    return tmp_path_factory.mktemp("work")


def made(
    ready: Ready, moments: Mapping[str, Moments], folder: Path, **asked
) -> tuple[Planned, Mapping[str, Fitted], Model]:
    options, clock = CompileOptions(recipe="quantize", jobs=1, **asked), Clock()
    planned = bits_planned(ready, moments, HOST, options, folder, clock)
    fitted = bits_fitted(ready, planned.plan, moments, options, clock)
    terms = {name: entry.term for name, entry in fitted.items()}
    deltas = {n: e.bias_delta for n, e in fitted.items() if e.bias_delta is not None}
    ways = lowered(ready, planned.plan, fitted, HOST)
    model = compress_weights(ready.model, planned.plan, terms, ways, deltas)
    return planned, fitted, narrowed(model, HOST)


def distance(ready: Ready, model: Model) -> float:
    """Squared error of the outputs over their variance, on samples no fit has seen."""
    new = ort.InferenceSession(ir.to_proto(model.graph_model).SerializeToString())
    old = ort.InferenceSession(str(ready.original))
    want = np.concatenate([old.run(None, feed)[0] for feed in ready.feeds])
    got = np.concatenate([new.run(None, feed)[0] for feed in ready.feeds])
    return float(np.mean((want - got) ** 2) / want.var())


def test_the_bits_asked_for_are_held_and_more_of_them_are_closer(ready, moments, folder):
    found: list[float] = []
    for bits in (3.5, 6.0):
        planned, fitted, model = made(ready, moments, folder, bits=bits)
        terms = {name: entry.term for name, entry in fitted.items()}
        halves = half_floats(store_halves(ready.model))
        assert planned.budget_met
        assert planned.budget.endswith(f"({bits:g} bits a parameter)")
        assert all_in(ready.model, ready.sites, terms, halves) <= bits
        found.append(distance(ready, model))
    assert found[1] < 0.2 * found[0] < 0.1


def test_a_share_of_the_size_means_so_many_of_32_bits(ready, moments, folder):
    planned, _, _ = made(ready, moments, folder, size=0.125)
    assert planned.budget.endswith("(4 bits a parameter)")
    assert planned.budget_used == pytest.approx(0.125, abs=0.01)


def test_inputs_make_better_use_of_the_same_bits(ready, moments, folder):
    _, _, blind = made(ready, {}, folder, bits=4.0)
    _, fitted, seeing = made(ready, moments, folder, bits=4.0)
    assert all(entry.bias_delta is not None for entry in fitted.values())
    assert distance(ready, seeing) < 0.7 * distance(ready, blind)


def test_a_run_that_is_taken_up_again_gives_the_same_model(ready, moments, folder, tmp_path):
    first = made(ready, moments, folder, bits=4.0)
    again = made(ready, moments, folder, bits=4.0)
    anew = made(ready, moments, tmp_path, bits=4.0)
    texts = [ir.to_proto(m[2].graph_model).SerializeToString() for m in (first, again, anew)]
    assert texts[0] == texts[1] == texts[2]


def test_a_budget_that_cannot_be_held_is_said(ready, moments, folder):
    planned, _, _ = made(ready, moments, folder, bits=1.0)
    assert not planned.budget_met
    assert "bits a parameter is the least there is" in planned.undone[0]
