"""Restoring: which layers cost most quality for what they save, and plans without them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...passes.forms import Dense, Form, kernel_macs
from ...passes.sites import Site, Skipped
from ..allocation.planned import Planned
from ..allocation.survey import Survey
from ..build import Built
from ..clock import Clock
from ..costs import Costs
from ..events import Event
from ..fitting.moments import Moments
from ..fitting.sensitivity import sensitivity
from ..options import CompileOptions
from ..prepare import Ready

SAMPLES = 12
"""Samples that the harm of every layer is measured on."""
REASON = "put back: the model fails the quality gate with less"
LEAST_SHARE = 1e-6
_LEAST = 1e-12


def surveys_without(surveys: Sequence[Survey], dense: Collection[str]) -> list[Survey]:
    """The surveys in which some layers have no candidate but Dense."""
    return [_only_dense(entry) if _is_in(entry.site, dense) else entry for entry in surveys]


def ready_without(ready: Ready, dense: Collection[str]) -> Ready:
    """What is to be compressed without some layers: they count as left alone."""
    if not dense:
        return ready
    out = [site for site in ready.sites if _is_in(site, dense)]
    skipped = [
        Skipped(
            site.name,
            site.op,
            REASON,
            site.weights,
            site.shape,
            site.weight_name,
            int(8 * site.dtype.itemsize),
        )
        for site in out
    ]
    return replace(
        ready,
        sites=[site for site in ready.sites if not _is_in(site, dense)],
        skipped=[*ready.skipped, *skipped],
    )


@dataclass(frozen=True)
class Rest:
    """What is left to save multiply-adds on, where some layers count as left alone.

    A recipe that is given fewer sites counts the multiply-adds of those alone.

    Args:
        sites: all of them.
        dense: those that are left alone.
    """

    sites: Sequence[Site]
    dense: Collection[str]

    def asked(self, options: CompileOptions) -> CompileOptions:
        """The options whose --macs, of the rest, is what was asked of all."""
        if options.macs is None or not self.dense:
            return options
        total, out = self._macs()
        share = (options.macs * total - out) / max(total - out, 1.0)
        return options.model_copy(update={"macs": min(max(share, LEAST_SHARE), 1.0)})

    def counted(self, planned: Planned, macs: float | None) -> Planned:
        """A plan of the rest, with its multiply-adds as a share of all.

        Args:
            planned: made for `asked`.
            macs: what was asked of all.
        """
        if macs is None or planned.budget_used is None:
            return planned
        total, out = self._macs()
        used = (planned.budget_used * (total - out) + out) / max(total, 1.0)
        return replace(
            planned,
            budget=f"macs <= {macs:g}",
            budget_used=used,
            budget_met=planned.budget_met and used <= macs * (1 + LEAST_SHARE),
        )

    def _macs(self) -> tuple[float, float]:
        """Of all sites, and of those that are left alone; unknown positions count as one."""
        each = [(float(s.macs or s.weights), _is_in(s, self.dense)) for s in self.sites]
        return sum(n for n, _ in each), sum(n for n, is_out in each if is_out)


def plan_without(planned: Planned, sites: Sequence[Site], dense: Collection[str]) -> Planned:
    """The plan in which some layers are dense, with the reason."""
    if not dense:
        return planned
    names = {site.name for site in sites if _is_in(site, dense)}
    forms: dict[str, Form] = {
        name: Dense() if name in names else form for name, form in planned.plan.forms.items()
    }
    reasons = {**planned.reasons, **dict.fromkeys(sorted(names), REASON)}
    return replace(planned, plan=replace(planned.plan, forms=forms), reasons=reasons)


def by_harm(
    ready: Ready,
    result: Built,
    moments: Mapping[str, Moments],
    costs: Costs | None,
    options: CompileOptions,
    clock: Clock,
) -> tuple[str, ...]:
    """The changed layers, the most divergence of the outputs for what is saved first.

    The divergence of each by itself is measured with the very term that the model holds; a
    layer that cannot be measured counts by its squared error, at the worst rate of those that
    can. Layers that share a weight are one, by the first one's name.

    Args:
        ready: the model and samples.
        result: a model that was built.
        moments: of what the sites read.
        costs: predicted times, where the budget is one.
        options: whose budget says what is saved.
        clock: told of every layer.
    """
    first: dict[str, Site] = {}
    for site in ready.sites:
        if site.name in result.fitted:
            first.setdefault(site.weight_name, site)
    sites = list(first.values())
    feeds = ready.fit_feeds or ready.feeds
    with clock.stage("harm", f"{len(sites)} layers"):
        measured = sensitivity(
            ready.written,
            ready.sites,
            {s.name: (result.fitted[s.name].term,) for s in sites},
            feeds[:: max(1, len(feeds) // SAMPLES)][:SAMPLES],
            moments=moments,
            on_done=lambda done, total, name: clock.on_event(Event("harm", done, total, name)),
        )
    squared = {s.name: max(result.fitted[s.name].error_fro ** 2, _LEAST) for s in sites}
    found = {name: float(np.nan_to_num(v[0], posinf=1e3)) for name, v in measured.items()}
    worst = max((lost / squared[name] for name, lost in found.items()), default=1.0)
    rates = {
        site.name: found.get(site.name, worst * squared[site.name])
        / max(_saved(site, result, costs, options), _LEAST)
        for site in sites
    }
    return tuple(sorted(rates, key=lambda name: (-rates[name], name)))


def _saved(site: Site, result: Built, costs: Costs | None, options: CompileOptions) -> float:
    """What a layer saves of the budgeted quantity: seconds, multiply-adds, or else bits."""
    form = result.plan.plan.form(site.name)
    if costs is not None and (options.latency is not None or options.speedup is not None):
        before, after = costs.of(site), costs.of(site, form)
        if before is not None and after is not None:
            return before.seconds - after.seconds
    if options.macs is not None and site.macs is not None:
        after_macs = kernel_macs(form.kernels(site.shape, site.geometry))
        if after_macs is not None:
            return float(site.macs - after_macs)
    term = result.fitted[site.name].term
    return float(8 * site.dtype.itemsize * site.weights - term.cost().bits)


def _is_in(site: Site, names: Collection[str]) -> bool:
    return site.name in names or any(other in names for other in site.shares)


def _only_dense(entry: Survey) -> Survey:
    return replace(
        entry,
        forms=entry.forms[:1],
        operator=entry.operator[:1],
        blockwise=entry.blockwise[:1],
        sqrt_k=entry.sqrt_k[:1],
        frobenius=entry.frobenius[:1],
        weights=entry.weights[:1],
        macs=entry.macs[:1],
        slowness=entry.slowness[:1],
        seconds=entry.seconds[:1],
        divergence=entry.divergence[:1],
        reason=REASON,
    )
