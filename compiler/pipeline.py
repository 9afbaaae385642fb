"""The compile: ingest, normalise, allocate, fit, rewrite, prove, measure, write.

One way, no back edges: every stage is a function of what the stages before it returned.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from ..device_profiles.errors import Postcondition
from ..device_profiles.profile import DeviceProfile
from ..device_profiles.registry import load
from ..passes.half_arithmetic import in_float_arithmetic
from ..passes.model import Model
from ..passes.rewrite import compress_weights
from .budget import check_budget
from .clock import Clock
from .costs import Costs, costs, predicted, timed
from .engines import Engines, engines
from .events import Event, Listener, silent
from .fit import Fitted, fit
from .half import halved, wants_half
from .measure import Measured, measured
from .options import CompileOptions
from .outcome import Fidelity, Outcome
from .planning import (
    SAFE_ERRORS,
    Planned,
    is_cautious,
    is_close,
    needs_times,
    planned,
    surveyed,
)
from .prepare import Ready, Source, count_nodes, prepared
from .proving.prove import prove, structural_checks
from .rows import rows
from .survey import Survey
from .work import Work, open_work
from .writing import artifact as artifacts
from .writing.artifact import Artifact, inputs, write_artifact
from .writing.output import check_output
from .writing.save import write


def compile(  # noqa: A001  the name of the job
    source: Source,
    target: str,
    options: CompileOptions | None = None,
    *,
    example_inputs: tuple[Any, ...] | None = None,
    on_event: Listener = silent,
) -> Artifact:
    """The artifact of a model for a target.

    Args:
        source: a file, a model in memory, or a torch module.
        target: name of a device profile.
        options: what is asked; the defaults where None.
        example_inputs: positional inputs of a torch module.
        on_event: hears every step.

    Raises:
        NnccError: with the exit code of its kind; nothing is written then.
        KeyboardInterrupt: the work folder stays, `resume` goes on from it.
    """
    options = options or CompileOptions()
    check_budget(options)
    profile = load(target)
    path = source if isinstance(source, Path) else None
    if not options.dry_run:
        check_output(options.output, options.force, keep=inputs(options, path))
    work = open_work(options, target, _identity(source))
    try:
        artifact = _compiled(source, profile, options, work, example_inputs, on_event)
    except KeyboardInterrupt:
        if options.dry_run:
            work.close()
        raise  # what was done stays for --resume
    except BaseException:
        work.close()
        raise
    work.close()
    return artifact


def _compiled(
    source: Source,
    profile: DeviceProfile,
    options: CompileOptions,
    work: Work,
    example_inputs: tuple[Any, ...] | None,
    on_event: Listener,
) -> Artifact:
    clock = Clock(on_event=on_event)
    ready = prepared(source, profile, options, work, example_inputs, clock)
    found = _costs(ready, profile, options, clock)
    with clock.stage("survey", f"{len(ready.sites)} layers"):
        surveys = surveyed(ready.sites, profile, options, on_event)
        if found is not None:
            surveys = timed(surveys, ready.sites, found)
    if options.dry_run:
        with clock.stage("allocate"):
            plan = planned(ready.sites, ready.skipped, surveys, profile, options, costs=found)
        built = _Built(plan)
        return artifacts.planned(_outcome(ready, built, profile, options, clock, found))
    built = _built(ready, surveys, found, profile, options, work, clock, SAFE_ERRORS[0])
    if is_cautious(options):
        for safe_error in SAFE_ERRORS[1:]:
            if not built.plan.plan.changed or is_close(built.fidelity):
                break
            built = _built(ready, surveys, found, profile, options, work, clock, safe_error)
    built = _in_half(ready, built, profile, work, clock)
    assert built.model is not None, "a model was built"
    with clock.stage("engine"):
        made = engines(
            work.path, built.model, built.compiled, profile, ready.feeds, clock.on_event
        )
    latency = measured(ready, built.compiled, profile, options, work, clock)
    outcome = _outcome(ready, built, profile, options, clock, found, latency, made)
    with clock.stage("write", str(options.output)):
        return write_artifact(
            work.path,
            outcome,
            compiled=built.compiled,
            plan_json=built.plan.plan.dumps(),
            options=options,
            target=profile,
            source=source if isinstance(source, Path) else None,
        )


def _costs(
    ready: Ready, profile: DeviceProfile, options: CompileOptions, clock: Clock
) -> Costs | None:
    """Predicted times; this machine is calibrated where a plan leans on them."""
    with clock.stage("predict"):
        return costs(
            ready.model,
            ready.shapes,
            ready.sites,
            profile,
            threads=options.threads,
            measure=needs_times(options),
            on_case=lambda done, total: clock.on_event(
                Event("predict", done, total, "calibrating this machine, once")
            ),
        )


_NOT_PROVEN = Fidelity("synthetic", 0, math.inf, None, 0.0, {})


@dataclass(frozen=True)
class _Built:
    """A compiled model and how it was made; of a dry run, the plan alone."""

    plan: Planned
    fitted: Mapping[str, Fitted] = field(default_factory=dict[str, Fitted])
    compiled: Path = Path()
    model: Model | None = None
    fidelity: Fidelity = _NOT_PROVEN


def _built(
    ready: Ready,
    surveys: Sequence[Survey],
    found: Costs | None,
    profile: DeviceProfile,
    options: CompileOptions,
    work: Work,
    clock: Clock,
    safe_error: float,
) -> _Built:
    """Plan, fit, rewrite and prove, once."""
    with clock.stage("allocate"):
        plan = planned(
            ready.sites, ready.skipped, surveys, profile, options, safe_error, found
        )
    with clock.stage("fit", f"{len(plan.plan.changed)} layers"):
        fitted = fit(
            ready.sites,
            plan.plan,
            jobs=options.jobs,
            on_done=lambda done, total, name: clock.on_event(Event("fit", done, total, name)),
        )
    with clock.stage("rewrite"):
        terms = {name: entry.term for name, entry in fitted.items()}
        model = compress_weights(ready.model, plan.plan, terms) if terms else ready.model
        compiled = work.path / "compiled.onnx"
        write(model, compiled)
    with clock.stage("prove", f"{len(ready.feeds)} {ready.kind} inputs"):
        _check_structure(ready.original, compiled, profile)
        fidelity = prove(
            ready.original,
            compiled,
            ready.feeds,
            ready.kind,
            on_sample=lambda done, total: clock.on_event(Event("prove", done, total)),
        )
    return _Built(plan, fitted, compiled, model, fidelity)


def _in_half(
    ready: Ready, built: _Built, profile: DeviceProfile, work: Work, clock: Clock
) -> _Built:
    """In float16 and proven once more, where the device's graph is written in it."""
    if not wants_half(profile) or built.model is None:
        return built
    with clock.stage("precision"):
        model = halved(built.model, built.compiled, ready.feeds)
        compiled, rounded = work.path / "half.onnx", work.path / "rounded.onnx"
        write(model, compiled)
        write(in_float_arithmetic(model), rounded)
        _check_structure(ready.original, compiled, profile)
        fidelity = prove(ready.original, rounded, ready.feeds, ready.kind)
    return replace(built, model=model, compiled=compiled, fidelity=fidelity)


def _check_structure(original: Path, compiled: Path, profile: DeviceProfile) -> None:
    problems = structural_checks(original, compiled, profile.max_opset, profile.max_ir_version)
    if problems:
        raise Postcondition(
            f"the compiled model broke {len(problems)} promises: {'; '.join(problems)}",
            where="rewrite",
            hint="this is a bug of nncc: please report it with the model",
        )


def _outcome(
    ready: Ready,
    built: _Built,
    profile: DeviceProfile,
    options: CompileOptions,
    clock: Clock,
    found: Costs | None,
    latency: Measured | None = None,
    made: Engines | None = None,
) -> Outcome:
    plan = built.plan
    latency = latency or Measured(note="not measured: dry run")
    times = (latency.before, latency.after)
    layers = rows(ready.sites, ready.skipped, plan, built.fitted, times, found)
    changed = len(plan.plan.changed)
    asked_for_none = options.recipe == "none"
    undone = list(plan.undone)
    if changed and not asked_for_none:
        undone.append(
            "fits to what the layers see: this version fits weights alone, so judge the "
            "task's own quality before use (--calib compares outputs on real inputs)"
        )
    if not plan.budget_met:
        code = 4
    elif changed or asked_for_none or options.allow_noop:
        code = 0
    else:
        code = 7
    made = made or Engines()
    if made.facts is None and made.note and not made.failed:
        undone.append(made.note)
    if made.failed and code == 0:
        code = 6
    told = (built.model or ready.model).warnings
    return Outcome(
        model_name=ready.model.name,
        model_sha256=ready.model.sha256,
        target=profile.name,
        recipe=options.recipe if options.plan is None else "plan",
        calibrated=False,
        layers=layers,
        reference_bytes=_bytes(ready.original),
        compressed_bytes=_bytes(built.compiled) if built.model is not None else 0,
        nodes_reference=ready.nodes_reference,
        nodes_compressed=count_nodes(built.model or ready.model),
        fidelity=built.fidelity,
        latency=latency.paired,
        latency_note=latency.note,
        compile_seconds=dict(clock.seconds),
        objective="" if asked_for_none or options.plan is not None else options.objective,
        objective_value=plan.objective_value,
        budget=plan.budget,
        budget_met=plan.budget_met,
        budget_used=plan.budget_used,
        undone=tuple(undone),
        warnings=(
            *told,
            *built.fidelity.warnings,
            *made.warnings,
            *((made.note,) if made.failed else ()),
        ),
        exit_code=code,
        predicted=None if found is None else predicted(found, ready.sites, plan.plan),
        engine=made.note if made.facts is not None else "",
    )


def _bytes(path: Path) -> int:
    """Size of a model's file and of its external data."""
    data = path.with_name(path.name + ".data")
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def _identity(source: Source) -> str:
    """What tells one input from another before it is read; of a file: path, size, time."""
    if isinstance(source, Path) and source.exists():
        fact = source.stat()
        return f"{source.resolve()}:{fact.st_size}:{fact.st_mtime_ns}"
    if isinstance(source, onnx.ModelProto):
        return hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
    return f"{type(source).__name__}:{id(source)}"
