"""What a model or an artifact holds, read and not run."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..writing.artifact import Artifact, load_artifact, to_json
from ..writing.output import is_artifact
from .console import clip, printable, say, show_layers, summary

Size = int | str | None


@dataclass(frozen=True)
class Port:
    """An input or output: its name, element type and sizes (a name is a dynamic axis)."""

    name: str
    dtype: str
    shape: tuple[Size, ...] | None

    @property
    def text(self) -> str:
        sizes = "?" if self.shape is None else " x ".join(str(s or "?") for s in self.shape)
        return f"{self.name}: {self.dtype} [{sizes}]"


@dataclass(frozen=True)
class SiteFact:
    """A weight that can be compressed. MACs are None where the sizes are not known."""

    name: str
    op: str
    shape: tuple[int, ...]
    weights: int
    macs: int | None


@dataclass(frozen=True)
class SkippedFact:
    """A constant that is left alone, and why."""

    name: str
    op: str
    reason: str
    weights: int


@dataclass(frozen=True)
class ModelFacts:
    """A model as nncc reads it: local functions inlined, weights found.

    Args:
        file_bytes: the file, external data included.
        opsets: domain to version; "" is the default domain.
        nodes: operator to count, subgraphs included, commonest first.
        metadata: keys of the model's metadata, sorted.
    """

    name: str
    sha256: str
    file_bytes: int
    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: Mapping[str, int]
    sites: tuple[SiteFact, ...]
    skipped: tuple[SkippedFact, ...]
    metadata: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """A model's facts, and the compile's where the path is a (verified) artifact."""

    model: ModelFacts
    artifact: Artifact | None

    def to_json(self) -> dict[str, object]:
        """What `nncc inspect --json` prints."""
        held = self.artifact
        return {
            "model": dataclasses.asdict(self.model),
            "artifact": None if held is None else to_json(held),
        }


def inspect(path: Path) -> Inspection:
    """What `path` holds: an .onnx file, or an artifact's folder.

    Raises:
        UsageError: neither.
        ModelError: it is broken, or a file of the artifact differs from its manifest.
    """
    if path.is_dir():
        artifact = load_artifact(path, verify=True)
        return Inspection(_facts(artifact.model), artifact)
    return Inspection(_facts(path), None)


def model_file(path: Path) -> Path:
    """The model that a path means: the file itself, or the one in an artifact."""
    return load_artifact(path).model if path.is_dir() or is_artifact(path) else path


def show(found: Inspection, out: Console, *, layers: bool = True) -> None:
    """The inspection for a person."""
    m = found.model
    opsets = ", ".join(
        f"{domain or 'opset'} {version}" for domain, version in m.opsets.items()
    )
    say(out, f"{m.name}: {m.file_bytes:,} bytes, {opsets}, IR {m.ir_version}", "bold")
    say(out, f"producer: {m.producer or 'not stated'}   sha256: {m.sha256}")
    for port in m.inputs:
        say(out, f"input  {port.text}")
    for port in m.outputs:
        say(out, f"output {port.text}")
    counts = ", ".join(f"{op} {n}" for op, n in m.nodes.items())
    say(out, f"{sum(m.nodes.values())} nodes: {counts}")
    if m.metadata:
        say(out, f"metadata: {', '.join(m.metadata)}")
    for text in m.warnings:
        say(out, f"warning: {text}", "yellow")
    weights = sum(s.weights for s in m.sites)
    say(out, f"{len(m.sites)} weights can be compressed, {weights:,} numbers")
    if layers:
        _show_sites(m, out)
    if found.artifact is not None:
        say(out, "")
        say(out, f"compiled by nncc {found.artifact.metrics.nncc}; every file is as written")
        if layers:
            show_layers(found.artifact.outcome, out, everything=True)
        for line in summary(found.artifact):
            say(out, line)


def _show_sites(m: ModelFacts, out: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in ("layer", "op", "shape"):
        table.add_column(name, overflow="fold")
    for name in ("weights", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    for s in m.sites:
        cells = (clip(s.name, 60), s.op, "x".join(map(str, s.shape)), f"{s.weights:,}")
        macs = "-" if s.macs is None else f"{s.macs:,}"
        table.add_row(*(escape(printable(c)) for c in cells), macs)
    if m.sites:
        out.print(table)
    for s in m.skipped:
        say(out, f"left alone: {clip(s.name, 60)} ({s.op}, {s.weights:,} numbers): {s.reason}")


def _facts(path: Path) -> ModelFacts:
    from ...passes.normalise import normalise
    from ...passes.sites import find_sites
    from ...runtime.weight_files import stored_bytes
    from ..reading.declared import infer
    from ..reading.ingest import ingest

    with TemporaryDirectory(prefix="nncc-inspect-") as folder:
        model = ingest(path, workdir=Path(folder))
        graph_model = model.graph_model
        graph = graph_model.graph
        normal = normalise(model)
        sites, skipped = find_sites(normal, _of_a_sample(infer(normal.graph_model)))
        counts = Counter(node.op_type for node in graph.all_nodes())
        return ModelFacts(
            name=model.name,
            sha256=model.sha256,
            file_bytes=stored_bytes(path),
            opsets=dict(sorted(graph_model.opset_imports.items())),
            ir_version=graph_model.ir_version,
            producer=" ".join(
                filter(None, (graph_model.producer_name, graph_model.producer_version))
            ),
            inputs=tuple(map(_port, graph.inputs)),
            outputs=tuple(map(_port, graph.outputs)),
            nodes=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
            sites=tuple(SiteFact(s.name, s.op, s.shape, s.weights, s.macs) for s in sites),
            skipped=tuple(SkippedFact(s.name, s.op, s.reason, s.weights) for s in skipped),
            metadata=tuple(sorted(graph_model.metadata_props)),
            warnings=model.warnings,
        )


def _of_a_sample(shapes: Mapping[str, ir.Shape]) -> dict[str, tuple[int, ...]]:
    """The shapes of which every size is a number; a dynamic first axis counts samples: 1."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        sizes = [s if isinstance(s, int) else 1 if i == 0 else -1 for i, s in enumerate(shape)]
        if -1 not in sizes:
            found[name] = tuple(sizes)
    return found


def _port(value: ir.Value) -> Port:
    sizes: tuple[Size, ...] | None = None
    if value.shape is not None:
        sizes = tuple(s if isinstance(s, int) else s.value for s in value.shape)
    return Port(str(value.name), value.dtype.name.lower() if value.dtype else "?", sizes)
