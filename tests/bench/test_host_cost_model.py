"""The cost model of this machine against the clock.

    pytest tests/bench/test_host_cost_model.py -s      (minutes; wants an idle machine)

The machine is calibrated afresh (kept for both tests), by microbenchmarks that contain none of
the nets. Then nets and low-rank variants with weights of noise are predicted and measured on
one thread: totals as thread time of whole runs, the faster of two visits as in calibration;
layers as the profiler's time of their nodes and the changes of layout they bring about,
original and replacement in turn. A layer whose replacement is within three percent of the
original cannot be told from it by the clock; those are counted apart.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import nets
import variants
from bars import Bar, check, conditions, print_table
from nncc.compiler.calibrate import calibrated
from nncc.compiler.costs import Costs, costs
from nncc.compiler.prepare import value_names
from nncc.compiler.writing.save import write
from nncc.device_profiles.registry import load
from nncc.passes.model import Model
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import Site, find_sites
from nncc.runtime.layer_times import node_times, site_times
from nncc.runtime.probe import probe
from nncc.runtime.session import open_session, run

HOST = load("host")
STEP = HOST.lattice.rank
NETS = ("resnet18", "resnet50", "mobilenet-v2", "alexnet", "vgg16-cifar", "resnet20")
VARIANTS = (
    ("scheme 0", 0.5, 0),
    ("scheme 1", 0.33, 0),
    ("scheme 2", 0.5, 0),
    ("scheme 3", 0.33, 0),
    ("tucker", 0.5, 0),
    ("blocks", 0.4, 0),
    ("scheme 0", 0.5, 2),
    ("scheme 3", 0.7, 2),
)
FRACTIONS = (0.3, 0.6, 0.85, 1.0)
TIE = 0.03


@dataclass(frozen=True)
class Net:
    """A net at hand: its file, input, sites, shapes and costs."""

    path: Path
    feeds: dict[str, np.ndarray]
    model: Model
    sites: list[Site]
    costs: Costs


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory):
    """A calibration of this machine, made now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNCC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        start = time.perf_counter()
        calibrated(1)
        seconds = time.perf_counter() - start
        print(f"\ncalibrated in {seconds:.0f} s ({conditions()})")
        assert seconds < 120
        yield


def loaded(path: Path, name: str) -> Net:
    model = Model(ir.load(path), name, "")
    size = nets.NETS[name][1]
    x = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    shapes = probe(path, {"input": x}, value_names(model))
    sites, _ = find_sites(model, shapes)
    found = costs(model, shapes, sites, HOST)
    assert found is not None, "the machine is calibrated"
    return Net(path, {"input": x}, model, sites, found)


def original(name: str, folder: Path) -> Net:
    path = folder / f"{name}.onnx"
    onnx.save(nets.build(name, "noise"), path)
    return loaded(path, name)


def variant(net: Net, name: str, kind: str, keep: float, off: int, folder: Path) -> Net | None:
    plan = variants.plan_at(net.sites, kind, keep, step=STEP, off=off)
    if not plan.changed:
        return None
    path = folder / f"{name} {kind} {off}.onnx"
    write(compress_weights(net.model, plan, variants.noise(net.sites, plan)), path)
    return loaded(path, name)


def thread_ms(net: Net, seconds: float = 0.6) -> float:
    """Mean of the faster half of the runs, in thread time."""
    session = open_session(net.path)
    for _ in range(3):
        run(session, net.feeds)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 10:
        start = time.thread_time()
        run(session, net.feeds)
        times.append((time.thread_time() - start) * 1e3)
    return float(np.mean(sorted(times)[: len(times) // 2]))


def layer_ms(
    paths: list[Path], feeds: dict[str, np.ndarray], names: list[str]
) -> list[dict[str, float]]:
    """Milliseconds of every layer of every file, the faster of two visits in turn."""
    visits = [
        [site_times(node_times(path, feeds, runs=9), names) for path in paths]
        for _ in range(2)
    ]
    return [
        {name: min(times[name] for times in of_one) for name in names}
        for of_one in zip(*visits, strict=True)
    ]


def test_whole_nets_take_what_was_predicted(tmp_path: Path) -> None:
    rows: list[tuple[str, ...]] = []
    errors: list[float] = []
    for name in NETS:
        net = original(name, tmp_path)
        made = {"as it is": net}
        for kind, keep, off in VARIANTS:
            found = variant(net, name, kind, keep, off, tmp_path)
            if found is not None:
                made[f"{kind} at {keep:g}{' off the lattice' if off else ''}"] = found
        visits = [{what: thread_ms(one) for what, one in made.items()} for _ in range(2)]
        for what, one in made.items():
            took, said = min(visit[what] for visit in visits), one.costs.reference
            rows.append(_row(name, what, took, said.seconds * 1e3, said.label))
            errors.append(said.seconds * 1e3 / took - 1)
    print_table(
        "Predicted and measured, one thread",
        ("net", "variant", "measured ms", "predicted ms", "error", "tier"),
        rows,
    )
    sizes = [abs(e) for e in errors]
    check(
        f"{len(rows)} nets and variants ({conditions()})",
        [
            Bar("median error", median(sizes), 0.12),
            Bar("largest error", max(sizes), 0.35),
            Bar("nets and variants", len(rows), 12, is_floor=True),
        ],
    )


def _row(net: str, what: str, took: float, said: float, label: str) -> tuple[str, ...]:
    return (net, what, f"{took:.3f}", f"{said:.3f}", f"{said / took - 1:+.1%}", label)


def test_faster_replacements_are_told_from_slower_ones(tmp_path: Path) -> None:
    right = wrong = ties = 0
    misses: list[tuple[str, ...]] = []
    for name in ("resnet18", "resnet50", "mobilenet-v2", "alexnet"):
        net = original(name, tmp_path)
        names = [site.name for site in net.sites]
        for kind in ("scheme 0", "scheme 1", "scheme 3", "tucker"):
            for keep in FRACTIONS:
                for off in (0, 2):
                    plan = variants.plan_at(net.sites, kind, keep, step=STEP, off=off)
                    if not plan.changed:
                        continue
                    path = tmp_path / "variant.onnx"
                    terms = variants.noise(net.sites, plan)
                    write(compress_weights(net.model, plan, terms), path)
                    before, after = layer_ms([net.path, path], net.feeds, names)
                    for site in net.sites:
                        if site.name not in plan.changed:
                            continue
                        dense = net.costs.of(site)
                        form = plan.form(site.name)
                        low = net.costs.of(site, form)
                        assert dense is not None
                        assert low is not None
                        took = after[site.name] / before[site.name]
                        said = low.seconds / dense.seconds
                        if abs(took - 1) <= TIE:
                            ties += 1
                        elif (took < 1) == (said < 1):
                            right += 1
                        else:
                            wrong += 1
                            misses.append(
                                (name, site.name, str(form), f"{took:.2f}", f"{said:.2f}")
                            )
    print_table("Misjudged", ("net", "layer", "form", "measured", "predicted"), misses)
    print(f"{ties} layers within {TIE:.0%} of the original are not judged")
    check(
        f"Is the replacement faster? {right + wrong} layers ({conditions()})",
        [Bar("judged right", right / (right + wrong), 0.95, is_floor=True)],
    )
