"""Build: plan, fit, lower, rewrite and prove a model, once."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..device_profiles.errors import Postcondition
from ..device_profiles.profile import DeviceProfile
from ..passes.forms import ColumnsTerm, FiltersTerm
from ..passes.half_arithmetic import in_float_arithmetic
from ..passes.load_memory import too_much
from ..passes.lowering import Lowering, lowering, runs_dense
from ..passes.model import Model
from ..passes.packed import DOMAIN
from ..passes.plan import Plan
from ..passes.removal.left import NOTHING_GONE, Left, left_of
from ..passes.rewrite import compress_weights
from ..passes.sites import Site
from .allocation.budget import codes_are_asked
from .allocation.planned import Planned
from .allocation.planning import planned
from .allocation.recipes import as_stored, fits_in_its_way, recipe_plan, with_way
from .allocation.survey import Survey, are_measured
from .clock import Clock
from .costs import Costs
from .events import Event
from .fitting.fit import Fitted
from .fitting.moments import Moments, collect
from .half import halved, wants_half
from .int8 import in_int8
from .options import CompileOptions
from .outcome import Fidelity
from .prepare import Ready
from .proving.prove import prove, structural_checks
from .work import Work
from .writing.save import write

RUNTIME_DOMAINS = {"onnxruntime": (DOMAIN,)}
"""Operator domains that a runtime has beside the standard one."""
NOT_PROVEN = Fidelity("synthetic", 0, math.inf, None, 0.0, {})


@dataclass(frozen=True)
class Built:
    """A compiled model and how it was made; of a dry run, the plan alone.

    Args:
        plan: what was to be done.
        fitted: the term of every changed site.
        lowerings: how each was lowered.
        compiled: file of the compiled model.
        model: the compiled model; None in a dry run.
        fidelity: how close its outputs are.
        left: the channels that are left of it, where filters went.
        rounded: file of the same model in float32 arithmetic with float16's rounding, where
            `compiled` is in float16.
    """

    plan: Planned
    fitted: Mapping[str, Fitted] = field(default_factory=dict[str, Fitted])
    lowerings: Mapping[str, Lowering] = field(default_factory=dict[str, Lowering])
    compiled: Path = Path()
    model: Model | None = None
    fidelity: Fidelity = NOT_PROVEN
    left: Left = NOTHING_GONE
    rounded: Path | None = None

    @property
    def judged(self) -> Path:
        """The file that its outputs are judged by on this machine."""
        return self.rounded or self.compiled


def moments_of(
    ready: Ready, options: CompileOptions, work: Work, clock: Clock
) -> Mapping[str, Moments]:
    """What the layers read in the calibration inputs; nothing where none were given."""
    if not ready.fit_feeds or options.recipe == "none":
        return {}
    with clock.stage("moments", f"{len(ready.fit_feeds)} samples"):
        return collect(
            ready.written,
            ready.fit_feeds,
            ready.sites,
            jobs=options.jobs,
            folder=work.path / "moments",
            on_sample=lambda done, total: clock.on_event(Event("moments", done, total)),
        )


def built(
    ready: Ready,
    surveys: Sequence[Survey],
    moments: Mapping[str, Moments],
    found: Costs | None,
    profile: DeviceProfile,
    options: CompileOptions,
    work: Work,
    clock: Clock,
    safe_error: float,
) -> Built:
    """Plan, fit, lower, rewrite and prove, once."""
    plan = chosen(ready, surveys, moments, found, profile, options, work, clock, safe_error)
    fitted = fits_in_its_way(ready, plan.plan, moments, options, clock)
    return assembled(ready, plan, fitted, profile, options, work, clock)


def assembled(
    ready: Ready,
    plan: Planned,
    fitted: Mapping[str, Fitted],
    profile: DeviceProfile,
    options: CompileOptions,
    work: Work,
    clock: Clock,
) -> Built:
    """Lower, rewrite and prove: the model of a plan and its terms."""
    with clock.stage("rewrite"):
        lowerings = lowered(ready, plan.plan, fitted, profile)
        model = _rewritten(ready, plan.plan, fitted, lowerings)
        left = _left(ready.model, model, fitted)
        model = as_stored(model, plan.plan, profile)
        compiled = work.path / "compiled.onnx"
        write(model, compiled)
    model = in_int8(model, compiled, plan.plan, ready.fit_feeds, profile, options, clock).model
    with clock.stage("prove", f"{len(ready.feeds)} {ready.kind} inputs"):
        _check_structure(ready.original, compiled, profile)
        fidelity = prove(
            ready.original,
            compiled,
            ready.feeds,
            ready.kind,
            on_sample=lambda done, total: clock.on_event(Event("prove", done, total)),
        )
    return Built(plan, fitted, lowerings, compiled, model, fidelity, left)


def chosen(
    ready: Ready,
    surveys: Sequence[Survey],
    moments: Mapping[str, Moments],
    found: Costs | None,
    profile: DeviceProfile,
    options: CompileOptions,
    work: Work,
    clock: Clock,
    safe_error: float,
) -> Planned:
    """The form of every layer: by a recipe of its own, or by allocation."""
    if codes_are_asked(options):
        made = recipe_plan(ready, moments, found, profile, options, work.path, clock)
    else:
        with clock.stage("allocate"):
            made = planned(
                ready.sites, ready.skipped, surveys, profile, options, safe_error, found
            )
    return with_way(made, profile, options, is_measured=are_measured(surveys))


def lowered(
    ready: Ready, plan: Plan, fitted: Mapping[str, Fitted], profile: DeviceProfile
) -> dict[str, Lowering]:
    """How every changed site is lowered, within the memory that loading may take.

    Where unfolding all of them would take too much, the ones that leave most behind are
    stored dense until it does not.
    """
    sites = [site for site in ready.sites if site.name in fitted]
    ways = {
        site.name: lowering(
            site,
            fitted[site.name].term,
            ready.model,
            profile,
            is_executed=not runs_dense(plan.form(site.name), site),
        )
        for site in sites
    }
    dense = sum(_weights_once(ready.sites))
    folded = sorted(
        (site.name for site in sites if ways[site.name].way == "folded"),
        key=lambda name: (ways[name].temporary_bytes, name),
    )
    while folded:
        objection = too_much(dense, sum(ways[n].temporary_bytes for n in folded), profile)
        if not objection:
            break
        ways[folded.pop()] = Lowering("dense", f"stored dense: {objection}")
    return ways


def stored_dense(lowerings: Mapping[str, Lowering]) -> tuple[str, ...]:
    """What a person should know of layers that save no bytes, a line a reason."""
    reasons = Counter(way.reason for way in lowerings.values() if way.way == "dense")
    return tuple(
        f"{count} of {len(lowerings)} changed layers are {reason}; their bits are counted, "
        "not saved in model.onnx"
        for reason, count in sorted(reasons.items())
        if reason
    )


def in_half(
    ready: Ready, result: Built, profile: DeviceProfile, work: Work, clock: Clock
) -> Built:
    """In float16 and proven once more, where the device's graph is written in it."""
    if not wants_half(profile) or result.model is None:
        return result
    with clock.stage("precision"):
        model = halved(result.model, result.compiled, ready.feeds)
        compiled, rounded = work.path / "half.onnx", work.path / "rounded.onnx"
        write(model, compiled)
        write(in_float_arithmetic(model), rounded)
        _check_structure(ready.original, compiled, profile)
        fidelity = prove(ready.original, rounded, ready.feeds, ready.kind)
    return replace(result, model=model, compiled=compiled, fidelity=fidelity, rounded=rounded)


def _rewritten(
    ready: Ready,
    plan: Plan,
    fitted: Mapping[str, Fitted],
    lowerings: Mapping[str, Lowering],
) -> Model:
    if not fitted:
        return ready.model
    deltas = {
        name: entry.bias_delta
        for name, entry in fitted.items()
        if entry.bias_delta is not None
    }
    terms = {name: entry.term for name, entry in fitted.items()}
    return compress_weights(ready.model, plan, terms, lowerings, deltas, ready.shapes)


def _left(before: Model, after: Model, fitted: Mapping[str, Fitted]) -> Left:
    """The channels that are left where terms take filters out of the graph."""
    terms = (entry.term for entry in fitted.values())
    if not any(isinstance(term, ColumnsTerm | FiltersTerm) for term in terms):
        return NOTHING_GONE
    return left_of(before, after)


def _weights_once(sites: Sequence[Site]) -> list[int]:
    """Bytes of every weight, each once, in float32."""
    return list({site.weight_name: 4 * site.weights for site in sites}.values())


def _check_structure(original: Path, compiled: Path, profile: DeviceProfile) -> None:
    problems = structural_checks(
        original,
        compiled,
        profile.max_opset,
        profile.max_ir_version,
        domains=RUNTIME_DOMAINS.get(profile.runtime, ()),
    )
    if problems:
        raise Postcondition(
            f"the compiled model broke {len(problems)} promises: {'; '.join(problems)}",
            where="rewrite",
            hint="this is a bug of nncc: please report it with the model",
        )
