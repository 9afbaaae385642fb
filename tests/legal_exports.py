"""The real path from an export to what an old device reads, proven in ONNX Runtime."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from lowered import OLD, defined, relative, run
from nncc.compiler.prepare import count_nodes
from nncc.compiler.proving.verify import QUIET
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.samples.inputs import synthetic_inputs
from nncc.compiler.writing.save import write
from nncc.device_profiles.registry import load
from nncc.passes.legalise import legalise
from nncc.passes.legalise.findings import remaining
from nncc.passes.legalise.narrow import narrow
from nncc.passes.normalise import normalise

CLOSE = 1e-5
"""Largest difference of an output relative to its largest value, float32."""


@dataclass(frozen=True)
class Known:
    """A refusal that stands to reason.

    Args:
        names: nets, operators `group:name` or published models, blanks between.
        reason: part of what is said.
        targets: the profiles that refuse.
        exporters: whose files.
        dynamic: with which kinds of axes.
        since: from which opset on.
    """

    names: str
    reason: str
    targets: tuple[str, ...] = OLD
    exporters: tuple[str, ...] = ("torchscript", "dynamo", "")
    dynamic: tuple[bool, ...] = (False, True)
    since: int = 0


JP44, NANO, DYNAMIC = ("jetson-nano-jp44",), ("jetson-nano",), (True,)
_COUNTED = "the size of its result depends on values"
_COMPUTED = "scatters to computed places"
REFUSED = (
    Known("unet images:upsample_size_align", "its sizes are dynamic", JP44, dynamic=DYNAMIC),
    Known("indexing:assigned", _COMPUTED, JP44, dynamic=DYNAMIC),
    Known("indexing:index_put indexing:scatter indexing:scatter_add", _COMPUTED, JP44),
    Known("indexing:scatter_add", _COMPUTED, NANO, since=16),
    Known("indexing:mask_index indexing:masked_select", _COUNTED),
    Known("indexing:nonzero indexing:unique", _COUNTED),
    Known("indexing:sort", "K must be constant", dynamic=DYNAMIC),
    Known("images:max_pool_dilated", "MaxPool with dilations"),
    Known("images:upsample_antialias", "antialiases", dynamic=DYNAMIC),
    Known("arithmetic:bitwise_and", "no bitwise arithmetic on integers"),
    Known("arithmetic:bitwise_shift", "no bitwise arithmetic", exporters=("dynamo",)),
    Known("silero-vad-if silero-vad-half", "the parser has no branches", JP44),
)
"""What cannot be lowered, and why. ScatterElements adds by itself since opset 16."""


@dataclass(frozen=True)
class Proven:
    """What came of one export for one target.

    Args:
        before, after: nodes.
        difference: largest relative difference of an output; None where it was refused.
        refused: what stands against it, node and reason; empty where it is legal.
        changes: how many nodes were rewritten.
    """

    before: int
    after: int
    difference: float | None
    refused: tuple[str, ...] = ()
    changes: int = 0


def proven(
    source: onnx.ModelProto | Path, feeds: Mapping[str, np.ndarray] | None, target: str
) -> Proven:
    """Ingested, normalised, narrowed, legalised and checked; then run beside the original.

    Args:
        source: a model, or its file.
        feeds: inputs by name; None draws some.
        target: name of a profile.

    Raises:
        AssertionError: the written file is not valid ONNX of the device's versions, or its
            interface or outputs differ in shape or type.
    """
    device = load(target)
    proto = source if isinstance(source, onnx.ModelProto) else onnx.load(source)
    with tempfile.TemporaryDirectory() as folder:
        model = ingest(source, workdir=Path(folder))
        if feeds is None:
            feeds = synthetic_inputs(model, 1, seed=1)[0]
        before = count_nodes(model)
        narrowed, unfit = narrow(normalise(model), device)
        done = legalise(narrowed, device)
        left = remaining(done, device, unfit)
        told = [f"{f.node} ({f.op}: {f.reason})" for f in left]
        after = count_nodes(done.model)
        if told:
            return Proven(before, after, None, tuple(dict.fromkeys(told)), len(done.changes))
        path = Path(folder) / "legal.onnx"
        write(done.model, path)
        made = onnx.load(path)
    onnx.checker.check_model(made, full_check=True)
    assert made.opset_import[0].version <= device.max_opset
    assert made.ir_version <= device.max_ir_version
    assert [v.name for v in made.graph.input] == [v.name for v in proto.graph.input]
    assert [v.name for v in made.graph.output] == [v.name for v in proto.graph.output]
    pairs = zip(defined(proto, feeds), run(made, feeds), strict=True)
    difference = max((_relative(want, got) for want, got in pairs), default=0.0)
    return Proven(before, after, difference, (), len(done.changes))


def refusal(
    name: str, target: str, exporter: str = "", opset: int = 0, dynamic: bool = True
) -> str:
    """Why a model or an operator `group:name` is refused for a target; "" where it is not."""
    for known in REFUSED:
        here = name in known.names.split() and target in known.targets
        if here and exporter in known.exporters and dynamic in known.dynamic:
            return known.reason if opset >= known.since else ""
    return ""


def _relative(want: np.ndarray, got: np.ndarray) -> float:
    """As `relative`; outputs below QUIET are compared as if they were that large."""
    apart = relative(want, got)
    if want.dtype.kind != "f" or not want.size or not apart:
        return apart
    scale = float(np.abs(want[np.isfinite(want)]).max(initial=0.0))
    return apart * min(1.0, scale / QUIET)
