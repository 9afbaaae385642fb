"""The budget of a compile: which quantity, and how much of it may be left."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...device_profiles.errors import UsageError
from ...device_profiles.profile import DeviceProfile
from ...passes.forms.language.fields import either
from ..costs import Costs
from ..options import CompileOptions
from .given import given_patterns
from .survey import Quantity

OPTIONS = ("size", "macs", "latency", "speedup")
RECIPES = ("quantize", "additive", "tt-sparse")
"""Recipes that store less, and leave the arithmetic as it is or to the device."""
EXAMPLES = {
    "speedup": "--speedup 2",
    "macs": "--macs 0.5",
    "bits": "--bits 4",
    "size": "--size 0.3",
}
_STORAGE = "it changes what is stored, not what is multiplied"
CANNOT = {
    "bits": "it has ranks, no codes",
    "macs": _STORAGE,
    "latency": _STORAGE,
    "speedup": _STORAGE,
}


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


def is_given(options: CompileOptions) -> bool:
    """Whether the forms are said, by a plan or by --form, and nothing is to be chosen."""
    return options.plan is not None or bool(options.form)


def codes_are_asked(options: CompileOptions) -> bool:
    """Whether a recipe of the forms chooses, rather than an allocation of ranks."""
    return options.recipe in RECIPES or (options.recipe == "auto" and options.bits is not None)


def check_budget(options: CompileOptions) -> None:
    """Refuses budgets that contradict each other or the rest, before any work.

    Raises:
        UsageError: two budgets, a budget without compression, compression without one, or a
            budget that the recipe cannot meet.
        BadExpression: a --form that cannot be read.
    """
    asked = [name for name in (*OPTIONS, "bits") if getattr(options, name) is not None]
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
    if is_given(options):
        _check_given(options, asked)
    elif options.recipe not in ("auto", "none"):
        _check_recipe(options.recipe, asked)


def _check_given(options: CompileOptions, asked: Sequence[str]) -> None:
    """What says every layer's form stands alone."""
    given = "--plan" if options.plan is not None else "--form"
    if options.plan is not None and options.form:
        raise UsageError(
            "a plan already says every layer's form",
            where="--plan --form",
            hint="put the form into the plan's patterns, or leave one of them out",
        )
    if asked or options.recipe != "auto":
        what = "a plan already says" if options.plan is not None else "the form is said for"
        raise UsageError(
            f"{what} every layer's form",
            where=given,
            hint="leave out the budget and the recipe",
        )
    given_patterns(options.form)


def _check_recipe(recipe: str, asked: Sequence[str]) -> None:
    """A recipe takes the one knob that it can turn."""
    takes = {"low-rank": OPTIONS, "tt-sparse": ("size",)}.get(recipe, ("bits", "size"))
    examples = [
        EXAMPLES[name] for name in ("speedup", "macs", "bits", "size") if name in takes
    ]
    hint = f"add e.g. {either(examples)}"
    if not asked:
        raise UsageError("needs a budget", where=f"--recipe {recipe}", hint=hint)
    if asked[0] not in takes:
        raise UsageError(
            f"cannot be held to --{asked[0]}: {CANNOT[asked[0]]}",
            where=f"--recipe {recipe}",
            hint=f"{hint} instead",
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
