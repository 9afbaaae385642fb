"""Spectra and allocation cost at most ten passes of plain singular values.

    pytest tests/bench/test_allocation_speed.py -s                  (minutes; wants 4 GiB)
    pytest tests/bench/test_allocation_speed.py -s -k resnet18      (one net)

Both sides in this process, in turns, on two cores: the reference is one pass of float32
singular values over the same matrices by scipy or numpy, whichever is quicker, with two BLAS
threads; ours is what a compile for x86 does (all foldings, blocks, ranks in steps of 16, true
operator norms), with two workers of one BLAS thread each, from an empty cache.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import onnx_ir as ir
import pytest
import scipy.linalg
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import nets
from bars import Bar, check, conditions
from nncc.compiler.allocation.planning import planned, surveyed
from nncc.compiler.events import silent
from nncc.compiler.options import CompileOptions
from nncc.device_profiles.registry import load
from nncc.passes.model import Model
from nncc.passes.sites import Site, find_sites

CORES = 2
REPETITIONS = 3
MOST = 10.0

Matrices = Sequence[NDArray[np.float32]]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def numpy_pass(matrices: Matrices) -> None:
    for A in matrices:
        np.linalg.svd(A, compute_uv=False)


def scipy_pass(matrices: Matrices) -> None:
    for A in matrices:
        scipy.linalg.svdvals(A, check_finite=False)


def allocate(sites: Sequence[Site]) -> None:
    options = CompileOptions(recipe="low-rank", size=0.3, jobs=CORES)
    profile = load("x86-cpu")
    surveys = surveyed(sites, profile, options, silent)
    assert planned(sites, [], surveys, profile, options).plan.changed


@pytest.mark.parametrize(
    ("net", "spec"),
    [
        ("resnet18", "noise"),
        ("resnet18", "decay"),
        ("resnet50", "noise"),
        ("vgg16", "noise"),
    ],
)
def test_spectra_and_allocation_take_at_most_ten_passes(net, spec, tmp_path, monkeypatch):
    sites, _ = find_sites(Model(ir.from_proto(nets.build(net, spec)), net, ""))
    matrices = [site.W().reshape(site.shape[1], -1) for site in sites]
    ours: list[float] = []
    passes: dict[str, list[float]] = {"numpy": [], "scipy": []}
    with threadpool_limits(CORES, user_api="blas"):
        for turn in range(REPETITIONS):
            monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / f"cache{turn}"))
            passes["numpy"].append(seconds(lambda: numpy_pass(matrices)))
            ours.append(seconds(lambda: allocate(sites)))
            passes["scipy"].append(seconds(lambda: scipy_pass(matrices)))
    library, reference = min(passes.items(), key=lambda item: median(item[1]))
    ratios = [mine / theirs for mine, theirs in zip(ours, reference, strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    spent = f"{median(ours):.2f} s against {median(reference):.2f} s of {library}"
    check(
        f"Allocation speed, {CORES} threads each, {REPETITIONS} turns ({conditions()})",
        [
            Bar(
                f"{net} {spec}, passes of svdvals",
                median(ratios),
                MOST,
                note=f"{spread}; {spent}",
            )
        ],
    )
