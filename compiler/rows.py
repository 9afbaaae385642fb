"""Rows: what became of every weight, as layers.csv and the report show it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..passes.forms import Blocks, Dense, Folded, Form, LowRank, Tucker2, kernel_macs, text
from ..passes.sites import Site, Skipped
from .costs import Costs
from .fit import Fitted
from .outcome import LayerRow
from .planning import Planned


def rows(
    sites: Sequence[Site],
    skipped: Sequence[Skipped],
    planned: Planned,
    fitted: Mapping[str, Fitted],
    milliseconds: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}),
    costs: Costs | None = None,
) -> tuple[LayerRow, ...]:
    """One row a weight, sites in graph order, then what was left alone.

    A weight that several nodes read is counted at the first of them.

    Args:
        sites: as `find_sites` gives them.
        skipped: likewise.
        planned: form and reason of every site.
        fitted: terms of the changed sites; empty in a dry run, whose errors are then zero.
        milliseconds: site name to time per inference, before and after.
        costs: predicted times, where the target has a cost model.
    """
    seen: set[str] = set()
    found: list[LayerRow] = []
    for site in sites:
        row = _row(
            site, planned, fitted.get(site.name), milliseconds, site.weight_name in seen
        )
        found.append(row if costs is None else _predicted(row, site, planned, costs))
        seen.add(site.weight_name)
    for entry in skipped:
        found.append(_left_alone(entry, entry.weight_name in seen))
        seen.add(entry.weight_name)
    return tuple(found)


def _row(
    site: Site,
    planned: Planned,
    fitted: Fitted | None,
    milliseconds: tuple[Mapping[str, float], Mapping[str, float]],
    is_counted: bool,
) -> LayerRow:
    form = planned.plan.form(site.name)
    kernels = form.kernels(site.shape, site.geometry)
    before = 0 if is_counted else site.weights
    after = 0 if is_counted else sum(kernel.weights for kernel in kernels)
    width = 8 * site.dtype.itemsize
    is_changed = not isinstance(form, Dense)
    if is_changed and site.is_kept:
        after += before
    scheme, k, j = _parameters(form)
    reason = planned.reasons.get(site.name, "")
    if is_changed and site.is_kept:
        reason = "the weight itself stays too, something else reads it"
    if site.shares:
        reason = "; ".join(filter(None, [reason, f"shares its weight with {site.shares[0]}"]))
    return LayerRow(
        name=site.name,
        op=site.op,
        shape=site.shape,
        status="changed" if is_changed else "dense",
        form=text(form),
        rank=j,
        blocks=k,
        scheme=scheme,
        reason=reason,
        weights_reference=before,
        weights_compressed=after,
        bits_reference=int(before * width),
        bits_compressed=int(after * width),
        macs_reference=site.macs,
        macs_compressed=kernel_macs(kernels),
        error_op=fitted.error_op if fitted else 0.0,
        error_fro=fitted.error_fro if fitted else 0.0,
        reference_ms=milliseconds[0].get(site.name),
        measured_ms=milliseconds[1].get(site.name),
    )


def _predicted(row: LayerRow, site: Site, planned: Planned, costs: Costs) -> LayerRow:
    before, after = costs.of(site), costs.of(site, planned.plan.form(site.name))
    if before is None or after is None:
        return row
    return replace(
        row, predicted_reference_ms=before.seconds * 1e3, predicted_ms=after.seconds * 1e3
    )


def _left_alone(entry: Skipped, is_counted: bool) -> LayerRow:
    weights = 0 if is_counted else entry.weights
    bits = entry.width * weights
    return LayerRow(
        name=entry.name,
        op=entry.op,
        shape=entry.shape,
        status="left alone",
        form="dense",
        rank=None,
        blocks=None,
        scheme=None,
        reason=entry.reason,
        weights_reference=weights,
        weights_compressed=weights,
        bits_reference=bits,
        bits_compressed=bits,
        macs_reference=None,
        macs_compressed=None,
        error_op=0.0,
        error_fro=0.0,
    )


def _parameters(form: Form) -> tuple[int | None, int | None, int | None]:
    """(scheme, blocks, rank) of a low-rank form."""
    scheme, k = None, None
    if isinstance(form, Folded):
        scheme, form = form.scheme, form.of
    if isinstance(form, Blocks):
        k, form = form.k, form.of
    if isinstance(form, LowRank):
        return scheme or 0, k or 1, form.j
    if isinstance(form, Tucker2):
        return None, None, form.outputs
    return None, None, None
