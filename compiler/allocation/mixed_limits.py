"""Mixed limits: the budgets of a compile as bounds on what its model costs in all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...device_profiles.errors import UsageError
from ...device_profiles.profile import DeviceProfile
from ...passes.counts import float_count
from ...passes.half_store import half_floats, store_halves
from ..costs import Costs
from ..options import CompileOptions
from ..prepare import Ready
from .bits import fixed_bits
from .bits_recipe import stores_half
from .mixed_draft import Wanted
from .mixed_row import MixedRow, Quantity

QUANTITIES: Mapping[str, Quantity] = {
    "bits": "bits",
    "size": "bits",
    "macs": "macs",
    "latency": "seconds",
    "speedup": "seconds",
}
"""What each option counts. Size is of what the floats of the model take at 32 bits each."""


@dataclass(frozen=True)
class Limit:
    """A bound on one quantity of the whole model.

    Args:
        option: that asked for it.
        quantity: what is counted.
        most: the bound.
        fixed: what everything but the candidates costs.
        total: of the original.
        text: for people, e.g. "size <= 0.25".
    """

    option: str
    quantity: Quantity
    most: float
    fixed: float
    total: float
    text: str

    @property
    def share(self) -> float:
        """The bound as a fraction of the original's."""
        return self.used(self.most)

    def used(self, cost: float) -> float:
        """A cost as a fraction of the original's."""
        return cost / self.total if self.total else 0.0


def wanted(options: CompileOptions) -> Wanted:
    """What the candidates are for."""
    found: list[Quantity] = [of for name, of in QUANTITIES.items() if _asked(options, name)]
    bits = options.bits
    if bits is None and options.size is not None:
        bits = 32 * options.size
    return Wanted(tuple(found), bits)


def limits(
    ready: Ready,
    rows: Sequence[MixedRow],
    options: CompileOptions,
    profile: DeviceProfile,
    costs: Costs | None,
) -> list[Limit]:
    """The bounds that were asked for.

    Args:
        ready: the model and its sites.
        rows: candidates of every weight.
        options: as resolved.
        profile: the target.
        costs: predicted times, where the target has a cost model.

    Raises:
        UsageError: a latency on a target without a cost model.
    """
    found: list[Limit] = []
    for option in QUANTITIES:
        if _asked(options, option):
            quantity = QUANTITIES[option]
            if quantity == "bits":
                found.append(_stored(ready, rows, option, options, profile))
            elif quantity == "macs":
                total = sum(row.dense.macs for row in rows)
                kept = options.macs or 1.0
                found.append(
                    Limit(option, "macs", kept * total, 0.0, total, f"macs <= {kept:g}")
                )
            else:
                found.append(_timed(rows, option, options, profile, costs))
    return found


def _asked(options: CompileOptions, name: str) -> bool:
    return getattr(options, name) is not None


def _stored(
    ready: Ready,
    rows: Sequence[MixedRow],
    option: str,
    options: CompileOptions,
    profile: DeviceProfile,
) -> Limit:
    """All-in bits of every float, biases and norms at the width they are stored in."""
    count = float_count(ready.model)
    bits = options.bits if options.bits is not None else 32 * (options.size or 1.0)
    halves = half_floats(store_halves(ready.model)) if stores_half(profile) else None
    fixed = fixed_bits(ready.model, ready.sites, {row.site for row in rows}, halves)
    text = f"size <= {bits / 32:.4g}"
    if option == "bits":
        text += f" ({bits:g} bits a parameter)"
    return Limit(option, "bits", float(bits * count), fixed, 32.0 * count, text)


def _timed(
    rows: Sequence[MixedRow],
    option: str,
    options: CompileOptions,
    profile: DeviceProfile,
    costs: Costs | None,
) -> Limit:
    if costs is None:
        raise UsageError(
            f"{profile.name} has no cost model, so no latency can be predicted",
            where=f"--{option}",
            hint="give --macs or --size, or a profile of your own with a [cost]",
        )
    whole = costs.reference.seconds
    fixed = costs.rewritten.seconds - sum(row.dense.seconds for row in rows)
    if options.latency is not None:
        most, text = options.latency * 1e-3, f"predicted latency <= {options.latency:g} ms"
    else:
        times = options.speedup or 1.0
        most, text = whole / times, f"predicted speed-up >= {times:g} x"
    return Limit(option, "seconds", most, fixed, whole, text)
