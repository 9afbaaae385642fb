"""Decisions of keep or revert: pure functions of what was measured.

A site is slower only where its loss exceeds both a fixed share of its time and what noise
explains; whatever is left in doubt stays. Of a whole net it is the other way round: it has to
be *shown* that it is not slower than the original.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from ...runtime.timing import Paired, trimmed_mean

LEAST_LOSS = 0.03
"""Relative loss of a site below which it is not one."""
BLUR_MS = 0.001
"""Loss below which nothing is one: the profiler tells microseconds."""
NOT_SLOWER = 0.97
"""Speed-up that a compiled net is shown to reach at least: the bound of its interval."""
TRIM = 0.25
CONFIDENCE = 0.95

Whole = Literal["shown", "slower", "open"]


@dataclass(frozen=True)
class Trial:
    """A changed site, or those that share one weight, timed as it was and as it is.

    Args:
        sites: names; they change together.
        before, after: milliseconds of every round, original and replaced; rounds correspond.
    """

    sites: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def dense_ms(self) -> float:
        """Of the original, trimmed mean over the rounds."""
        return trimmed_mean(self.before, TRIM, "both")

    @property
    def measured_ms(self) -> float:
        """Of the replacement."""
        return trimmed_mean(self.after, TRIM, "both")

    @property
    def loss_ms(self) -> float:
        """What the replacement costs; negative where it gains."""
        return self.measured_ms - self.dense_ms

    @property
    def is_slower(self) -> bool:
        """Whether the replacement is slower by more than `LEAST_LOSS`, `BLUR_MS` and noise.

        The trimmed mean of after / before, over rounds, has to exceed 1 by more than its
        one-sided 95 % reach. Within a round the machine's mood cancels.
        """
        if not self.before or min(self.before) <= 0:
            return False  # it never ran: nothing is known
        ratios = [b / a for a, b in zip(self.before, self.after, strict=True)]
        more = trimmed_mean(ratios, TRIM, "both") - 1
        is_large = self.loss_ms > BLUR_MS and more > LEAST_LOSS
        return is_large and more > trimmed_reach(ratios)


def trimmed_reach(samples: Sequence[float]) -> float:
    """How far a trimmed mean lies from the truth at most, one-sided, with `CONFIDENCE`.

    t · s_w / ((1 − 2γ) √n), with the winsorised deviation s_w and h − 1 degrees of freedom
    of the h samples that are left (Tukey and McLaughlin, Sankhya A 25, 1963; Yuen, Biometrika
    61, 1974). Infinite for fewer than two.
    """
    n = len(samples)
    drop = math.floor(TRIM * n + 1e-9)
    left = n - 2 * drop
    if left < 2:
        return math.inf
    ordered = sorted(samples)
    low, high = ordered[drop], ordered[n - 1 - drop]
    winsorised = [min(max(sample, low), high) for sample in ordered]
    mean = math.fsum(winsorised) / n
    variance = math.fsum((sample - mean) ** 2 for sample in winsorised) / (n - 1)
    special: Any = import_module("scipy.special")  # scipy carries no types
    t = float(special.stdtrit(left - 1, CONFIDENCE))
    return t * math.sqrt(variance / n) / (1 - 2 * TRIM)


def losers(trials: Sequence[Trial]) -> list[Trial]:
    """Those that are slower than they were, the largest loss first."""
    return by_loss([trial for trial in trials if trial.is_slower])


def by_loss(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, the largest loss first, the smallest gain last; ties by name."""
    return sorted(trials, key=lambda trial: (-trial.loss_ms, trial.sites))


def worse_half(trials: Sequence[Trial]) -> list[Trial]:
    """The half that gains least, at least one: what to restore where the sum disappoints."""
    return by_loss(trials)[: max((len(trials) + 1) // 2, 1)]


def affordable(
    trials: Sequence[Trial], is_within: Callable[[frozenset[str]], bool]
) -> tuple[list[Trial], list[Trial]]:
    """Which of the trials can go back, taken in order, and which a budget holds.

    Args:
        trials: in the order in which they shall go back.
        is_within: whether the budget holds when these sites are dense.
    """
    back: list[Trial] = []
    held: list[Trial] = []
    gone: frozenset[str] = frozenset()
    for trial in trials:
        if is_within(gone | set(trial.sites)):
            back.append(trial)
            gone |= set(trial.sites)
        else:
            held.append(trial)
    return back, held


def whole(paired: Paired) -> Whole:
    """What the measurement of the whole net shows.

    "shown": it is not slower than the original, the lower bound of its speed-up is at least
    `NOT_SLOWER`. "slower": the upper bound is below 1, or the estimate below `NOT_SLOWER`.
    "open": more rounds may tell.
    """
    low, high = paired.speedup_ci
    if high < 1 or paired.speedup < NOT_SLOWER:
        return "slower"
    return "shown" if low >= NOT_SLOWER else "open"


def reaches(paired: Paired, asked: float) -> bool:
    """Whether a speed-up counts as reached: its interval is not wholly below the asked one."""
    return paired.speedup_ci[1] >= asked
