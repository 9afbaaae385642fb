"""Mixed draft: the candidates of every layer, with their prices, before anything is measured.

Low rank comes from spectra and trains from the energies of their unfoldings, in closed form.
Columns, codes and sums are fitted. Of factorisations with coded factors one a layer is: what
the codes add to the error grows by four a bit and hardly depends on the rank.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ...device_profiles.errors import PlanError
from ...device_profiles.profile import DeviceProfile
from ...passes.activations.target import runs_int8
from ...passes.forms import (
    Dense,
    Form,
    Int8,
    Prune,
    Sum,
    TensorTrain,
    kernel_macs,
    kernel_weights,
)
from ...passes.forms.codes.int8 import CHAINS
from ...passes.sites import Site
from ...runtime.machine import cores
from ..costs import Costs
from ..fitting.fit import metric_of
from ..fitting.moments import Moments
from .bits_candidates import MOST_MEASURED, MOST_SUMS, Fit, is_sum, worth_measuring
from .mixed_filters import Tie, column_forms
from .mixed_fits import Fits
from .mixed_forms import NESTED_BITS, coded_forms, corrected_forms, nested, train_with
from .mixed_row import Candidate, Family, MixedRow, Quantity, dense_candidate
from .mixed_trains import train_forms
from .solve_pareto import pareto
from .survey import WORTH, Survey

MOST_BASES = 14
"""Factorisations of a layer that coded factors are looked at for."""
MOST_CORRECTED = 4.5
"""Budget, bits a parameter, up to which corrections of factorisations are tried."""
MOST_OF_MANY = 5
"""Codes of a layer that are measured where factorisations compete with them."""
MOST_INT8 = 8
"""Factorisations of a layer that int8 arithmetic is looked at for."""
_FACTORS = 2.0
"""Factors that are rounded, each of which adds its own error."""
WIDTH_FITTED = 4
"""Bits of the codes of the one that is fitted, to tell the others by."""


@dataclass(frozen=True)
class Wanted:
    """What the candidates are for.

    Args:
        quantities: what budgets count.
        bits: the budget of storage, bits a parameter; None where there is none.
    """

    quantities: tuple[Quantity, ...]
    bits: float | None = None

    @property
    def is_stored(self) -> bool:
        """Whether what is stored counts."""
        return "bits" in self.quantities

    @property
    def is_run(self) -> bool:
        """Whether what is computed counts."""
        return "macs" in self.quantities or "seconds" in self.quantities

    @property
    def work(self) -> Quantity:
        """What tells how much a form computes."""
        return "seconds" if "seconds" in self.quantities else "macs"


@dataclass(frozen=True)
class Prices:
    """What forms cost on the target.

    Args:
        sites: by name.
        costs: predicted times; None where the target has no cost model.
    """

    sites: Mapping[str, Site]
    costs: Costs | None
    _known: dict[tuple[object, ...], float | None] = field(
        default_factory=dict[tuple[object, ...], float | None]
    )

    def users(self, site: Site) -> list[Site]:
        """The sites that read its weight."""
        return [site, *(self.sites[name] for name in site.shares)]

    def macs(self, site: Site, form: Form) -> float:
        """Multiply-adds of all sites that read the weight; unknown positions count as one."""
        total = 0
        for user in self.users(site):
            kernels = form.kernels(user.shape, user.geometry)
            macs = kernel_macs(kernels)
            total += kernel_weights(kernels) if macs is None else macs
        return float(total)

    def seconds(self, site: Site, form: Form) -> float:
        """Predicted time of those sites; 0 where it is not known of all.

        What is predicted to be less than three percent faster than dense counts as dense.
        """
        dense = self._time(site, Dense())
        found = self._time(site, form)
        if dense is None or found is None:
            return 0.0 if dense is None else dense
        return dense if WORTH * dense <= found <= dense else found

    def _time(self, site: Site, form: Form) -> float | None:
        if self.costs is None:
            return None
        total = 0.0
        for user in self.users(site):
            key = (user.name, tuple(form.kernels(user.shape, user.geometry)))
            if key not in self._known:
                found = self.costs.of(user, form)
                self._known[key] = None if found is None else found.seconds
            seconds = self._known[key]
            if seconds is None:
                return None
            total += seconds
        return total


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight, the sites that read it, and what it may become so far.

    Args:
        site: the first of them.
        fits: of its weight, kept between runs.
        row: the candidates.
        bases: by candidate with coded factors: the error of the dense ones, and the bits.
        tie: to the layer that makes what it reads, where it may read less.
    """

    site: Site
    fits: Fits
    row: MixedRow
    bases: Mapping[int, tuple[float, int]] = field(
        default_factory=dict[int, tuple[float, int]]
    )
    tie: Tie | None = None


def drafted(
    surveys: Sequence[Survey],
    prices: Prices,
    moments: Mapping[str, Moments],
    profile: DeviceProfile,
    wanted: Wanted,
    *,
    tied: Mapping[str, Tie] | None = None,
    jobs: int = 0,
    on_done: Callable[[int, int, str], None] | None = None,
) -> list[Layer]:
    """The candidates of every weight, in graph order.

    Args:
        surveys: low-rank candidates, in the metric of the moments.
        prices: of forms.
        moments: of what the sites read.
        profile: the target.
        wanted: what they are for.
        tied: layers that may read less, and who makes what they read.
        jobs: threads; 0 takes one a core.
        on_done: told (finished, all, name).
    """
    from threadpoolctl import threadpool_limits

    def work(entry: Survey) -> Layer:
        users = prices.users(entry.site)
        fits = Fits(lambda: (entry.site.W(), metric_of(users, moments)))
        tie = (tied or {}).get(entry.site.name)
        layer = _Draft(entry, fits, prices, profile, wanted, tie).layer()
        fits.release()
        return layer

    layers: list[Layer] = []
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(jobs or cores()) as pool,
    ):
        for done, layer in enumerate(pool.map(work, surveys), 1):
            layers.append(layer)
            if on_done is not None:
                on_done(done, len(surveys), layer.site.name)
    return layers


class _Draft:
    """The draft of one layer."""

    def __init__(
        self,
        entry: Survey,
        fits: Fits,
        prices: Prices,
        profile: DeviceProfile,
        wanted: Wanted,
        tie: Tie | None,
    ) -> None:
        self._tie = tie
        self._entry, self._site, self._fits = entry, entry.site, fits
        self._prices, self._profile, self._wanted = prices, profile, wanted
        # a weight that something else reads too stays in the file: forms come on top of it
        self._kept = 32.0 * entry.site.weights if entry.site.is_kept else 0.0
        self._dense = dense_candidate(
            32.0 * self._site.weights,
            prices.macs(self._site, Dense()),
            prices.seconds(self._site, Dense()),
        )

    def layer(self) -> Layer:
        plain = list(self._factored())
        found = [self._dense, *plain] if self._wanted.is_run else [self._dense]
        columns = self._columns()
        found += [*columns, *self._in_int8(plain)]
        if self._wanted.is_stored and not self._kept:
            found += self._coded()
            coded, bases = self._nested(plain)
            at = len(found)
            found += coded
        else:
            bases, at = [], 0
        row = MixedRow(self._site.name, tuple(found), self._site.weights, self._entry.reason)
        guessed = {at + i: b for i, b in enumerate(bases)}
        return Layer(self._site, self._fits, row, guessed, self._tie if columns else None)

    def _columns(self) -> list[Candidate]:
        """Fewer inputs, where the filters that make the others go with them."""
        if self._tie is None or self._fits.loaded()[1].is_identity:
            return []  # nothing tells what the others could be predicted from
        forms = column_forms(self._site, self._profile.lattice.rank)
        return [self._stored(fit, "filters") for fit in self._fits.of(forms)]

    def _factored(self) -> Iterator[Candidate]:
        """Low rank and trains with factors of 16 bits."""
        entry = self._entry
        for form, error in zip(entry.forms[1:], entry.frobenius[1:], strict=True):
            yield self._priced(form, "low-rank", float(error) ** 2)
        step = self._profile.lattice.rank
        for form, lost in train_forms(*self._fits.loaded(), step):
            yield self._priced(form, "train", lost)

    def _priced(self, form: Form, family: Family, error: float) -> Candidate:
        kernels = form.kernels(self._site.shape, self._site.geometry)
        bits = self._kept + 16.0 * kernel_weights(kernels)
        macs = self._prices.macs(self._site, form)
        return Candidate(
            form, family, error, bits, macs, self._prices.seconds(self._site, form)
        )

    def _stored(self, fit: Fit, family: Family) -> Candidate:
        """A fitted form: of its own kernels, dense where they are."""
        macs = self._prices.macs(self._site, fit.form)
        seconds = self._prices.seconds(self._site, fit.form)
        return Candidate(fit.form, family, fit.error, fit.bits, macs, seconds, is_fitted=True)

    def _coded(self) -> list[Candidate]:
        """Codes and sums that are worth measuring (see `bits_candidates.candidates`)."""
        found = self._fits.of(coded_forms(self._site, self._wanted.bits))
        found += self._fits.of(self._corrected())
        found.sort(key=lambda fit: (fit.bits, fit.error))
        pairs = [(fit, None) for fit in found]
        dense = 32 * self._site.weights
        most = MOST_OF_MANY if self._wanted.is_run else MOST_MEASURED
        codes = worth_measuring([p for p in pairs if not is_sum(p[0].form)], dense, most)
        front = worth_measuring(pairs, dense, most=len(pairs))
        sums = [pair for pair in front if is_sum(pair[0].form)]
        if len(sums) > MOST_SUMS:
            sums = worth_measuring(sums, dense, MOST_SUMS)
        return [
            *(self._stored(fit, "codes") for fit, _ in codes),
            *(self._stored(fit, "sum") for fit, _ in sums),
        ]

    def _corrected(self) -> list[Form]:
        """L+P and TT+S of about the size asked for: stored, and folded at load."""
        asked = self._wanted.bits
        if asked is None or asked > MOST_CORRECTED:
            return []  # codes alone are as small and closer
        found: list[Form] = []
        for family in ("low-rank", "train"):
            fitting = [
                c
                for c in self._factored()
                if c.family == family and c.bits <= 0.8 * asked * self._site.weights
            ]
            if fitting:
                best = min(fitting, key=lambda c: (c.error, c.bits))
                if isinstance(best.form, TensorTrain):
                    found.append(Sum((best.form, Prune(0.02))))
                else:
                    ranks = getattr(best.form, "j", None)
                    found += corrected_forms(self._site, [ranks] if ranks else [])
        return found

    def _nested(
        self, plain: Sequence[Candidate]
    ) -> tuple[list[Candidate], list[tuple[float, int]]]:
        """Factorisations with coded factors: one fitted, the others from it."""
        coded = [c for c in plain if _with_codes(c.form, 4, self._site) is not None]
        bases = self._bases(coded, MOST_BASES)
        if not bases:
            return [], []
        middle = bases[len(bases) // 2]
        form = _with_codes(middle.form, WIDTH_FITTED, self._site)
        fit = None if form is None else next(iter(self._fits.of([form])), None)
        if fit is None:
            return [], []
        added = max((fit.error - middle.error) / max(1 - middle.error, 1e-3), 1e-9)
        found: list[Candidate] = []
        told: list[tuple[float, int]] = []
        for base in bases:
            for bits in NESTED_BITS:
                form = _with_codes(base.form, bits, self._site)
                if form is None:
                    continue
                noise = min(added * 4.0 ** (WIDTH_FITTED - bits), 1.0)
                error = base.error + noise * (1 - base.error)
                rows = 0.03 * base.bits  # scales and tables, corrected by what is fitted
                found.append(
                    Candidate(
                        form,
                        "nested",
                        error,
                        base.bits * bits / 16 + rows,
                        base.macs,
                        base.seconds,
                    )
                )
                told.append((base.error, bits))
        return found, told

    def _in_int8(self, plain: Sequence[Candidate]) -> Iterator[Candidate]:
        """Int8 arithmetic, of the layer as it is and of factorisations, where it runs.

        What rounding the weights adds is taken from the layer itself; what rounding the inputs
        adds is in the measured divergence alone.
        """
        if "seconds" not in self._wanted.quantities or self._kept:
            return  # it multiplies as often, and codes store less
        if self._fits.loaded()[1].is_identity:
            return  # no input was seen, hence no range
        if any(runs_int8(self._profile, user) for user in self._prices.users(self._site)):
            return
        whole = Int8()
        fit = next(iter(self._fits.of([whole])), None)
        if fit is None:
            return
        yield self._stored(fit, "int8")
        for base in self._bases([c for c in plain if isinstance(c.form, CHAINS)], MOST_INT8):
            form = Int8(base.form)
            error = base.error + (1 - base.error) * fit.error * _FACTORS
            yield Candidate(
                form,
                "int8",
                error,
                base.bits / 2 + 0.03 * base.bits,
                base.macs,
                self._prices.seconds(self._site, form),
            )

    def _bases(self, usable: Sequence[Candidate], most: int) -> list[Candidate]:
        """Some of those that no other beats, by rising error."""
        if not usable:
            return []
        work: Quantity = self._wanted.work
        table = np.array([[c.error, c.bits, c.cost(work)] for c in usable])
        front = [usable[int(i)] for i in pareto(table)]
        front.sort(key=lambda c: (c.error, c.bits))
        if len(front) <= most:
            return front
        at = np.unique(np.linspace(0, len(front) - 1, most).round().astype(int))
        return [front[i] for i in at.tolist()]


def _with_codes(form: Form, bits: int, site: Site) -> Form | None:
    try:
        if isinstance(form, TensorTrain):
            return train_with(form, bits, site)
        return nested(form, bits, site)
    except PlanError:
        return None
