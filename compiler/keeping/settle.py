"""The plan once it is settled what goes back: which budgets still hold, and what to tell."""

from collections.abc import Sequence
from dataclasses import replace

from ..allocation.planned import Planned
from ..build import Built
from ..costs import predicted
from ..options import CompileOptions
from ..outcome import Paired
from ..writing.metrics import macs
from .decide import Trial, reaches, whole
from .restore import Sources, microseconds
from .stored import layer_rows, stored

NOTHING_FASTER = "nothing was faster when measured"


def settled(
    result: Built, held: Sequence[Trial], paired: Paired | None, sources: Sources
) -> Planned:
    """The plan of a model whose losers went back, judged by the budgets again.

    A budget in time counts as met where the prediction for what is left says so, or the clock.

    Args:
        result: the model as it is now.
        held: losers that a budget of storage keeps.
        paired: the measurement of the whole net, where there is one.
        sources: for the budgets and what they count.
    """
    plan, options = result.plan, sources.options
    notes: list[str] = []
    used = fractions(result, sources)
    if plan.reverted:
        broken = [name for name, (part, most) in used.items() if part > most * (1 + 1e-9)]
        if paired is not None:
            broken = [name for name in broken if not _is_met(name, paired, sources)]
        if broken and plan.budget_met:
            told = ", ".join(f"--{name} {getattr(options, name):g}" for name in broken)
            count = len(plan.reverted)
            notes.append(
                f"{told}: {count} layers measured slower than dense and went back; "
                "--no-revert keeps them"
            )
        plan = replace(
            plan,
            budget_met=plan.budget_met and not broken,
            budget_used=next(iter(used.values()))[0] if len(used) == 1 else None,
            objective_value=plan.objective_value if plan.plan.changed else None,
        )
    if paired is not None and whole(paired) == "slower":
        plan = replace(plan, budget_met=False)
        low, high = paired.speedup_ci
        notes.append(
            f"to be as fast as the original: it measured {paired.speedup:.2f} x ({low:.2f} to "
            f"{high:.2f}), and a budget of storage keeps what would have to go back"
        )
    notes += [
        f"{trial.sites[0]}: measured {microseconds(trial.measured_ms)}, dense "
        f"{microseconds(trial.dense_ms)}, but going back would break the budget of storage"
        for trial in held
    ]
    if plan.reverted and not plan.plan.changed:
        notes.append(f"everything: {NOTHING_FASTER}")
    return replace(plan, undone=(*plan.undone, *notes))


def fractions(result: Built, sources: Sources) -> dict[str, tuple[float, float]]:
    """Every budget that was asked for: what is left of its quantity, and what may be left."""
    options, ready, found = sources.options, sources.ready, sources.found
    used: dict[str, tuple[float, float]] = {}
    if options.macs is not None:
        counted = macs(layer_rows(ready, result))
        if counted is not None and counted[0]:
            used["macs"] = (counted[1] / counted[0], options.macs)
    if found is not None and (options.latency is not None or options.speedup is not None):
        told = predicted(found, ready.sites, result.plan.plan, result.left)
        part = told.compressed_ms / told.reference_ms
        if options.latency is not None:
            used["latency"] = (part, options.latency / told.reference_ms)
        if options.speedup is not None:
            used["speedup"] = (part, 1 / options.speedup)
    if options.size is not None or options.bits is not None:
        bits = stored(ready, result, options)
        name = "size" if options.size is not None else "bits"
        asked = options.size if options.size is not None else options.bits
        assert asked is not None, "one of them is there"
        used[name] = (bits.bits / bits.limit * asked, asked)
    return used


def of_the_clock(paired: Paired, options: CompileOptions) -> float | None:
    """The speed-up that the clock has to show for a budget in time; None without one."""
    if options.latency is not None:
        return paired.reference.trimmed_mean_ms / options.latency
    return options.speedup


def _is_met(name: str, paired: Paired, sources: Sources) -> bool:
    """Whether the clock says what the prediction no longer does."""
    asked = of_the_clock(paired, sources.options)
    return name in ("latency", "speedup") and asked is not None and reaches(paired, asked)
