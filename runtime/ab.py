"""Two models timed against each other on this machine.

`measure_pair` is the measurement that is reported: every round runs original, compiled,
compiled, original (ABBA, so a steady drift cancels), each in a fresh process (so the luck of
one process's memory layout is drawn anew). `alternate` compares many variants quickly in one
process, for benchmarks.
"""

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from typing import Any, Literal, cast

from ..device_profiles.errors import MeasureError, ModelError, UsageError
from . import machine
from .ab_state import (
    Identity,
    RoundSamples,
    append_round,
    read_rounds,
    samples_in,
    write_rounds,
)
from .session import Array, open_session, run
from .timing import Paired, TrimSide, paired, trimmed_mean
from .weight_files import digest

WORKER = "nncc.runtime.ab_worker"
LONGEST_ANSWER = 1 << 20  # bytes; 10,000 samples take 110 kB


def measure_pair(
    reference: Path,
    compressed: Path,
    feeds_npz: Path,
    *,
    rounds: int = 7,
    seconds: float = 0.5,
    warmup_seconds: float = 0.2,
    threads: int = 1,
    trim: float = 0.25,
    trim_side: TrimSide = "both",
    on_round: Callable[[int, int], None] | None = None,
    state: Path | None = None,
    timeout_seconds: float = 900,
) -> Paired:
    """Original and compiled, timed alternately in fresh processes.

    Args:
        reference: the original .onnx file.
        compressed: the compiled one.
        feeds_npz: one array for every model input, given as it is.
        rounds: ABBA rounds, at least 2.
        seconds: time spent in each process after warming up; at least 10 runs (3 if slow).
        warmup_seconds: time spent on runs that are thrown away.
        threads: threads inside an operator.
        trim: as in `trimmed_mean`.
        trim_side: as in `trimmed_mean`.
        on_round: told (finished, all) after every round.
        state: file that keeps finished rounds; a later call with the same models, inputs,
            times, threads, runtime and machine goes on from there. The trim is no part of
            that: all samples are kept.
        timeout_seconds: a process that takes longer is killed.

    Raises:
        ModelError: a model does not run on the inputs.
        MeasureError: a process failed, was killed or took too long; says why in one line.
        UsageError: fewer than two rounds, or a trim out of range.
    """
    if rounds < 2:
        raise UsageError(f"{rounds} rounds", where="--rounds", hint="choose 2 or more")
    if not 0 <= trim < 0.5:
        raise UsageError(f"trim {trim}", where="--trim", hint="choose 0 ≤ trim < 0.5")
    reference, compressed = reference.resolve(), compressed.resolve()
    process = _process(seconds, warmup_seconds, threads)
    before = _conditions("before")
    done: list[RoundSamples] = []
    if state is not None:
        measures = identity(reference, compressed, feeds_npz, process)
        finished = read_rounds(state, measures)
        write_rounds(state, measures, finished)
        done = finished[:rounds]
    resumed = len(done)
    if resumed and on_round is not None:
        on_round(resumed, rounds)

    def time_one(model: Path) -> tuple[int, ...]:
        return _fresh(model, feeds_npz, seconds, warmup_seconds, threads, timeout_seconds)

    for index in range(resumed, rounds):
        load = machine.load_average()
        first = time_one(reference)
        second, third = time_one(compressed), time_one(compressed)
        done.append(RoundSamples((first, time_one(reference)), (second, third), load))
        if state is not None:
            append_round(state, index, done[-1])
        if on_round is not None:
            on_round(index + 1, rounds)
    protocol: dict[str, str | int | float | bool] = {
        **process,
        "rounds": rounds,
        "resumed_rounds": resumed,
        "trim": trim,
        "trim_side": trim_side,
        "load_highest": max((entry.load or 0.0 for entry in done), default=0.0),
        **before,
        **_conditions("after"),
    }
    return paired(
        [_milliseconds(entry.reference) for entry in done],
        [_milliseconds(entry.compressed) for entry in done],
        trim,
        trim_side,
        protocol,
    )


def identity(
    reference: Path, compressed: Path, feeds_npz: Path, process: Identity
) -> Identity:
    """What finished rounds must agree on to be used: both models, the inputs and `process`."""
    with feeds_npz.open("rb") as stream:
        feeds = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        **process,
        "reference_sha256": digest(reference),
        "compressed_sha256": digest(compressed),
        "feeds_sha256": feeds,
    }


def alternate(
    paths: Sequence[Path],
    feeds: Mapping[str, Array],
    *,
    rounds: int,
    runs: int,
    threads: int = 1,
    clock: Literal["thread", "wall"] = "thread",
    trim: float = 0.25,
    trim_side: TrimSide = "both",
) -> list[tuple[float, ...]]:
    """Milliseconds a run of each model in each round, all models loaded in this process.

    Models take turns run by run, forwards and backwards, so that all see the same machine.
    Thread time does not count what other processes take from us, but it counts one thread
    only: with more, use the wall clock.

    Returns:
        For each path, a trimmed mean a round.

    Raises:
        UsageError: thread time asked for several threads.
        ModelError: a model does not run on the feeds.
    """
    if clock == "thread" and threads > 1:
        raise UsageError(
            f"thread time of {threads} threads", where="alternate", hint='use clock="wall"'
        )
    sessions = [open_session(path, threads=threads) for path in paths]
    for session in sessions:
        for _ in range(3):
            run(session, feeds)
    now = thread_time_ns if clock == "thread" else perf_counter_ns
    results: list[list[float]] = [[] for _ in paths]
    order = list(range(len(paths)))
    for _ in range(rounds):
        samples: list[list[float]] = [[] for _ in paths]
        for _ in range(runs):
            for index in order:
                begin = now()
                sessions[index].run(None, feeds)
                samples[index].append((now() - begin) / 1e6)
            order.reverse()
        for index, part in enumerate(samples):
            results[index].append(trimmed_mean(part, trim, trim_side))
    return [tuple(part) for part in results]


def _fresh(
    model: Path, feeds: Path, seconds: float, warmup: float, threads: int, timeout: float
) -> tuple[int, ...]:
    """Nanoseconds of single runs of `model` in a process of its own."""
    command = [sys.executable, "-P", "-m", WORKER, str(model), str(feeds.resolve())]
    numbers = {"seconds": seconds, "warmup": warmup, "threads": threads, "parent": os.getpid()}
    for name, number in numbers.items():
        command += [f"--{name}", repr(number)]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(threads),
            # Its own group: Ctrl-C reaches us alone, and we end the group whole.
            start_new_session=True,
        )
    except OSError as error:
        raise MeasureError(
            f"a timing process could not start ({error.strerror})",
            where=str(model),
            hint="check free memory and the limit on processes",
        ) from error
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as late:
        raise MeasureError(
            f"a timing process took over {timeout:g} s",
            where=str(model),
            hint="use smaller inputs, or do not measure",
        ) from late
    finally:
        _end(process)
    return answered(output, errors, process.returncode, model)


def answered(output: bytes, errors: bytes, code: int, model: Path) -> tuple[int, ...]:
    """The samples in a timing process's answer, which is checked and never trusted.

    Raises:
        ModelError: the process says that the model cannot run on its inputs.
        UsageError: it says that the inputs cannot be read.
        MeasureError: it died, or its answer is not what it should be.
    """
    answer: dict[str, Any] = {}
    if len(output) <= LONGEST_ANSWER:
        try:
            content: object = json.loads(output)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            answer = cast("dict[str, Any]", content)
    complaint = answer.get("error")
    if isinstance(complaint, str) and code > 0:
        kind = UsageError if code == UsageError.exit_code else ModelError
        said = " ".join(complaint.split())[:600]
        raise kind(said, where="" if str(model) in said else str(model))
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        raise MeasureError(
            f"a timing process was ended by {name}{_last_line(errors)}",
            where=str(model),
            hint="check free memory"
            if name == "SIGKILL"
            else "run it again, or do not measure",
        )
    try:
        if code != 0:
            raise ValueError(f"exit code {code}")
        return samples_in(answer.get("samples_ns"))
    except ValueError as error:
        raise MeasureError(
            f"a timing process gave no times ({error}){_last_line(errors)}",
            where=str(model),
            hint="run it again, or do not measure",
        ) from error


def _last_line(errors: bytes) -> str:
    lines = errors[-4096:].decode("utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    shown = "".join(sign for sign in last if sign.isprintable())[:200]
    return f": {shown}" if shown else ""


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Nothing of the process is left, whatever interrupted us."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (OSError, AttributeError):  # gone meanwhile; or no groups on this system
            process.kill()
        process.communicate()


def environment(threads: int) -> dict[str, str]:
    """Ours, with every thread pool but the runtime's own held to `threads`."""
    pools = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
    return {**os.environ, **{f"{pool}_NUM_THREADS": str(threads) for pool in pools}}


def _process(seconds: float, warmup_seconds: float, threads: int) -> Identity:
    """How and where a process measures."""
    return {
        "order": "ABBA",
        "process": "fresh",
        "clock": "perf_counter_ns",
        "seconds": seconds,
        "warmup_seconds": warmup_seconds,
        "threads": threads,
        "runtime": f"onnxruntime {version('onnxruntime')}",
        "provider": "CPUExecutionProvider",
        "cpu": machine.cpu_model(),
        "cores": machine.cores(),
        "python": platform.python_version(),
    }


def _conditions(when: str) -> dict[str, str | int | float | bool]:
    found = {
        f"load_{when}": machine.load_average(),
        f"clock_mhz_{when}": machine.clock_mhz(),
        f"governor_{when}": machine.governor(),
    }
    return {name: value for name, value in found.items() if value is not None}


def _milliseconds(processes: Sequence[Sequence[int]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(sample / 1e6 for sample in samples) for samples in processes)
