"""The compile: ingest, normalise, allocate, fit, rewrite, prove, measure, write.

One way, no back edges: every stage is a function of what the stages before it returned.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from ..device_profiles.profile import DeviceProfile
from ..device_profiles.registry import load
from .allocation.budget import budget, check_budget, is_asked, reads_samples
from .allocation.planning import (
    SAFE_ERRORS,
    has_time_budget,
    is_cautious,
    is_close,
    needs_times,
    surveyed,
)
from .allocation.ranks import measured_surveys
from .build import Built, built, chosen, in_half, moments_of, stored_dense
from .clock import Clock
from .costs import Costs, costs, predicted, timed
from .engines import Engines, engines
from .events import Event, Listener, silent
from .keeping.aim import aimed
from .keeping.restore import Sources
from .measure import Measured
from .options import CompileOptions
from .outcome import Gated, Outcome, Quality
from .prepare import Ready, Source, count_nodes, prepared
from .quality.gate import check_gate, gate_of
from .quality.gated import concluded, searched
from .quality.judge import judge_of
from .quality.levels import first_asked
from .quality.metric import metric_asked
from .rows import other_bits, other_floats, rows
from .slower import predicted_slower
from .work import Work, open_work
from .writing import artifact as artifacts
from .writing.alternatives import weighed
from .writing.artifact import Artifact, inputs, write_artifact
from .writing.output import check_output


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
    check_gate(options)
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
    metric = metric_asked(options)
    begun = first_asked(options, profile)
    ready = prepared(source, profile, options, work, example_inputs, clock)
    judge = None if options.dry_run else judge_of(ready, options, metric, clock)
    found = _costs(ready, profile, begun, clock)
    seen = moments_of(ready, options, work, clock)
    with clock.stage("survey", f"{len(ready.sites)} layers"):
        surveys = surveyed(ready.sites, profile, begun, on_event, seen)
        if found is not None:
            surveys = timed(surveys, ready.sites, found)
    if surveys and is_asked(begun) and options.objective != "blockwise":
        asked = budget(begun, profile, found)
        surveys = measured_surveys(ready, surveys, seen, asked.quantity, clock)
    sources = Sources(ready, surveys, seen, found, profile, options, work, clock)
    if options.dry_run:
        plan = chosen(ready, surveys, seen, found, profile, begun, work, clock, SAFE_ERRORS[0])
        return artifacts.planned(_outcome(ready, Built(plan), profile, options, clock, found))

    def bolder(more: CompileOptions, folder: Work) -> Built:
        return _built(replace(sources, options=more, work=folder))

    search = searched(sources, judge) if judge is not None and judge.is_gate else None
    if search is None:
        result = _built(sources)
    else:
        result, sources = search.built, replace(sources, options=search.options)
    again = bolder if search is None else None
    result, latency = aimed(result, sources, options, again)
    assert result.model is not None, "a model was built"
    quality, gate = (None, None) if judge is None else concluded(judge, search, result)
    with clock.stage("engine"):
        made = engines(
            work.path, result.model, result.compiled, profile, ready.feeds, clock.on_event
        )
    outcome = _outcome(
        ready, result, profile, options, clock, found, latency, made, quality, gate
    )
    with clock.stage("write", str(options.output)):
        return write_artifact(
            work.path,
            outcome,
            compiled=result.compiled,
            plan_json=result.plan.plan.dumps(),
            options=options,
            target=profile,
            source=source if isinstance(source, Path) else None,
            alternatives=weighed(
                ready.sites, result.plan.considered, result.plan.plan, found, result.left
            ).to_json(),
        )


def _built(s: Sources) -> Built:
    """The model that was asked for; with nothing asked, one whose outputs stay close."""

    def made(safe_error: float) -> Built:
        return built(
            s.ready,
            s.surveys,
            s.moments,
            s.found,
            s.profile,
            s.options,
            s.work,
            s.clock,
            safe_error,
        )

    result = made(SAFE_ERRORS[0])
    if is_cautious(s.options):
        for safe_error in SAFE_ERRORS[1:]:
            if not result.plan.plan.changed or is_close(result.fidelity):
                break
            result = made(safe_error)
    return in_half(s.ready, result, s.profile, s.work, s.clock)


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
            given=ready.given,
            threads=options.threads,
            measure=needs_times(options),
            on_case=lambda done, total: clock.on_event(
                Event("predict", done, total, "calibrating this machine, once")
            ),
        )


def _outcome(
    ready: Ready,
    result: Built,
    profile: DeviceProfile,
    options: CompileOptions,
    clock: Clock,
    found: Costs | None,
    latency: Measured | None = None,
    made: Engines | None = None,
    quality: Quality | None = None,
    gate: Gated | None = None,
) -> Outcome:
    plan = result.plan
    latency = latency or Measured(note="not measured: dry run")
    times = (latency.before, latency.after)
    layers = rows(
        ready.sites,
        ready.skipped,
        plan,
        result.fitted,
        times,
        found,
        result.lowerings,
        result.left,
    )
    changed = len(plan.plan.changed)
    asked_for_none = options.recipe == "none"
    before_after = (
        None if found is None else predicted(found, ready.sites, plan.plan, result.left)
    )
    undone = list(plan.undone)
    calibrated = any(entry.error_out is not None for entry in result.fitted.values())
    calibrated = calibrated or (reads_samples(options) and bool(ready.fit_feeds))
    if changed and not asked_for_none and not calibrated:
        undone.append(
            f"fits to what the layers see: {_blind(options)} the weights alone are fitted, so "
            "judge the task's own quality before use"
        )
    if gate is not None and gate.reason:
        undone.append(gate.reason)
    if options.dry_run and (asked_gate := gate_of(options)) is not None:
        undone.append(f"judging whether {asked_gate.text} holds: that wants models")
    is_met = plan.budget_met and (gate is None or gate.is_met)
    if plan.reverted and not changed:
        code = 0 if options.allow_noop else 7
    elif not is_met:
        code = 4
    elif changed or asked_for_none or options.allow_noop:
        code = 0
    elif has_time_budget(options) and before_after is not None and before_after.exact > 1:
        code = 0  # exact rewriting alone is fast enough
    else:
        code = 7
    made = made or Engines()
    if made.facts is None and made.note and not made.failed:
        undone.append(made.note)
    if made.failed and code == 0:
        code = 6
    told = (result.model or ready.model).warnings
    slower = predicted_slower(found, ready.sites, plan.plan, profile, options, result.left)
    slower = slower if latency.paired is None else ()  # the clock knows better
    others = other_floats(ready.model, layers)
    with_delta = {n for n, entry in result.fitted.items() if entry.bias_delta is not None}
    rebiased = [site for site in ready.sites if site.name in with_delta]
    return Outcome(
        model_name=ready.model.name,
        model_sha256=ready.model.sha256,
        target=profile.name,
        recipe=options.recipe if options.plan is None else "plan",
        calibrated=calibrated,
        layers=layers,
        reference_bytes=_bytes(ready.original),
        compressed_bytes=_bytes(result.compiled) if result.model is not None else 0,
        nodes_reference=ready.nodes_reference,
        nodes_compressed=count_nodes(result.model or ready.model),
        fidelity=result.fidelity,
        latency=latency.paired,
        latency_note=latency.note,
        compile_seconds=dict(clock.seconds),
        objective="" if asked_for_none or options.plan is not None else options.objective,
        objective_value=plan.objective_value,
        budget=plan.budget,
        budget_met=is_met,
        budget_used=plan.budget_used,
        gap=plan.gap,
        undone=tuple(undone),
        warnings=(
            *told,
            *stored_dense(result.lowerings),
            *slower,
            *result.fidelity.warnings,
            *made.warnings,
            *((made.note,) if made.failed else ()),
        ),
        exit_code=code,
        predicted=before_after,
        engine=made.note if made.facts is not None else "",
        other_floats=others,
        other_bits=other_bits(result.model or ready.model, rebiased, others),
        quality=quality,
        gate=gate,
    )


def _blind(options: CompileOptions) -> str:
    """Why no fit saw an input."""
    return "without --calib" if options.calib is None else "as its recipe was published"


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
