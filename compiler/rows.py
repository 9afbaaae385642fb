"""Rows: what became of every weight, as layers.csv and the report show it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from ..passes.counts import float_count, layer_counts
from ..passes.forms import (
    Blocks,
    Dense,
    Folded,
    Form,
    LowRank,
    Tucker2,
    kernel_macs,
    kernel_weights,
    text,
)
from ..passes.lowering import Lowering
from ..passes.model import Model
from ..passes.removal.left import NOTHING_GONE, Left
from ..passes.sites import Site, Skipped
from .allocation.bits import gained_floats
from .allocation.planning import Planned
from .costs import Costs
from .fitting.fit import Fitted
from .outcome import LayerRow


def rows(
    sites: Sequence[Site],
    skipped: Sequence[Skipped],
    planned: Planned,
    fitted: Mapping[str, Fitted],
    milliseconds: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}),
    costs: Costs | None = None,
    lowerings: Mapping[str, Lowering] = MappingProxyType({}),
    left: Left = NOTHING_GONE,
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
        lowerings: how each changed site was lowered, and the bytes it takes in the file.
        left: the channels that are left, where filters went.
    """
    now = None if costs is None else costs.without(left)
    seen: set[str] = set()
    found: list[LayerRow] = []
    for site in sites:
        way = lowerings.get(site.name)
        row = _row(
            site, planned, fitted.get(site.name), milliseconds, way, site.weight_name in seen
        )
        row = narrower(row, site, planned.plan.form(site.name), left)
        if costs is not None and now is not None:
            row = _predicted(row, site, planned, costs, now)
        found.append(row)
        seen.add(site.weight_name)
    for entry in skipped:
        found.append(_left_alone(entry, entry.weight_name in seen))
        seen.add(entry.weight_name)
    return tuple(found)


def other_floats(model: Model, rows: Sequence[LayerRow]) -> int:
    """Floats of a model that are in none of its rows: biases, norms, small constants."""
    return max(float_count(model) - sum(row.weights_reference for row in rows), 0)


def other_bits(model: Model, sites: Iterable[Site], count: int) -> int:
    """Bits of the floats outside the weights of a compiled model.

    Args:
        model: compiled; some of its floats may be stored in 16 bits.
        sites: layers whose biases took something over, and may be new.
        count: floats outside the weights before.
    """
    halves = 0
    for node in model.graph_model.graph:
        if node.op_type == "Cast" and node.metadata_props.get("nncc.pass") == "StoreHalves":
            held = node.inputs[0].const_value if node.inputs[0] is not None else None
            halves += 0 if held is None else held.size
    return 32 * (count + sum(gained_floats(site) for site in sites)) - 16 * halves


def _row(
    site: Site,
    planned: Planned,
    fitted: Fitted | None,
    milliseconds: tuple[Mapping[str, float], Mapping[str, float]],
    way: Lowering | None,
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
    counts = layer_counts(site, None if fitted is None else fitted.term.cost())
    bits = after * width if is_changed and fitted is None else counts.bits
    ops = (counts.adds, counts.mults) if counts.is_complete else (None, None)
    if is_changed and fitted is None:  # a dry run: as many as the launches multiply
        ops = (kernel_macs(kernels),) * 2
    reason = planned.reasons.get(site.name, "")
    if is_changed and site.is_kept:
        reason = "the weight itself stays too, something else reads it"
    if way is not None:
        reason = "; ".join(filter(None, [reason, way.reason]))
    if site.shares:
        reason = "; ".join(filter(None, [reason, f"shares its weight with {site.shares[0]}"]))
    return LayerRow(
        name=site.name,
        op=site.op,
        shape=site.shape,
        status="changed"
        if is_changed
        else "reverted"
        if site.name in planned.reverted
        else "dense",
        form=text(form),
        rank=j,
        blocks=k,
        scheme=scheme,
        reason=reason,
        weights_reference=before,
        weights_compressed=after,
        bits_reference=int(before * width),
        bits_compressed=0 if is_counted else int(bits),
        macs_reference=site.macs,
        macs_compressed=kernel_macs(kernels),
        error_op=fitted.error_op if fitted else 0.0,
        error_fro=fitted.error_fro if fitted else 0.0,
        adds_compressed=ops[0],
        mults_compressed=ops[1],
        bytes_compressed=0 if is_counted else _bytes(site, way, is_changed),
        reference_ms=milliseconds[0].get(site.name),
        measured_ms=milliseconds[1].get(site.name),
    )


def _bytes(site: Site, way: Lowering | None, is_changed: bool) -> int | None:
    """What the weight takes in the file; None where it is not written yet."""
    size = int(site.dtype.itemsize)
    dense = size * site.weights
    if not is_changed or (way is not None and way.way == "dense" and not way.stored_bytes):
        return dense
    if way is None:
        return None
    return way.stored_bytes + (dense if site.is_kept else 0)


def narrower(row: LayerRow, site: Site, form: Form, left: Left) -> LayerRow:
    """The row of a layer that lost filters, or inputs, to a layer around it.

    Every weight that went takes the bits and bytes with it that one takes on average, and its
    multiply-adds; errors stay those of the whole weight.
    """
    whole = form.kernels(site.shape, site.geometry)
    kernels = left.kernels(site.name, whole)
    if kernels == whole:
        return row
    gone = kernel_weights(whole) - kernel_weights(kernels)
    before, after = kernel_macs(whole), kernel_macs(kernels)
    fewer = 0 if before is None or after is None else before - after
    each = max(row.weights_compressed, 1)
    counted = gone if row.weights_compressed else 0

    def less(operations: int | None) -> int | None:
        return None if operations is None else operations - fewer

    size = row.bytes_compressed
    return replace(
        row,
        reason="; ".join([*filter(None, [row.reason]), *_told(site, left, whole[0].inputs)]),
        weights_compressed=row.weights_compressed - counted,
        bits_compressed=row.bits_compressed - row.bits_compressed // each * counted,
        bytes_compressed=None if size is None else size - size // each * counted,
        macs_compressed=after,
        adds_compressed=less(row.adds_compressed),
        mults_compressed=less(row.mults_compressed),
    )


def _told(site: Site, left: Left, inputs: int) -> Iterator[str]:
    """Which channels went that its form, which reads `inputs`, does not tell of."""
    stay, of = left.made.get(site.name, (0, 0))
    if of:
        yield f"{of - stay} of its {of} filters are gone: nothing reads them"
    stay, of = left.read.get(site.name, (inputs, inputs))
    if stay < inputs:
        yield f"{of - stay} of its {of} inputs are gone"


def _predicted(
    row: LayerRow, site: Site, planned: Planned, costs: Costs, now: Costs
) -> LayerRow:
    before, after = costs.of(site), now.of(site, planned.plan.form(site.name))
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
        bytes_compressed=bits // 8,
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
