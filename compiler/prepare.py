"""Preparing: whatever was given becomes a normalised model with samples and sites."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import onnx
import onnx_ir as ir

from ..device_profiles.errors import UnsupportedOp
from ..device_profiles.profile import DeviceProfile
from ..passes.check import Finding
from ..passes.legalise import legalise
from ..passes.legalise.findings import remaining
from ..passes.legalise.narrow import narrow
from ..passes.model import Model
from ..passes.sites import Site, Skipped, find_sites
from .as_given import AsGiven, as_given, value_names
from .clock import Clock
from .options import CompileOptions
from .proving.legal import proven
from .proving.verify import ORIGINAL, verified_normalise
from .reading.ingest import ingest
from .samples.inputs import Feeds, calibration_inputs, split, synthetic_inputs
from .work import Work
from .writing.save import write

if TYPE_CHECKING:
    import torch

Source: TypeAlias = "Path | onnx.ModelProto | ir.Model | torch.nn.Module"
SYNTHETIC_SAMPLES = 8
MOST_SAMPLES = 64
"""Samples that outputs are compared on; more tell nothing new about a rewrite."""
ONE_SAMPLE = "a single calibration sample: layers are fitted to it and judged by it"


@dataclass(frozen=True)
class Ready:
    """A normalised, legalised model with what is needed to work on it.

    Args:
        model: normalised, and legal on the target.
        original: file of the original as the runtime reads it.
        feeds: samples no fit sees.
        fit_feeds: calibration samples for the fit; none where none were given.
        written: file of `model`.
        given: the model that times are relative to, where it is not `model`.
        kind: where they come from.
        sites, skipped: what can be compressed and what cannot.
        nodes_reference: nodes of the original.
        shapes: size of every value of the top-level graph, for one sample.
    """

    model: Model
    original: Path
    feeds: Sequence[Feeds]
    kind: Literal["calibration", "synthetic"]
    sites: Sequence[Site]
    skipped: Sequence[Skipped]
    nodes_reference: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    fit_feeds: Sequence[Feeds] = ()
    written: Path = Path()
    given: AsGiven | None = None


def prepared(
    source: Source,
    profile: DeviceProfile,
    options: CompileOptions,
    work: Work,
    example_inputs: tuple[Any, ...] | None,
    clock: Clock,
) -> Ready:
    """Ingest, sample inputs, normalise, legalise for the target, find the sites."""
    from ..runtime.probe import probe

    with clock.stage("ingest"):
        model = ingest(
            source, shapes=options.shape, example_inputs=example_inputs, workdir=work.path
        )
        nodes = count_nodes(model)
        original = work.path / ORIGINAL
        write(model, original)
    with clock.stage("inputs"):
        fit_feeds: Sequence[Feeds] = ()
        if options.calib is not None:
            given = calibration_inputs(options.calib, model)
            fit_feeds, feeds = split(given, options.seed)
            feeds = feeds[:MOST_SAMPLES]
            if len(given) == 1:
                model = model.warned(ONE_SAMPLE)
        else:
            feeds = synthetic_inputs(model, SYNTHETIC_SAMPLES, options.seed, path=original)
    loaded = model
    with clock.stage("normalise"):
        model, warnings = verified_normalise(model, work.path, feeds[:2])
        model = model.warned(*warnings)
    with clock.stage("legalise"):
        narrowed, unfit = narrow(model, profile)
        legalised = legalise(narrowed, profile)
        findings = remaining(legalised, profile, unfit)
        if findings:
            raise refusal(model, profile, findings)
        written = proven(legalised, work.path, feeds[:2], narrowed=narrowed is not model)
        model = legalised.model
        if legalised.changes:
            model = model.warned(legalised.summary)
    with clock.stage("find"):
        shapes = probe(written, feeds[0], value_names(model))
        sites, skipped = find_sites(model, shapes)
        given = as_given(loaded, feeds[0], profile.runtime, work.path)
    kind: Literal["calibration", "synthetic"] = "calibration" if options.calib else "synthetic"
    return Ready(
        model, original, feeds, kind, sites, skipped, nodes, shapes, fit_feeds, written, given
    )


def refusal(
    model: Model, profile: DeviceProfile, findings: Sequence[Finding]
) -> UnsupportedOp:
    """The error that names every node the target cannot take."""
    nodes = ", ".join(f"{f.node} ({f.op}: {f.reason})" for f in findings)
    return UnsupportedOp(
        f"{profile.name} cannot take {nodes}",
        where=model.name,
        hint=f"`nncc check MODEL -t {profile.name}` says what to do about each",
    )


def count_nodes(model: Model) -> int:
    """Nodes of the graph and of all bodies in it."""
    graph = model.graph_model.graph
    return len(graph) + sum(len(body) for body in graph.subgraphs())
