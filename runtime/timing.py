"""What timings mean: trimmed means, paired ratios and how sure they are. Pure functions.

The samples of one process are skewed to the right, since interrupts only ever add time, and
whole processes differ by where their memory happened to lie. So each process is summarised by
a trimmed mean, a round by the mean of its processes, and two models are compared by the ratio
within a round, where the drift of the machine cancels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from ..device_profiles.errors import UsageError

TrimSide = Literal["both", "high"]
Verdict = Literal["faster", "slower", "inconclusive"]

Samples = Sequence[float]  # of one process
Round = Sequence[Samples]  # its processes

CONFIDENCE = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Timing:
    """One side of a paired measurement, milliseconds per inference.

    Args:
        rounds_ms: of each round, the mean over its processes of their trimmed means.
        samples_ms: every raw sample of each round, in the order taken.
        trimmed_mean_ms, median_ms, p90_ms: over all rounds' samples.
    """

    rounds_ms: tuple[float, ...]
    samples_ms: tuple[tuple[float, ...], ...]
    trimmed_mean_ms: float
    median_ms: float
    p90_ms: float


@dataclass(frozen=True)
class Paired:
    """Original and compiled timed alternately (ABBA, fresh processes).

    Args:
        reference, compressed: the two sides.
        speedup: exp(mean over rounds of log(reference / compressed)).
        speedup_ci: 95 % interval of `speedup`, paired t over rounds.
        protocol: everything needed to repeat it (rounds, trim, threads, runtime version, cpu).
    """

    reference: Timing
    compressed: Timing
    speedup: float
    speedup_ci: tuple[float, float]
    protocol: Mapping[str, str | int | float | bool]

    @property
    def detectable(self) -> float:
        """`minimum_detectable` of these rounds: a ratio, e.g. 1.02 for 2 %."""
        return minimum_detectable(self.reference.rounds_ms, self.compressed.rounds_ms)


def trimmed_mean(samples: Samples, trim: float, side: TrimSide) -> float:
    """The mean of what is left when ⌊trim · n⌋ samples are dropped.

    Args:
        samples: n ≥ 1 times.
        trim: the dropped fraction, < 0.5 of each side ("both") or < 1 of all ("high").
        side: "both" drops the lowest and the highest; "high" the highest only, which is what
            the papers on additive compression do, with 0.1. The latter is biased low.

    Example:
        >>> trimmed_mean([1, 2, 3, 100], 0.25, "both")
        2.5
        >>> trimmed_mean([1, 2, 3, 100], 0.25, "high")
        2.0
    """
    assert samples, "no samples"
    assert 0 <= trim < (0.5 if side == "both" else 1), f"{trim=} {side=}"
    ordered = sorted(samples)
    n = len(ordered)
    drop = math.floor(trim * n + 1e-9)  # 0.29 · 100 is 28.999… in floating point
    kept = ordered[drop if side == "both" else 0 : n - drop]
    mean = math.fsum(kept) / len(kept)
    return min(max(mean, kept[0]), kept[-1])  # the division may round past a bound


def summarise(rounds: Sequence[Round], trim: float, side: TrimSide) -> Timing:
    """One side's `Timing` from the milliseconds of every process of every round."""
    import numpy as np

    if not rounds or not all(part and all(part) for part in rounds):
        raise UsageError(
            "a round without samples",
            where="timing",
            hint="measure at least one run a process",
        )
    pooled = [sample for part in rounds for samples in part for sample in samples]
    return Timing(
        rounds_ms=tuple(
            math.fsum(trimmed_mean(samples, trim, side) for samples in part) / len(part)
            for part in rounds
        ),
        samples_ms=tuple(
            tuple(sample for samples in part for sample in samples) for part in rounds
        ),
        trimmed_mean_ms=trimmed_mean(pooled, trim, side),
        median_ms=float(np.median(pooled)),
        p90_ms=float(np.quantile(pooled, 0.9)),
    )


def paired(
    reference: Sequence[Round],
    compressed: Sequence[Round],
    trim: float,
    side: TrimSide,
    protocol: Mapping[str, str | int | float | bool],
) -> Paired:
    """Two sides that were timed in the same rounds, compared round by round.

    Raises:
        UsageError: the sides differ in their number of rounds, or have fewer than two.
    """
    left, right = summarise(reference, trim, side), summarise(compressed, trim, side)
    speedup, interval = ratio(left.rounds_ms, right.rounds_ms)
    return Paired(left, right, speedup, interval, protocol)


def ratio(reference: Samples, compressed: Samples) -> tuple[float, tuple[float, float]]:
    """The speed-up and its 95 % interval: exp(d̄ ± t s_d / √R), d = log(reference/compressed).

    Paired t over R rounds with R − 1 degrees of freedom. On the logarithms, exchanging the
    sides gives the reciprocal of everything.
    """
    mean, error = _log_ratio(reference, compressed)
    reach = _quantile(len(reference) - 1, (1 + CONFIDENCE) / 2) * error
    return math.exp(mean), (math.exp(mean - reach), math.exp(mean + reach))


def minimum_detectable(reference: Samples, compressed: Samples) -> float:
    """The smallest true speed-up that such rounds would find with 80 % power, as a ratio.

    exp((t_.975 + t_.8) s_d / √R), both quantiles at R − 1 degrees of freedom. An effect below
    it may be missed, so "inconclusive" must not be read as "equal".
    """
    _, error = _log_ratio(reference, compressed)
    freedom = len(reference) - 1
    reach = _quantile(freedom, (1 + CONFIDENCE) / 2) + _quantile(freedom, POWER)
    return math.exp(reach * error)


def conclusion(measured: Paired) -> Verdict:
    """What the interval of the speed-up allows to say: all of it on one side of 1, or nothing.

    A single interval, so one comparison in twenty of two equal models is wrongly decided.
    """
    low, high = measured.speedup_ci
    if low > 1:
        return "faster"
    if high < 1:
        return "slower"
    return "inconclusive"


def _log_ratio(reference: Samples, compressed: Samples) -> tuple[float, float]:
    """Mean of the log ratios and its standard error."""
    rounds = len(reference)
    if rounds != len(compressed):
        raise UsageError(
            f"{rounds} rounds of the reference and {len(compressed)} of the compressed model",
            where="timing",
            hint="time both models in every round",
        )
    if rounds < 2:
        raise UsageError(
            f"{rounds} round gives no interval",
            where="timing",
            hint="choose --rounds 2 or more",
        )
    logs = [math.log(a / b) for a, b in zip(reference, compressed, strict=True)]
    mean = math.fsum(logs) / rounds
    variance = math.fsum((log - mean) ** 2 for log in logs) / (rounds - 1)
    return mean, math.sqrt(variance / rounds)


def _quantile(freedom: int, probability: float) -> float:
    """Quantile of Student's t."""
    special: Any = import_module("scipy.special")  # scipy carries no types
    return float(special.stdtrit(freedom, probability))
