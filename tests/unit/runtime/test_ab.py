"""Paired measurements in fresh processes: what is measured, resumed, refused and cleaned up.

Timings of a loaded machine decide nothing here, except that a model with four times the work
is slower.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nncc.device_profiles.errors import MeasureError, ModelError, UsageError
from nncc.runtime.ab import alternate, answered, environment, identity, measure_pair
from nncc.runtime.ab_worker import MOST_RUNS, SLOW_NS, load_feeds, repeat
from nncc.runtime.timing import conclusion
from small_models import write

SHORT = {"seconds": 0.02, "warmup_seconds": 0.01}


def chain(path, products):
    """A file of `products` 256 × 256 products one after another."""
    body = " ".join(f"v{i + 1} = MatMul(v{i}, w)" for i in range(products))
    w = np.eye(256, dtype=np.float32)
    return write(
        path,
        f"g (float[256, 256] v0) => (float[256, 256] v{products}) {{ {body} }}",
        w=w,
    )


@pytest.fixture
def light(tmp_path):
    return chain(tmp_path / "light.onnx", 2)


@pytest.fixture
def heavy(tmp_path):
    return chain(tmp_path / "heavy.onnx", 8)


@pytest.fixture
def slow(tmp_path):
    """Runs so long that MOST_RUNS does not end its timing before a minute."""
    return chain(tmp_path / "slow.onnx", 100)


@pytest.fixture
def feeds(tmp_path):
    path = tmp_path / "feeds.npz"
    np.savez(path, v0=np.ones((256, 256), np.float32))
    return path


def rounds_in(state):
    return [json.loads(line) for line in state.read_text().splitlines()[1:]]


def test_a_model_with_four_times_the_work_is_found_slower(light, heavy, feeds):
    """Up to 8 s: twelve fresh processes."""
    found = measure_pair(light, heavy, feeds, rounds=3, seconds=0.1, warmup_seconds=0.02)

    assert conclusion(found) == "slower"
    assert found.speedup < 0.6
    assert found.reference.median_ms < found.compressed.median_ms


def test_a_model_against_itself_is_about_as_fast_and_all_samples_are_kept(light, feeds):
    """About 3 s: eight fresh processes."""
    told = []

    found = measure_pair(
        light, light, feeds, rounds=2, on_round=lambda *a: told.append(a), **SHORT
    )

    assert 0.4 < found.speedup < 2.5
    assert found.speedup_ci[0] <= found.speedup <= found.speedup_ci[1]
    assert told == [(1, 2), (2, 2)]
    for side in (found.reference, found.compressed):
        assert len(side.rounds_ms) == len(side.samples_ms) == 2
        # Two processes a round, ten runs each at least.
        assert all(len(samples) >= 20 for samples in side.samples_ms)
    wanted = {"order": "ABBA", "rounds": 2, "trim": 0.25, "trim_side": "both", "threads": 1}
    assert wanted.items() <= dict(found.protocol).items()
    assert {"cpu", "cores", "runtime", "seconds", "warmup_seconds"} <= set(found.protocol)
    json.dumps(dict(found.protocol), allow_nan=False)


PARENT = """
import sys
from pathlib import Path
from nncc.runtime.ab import measure_pair
light, heavy, feeds, state, rounds, seconds = sys.argv[1:]
measure_pair(Path(light), Path(heavy), Path(feeds), rounds=int(rounds), seconds=float(seconds),
             warmup_seconds=0.01, state=Path(state),
             on_round=lambda done, of: print(done, flush=True))
"""


def parent(light, heavy, feeds, state, rounds, seconds):
    """A process that measures, in a group of its own, its progress on a pipe."""
    arguments = [str(value) for value in (light, heavy, feeds, state, rounds, seconds)]
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.is_file():
        pytest.skip("the kernel does not list children")
    return [int(child) for child in listed.read_text().split()]


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] not in "ZX"


def test_a_killed_measurement_goes_on_and_measures_no_round_twice(
    light, heavy, feeds, tmp_path
):
    """Up to 6 s: four rounds of four fresh processes."""
    state, told = tmp_path / "rounds.jsonl", []
    first = parent(light, heavy, feeds, state, 4, 0.02)
    assert first.stdout is not None
    assert [first.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
    first.kill()
    first.communicate()
    before = state.read_text().splitlines()[:3]

    found = measure_pair(
        light,
        heavy,
        feeds,
        rounds=4,
        seconds=0.02,
        warmup_seconds=0.01,
        state=state,
        on_round=lambda *a: told.append(a),
    )

    assert told == [(2, 4), (3, 4), (4, 4)]
    assert state.read_text().splitlines()[:3] == before
    assert [entry["round"] for entry in rounds_in(state)] == [0, 1, 2, 3]
    assert found.protocol["resumed_rounds"] == 2
    kept = [sample / 1e6 for part in rounds_in(state)[0]["reference"] for sample in part]
    assert list(found.reference.samples_ms[0]) == kept


def test_ctrl_c_leaves_no_process_behind(slow, feeds, tmp_path):
    measuring = parent(slow, slow, feeds, tmp_path / "rounds.jsonl", 2, 50)
    worker = wait_for(lambda: children(measuring.pid))[0]

    measuring.send_signal(signal.SIGINT)
    measuring.communicate(timeout=60)

    assert measuring.returncode != 0
    wait_for(lambda: not is_running(worker), seconds=20)


def test_a_worker_whose_parent_was_killed_ends_by_itself(slow, feeds, tmp_path):
    measuring = parent(slow, slow, feeds, tmp_path / "rounds.jsonl", 2, 50)
    worker = wait_for(lambda: children(measuring.pid))[0]

    measuring.kill()
    measuring.communicate()

    wait_for(lambda: not is_running(worker), seconds=20)


def finished(state, light, heavy, feeds, **changes):
    options = {"rounds": 2, **SHORT, "state": state, **changes}
    return measure_pair(light, heavy, feeds, **options).protocol["resumed_rounds"]


def test_finished_rounds_serve_another_trim_and_further_rounds(light, feeds, tmp_path):
    """About 3 s: three rounds of four fresh processes."""
    state = tmp_path / "deep" / "rounds.jsonl"
    assert finished(state, light, light, feeds) == 0

    assert finished(state, light, light, feeds, trim=0.1, trim_side="high") == 2
    assert finished(state, light, light, feeds, rounds=3) == 2
    assert finished(state, light, light, feeds, rounds=2) == 2
    assert len(rounds_in(state)) == 3


def test_a_torn_round_is_measured_again_and_the_others_are_kept(light, feeds, tmp_path):
    state = tmp_path / "rounds.jsonl"
    finished(state, light, light, feeds)
    header, first, second = state.read_text().splitlines()
    state.write_text("\n".join([header, first, second[:50]]))

    assert finished(state, light, light, feeds) == 1
    assert state.read_text().splitlines()[:2] == [header, first]
    assert [entry["round"] for entry in rounds_in(state)] == [0, 1]


def test_rounds_of_other_models_or_inputs_have_another_identity(light, heavy, feeds, tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, v0=np.zeros((256, 256), np.float32))
    same = identity(light, heavy, feeds, {"seconds": 1})

    assert same == identity(light, heavy, feeds, {"seconds": 1})
    for changed in (
        identity(heavy, light, feeds, {"seconds": 1}),
        identity(light, light, feeds, {"seconds": 1}),
        identity(light, heavy, other, {"seconds": 1}),
        identity(light, heavy, feeds, {"seconds": 2}),
    ):
        assert changed != same


def test_a_model_that_does_not_run_is_refused_in_one_line(light, feeds, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")

    with pytest.raises(ModelError, match=r"broken\.onnx: .*truncated") as caught:
        measure_pair(light, broken, feeds, rounds=2, **SHORT)

    assert "\n" not in str(caught.value)


def test_inputs_that_do_not_fit_are_refused_in_one_line(light, tmp_path):
    np.savez(tmp_path / "bad.npz", v0=np.ones((256, 256)))

    with pytest.raises(ModelError, match=r"light\.onnx: input 'v0': type float64 given"):
        measure_pair(light, light, tmp_path / "bad.npz", rounds=2, **SHORT)


def test_pickled_inputs_are_refused(light, tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, v0=np.array([{"an": "object"}], dtype=object))

    with pytest.raises(UsageError, match=r"pickled\.npz: not a readable \.npz file"):
        measure_pair(light, light, path, rounds=2, **SHORT)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x93NUMPY"])
def test_inputs_that_are_no_archive_are_refused(tmp_path, content):
    path = tmp_path / "inputs.npz"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=r"inputs\.npz: not a readable"):
        load_feeds(path)


def test_a_process_that_takes_too_long_is_ended(slow, feeds):
    before = set(children(os.getpid()))

    with pytest.raises(MeasureError, match=r"took over 0\.5 s; use smaller inputs"):
        measure_pair(slow, slow, feeds, timeout_seconds=0.5, rounds=2, seconds=50)

    assert set(children(os.getpid())) <= before


@pytest.mark.parametrize(
    ("options", "says"),
    [({"rounds": 1}, "--rounds: 1 rounds; choose 2"), ({"trim": 0.5}, "--trim: trim 0.5")],
)
def test_requests_out_of_range_are_refused(light, feeds, options, says):
    with pytest.raises(UsageError, match=says):
        measure_pair(light, light, feeds, **options)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"{",
        b"null",
        b"[1, 2]",
        b"[" * 100_000,
        b'{"samples_ns": []}',
        b'{"samples_ns": "10"}',
        b'{"samples_ns": [1, -2]}',
        b'{"samples_ns": [1, 0]}',
        b'{"samples_ns": [true]}',
        b'{"samples_ns": [1.5]}',
        b'{"samples_ns": [NaN]}',
        b'{"samples_ns": [1e999]}',
        b'{"samples_ns": [999999999999999999999999]}',
        b'{"samples_ns": {"0": 1}}',
        b'{"samples_ns": [1]} {"samples_ns": [1]}',
        b'{"samples_ns": [1], "x": "' + b"x" * (1 << 21) + b'"}',
        b"\xff\xfe\x00",
    ],
)
def test_an_answer_that_is_not_what_it_should_be_is_refused(output):
    with pytest.raises(MeasureError, match="gave no times") as caught:
        answered(output, b"", 0, Path("m.onnx"))

    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_what_a_dead_process_said_last_is_shown_without_control_characters():
    errors = b"first\nlast \x1b[31mwords\x07\n\n"

    with pytest.raises(MeasureError, match=r"exit code 1\): last \[31mwords;") as caught:
        answered(b'{"samples_ns": [1]}', errors, 1, Path("m.onnx"))

    assert str(caught.value).isprintable()


def test_a_process_killed_for_memory_says_so():
    with pytest.raises(MeasureError, match=r"ended by SIGKILL; check free memory"):
        answered(b"", b"", -signal.SIGKILL, Path("m.onnx"))


class Clock:
    """A clock that moves on by the length of each run."""

    def __init__(self, run_ns):
        self.now, self.run_ns, self.runs = 0, run_ns, 0

    def __call__(self):
        return self.now

    def once(self):
        self.now += self.run_ns
        self.runs += 1

    def runs_in(self, seconds):
        return len(repeat(self.once, seconds, least=10, least_slow=3, clock=self))


@pytest.mark.parametrize(
    ("run_ns", "seconds", "runs"),
    [
        (1_000_000, 0.5, 500),  # fills the time
        (500_000_000, 0.5, 10),  # at least ten runs
        (SLOW_NS, 0.5, 10),
        (SLOW_NS + 1, 0.5, 3),  # but three of a slow model
        (1_000_000, 0.0, 10),
        (1, 60.0, MOST_RUNS),  # and never without end
    ],
)
def test_runs_fill_the_time_within_bounds(run_ns, seconds, runs):
    assert Clock(run_ns).runs_in(seconds) == runs


def test_processes_are_held_to_the_threads_asked_for():
    found = environment(3)

    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    assert {found[pool] for pool in pools} == {"3"}
    assert found["PATH"] == os.environ["PATH"]


def test_alternated_variants_share_the_machine_round_by_round(light, heavy):
    x = {"v0": np.ones((256, 256), np.float32)}

    rounds = alternate([light, heavy, light], x, rounds=3, runs=8)

    assert [len(part) for part in rounds] == [3, 3, 3]
    assert np.median(rounds[1]) > 1.5 * np.median(rounds[0])
    assert np.median(rounds[1]) > 1.5 * np.median(rounds[2])


def test_thread_time_of_several_threads_is_refused(light):
    with pytest.raises(UsageError, match='clock="wall"'):
        alternate([light], {}, rounds=1, runs=1, threads=2)


def test_the_wall_clock_takes_several_threads(light):
    x = {"v0": np.ones((256, 256), np.float32)}

    (rounds,) = alternate([light], x, rounds=2, runs=3, threads=2, clock="wall")

    assert len(rounds) == 2 and min(rounds) > 0
