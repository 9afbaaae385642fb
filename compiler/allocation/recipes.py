"""Recipes: from one knob to the form of every layer, and the fits that go with them."""

from collections.abc import Mapping
from pathlib import Path

from ...device_profiles.profile import DeviceProfile
from ...passes.model import Model
from ...passes.plan import Plan
from ..clock import Clock
from ..fitting.fit import Fitted
from ..fitting.moments import Moments
from ..fitting.ranks_fit import nearest_fit
from ..options import CompileOptions
from ..prepare import Ready
from .bits_recipe import bits_fitted, bits_planned, narrowed
from .budget import codes_are_asked
from .planned import Planned
from .train_recipe import train_plan


def recipe_plan(
    ready: Ready,
    moments: Mapping[str, Moments],
    profile: DeviceProfile,
    options: CompileOptions,
    folder: Path,
    clock: Clock,
) -> Planned:
    """The plan of `quantize`, `additive` or `tt-sparse` for its knob.

    Args:
        ready: with sites, and the samples of the fit.
        moments: of what the sites read; empty without calibration.
        profile: the target.
        options: with `bits` or `size`.
        folder: where measurements are kept for --resume.
        clock: hears every step.
    """
    if options.recipe == "tt-sparse":
        with clock.stage("allocate"):
            return train_plan(ready.sites, ready.skipped, options, moments)
    return bits_planned(ready, moments, profile, options, folder, clock)


def recipe_fits(
    ready: Ready,
    plan: Plan,
    moments: Mapping[str, Moments],
    options: CompileOptions,
    clock: Clock,
) -> Mapping[str, Fitted]:
    """The terms of such a plan, each layer behind those before it where inputs are known."""
    if options.recipe == "tt-sparse":
        with clock.stage("fit", f"{len(plan.changed)} layers"):
            return nearest_fit(ready, plan, moments, clock, jobs=options.jobs)
    return bits_fitted(ready, plan, moments, options, clock)


def as_counted(model: Model, profile: DeviceProfile, options: CompileOptions) -> Model:
    """The rewritten model with its other floats stored as a budget of bits counted them."""
    is_counted = codes_are_asked(options) and options.recipe != "tt-sparse"
    return narrowed(model, profile) if is_counted else model
