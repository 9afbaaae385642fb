"""The budget of a compile: which quantity, and how much of it may be left."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...device_profiles.errors import UsageError
from ...device_profiles.profile import DeviceProfile
from ...passes.forms.language.fields import either
from ..costs import Costs
from ..options import CompileOptions
from .baselines.names import BASELINES
from .given import given_patterns
from .survey import Quantity

OPTIONS = ("size", "macs", "latency", "speedup")
STORAGE = ("size", "bits")
TIME = ("macs", "latency", "speedup")
RECIPES = ("quantize", "additive", "tt-sparse")
"""Recipes that store less, and leave the arithmetic as it is or to the device."""
EXAMPLES = {
    "speedup": "--speedup 2",
    "macs": "--macs 0.5",
    "bits": "--bits 4",
    "size": "--size 0.3",
}
_COUNTS = "a published method counts weights and multiply-adds"
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


def budgets_asked(options: CompileOptions) -> tuple[str, ...]:
    """The options that ask for a budget."""
    return tuple(n for n in (*OPTIONS, "bits") if getattr(options, n) is not None)


def mixed_is_asked(options: CompileOptions) -> bool:
    """Whether all families of forms are to compete: `auto`, with a budget and calibration.

    Without calibration one budget is kept to by one family, in ways that are known to be
    safe for it; two budgets need several.
    """
    asked = budgets_asked(options)
    if options.recipe != "auto" or is_given(options) or options.objective == "blockwise":
        return False
    return len(asked) > 1 or (len(asked) == 1 and options.calib is not None)


def codes_are_asked(options: CompileOptions) -> bool:
    """Whether a recipe of the forms chooses, rather than an allocation of ranks."""
    is_auto = options.recipe == "auto"
    is_coded = options.recipe in RECIPES or (is_auto and options.bits is not None)
    return is_coded or is_baseline(options) or mixed_is_asked(options)


def is_baseline(options: CompileOptions) -> bool:
    """Whether a published method chooses, as its paper does."""
    return options.recipe in BASELINES and not is_given(options)


def reads_samples(options: CompileOptions) -> bool:
    """Whether a published method chooses by what it sees in calibration inputs."""
    return is_baseline(options) and BASELINES[options.recipe].needs_samples


def check_budget(options: CompileOptions) -> None:
    """Refuses budgets that contradict each other or the rest, before any work.

    Raises:
        UsageError: two budgets, a budget without compression, compression without one, a
            budget that the recipe cannot meet, or no samples for one that looks at them.
        BadExpression: a --form that cannot be read.
    """
    asked = budgets_asked(options)
    if len(asked) > 1:
        _check_pair(options, asked)
    if asked and options.recipe == "none":
        raise UsageError(
            "asks for no compression, and a budget for some",
            where=f"--recipe none --{asked[0]}",
            hint="leave one of them out",
        )
    if is_given(options):
        _check_given(options, asked)
    elif options.recipe == "int8" and asked:
        raise UsageError(
            f"cannot be held to --{asked[0]}: it is one width of numbers for every layer",
            where="--recipe int8",
            hint="leave out the budget, or leave out the recipe: auto mixes forms",
        )
    elif options.recipe not in ("auto", "none", "int8"):
        is_gated = options.max_drop is not None or options.min_agreement is not None
        _check_recipe(options.recipe, asked, is_gated=is_gated)
        _check_samples(options)


def _check_pair(options: CompileOptions, asked: Sequence[str]) -> None:
    """Two budgets are one of storage and one of time, and several families to meet them."""
    is_pair = len(asked) == 2 and sum(name in STORAGE for name in asked) == 1
    if is_pair and options.recipe == "auto" and options.objective != "blockwise":
        return
    raise UsageError(
        "two budgets at once" if len(asked) == 2 else f"{len(asked)} budgets at once",
        where=", ".join(f"--{name}" for name in asked),
        hint="give one of them"
        if not is_pair
        else "give one of them, or leave out --recipe and --objective: auto holds both",
    )


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


def _check_recipe(recipe: str, asked: Sequence[str], *, is_gated: bool) -> None:
    """A recipe takes the one knob that it can turn; a gate turns it where nobody does."""
    takes = {"low-rank": OPTIONS, "tt-sparse": ("size",)}.get(recipe, ("bits", "size"))
    if recipe in BASELINES:
        takes = ("size", "macs")
    examples = [
        EXAMPLES[name] for name in ("speedup", "macs", "bits", "size") if name in takes
    ]
    hint = f"add e.g. {either(examples)}"
    if not asked and is_gated:
        return
    if not asked:
        raise UsageError("needs a budget", where=f"--recipe {recipe}", hint=hint)
    if asked[0] not in takes:
        why = _COUNTS if recipe in BASELINES else CANNOT[asked[0]]
        raise UsageError(
            f"cannot be held to --{asked[0]}: {why}",
            where=f"--recipe {recipe}",
            hint=f"{hint} instead",
        )


def _check_samples(options: CompileOptions) -> None:
    """What looks at inputs has to be given some."""
    if reads_samples(options) and options.calib is None:
        raise UsageError(
            "looks at what the layers read, and no samples were given",
            where=f"--recipe {options.recipe}",
            hint="add --calib FILE.npz, or --calib package.module:function",
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
