"""The budget of a compile: which quantity, and how much of it may be left."""

from dataclasses import dataclass

from ..device_profiles.errors import UsageError
from ..device_profiles.profile import DeviceProfile
from .costs import Costs
from .options import CompileOptions
from .survey import Quantity

OPTIONS = ("size", "macs", "latency", "speedup")


@dataclass(frozen=True)
class Budget:
    """A bound on one quantity.

    Args:
        option: the option that asked for it.
        quantity: what is counted.
        kept: fraction of the original's that may be left.
        text: for people, e.g. "macs <= 0.33".
    """

    option: str
    quantity: Quantity
    kept: float
    text: str


def is_asked(options: CompileOptions) -> bool:
    """Whether any budget was asked for."""
    return any(getattr(options, name) is not None for name in OPTIONS)


def check_budget(options: CompileOptions) -> None:
    """Refuses budgets that contradict each other or the rest, before any work.

    Raises:
        UsageError: two budgets, a budget without compression, or compression without one.
    """
    asked = [name for name in OPTIONS if getattr(options, name) is not None]
    if len(asked) > 1:
        raise UsageError(
            "two budgets at once",
            where=", ".join(f"--{name}" for name in asked),
            hint="give one of them",
        )
    if asked and options.recipe == "none":
        raise UsageError(
            "asks for no compression, and a budget for some",
            where=f"--recipe none --{asked[0]}",
            hint="leave one of them out",
        )
    if options.plan is not None and (asked or options.recipe == "none"):
        raise UsageError(
            "a plan already says every layer's form",
            where="--plan",
            hint="leave out the budget and the recipe",
        )
    if options.recipe == "low-rank" and not asked and options.plan is None:
        raise UsageError(
            "needs a budget",
            where="--recipe low-rank",
            hint="add e.g. --speedup 2, --macs 0.5 or --size 0.3",
        )


def budget(options: CompileOptions, profile: DeviceProfile, costs: Costs | None) -> Budget:
    """The budget that was asked for, as a fraction that may be left.

    Raises:
        UsageError: a latency on a target without a cost model.
    """
    for name in ("size", "macs"):
        kept = getattr(options, name)
        if kept is not None:
            return Budget(name, name, kept, f"{name} <= {kept:g}")
    option = "latency" if options.latency is not None else "speedup"
    if costs is None:
        raise UsageError(
            f"{profile.name} has no cost model, so no latency can be predicted",
            where=f"--{option}",
            hint="give --macs or --size, or a profile of your own with a [cost]",
        )
    if options.latency is not None:
        kept = options.latency * 1e-3 / costs.reference.seconds
        return Budget(option, "latency", kept, f"predicted latency <= {options.latency:g} ms")
    assert options.speedup is not None, "the caller saw a budget"
    return Budget(
        option, "latency", 1 / options.speedup, f"predicted speed-up >= {options.speedup:g} x"
    )
