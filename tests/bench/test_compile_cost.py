"""What a compile costs: wall time and memory of `nncc compile` in a process of its own.

    pytest tests/bench/test_compile_cost.py -s                  (minutes; wants 5 GiB)
    pytest tests/bench/test_compile_cost.py -s -k resnet50      (one net)

To 0.33 of the multiply-adds for x86-cpu, which is not measured, with an empty cache and two
cores. Memory is the resident set of the process and all its children, summed, read from /proc
every 20 ms (shared pages count in each), or the kernel's own highest mark of one process where
that is more. The model is made by another process, so this one holds none of it: a child's
`ru_maxrss` would begin at what its parent held.
"""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from bars import Bar, check, conditions, print_table

TESTS = Path(__file__).resolve().parent.parent
CORES = 2
GIB = 1 << 30
MOST_SECONDS = {"resnet50": 60, "vgg16": 180}
MOST_BYTES = 4 * GIB
PERIOD = 0.02

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc"
)


@dataclass(frozen=True)
class Cost:
    """A process from start to end.

    Args:
        code: exit code.
        seconds: wall time.
        peak: bytes resident at once, children included.
        output: what it printed, errors included.
    """

    code: int
    seconds: float
    peak: int
    output: str


def run(command: list[str], folder: Path, environment: dict[str, str]) -> Cost:
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=on_few_cores,
    )
    peak = [0]
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    watcher.join()
    return Cost(process.returncode, seconds, peak[0], output)


def on_few_cores() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def watch(process: "subprocess.Popen[str]", peak: list[int]) -> None:
    while process.poll() is None:
        found = [memory(pid) for pid in family(process.pid)]
        now, highest = sum(rss for rss, _ in found), max((hwm for _, hwm in found), default=0)
        peak[0] = max(peak[0], now, highest)
        time.sleep(PERIOD)


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found, ahead = [], [pid]
    while ahead:
        found.append(ahead.pop())
        for task in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            try:
                ahead += [int(child) for child in task.read_text().split()]
            except OSError:
                continue  # ended meanwhile
    return found


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process: now, and at most since it began; zero where it ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {key: value for key, _, value in (line.partition(":") for line in lines)}
    now, most = (int(sizes.get(key, "0 kB").split()[0]) for key in ("VmRSS", "VmHWM"))
    return now * 1024, most * 1024


@pytest.mark.parametrize("net", MOST_SECONDS)
def test_a_compile_is_quick_and_small(net: str, tmp_path: Path) -> None:
    build = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import nets, onnx; "
    build += f"onnx.save(nets.build({net!r}, 'noise'), 'model.onnx')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True)
    command = [sys.executable, "-P", "-m", "nncc", "compile", "model.onnx", "-t", "x86-cpu"]
    cost = run(
        [*command, "--macs", "0.33", "--jobs", str(CORES), "-o", "build"],
        tmp_path,
        {"NNCC_CACHE_DIR": str(tmp_path / "cache")},
    )
    assert cost.code == 0, cost.output
    metrics = json.loads((tmp_path / "build" / "metrics.json").read_text())
    stages = [(name, f"{spent:.1f}") for name, spent in metrics["compile_seconds"].items()]
    print_table(f"{net}, seconds by stage", ("stage", "s"), stages)
    layers = metrics["layers"]
    assert layers["changed"] > 0
    check(
        f"Cost of compiling, {CORES} cores, empty cache ({conditions()})",
        [
            Bar(f"{net}, seconds", cost.seconds, MOST_SECONDS[net]),
            Bar(f"{net}, GiB resident", cost.peak / GIB, MOST_BYTES / GIB),
        ],
    )
