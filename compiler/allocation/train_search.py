"""Search: how a layer's share of the budget is split between a train and a sparse part."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...device_profiles.errors import RankError
from ...passes.forms import Form, Metric, Prune, Sum, Term, squared_error
from ...passes.forms.sparse.columns import Columns
from ...passes.geometry import Weights
from ...passes.sites import Site
from .train_guess import Cut, Family, Floats, Sample, cuts, families, sampled

FRACTIONS = (0.03, 0.05, 0.08, 0.12, 0.18, 0.25, 0.34, 0.45, 0.58, 0.72, 0.86)
"""Shares of a layer's numbers that guesses are made at."""
SHARES = (0.0, 0.08, 0.2, 0.4, 0.7, 1.0)
"""Shares of those that go to the sparse part."""
WORTH = 0.97
"""A sum is taken where its squared error is below this part of the best single form's."""
_EQUAL = 1.02
"""Squared errors closer than this are equal: then the form that runs faster is taken."""
_WITHOUT, _WITH = (2, 3), (1, 2)
"""Sums and single forms that are really fitted, of the guesses: without moments, and with."""
_BITS = 16


@dataclass(frozen=True)
class Guess:
    """A form and what it comes to: as guessed, or as fitted.

    Args:
        form: the form.
        numbers: stored numbers of 16 bits, positions of corrections paid.
        error: relative squared error, in the metric of the layer.
    """

    form: Form
    numbers: float
    error: float


@dataclass(frozen=True, eq=False)
class Search:
    """One layer's weight and the kinds of train that it can take."""

    site: Site
    sample: Sample
    kinds: Sequence[Family]

    def guesses(self, numbers: float) -> Iterator[Guess]:
        """Trains, corrections, and sums of both of at most so many numbers."""
        W = self.sample.W
        for share in SHARES:
            if share == 1.0:
                yield from self._corrected(None, numbers, W[:, self.sample.rows])
                continue
            for cut in cuts(self.kinds, (1 - share) * numbers):
                if share == 0.0:
                    yield Guess(cut.form, cut.numbers, self.sample.error(cut.left))
                else:
                    yield from self._corrected(cut, numbers - cut.numbers, cut.left)

    def _corrected(self, cut: Cut | None, spare: float, left: Floats) -> Iterator[Guess]:
        """Entries, or whole input channels, added where most is left."""
        used = 0.0 if cut is None else cut.numbers
        W = self.sample.W
        count = affordable(spare, W.size)
        if count:
            kept = _largest(left, self.sample.metric, round(count * self.sample.share))
            error = self.sample.error(left - kept)
            yield Guess(_sum(cut, Prune(count)), used + spare, error)
        keep = _channels(spare, W.shape)
        if keep:
            error = self.sample.error(left - _columns(left, self.sample.metric, keep))
            yield Guess(_sum(cut, Columns(keep)), used + spare, error)

    def best(self, numbers: float) -> Guess | None:
        """The closest form of at most so many numbers, really fitted; None where none fits.

        A sum is taken only where it is clearly closer than the best form that is none, and of
        two that are equally close the one that runs as small products.
        """
        sums: list[Guess] = []
        singles: list[Guess] = []
        for guess in self.guesses(numbers):
            (sums if isinstance(guess.form, Sum) else singles).append(guess)
        columns = [guess for guess in sums if _is_executed(guess.form)]
        others = [guess for guess in sums if not _is_executed(guess.form)]
        counts = _WITHOUT if self.sample.metric.H is None else _WITH
        chosen = [*_leading(singles, counts[1]), *_leading(others, counts[0])]
        chosen += _leading(columns, 1)
        found = [entry for guess in chosen if (entry := self.fitted(guess.form, numbers))]
        alone = [entry for entry in found if not isinstance(entry.form, Sum)]
        added = [entry for entry in found if isinstance(entry.form, Sum)]
        best = _closest(alone)
        if added:
            together = _closest(added)
            assert together is not None, "there is one"
            if best is None or together.error < WORTH * best.error:
                return together
        return best

    def fitted(self, form: Form, numbers: float) -> Guess | None:
        """A form fitted to the layer, its corrections cut down to what they may cost."""
        W, metric = self.sample.W, self.sample.metric
        for _ in range(4):
            try:
                term = form.compress(W, metric=metric)
            except RankError:
                return None
            stored = numbers_of(term)
            if stored <= numbers:
                energy = metric.energy(W)
                error = squared_error(W, term, metric) / energy if energy > 0 else 0.0
                return Guess(form, stored, error)
            smaller = _with_fewer(form, stored - numbers)
            if smaller is None:
                return None
            form = smaller
        return None


def search(site: Site, W: Weights, metric: Metric) -> Search:
    """The search of one layer."""
    sample = sampled(W, metric)
    return Search(site, sample, families(site, sample))


def numbers_of(term: Term) -> int:
    """Numbers of 16 bits that a term stores, positions of corrections paid."""
    return math.ceil(term.cost().bits / _BITS)


def affordable(numbers: float, size: int) -> int:
    """Corrections that so many numbers of 16 bits pay for, gaps included (LC part V, eq. 9).

    Positions are taken to be spread evenly: a gap needs a dummy pair for every 2^p − 1
    positions that it jumps over, (1 − δ)^(2^p − 1) of them at density δ.

    Example:
        >>> affordable(1000, 100_000)
        608
    """
    count = numbers
    for _ in range(20):
        rest = 1 - min(max(count, 1.0) / size, 1.0)
        pair = min(
            (p + _BITS) / (1 - rest ** (2**p - 1)) if rest ** (2**p - 1) < 1 else math.inf
            for p in range(1, 17)
        )
        count = numbers * _BITS / pair
    return int(0.99 * count)


def _channels(numbers: float, shape: tuple[int, ...]) -> int:
    """Input channels of a group that so many numbers pay for, their own numbers included."""
    g, m, c, *kernel = shape
    width = max((c - 1).bit_length(), 1) / _BITS
    keep = int(numbers / (g * (m * math.prod(kernel) + width)))
    return keep if keep < c else 0


def _sum(cut: Cut | None, sparse: Form) -> Form:
    return sparse if cut is None else Sum((cut.form, sparse))


def _largest(left: Floats, metric: Metric, count: int) -> Floats:
    """The entries that weigh most, each by itself, and zero elsewhere."""
    weighed = _weighed(left, metric).ravel()
    if count >= weighed.size:
        return left
    least = np.partition(weighed, weighed.size - count)[weighed.size - count]
    kept: Floats = np.where((weighed >= least).reshape(left.shape), left, np.float32(0))
    return kept


def _columns(left: Floats, metric: Metric, keep: int) -> Floats:
    """The input channels that weigh most, and zero elsewhere."""
    g, m, c = left.shape[:3]
    score = _weighed(left, metric).reshape(g, m, c, -1).sum(axis=(1, 3))
    order = np.argsort(-score, axis=1, kind="stable")[:, :keep]
    kept = np.zeros_like(left)
    for group, index in enumerate(order):
        kept[group][:, index] = left[group][:, index]
    return kept


def _weighed(left: Floats, metric: Metric) -> Floats:
    flat = np.square(left.reshape(*left.shape[:2], -1))
    if metric.H is None:
        return flat
    own = np.diagonal(metric.H, axis1=1, axis2=2).astype(np.float32)
    return flat * own[:, None]


def _leading(guesses: Sequence[Guess], count: int) -> list[Guess]:
    return sorted(guesses, key=lambda guess: guess.error)[:count]


def _is_executed(form: Form) -> bool:
    """Whether its sparse part is read as few channels rather than folded into the weight."""
    parts = form.parts if isinstance(form, Sum) else (form,)
    return not any(isinstance(part, Prune) for part in parts)


def _closest(found: Sequence[Guess]) -> Guess | None:
    """The least error, or the one that is executed where it is as good."""
    if not found:
        return None
    least = min(entry.error for entry in found)
    near = [entry for entry in found if entry.error <= _EQUAL * least]
    return min(near, key=lambda entry: (not _is_executed(entry.form), entry.error))


def _with_fewer(form: Form, over: float) -> Form | None:
    """The form with corrections that cost so many numbers less."""
    if isinstance(form, Prune):
        count = int(form.kappa - max(math.ceil(over), 0.01 * form.kappa))
        return Prune(count) if count > 0 else None
    if isinstance(form, Sum):
        *rest, last = form.parts
        fewer = _with_fewer(last, over)
        return None if fewer is None else Sum((*rest, fewer))
    return None
