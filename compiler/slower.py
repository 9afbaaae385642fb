"""Slower: what to tell where a plan is predicted to slow the net down."""

from collections.abc import Sequence

from ..device_profiles.cost.parts import Parts, parts, summed
from ..device_profiles.profile import DeviceProfile
from ..passes.plan import Plan
from ..passes.removal.left import NOTHING_GONE, Left
from ..passes.sites import Site
from .allocation.budget import STORAGE, TIME, budgets_asked, is_given
from .costs import Costs, predicted
from .options import CompileOptions

LEAST = 1.01
"""Growth of the predicted time below which there is nothing to tell."""
NAMES = (("launch", "launching"), ("compute", "computing"), ("memory", "moving memory"))
_SHARE = 0.1
"""Share of what is lost below which a cause is not named."""


def predicted_slower(
    found: Costs | None,
    sites: Sequence[Site],
    plan: Plan,
    profile: DeviceProfile,
    options: CompileOptions,
    left: Left = NOTHING_GONE,
) -> tuple[str, ...]:
    """By how much a plan is predicted to be slower, why, and what to ask instead.

    Nothing where it is not, or nothing is predicted.

    Args:
        found: predicted times.
        sites: of the model.
        plan: what was done to them.
        profile: the target, for its steps of rank.
        options: what was asked.
        left: the channels that are left after it.
    """
    if found is None or not plan.changed:
        return ()
    told = predicted(found, sites, plan, left)
    if told.compressed_ms <= LEAST * told.reference_ms:
        return ()
    changed = [site for site in sites if site.name in set(plan.changed)]
    before = [kernel for site in changed for kernel in found.launched(site)]
    ends = found.without(left)
    after = [k for site in changed for k in ends.launched(site, plan.form(site.name))]
    around = Parts(launch=sum(found.around(site, plan.form(site.name)) for site in changed))
    was = summed(parts(found.model, kernel) for kernel in before)
    now = summed([*(parts(found.model, kernel) for kernel in after), around])
    why = f"{len(changed)} changed layers take {len(after)} launches in place of {len(before)}"
    more = _grown(was, now, profile.lattice.rank)
    why += f": {more}" if more else ""
    return (
        f"predicted slower than the original: {told.speedup:.2f} x, "
        f"{told.reference_ms:.3g} ms to {told.compressed_ms:.3g} ms; {why}; "
        f"{_instead(options)}",
    )


def _grown(was: Parts, now: Parts, step: int) -> str:
    """What takes longer than it did, and by how much, the most first."""
    why = {"computing": f", as ranks run in steps of {step}"} if step > 1 else {}
    grown = [(getattr(now, key) - getattr(was, key), name) for key, name in NAMES]
    whole = sum(seconds for seconds, _ in grown if seconds > 0)
    named = [(s, name) for s, name in sorted(grown, reverse=True) if s > _SHARE * whole]
    return ", ".join(
        f"{name} +{seconds * 1e3:.2g} ms{why.get(name, '')}" for seconds, name in named
    )


def _instead(options: CompileOptions) -> str:
    """What to ask for a net that is not slower."""
    asked = budgets_asked(options)
    if is_given(options):
        given = "--plan" if options.plan is not None else "--form"
        return f"leave these layers out of {given}, or ask for --speedup in its place"
    stored = [f"--{n} {getattr(options, n):g}" for n in asked if n in STORAGE]
    if stored:
        recipe = "" if options.recipe == "auto" else " and no --recipe"
        return f"ask for {stored[0]} --speedup 1{recipe}: both hold then"
    work = [f"--{n}" for n in asked if n in TIME]
    place = f" in place of {work[0]}" if work else ""
    return (
        f"ask for e.g. --speedup 1.2{place}: a layer changes then only where that is "
        "predicted to be faster, and where so much cannot be had exit code 4 names the most"
    )
