"""The compiled model with some of its sites dense again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...device_profiles.profile import DeviceProfile
from ...passes.forms import Dense, text
from ...passes.plan import Plan
from ..allocation.recipes import fits_in_its_way
from ..allocation.survey import Survey
from ..build import Built, assembled
from ..clock import Clock
from ..costs import Costs
from ..fitting.fit import Fitted
from ..fitting.moments import Moments
from ..options import CompileOptions
from ..prepare import Ready
from ..work import Work
from .decide import Trial

NEARER_DB = 0.1
"""Fall of the fidelity that has the remaining sites fitted once more."""


@dataclass(frozen=True)
class Sources:
    """What a compile has at hand when its model is built, for building it again.

    Args:
        ready: the original with its sites and samples.
        surveys: candidates of every site.
        moments: of what the sites read.
        found: predicted times, where the target has a cost model.
        profile: the target.
        options: as resolved.
        work: the work folder.
        clock: told of every step.
    """

    ready: Ready
    surveys: Sequence[Survey]
    moments: Mapping[str, Moments]
    found: Costs | None
    profile: DeviceProfile
    options: CompileOptions
    work: Work
    clock: Clock


def restored(result: Built, trials: Sequence[Trial], why: str, sources: Sources) -> Built:
    """The model with the sites of the trials dense, proven again.

    The terms of other sites stay as they are. Fits of their own do not depend on a neighbour.
    Sequential ones were made behind an error that is now gone: they are kept as long as the
    outputs are as near as before, and all are made once more where they are not.

    Args:
        result: the model so far.
        trials: what goes back.
        why: added to the reason of each, "" where its own times say it.
        sources: for building.
    """
    reasons = {
        name: _reason(name, trial, why, result.plan.plan, sources)
        for trial in trials
        for name in trial.sites
    }
    forms = {
        name: Dense() if name in reasons else form
        for name, form in result.plan.plan.forms.items()
    }
    plan = replace(result.plan.plan, forms=forms)
    planned = replace(
        result.plan,
        plan=plan,
        reasons={**result.plan.reasons, **reasons},
        reverted=(*result.plan.reverted, *reasons),
    )
    fitted = {name: fit for name, fit in result.fitted.items() if name not in reasons}

    def built(terms: Mapping[str, Fitted]) -> Built:
        s = sources
        return assembled(s.ready, planned, terms, s.profile, s.options, s.work, s.clock)

    made = built(fitted)
    is_near = made.fidelity.sqnr_db >= result.fidelity.sqnr_db - NEARER_DB
    if is_near or not fitted or not sources.ready.fit_feeds:
        return made
    s = sources
    refitted = fits_in_its_way(s.ready, plan, s.moments, s.options, s.clock)
    again = built(refitted)
    # the same file holds the last that was built
    return again if again.fidelity.sqnr_db > made.fidelity.sqnr_db else built(fitted)


def _reason(name: str, trial: Trial, why: str, plan: Plan, sources: Sources) -> str:
    """Both times, what was promised, and the form that lost."""
    form = plan.form(name)
    if not any(trial.before):  # it never ran, or could not be timed alone
        return f"{text(form)} went back; {why}"
    site = next(site for site in sources.ready.sites if site.name == name)
    said = None if sources.found is None else sources.found.of(site, form)
    promised = "" if said is None else f" (predicted {said.seconds * 1e6:.3g})"
    shared = f", with {len(trial.sites) - 1} that share it" if len(trial.sites) > 1 else ""
    told = (
        f"measured {microseconds(trial.measured_ms)}{promised}, dense "
        f"{microseconds(trial.dense_ms)}{shared}: {text(form)} went back"
    )
    return f"{told}; {why}" if why else told


def microseconds(milliseconds: float) -> str:
    """A time for people.

    Example:
        >>> microseconds(0.0413)
        '41.3 us'
    """
    return f"{milliseconds * 1e3:.3g} us"
