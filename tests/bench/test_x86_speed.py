"""Speed on x86 at one third and one fifth of the multiply-adds, on one thread.

    pytest tests/bench/test_x86_speed.py -s                    (minutes; wants 6 GiB)
    pytest tests/bench/test_x86_speed.py -s -k resnet18        (one net)

Structure only: the weights are noise, so nothing here speaks of quality. Original and both
compressed models are loaded in one process and take turns run by run; time is that of the
thread, so that other processes disturb little. The bars are for a core with AVX-512. A ratio
is the median over rounds, with the smallest and the largest beside it.
"""

import time
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import nets
from bars import Bar, check, conditions, print_table
from nncc.compiler.allocation.planning import planned, surveyed
from nncc.compiler.events import silent
from nncc.compiler.fitting.fit import fit
from nncc.compiler.options import CompileOptions
from nncc.compiler.writing.save import write
from nncc.device_profiles.registry import load
from nncc.passes.forms import Blocks, Dense, Folded, Form
from nncc.passes.model import Model
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites
from nncc.runtime.ab import alternate
from nncc.runtime.probe import probe

ROUNDS = 7
KEEPS = {"1/3": 1 / 3, "1/5": 1 / 5}
LEAST = {
    "resnet18": {"1/3": 2.4, "1/5": 3.4},
    "resnet50": {"1/3": 2.6, "1/5": 3.7},
    "vgg16": {"1/3": 2.8, "1/5": 4.2},
    "alexnet": {"1/3": 2.7, "1/5": 4.0},
}
RUNS = {"vgg16": 6}
"""Runs a round; 10 where nothing is said."""


def kind(form: Form) -> str:
    """What a layer became, without its rank."""
    if isinstance(form, Dense):
        return "dense"
    scheme, inner = (form.scheme, form.of) if isinstance(form, Folded) else (0, form)
    blocks = f", {inner.k} blocks" if isinstance(inner, Blocks) else ""
    return f"scheme {scheme}{blocks}"


@pytest.mark.parametrize("net", LEAST)
def test_fewer_multiply_adds_are_less_time(net: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
    profile = load("host")
    original = tmp_path / "original.onnx"
    onnx.save(nets.build(net, "he"), original)
    model = Model(ir.load(original), net, "")
    size = nets.NETS[net][1]
    x = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    feeds = {"input": x}
    sites, _ = find_sites(model)
    names = [name for site in sites for name in (site.input_name, site.output_name)]
    sites, skipped = find_sites(model, probe(original, feeds, names))

    paths, made = [original], []
    spectra: list[set[Path]] = []
    for name, keep in KEEPS.items():
        options = CompileOptions(recipe="low-rank", macs=keep)
        start = time.perf_counter()
        surveys = surveyed(sites, profile, options, silent)
        plan = planned(sites, skipped, surveys, profile, options)
        chosen = time.perf_counter()
        spectra.append(set((tmp_path / "cache").rglob("*.npz")))
        terms = {at: entry.term for at, entry in fit(sites, plan.plan).items()}
        paths.append(tmp_path / f"{len(paths)}.onnx")
        write(compress_weights(model, plan.plan, terms), paths[-1])
        del terms
        assert plan.budget_used is not None
        assert plan.budget_used <= keep
        counts = Counter(kind(plan.plan.form(site.name)) for site in sites)
        made.append(
            (
                name,
                f"{plan.budget_used:.4f}",
                f"{chosen - start:.1f}",
                f"{time.perf_counter() - chosen:.1f}",
                "; ".join(f"{n} × {what}" for what, n in counts.most_common()),
            )
        )
    assert spectra[0] == spectra[1] != set(), "both budgets read the same spectra"
    print_table(net, ("budget", "used", "plan s", "fit s", "layers"), made)

    before, *after = alternate(paths, feeds, rounds=ROUNDS, runs=RUNS.get(net, 10), threads=1)
    bars: list[Bar] = []
    for name, times in zip(KEEPS, after, strict=True):
        ratios = [old / new for old, new in zip(before, times, strict=True)]
        note = f"{min(ratios):.2f} to {max(ratios):.2f}; "
        note += f"{median(before):.2f} → {median(times):.2f} ms"
        bars.append(
            Bar(
                f"{net} at {name} of the multiply-adds, times faster",
                median(ratios),
                LEAST[net][name],
                is_floor=True,
                note=note,
            )
        )
    check(f"Speed of {net}, one thread, {ROUNDS} rounds ({conditions()})", bars)
