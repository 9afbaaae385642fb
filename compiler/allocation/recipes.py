"""Recipes: from one knob to the form of every layer, and the fits that go with them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...device_profiles.profile import DeviceProfile
from ...passes.model import Model
from ...passes.plan import Fit, Plan
from ..clock import Clock
from ..costs import Costs
from ..events import Event
from ..fitting.fit import Fitted, fit
from ..fitting.moments import Moments
from ..fitting.ranks_fit import nearest_fit
from ..options import CompileOptions
from ..prepare import Ready
from .baselines.recipe import baseline_plan, pruned_fits
from .bits_recipe import bits_fitted, bits_planned, narrowed, stores_half
from .budget import codes_are_asked, is_baseline, is_given, mixed_is_asked
from .mixed_plan import mixed_plan
from .planned import Planned
from .train_recipe import train_plan


def recipe_plan(
    ready: Ready,
    moments: Mapping[str, Moments],
    costs: Costs | None,
    profile: DeviceProfile,
    options: CompileOptions,
    folder: Path,
    clock: Clock,
) -> Planned:
    """The plan of `quantize`, `additive` or `tt-sparse` for its knob, or of `auto`.

    Args:
        ready: with sites, and the samples of the fit.
        moments: of what the sites read; empty without calibration.
        costs: predicted times, where the target has a cost model.
        profile: the target.
        options: with a budget.
        folder: where measurements are kept for --resume.
        clock: hears every step.
    """
    if mixed_is_asked(options):
        return mixed_plan(ready, moments, costs, profile, options, clock)
    if is_baseline(options):
        return baseline_plan(ready, moments, options, clock)
    if options.recipe == "tt-sparse":
        with clock.stage("allocate"):
            return train_plan(ready.sites, ready.skipped, options, moments)
    return bits_planned(ready, moments, profile, options, folder, clock)


def with_way(
    planned: Planned,
    profile: DeviceProfile,
    options: CompileOptions,
    *,
    is_measured: bool,
) -> Planned:
    """The plan with how its recipe fits and stores, so that plan.json repeats all of it.

    Args:
        planned: by a recipe or an allocation; one that was given says so itself.
        profile: the target.
        options: as resolved.
        is_measured: whether the effect of candidates on the outputs was measured.
    """
    if is_given(options):
        return planned
    way: Fit = "nearest" if is_measured else "apart"
    if is_baseline(options):  # as published: PCA alone fits to what layers see
        way = "apart" if options.recipe == "pca" else "weights"
    elif mixed_is_asked(options) or options.recipe == "tt-sparse":
        way = "nearest"
    elif codes_are_asked(options):
        way = "in turn"
    way = way if options.calib is not None else "apart"  # there is but one way
    is_stored = options.bits is not None or options.size is not None
    is_counted = codes_are_asked(options) and is_stored and options.recipe != "tt-sparse"
    halves = is_counted and not is_baseline(options) and stores_half(profile)
    return replace(planned, plan=replace(planned.plan, fit=way, halves=halves))


def fits_in_its_way(
    ready: Ready,
    plan: Plan,
    moments: Mapping[str, Moments],
    options: CompileOptions,
    clock: Clock,
) -> Mapping[str, Fitted]:
    """The terms of a plan, fitted as it says."""
    if is_baseline(options) and options.recipe in ("ft", "pfp"):
        return pruned_fits(ready, plan, options, clock)
    if plan.fit == "in turn":
        return bits_fitted(ready, plan, moments, options, clock)
    with clock.stage("fit", f"{len(plan.changed)} layers"):
        if plan.fit == "nearest":
            return nearest_fit(ready, plan, moments, clock, jobs=options.jobs)
        return fit(
            ready.sites,
            plan,
            {} if plan.fit == "weights" else moments,
            jobs=options.jobs,
            on_done=lambda done, total, name: clock.on_event(Event("fit", done, total, name)),
        )


def as_stored(model: Model, plan: Plan, profile: DeviceProfile) -> Model:
    """The rewritten model with its other floats stored as a budget of bits counted them."""
    return narrowed(model, profile) if plan.halves else model
