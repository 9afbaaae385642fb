"""One fresh process of a paired measurement: loads a model, warms up, times single runs.

`python -m nncc.runtime.ab_worker MODEL FEEDS.npz --seconds S --warmup S --threads N
--parent PID` prints one JSON line: {"samples_ns": [...], "load_ns": n, "warmup_runs": n}, or
{"error": "..."} with the error's exit code for a model or feeds that cannot run.
"""

import argparse
import gc
import json
import os
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter_ns
from zipfile import BadZipFile

from numpy.lib.npyio import NpzFile

from ..device_profiles.errors import NnccError, UsageError
from .session import Array, check_feeds, open_session, run

LEAST_RUNS = 10
LEAST_SLOW_RUNS = 3
SLOW_NS = 2_000_000_000  # a run this long is slow
MOST_RUNS = 10_000  # a tiny model fills no disk; 10,000 runs say all there is to say


def load_feeds(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file, one a model input; pickled objects are refused."""
    unreadable = (OSError, ValueError, EOFError, BadZipFile, zlib.error, NotImplementedError)
    try:
        with path.open("rb") as stream, NpzFile(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except unreadable as error:
        raise UsageError(
            f"not a readable .npz file ({error})",
            where=str(path),
            hint="write it with np.savez",
        ) from error


def repeat(
    once: Callable[[], object],
    seconds: float,
    *,
    least: int,
    least_slow: int,
    clock: Callable[[], int] = perf_counter_ns,
    is_wanted: Callable[[], bool] = lambda: True,
) -> list[int]:
    """Nanoseconds of single runs, for at least `seconds` and `least` runs; at most MOST_RUNS.

    Args:
        once: what is timed.
        seconds: how long to go on.
        least: runs to make even when the time is over.
        least_slow: the same, once a run has taken over SLOW_NS.
        clock: nanoseconds now.
        is_wanted: asked before each run, to stop early.
    """
    samples: list[int] = []
    begin = clock()
    while len(samples) < MOST_RUNS and is_wanted():
        before = clock()
        once()
        after = clock()
        samples.append(after - before)
        enough = least_slow if samples[-1] > SLOW_NS else least
        if len(samples) >= enough and after - begin >= seconds * 1e9:
            break
    return samples


def measure(
    model: Path, feeds: Path, seconds: float, warmup: float, threads: int, parent: int
) -> dict[str, object]:
    """The answer of this process, which the process `parent` waits for."""
    arrays = load_feeds(feeds)
    begin = perf_counter_ns()
    session = open_session(model, threads=threads)
    load_ns = perf_counter_ns() - begin
    check_feeds(session, arrays)
    run(session, arrays)  # errors come out here, in our words

    def once() -> None:
        session.run(None, arrays)

    def is_wanted() -> bool:
        # An orphan disturbs what is measured next. (Elsewhere a launcher may stand between.)
        return os.name != "posix" or os.getppid() == parent

    warm = repeat(once, warmup, least=1, least_slow=1, is_wanted=is_wanted)
    gc.collect()
    gc.disable()
    samples = repeat(
        once, seconds, least=LEAST_RUNS, least_slow=LEAST_SLOW_RUNS, is_wanted=is_wanted
    )
    return {"samples_ns": samples, "load_ns": load_ns, "warmup_runs": len(warm) + 1}


def main() -> int:
    """The process: arguments in, one line out, an exit code of the error tree."""
    parser = argparse.ArgumentParser(prog="nncc.runtime.ab_worker")
    parser.add_argument("model", type=Path)
    parser.add_argument("feeds", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warmup", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    asked = parser.parse_args()
    # Native code may print; the answer must stay one line. So descriptor 1 becomes stderr.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    code = 0
    try:
        answer = measure(
            asked.model, asked.feeds, asked.seconds, asked.warmup, asked.threads, asked.parent
        )
    except NnccError as error:
        answer, code = {"error": str(error)}, error.exit_code
    with suppress(BrokenPipeError), os.fdopen(answer_to, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(answer) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
