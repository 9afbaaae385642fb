"""The TensorRT side of a compile: a real engine where one can be built here, a parser's word.

For TensorRT-RTX the engine is part of the artifact. For the other TensorRT targets, whose own
library runs on the board alone, the parser of TensorRT-RTX is a second opinion: what it says
is told as such and refuses nothing.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..device_profiles.errors import EngineBuildFailed, MissingExtra
from ..device_profiles.profile import DeviceProfile
from ..passes.model import Model
from ..passes.names import originals
from ..passes.precision import in_half
from ..runtime.tensorrt.facts import EngineFacts, Precision, Sizes
from .events import Event, Listener, silent
from .half import wants_half
from .samples.inputs import Feeds
from .writing.save import write

FOLDER, ENGINE, FACTS = "engines", "model.plan", "build.json"
OWN = "TensorRT-RTX parser"
SECOND_OPINION = f"{OWN} (not the device's own)"
_TURING = "7.5"


@dataclass(frozen=True)
class Engines:
    """What became of the engine.

    Args:
        note: one line for people; "" where the device has none to build.
        facts: of the engine that was built; its path is relative to the artifact.
        warnings: a parser's second opinion.
        failed: whether the device's own builder refused the model.
    """

    note: str = ""
    facts: EngineFacts | None = None
    warnings: tuple[str, ...] = ()
    failed: bool = False


def engines(
    work: Path,
    model: Model,
    compiled: Path,
    profile: DeviceProfile,
    feeds: Sequence[Feeds],
    on_event: Listener = silent,
) -> Engines:
    """Builds the device's engine into `work`/engines/<fingerprint>, or asks a parser.

    Nothing is raised: without an engine the compiled model is still worth having. A device
    without TensorRT has nothing to do.

    Args:
        work: folder whose engines/ goes into the artifact.
        model: as compiled; --shape gives the profile of its free axes.
        compiled: its file.
        profile: the device.
        feeds: samples; their sizes are the profile where no --shape was given.
        on_event: hears every step.
    """
    shutil.rmtree(work / FOLDER, ignore_errors=True)  # of an interrupted compile
    if profile.runtime != "tensorrt":
        return Engines()
    if profile.parser != "tensorrt-rtx":
        return Engines(warnings=second_opinion(model, compiled, on_event))
    from ..runtime.tensorrt import rtx

    library = rtx()
    if library is None:
        return Engines(note="engine not built: pip install 'nncc[rtx]'")
    shapes, guessed = build_shapes(model, feeds)
    try:
        facts, left_out = _built(work, compiled, profile, shapes, on_event)
    except MissingExtra as error:
        return Engines(note=f"engine not built: {error}")
    except EngineBuildFailed as error:
        why = f"{error.what}{'; ' + error.hint if error.hint else ''}"
        if guessed:  # the sizes may be at fault, and they are ours
            why += f"; the sizes of {', '.join(guessed)} were guessed: give --shape"
        return Engines(note=f"engine not built: {why}", failed=not guessed)
    for_devices = ", ".join(facts.capabilities)
    note = (
        f"engine: {facts.bytes:,} bytes for sm {for_devices} by {library.title} in "
        f"{facts.path.as_posix()}"
    )
    if guessed:
        given = ", ".join(f"{n}:{'x'.join(map(str, shapes[n][1]))}" for n in guessed)
        note += f"; it takes {given} alone (give --shape NAME:MIN:OPT:MAX for more)"
    return Engines(note + left_out, facts)


def second_opinion(
    model: Model, path: Path, on_event: Listener = silent, *, whose: str = SECOND_OPINION
) -> tuple[str, ...]:
    """What TensorRT-RTX's parser would refuse, a line each; none where it is not installed.

    Args:
        model: for the names that nodes had in the file.
        path: the model's file.
        on_event: hears every step.
        whose: what to call the parser.
    """
    from ..runtime.tensorrt import parse, rtx

    library = rtx()
    if library is None:
        return ()
    on_event(Event("parse", 0, 0, library.title))
    try:
        report = parse(path, library=library)
    except (EngineBuildFailed, MissingExtra) as error:
        return (f"{whose}: {error.what}",)
    named = originals(model.graph_model)
    return tuple(
        f"{whose}: {named.get(found.node, found.node) or 'the model'} ({found.op}): "
        f"{found.reason}"
        for found in report.findings
    )


def parser_warnings(
    model: Model, profile: DeviceProfile, folder: Path, on_event: Listener = silent
) -> tuple[str, ...]:
    """What a real parser says of a model in flight, before any work.

    In the precision that the device's graph is written in. Nothing where the device has no
    TensorRT, or TensorRT-RTX is not installed.

    Args:
        model: legal on the device.
        profile: the device.
        folder: where a file may be written.
        on_event: hears every step.
    """
    from ..runtime.tensorrt import rtx

    if profile.runtime != "tensorrt" or rtx() is None:
        return ()
    if wants_half(profile):
        model = in_half(model)
    path = folder / "asked.onnx"
    write(model, path)
    whose = OWN if profile.parser == "tensorrt-rtx" else SECOND_OPINION
    return second_opinion(model, path, on_event, whose=whose)


def build_shapes(
    model: Model, feeds: Sequence[Feeds]
) -> tuple[dict[str, Sizes], tuple[str, ...]]:
    """Minimum, optimum and maximum of every input with a free axis, and those guessed.

    What --shape gave; else the sizes of the first sample, for all three.
    """
    found: dict[str, Sizes] = {}
    guessed: list[str] = []
    for value in model.graph_model.graph.inputs:
        name = str(value.name)
        if value.shape is not None and all(isinstance(size, int) for size in value.shape):
            continue
        asked = model.shapes.get(name)
        if asked is not None:
            found[name] = (asked.minimum, asked.optimum, asked.maximum)
        elif feeds and name in feeds[0]:
            sizes = tuple(int(size) for size in feeds[0][name].shape)
            found[name] = (sizes, sizes, sizes)
            guessed.append(name)
    return found, tuple(guessed)


def _built(
    work: Path,
    compiled: Path,
    profile: DeviceProfile,
    shapes: Mapping[str, Sizes],
    on_event: Listener,
) -> tuple[EngineFacts, str]:
    """The engine in its folder, and a word on the cards it had to leave out."""
    capabilities = profile.compute_capabilities
    try:
        return _one(work, compiled, profile, shapes, capabilities, on_event), ""
    except EngineBuildFailed as error:
        others = tuple(c for c in capabilities if c != _TURING)
        if "SM75" not in error.what or not others or others == capabilities:
            raise
        facts = _one(work, compiled, profile, shapes, others, on_event)
        return facts, f"; not for sm {_TURING}: {error.what}"


def _one(
    work: Path,
    compiled: Path,
    profile: DeviceProfile,
    shapes: Mapping[str, Sizes],
    capabilities: Sequence[str],
    on_event: Listener,
) -> EngineFacts:
    from ..runtime.tensorrt import build_engine, fingerprint, needed, rtx

    library = needed(rtx(), "build an engine")
    precision: Precision = profile.lowering.graph_precision
    mark = fingerprint(compiled, library, precision, shapes, capabilities)
    folder = work / FOLDER / mark
    folder.mkdir(parents=True, exist_ok=True)
    try:
        facts = build_engine(
            compiled,
            folder / ENGINE,
            precision=precision,
            shapes=shapes,
            capabilities=capabilities,
            library=library,
            on_event=lambda text: on_event(Event("engine", 0, 0, text)),
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    facts = dataclasses.replace(facts, path=Path(FOLDER, mark, ENGINE))
    (folder / FACTS).write_text(_json(facts), encoding="utf-8", newline="\n")
    return facts


def _json(facts: EngineFacts) -> str:
    """build.json: the facts but for the time, so that equal builds are equal bytes."""
    fields = {k: v for k, v in dataclasses.asdict(facts).items() if k != "seconds"}
    fields["path"] = facts.path.as_posix()
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"
