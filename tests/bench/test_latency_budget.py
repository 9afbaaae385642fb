"""Budgets in time: what was asked for is what the clock shows.

    pytest tests/bench/test_latency_budget.py -s              (minutes; wants 6 GiB and quiet)
    pytest tests/bench/test_latency_budget.py -s -k resnet18

Structure only: the weights decay like trained ones but are not, so nothing here speaks of
quality. The machine is calibrated afresh. Models take turns run by run in one process, on one
thread; time is that of the thread.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import nets
from bars import Bar, check, conditions, print_table
from nncc.compiler.allocation.allocate import within
from nncc.compiler.allocation.planning import planned, surveyed
from nncc.compiler.allocation.survey import Quantity, Survey, table
from nncc.compiler.calibrate import calibrated
from nncc.compiler.costs import Costs, costs, predicted, timed
from nncc.compiler.events import silent
from nncc.compiler.fitting.fit import fit
from nncc.compiler.options import CompileOptions
from nncc.compiler.prepare import value_names
from nncc.compiler.writing.save import write
from nncc.device_profiles.registry import load
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import Site, Skipped, find_sites
from nncc.runtime.ab import alternate
from nncc.runtime.probe import probe

HOST = load("host")
ROUNDS = 7
ERRORS = (0.04, 0.06, 0.09, 0.13)
"""Largest operator-norm error of a layer, at which both allocations are compared."""


@dataclass(frozen=True)
class Net:
    """A net that is ready to be planned."""

    path: Path
    feeds: dict[str, np.ndarray]
    model: Model
    sites: list[Site]
    skipped: list[Skipped]
    costs: Costs
    surveys: list[Survey]


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory):
    """A calibration of this machine, made now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNCC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        start = time.perf_counter()
        calibrated(1)
        print(f"\ncalibrated in {time.perf_counter() - start:.0f} s ({conditions()})")
        yield


def ready(name: str, folder: Path) -> Net:
    path = folder / "original.onnx"
    onnx.save(nets.build(name, "decay"), path)
    model = Model(ir.load(path), name, "")
    size = nets.NETS[name][1]
    x = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    shapes = probe(path, {"input": x}, value_names(model))
    sites, skipped = find_sites(model, shapes)
    found = costs(model, shapes, sites, HOST)
    assert found is not None, "the machine is calibrated"
    surveys = surveyed(sites, HOST, CompileOptions(speedup=2), silent)
    surveys = timed(surveys, sites, found)
    return Net(path, {"input": x}, model, sites, skipped, found, surveys)


def compressed(net: Net, plan: Plan, path: Path) -> Path:
    terms = {name: entry.term for name, entry in fit(net.sites, plan).items()}
    write(compress_weights(net.model, plan, terms), path)
    return path


def plan_within(net: Net, error: float, quantity: Quantity) -> Plan:
    """The cheapest plan whose every layer keeps the error."""
    found = within(table(net.surveys, "operator", quantity), error)
    forms = {
        entry.site.name: entry.forms[int(entry.useful(quantity)[choice])]
        for entry, choice in zip(net.surveys, found.choice, strict=True)
    }
    return Plan({site.name: forms[site.name] for site in net.sites})


def test_resnet18_by_latency_beats_resnet18_by_multiply_adds(tmp_path: Path) -> None:
    net = ready("resnet18", tmp_path)
    ratios: list[float] = []
    rows: list[tuple[str, ...]] = []
    for error in ERRORS:
        plans = [plan_within(net, error, quantity) for quantity in ("macs", "latency")]
        paths = [
            compressed(net, plan, tmp_path / f"{at}.onnx") for at, plan in enumerate(plans)
        ]
        before, by_macs, by_time = alternate(
            [net.path, *paths], net.feeds, rounds=ROUNDS, runs=20, threads=1
        )
        ratios.append(median(a / b for a, b in zip(by_macs, by_time, strict=True)))
        told = [predicted(net.costs, net.sites, plan).compressed_ms for plan in plans]
        rows.append(
            (
                f"{error:g}",
                f"{median(before):.2f}",
                f"{median(by_macs):.3f}",
                f"{median(by_time):.3f}",
                f"{told[0]:.3f}",
                f"{told[1]:.3f}",
                f"{ratios[-1]:.3f}",
            )
        )
    head = ("error", "original ms", "by MACs", "by latency", "predicted", "predicted", "ratio")
    print_table("ResNet18 at equal error, measured", head, rows)
    check(
        f"By latency against by multiply-adds ({conditions()})",
        [
            Bar("times faster, geometric mean", geometric_mean(ratios), 1.0, is_floor=True),
            Bar("times faster, at worst", min(ratios), 0.99, is_floor=True),
        ],
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
def test_a_speedup_of_two_is_a_speedup_of_two(name: str, tmp_path: Path) -> None:
    net = ready(name, tmp_path)
    options = CompileOptions(speedup=2)
    done = planned(net.sites, net.skipped, net.surveys, HOST, options, costs=net.costs)
    assert done.budget_met
    path = compressed(net, done.plan, tmp_path / "compiled.onnx")
    runs = 6 if name == "vgg16" else 10
    before, after = alternate([net.path, path], net.feeds, rounds=ROUNDS, runs=runs, threads=1)
    ratio = median(a / b for a, b in zip(before, after, strict=True))
    said = predicted(net.costs, net.sites, done.plan)
    note = f"predicted {said.speedup:.2f}, {median(before):.2f} to {median(after):.2f} ms"
    check(
        f"--speedup 2 on {name}, one thread ({conditions()})",
        [
            Bar(f"{name}, times faster", ratio, 1.9, is_floor=True, note=note),
            Bar(f"{name}, times faster", ratio, 2.3),
        ],
    )
