"""Solvers on the candidate tables of real nets: how far from the proven optimum, how quickly.

    pytest tests/bench/test_solvers.py -s                       (minutes)
    pytest tests/bench/test_solvers.py -s -k lenet5

Candidates as a compile for x86-cpu looks at them without calibration: foldings, blocks and
ranks in steps of 16, squared Frobenius errors. ResNet50 carries weights that decay like
trained ones. The optimum is proven by branch and bound alone (HiGHS), which shares neither the
sweep nor its bound. Seconds are of the process, from the surveys on.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import nets
from bars import Bar, check, conditions, print_table
from models import ref_model, wheel_model
from nncc.compiler.allocation.allocate import minimise_sum
from nncc.compiler.allocation.mixed_filters import Savings
from nncc.compiler.allocation.mixed_limits import limits
from nncc.compiler.allocation.mixed_plan import mixed_layers
from nncc.compiler.allocation.mixed_plan import solved as chosen
from nncc.compiler.allocation.planning import surveyed
from nncc.compiler.allocation.solve import minimise_maximum_of, minimise_sum_of
from nncc.compiler.allocation.solve_proof import proven
from nncc.compiler.allocation.solve_relaxed import relaxed
from nncc.compiler.allocation.solve_repair import repaired, spent
from nncc.compiler.allocation.solve_table import Choices, pooled
from nncc.compiler.allocation.survey import Survey, table
from nncc.compiler.clock import Clock
from nncc.compiler.events import silent
from nncc.compiler.options import CompileOptions
from nncc.compiler.prepare import prepared, value_names
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.samples.synthetic import synthetic_inputs
from nncc.compiler.work import Work
from nncc.compiler.writing.save import write
from nncc.device_profiles.registry import load
from nncc.passes.model import Model
from nncc.passes.normalise import normalise
from nncc.passes.sites import Site, find_sites
from nncc.runtime.probe import probe

NAMES = ("lenet300", "lenet5", "vggs", "magika", "pp-ocr-rec", "pp-ocr-det", "pp-ocr-cls",
         "silero-vad", "mtcnn-pnet", "mtcnn-rnet", "mtcnn-onet", "resnet50")  # fmt: skip
OURS = ("lenet300", "lenet5", "vggs")
KEEPS = (0.9, 0.7, 0.5, 0.3)
PAIRS = ((0.7, 0.7), (0.5, 0.3), (0.25, 0.6))
"""Shares of the weights and of the multiply-adds, both to be held."""
NODES = 100_000


@dataclass(frozen=True)
class Net:
    """The candidates of a net, by weights and multiply-adds."""

    name: str
    surveys: Sequence[Survey]
    entries: Sequence[Choices]

    def whole(self, quantity: str) -> float:
        return sum(float(entry.costs[quantity][0]) for entry in self.entries)

    def budgets(self, **shares: float) -> dict[str, float]:
        return {name: share * self.whole(name) for name, share in shares.items()}


def sites_of(name: str, folder: Path) -> list[Site]:
    if name == "resnet50":
        return find_sites(Model(ir.from_proto(nets.build(name, "decay")), name, ""))[0]
    path = ref_model(name) if name in OURS else wheel_model(name)
    model = ingest(path, workdir=folder)
    original = folder / "original.onnx"
    write(model, original)
    (feed,) = synthetic_inputs(model, 1, 0, path=original)
    model = normalise(model)
    write(model, original)
    return find_sites(model, probe(original, feed, value_names(model)))[0]


@cache
def net(name: str) -> Net:
    """The net with its surveys: what takes long, and is known before anything is solved."""
    options = CompileOptions(recipe="low-rank", macs=0.5, objective="frobenius")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNCC_CACHE_DIR", str(Path(folder) / "cache"))
        sites = sites_of(name, Path(folder))
        surveys = surveyed(sites, load("x86-cpu"), options, silent)
    entries = [
        Choices(s.site.name, s.energy * s.frobenius**2, {"size": s.weights, "macs": s.macs})
        for s in surveys
    ]
    return Net(name, surveys, entries)


def proven_optimum(entries: Sequence[Choices], budgets: dict[str, float]) -> float:
    """The least sum, by branch and bound alone and to the end."""
    pool = pooled(entries, budgets, {})
    start = relaxed(pool)
    assert start is not None
    near = repaired(pool, start.taken)
    proof = proven(pool, start, None if near is None else spent(pool, near), NODES)
    assert proof.taken is not None
    value = pool.sum(proof.taken)
    assert value - proof.bound <= 1e-6 * value, "branch and bound came to its end"
    return value


def solved(entries: Sequence[Choices], budgets: dict[str, float]) -> tuple[float, float]:
    """The sum that the Lagrangian and its sweep reach, and the seconds."""
    start = time.process_time()
    found = minimise_sum_of(entries, budgets, proof=False)
    for name, most in budgets.items():
        assert found.costs[name] <= most
    return found.value, time.process_time() - start


def held(name: str, shares: dict[str, float]) -> bool:
    """Whether the net can be brought to these shares at all."""
    entries = net(name).entries
    return all(
        sum(float(e.costs[q].min()) for e in entries) <= share * net(name).whole(q)
        for q, share in shares.items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_lagrangian_is_within_a_thousandth_of_the_proven_optimum(name: str) -> None:
    asked: list[dict[str, float]] = [{"macs": keep} for keep in KEEPS]
    asked += [{"size": size, "macs": macs} for size, macs in PAIRS]
    rows: list[tuple[str, ...]] = []
    above: list[float] = []
    for shares in asked:
        text = ", ".join(f"{q} {share:g}" for q, share in shares.items())
        budgets = net(name).budgets(**shares)
        if not held(name, shares):
            rows.append((text, "out of reach", "", "", "", ""))
            continue
        value, seconds = solved(net(name).entries, budgets)
        start = time.process_time()
        least = proven_optimum(net(name).entries, budgets)
        spent_on_it = time.process_time() - start
        above.append(value / least - 1 if least else value)
        old = ""
        if len(shares) == 1:
            candidates = table(net(name).surveys, "frobenius", "macs")
            taken = minimise_sum(candidates, budgets["macs"])
            sums = [float(c.squared[i]) for c, i in zip(candidates, taken.choice, strict=True)]
            old = f"{sum(sums) / least - 1:.1e}" if least else ""
        rows.append(
            (
                text,
                f"{least:.6g}",
                f"{above[-1]:.1e}",
                old,
                f"{seconds:.3f}",
                f"{spent_on_it:.2f}",
            )
        )
    count = sum(len(e.value) for e in net(name).entries)
    head = ("budgets", "optimum", "above it", "within a price", "s", "s of proof")
    print_table(f"{name}: {len(net(name).entries)} sites, {count} candidates", head, rows)
    if not above:
        pytest.skip(f"{name} has no budget of these within reach")
    check(
        f"{name}: least sum against branch and bound",
        [Bar("share above the optimum, at worst", max(above), 1e-3)],
    )


def test_resnet50_is_allocated_in_seconds() -> None:
    found = net("resnet50")
    rows: list[tuple[str, ...]] = []
    seconds: list[float] = []
    errors = [
        Choices(s.site.name, s.operator, {"size": s.weights, "macs": s.macs})
        for s in found.surveys
    ]
    for shares in ({"macs": 0.3}, {"size": 0.5, "macs": 0.3}, {"size": 0.25, "macs": 0.6}):
        budgets = found.budgets(**shares)
        for solve, entries in (
            (minimise_sum_of, found.entries),
            (minimise_maximum_of, errors),
        ):
            start = time.process_time()
            result = solve(entries, budgets)
            seconds.append(time.process_time() - start)
            text = ", ".join(f"{q} {share:g}" for q, share in shares.items())
            rows.append((solve.__name__, text, f"{result.gap:.1e}", f"{seconds[-1]:.3f}"))
    print_table("ResNet50, 54 sites", ("", "budgets", "gap", "s"), rows)
    check(
        f"ResNet50, all candidates ({conditions()})",
        [
            Bar("sites", len(found.entries), 54, is_floor=True),
            Bar("seconds of an allocation, at worst", max(seconds), 10),
        ],
    )


def test_a_hundred_sites_with_thousands_of_candidates_are_pruned_in_a_second() -> None:
    """Made-up candidates around a trade-off, under two budgets: more than any net has."""
    rng = np.random.default_rng(0)
    entries: list[Choices] = []
    for at in range(100):
        keep = np.append(1.0, rng.random(2999))
        value = np.exp(-6 * keep) * rng.lognormal(0, 0.1, 3000) * rng.lognormal(0, 1)
        costs = {q: keep**p * rng.lognormal(0, 0.1, 3000) for q, p in (("a", 0.7), ("b", 1.3))}
        entries.append(Choices(str(at), np.append(0.0, value[1:]), costs))
    budgets = {q: 0.5 * sum(float(e.costs[q][0]) for e in entries) for q in "ab"}
    start = time.process_time()
    pool = pooled(entries, budgets, {})
    pruning = time.process_time() - start
    start = time.process_time()
    result = minimise_sum_of(entries, budgets, proof=False)
    whole = time.process_time() - start
    check(
        f"100 sites of 3000 candidates, two budgets ({conditions()})",
        [
            Bar("seconds of pruning", pruning, 1, note=f"{len(pool.value)} left"),
            Bar("seconds of allocation", whole, 10, note=f"gap {result.gap:.1e}"),
        ],
    )


def test_resnet50_with_candidates_of_every_family_is_allocated_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low rank, trains, codes, sums and nests of 54 layers, under size and multiply-adds."""
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "net.onnx"
    onnx.save(nets.build("resnet50", "decay"), path)
    target, clock = load("x86-cpu"), Clock()
    options = CompileOptions(size=0.25, macs=0.6, output=tmp_path / "build")
    work = Work(tmp_path / "work", False)
    work.path.mkdir()
    ready = prepared(path, target, options, work, None, clock)
    layers = mixed_layers(ready, {}, None, target, options, clock)
    asked = limits(ready, [layer.row for layer in layers], options, target, None)
    savings = Savings({site.name: site for site in ready.sites}, None)

    start = time.process_time()
    found = chosen(layers, asked, savings)
    seconds = time.process_time() - start

    count = sum(len(layer.row.candidates) for layer in layers)
    families = sorted({str(c.family) for layer in layers for c in layer.row.candidates})
    print_table(
        f"ResNet50, {len(layers)} sites, {count} candidates ({conditions()})",
        ("families", "gap", "s"),
        [(", ".join(families), f"{found.solved.gap:.1e}", f"{seconds:.3f}")],
    )
    assert found.refused is None
    check(
        "ResNet50, candidates of every family",
        [
            Bar("sites", len(layers), 54, is_floor=True),
            Bar("seconds of an allocation under two budgets", seconds, 10),
        ],
    )
