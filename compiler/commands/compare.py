"""Two models held against each other: outputs, sizes, nodes and, if asked, time.

Unlike `prove`, which demands the outputs of a compile, this takes any two models with one
interface, and judges every number by |a − b| ≤ atol + rtol · |a|.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from ...device_profiles.errors import UsageError
from ..outcome import Fidelity, Paired
from ..writing.metrics import finite
from .console import say
from .inspect import model_file

if TYPE_CHECKING:
    from ...passes.model import Model
    from ...runtime.session import Array
    from ..proving.closeness import Leaf

REGRESSION = 5
SAMPLES = 8


@dataclass(frozen=True)
class Comparison:
    """What was found; `a` is the reference.

    Args:
        a, b: the model files.
        fidelity: outputs of b against those of a.
        beyond: output name to the share of its numbers that lie beyond the tolerance.
        atol, rtol: the tolerance.
        bytes_a, bytes_b: sizes, external data included.
        nodes_a, nodes_b: operator to count, subgraphs included.
        latency: b against a, None where it was not asked.
    """

    a: Path
    b: Path
    fidelity: Fidelity
    beyond: Mapping[str, float]
    atol: float
    rtol: float
    bytes_a: int
    bytes_b: int
    nodes_a: Mapping[str, int]
    nodes_b: Mapping[str, int]
    latency: Paired | None

    @property
    def is_close(self) -> bool:
        """Whether every number of every output is within the tolerance."""
        return not any(self.beyond.values())

    @property
    def exit_code(self) -> int:
        """0 within the tolerance, 5 (regression) past it."""
        return 0 if self.is_close else REGRESSION

    def to_json(self) -> dict[str, object]:
        """What `nncc compare --json` prints."""
        f, paired = self.fidelity, self.latency
        return {
            "a": {"file": str(self.a), "bytes": self.bytes_a, "nodes": dict(self.nodes_a)},
            "b": {"file": str(self.b), "bytes": self.bytes_b, "nodes": dict(self.nodes_b)},
            "tolerance": {"atol": self.atol, "rtol": self.rtol},
            "fidelity": {
                "inputs": f.inputs,
                "n": f.n,
                "sqnr_db": finite(f.sqnr_db),
                "top1_agreement": finite(f.top1_agreement),
                "max_abs_diff": finite(f.max_abs_diff),
            },
            "outputs": {
                name: {
                    "sqnr_db": finite(db),
                    "max_abs_diff": finite(diff),
                    "beyond_tolerance": self.beyond[name],
                }
                for name, (db, diff) in f.per_output.items()
            },
            "latency": None
            if paired is None
            else {
                "a_ms": paired.reference.trimmed_mean_ms,
                "b_ms": paired.compressed.trimmed_mean_ms,
                "speedup": paired.speedup,
                "speedup_ci": list(paired.speedup_ci),
                "protocol": dict(paired.protocol),
            },
            "exit_code": self.exit_code,
        }


def compare(
    a: Path,
    b: Path,
    *,
    inputs: str | None = None,
    atol: float = 1e-4,
    rtol: float = 1e-3,
    shapes: Sequence[str] = (),
    measure: bool = False,
    seed: int = 0,
) -> Comparison:
    """Model or artifact `b` against `a`.

    Args:
        a: the reference: an .onnx file or an artifact's folder.
        b: what is held against it, likewise.
        inputs: FILE.npz or package.module:function; synthetic inputs where None.
        atol: absolute tolerance of every number.
        rtol: tolerance relative to the reference.
        shapes: --shape options for synthetic inputs.
        measure: also time both, alternately, in fresh processes.
        seed: of the synthetic inputs.

    Raises:
        UsageError: the models' inputs or outputs differ.
        ModelError: one of them is broken.
    """
    from ...runtime.weight_files import stored_bytes
    from ..proving.prove import prove
    from ..reading.ingest import ingest
    from ..samples.inputs import calibration_inputs, synthetic_inputs

    paths = model_file(a), model_file(b)
    with TemporaryDirectory(prefix="nncc-compare-") as folder:
        work = Path(folder)
        models = [ingest(path, shapes=shapes, workdir=work) for path in paths]
        _same_interface(models[0], models[1], paths)
        if inputs is None:
            feeds = synthetic_inputs(models[0], SAMPLES, seed)
        else:
            feeds = calibration_inputs(inputs, models[0])
        fidelity = prove(*paths, feeds, "synthetic" if inputs is None else "calibration")
        latency = _timed(paths, feeds[0], work / "feeds.npz") if measure else None
        return Comparison(
            *paths,
            fidelity=fidelity,
            beyond=_beyond(paths, feeds, atol, rtol),
            atol=atol,
            rtol=rtol,
            bytes_a=stored_bytes(paths[0]),
            bytes_b=stored_bytes(paths[1]),
            nodes_a=_nodes(models[0]),
            nodes_b=_nodes(models[1]),
            latency=latency,
        )


def show(found: Comparison, out: Console) -> None:
    """The comparison for a person."""
    f = found.fidelity
    nodes = sum(found.nodes_a.values()), sum(found.nodes_b.values())
    say(out, f"size: {found.bytes_a:,} against {found.bytes_b:,} bytes")
    say(out, f"nodes: {nodes[0]} against {nodes[1]}{_changes(found)}")
    for name, (db, diff) in f.per_output.items():
        share = found.beyond[name]
        told = f"{share:.2%} of its numbers beyond the tolerance" if share else "close"
        say(out, f"output {name}: {told}; largest difference {diff:.3g}, {db:.1f} dB SQNR")
    if f.top1_agreement is not None:
        say(out, f"top-1 agreement: {f.top1_agreement:.1%}")
    for text in f.warnings:
        say(out, f"warning: {text}", "yellow")
    if found.latency is not None:
        low, high = found.latency.speedup_ci
        say(
            out,
            f"time: {found.latency.reference.trimmed_mean_ms:.3g} against"
            f" {found.latency.compressed.trimmed_mean_ms:.3g} ms, ratio"
            f" {found.latency.speedup:.2f} ({low:.2f} to {high:.2f}, 95 %)",
        )
    tolerance = f"atol {found.atol:g}, rtol {found.rtol:g}, on {f.n} {f.inputs} inputs"
    if found.is_close:
        say(out, f"PASS: outputs agree ({tolerance}; exit code 0)", "bold green")
    else:
        text = f"FAIL: outputs differ ({tolerance}; exit code {REGRESSION})"
        say(out, text, "bold red")


def _changes(found: Comparison) -> str:
    every = sorted({*found.nodes_a, *found.nodes_b})
    moved = {op: found.nodes_b.get(op, 0) - found.nodes_a.get(op, 0) for op in every}
    told = ", ".join(f"{op} {n:+d}" for op, n in moved.items() if n)
    return f" ({told})" if told else ""


def _nodes(model: "Model") -> dict[str, int]:
    counts = Counter(node.op_type for node in model.graph_model.graph.all_nodes())
    return dict(sorted(counts.items()))


def _same_interface(a: "Model", b: "Model", paths: tuple[Path, Path]) -> None:
    for what in ("inputs", "outputs"):
        names = [
            [str(value.name) for value in getattr(model.graph_model.graph, what)]
            for model in (a, b)
        ]
        if names[0] != names[1]:
            raise UsageError(
                f"{what} are {', '.join(names[1])}, not {', '.join(names[0])}",
                where=str(paths[1]),
                hint=f"give two models with the {what} of {paths[0].name}",
            )


def _beyond(
    paths: tuple[Path, Path],
    feeds: "Sequence[Mapping[str, Array]]",
    atol: float,
    rtol: float,
) -> dict[str, float]:
    """The share of numbers beyond the tolerance, by output; other shapes or types: all."""
    from ...runtime.session import open_session, run

    a, b = (open_session(path) for path in paths)
    wrong: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for sample in feeds:
        found = run(b, sample)
        for name, expected in run(a, sample).items():
            apart = _apart(expected, found[name], atol, rtol)
            wrong[name] += int(apart.sum())
            total[name] += apart.size
    return {name: wrong[name] / total[name] if total[name] else 0.0 for name in total}


def _apart(a: object, b: object, atol: float, rtol: float) -> "Array":
    """Where two outputs differ beyond the tolerance; equal infinities and NaNs do not."""
    from ..proving.closeness import leaves

    left, right = leaves(a), leaves(b)
    if len(left) != len(right):
        return np.ones(1, bool)
    parts = [_leaf_apart(x, y, atol, rtol) for x, y in zip(left, right, strict=True)]
    return np.concatenate([*parts, np.zeros(0, bool)])


def _leaf_apart(a: "Leaf", b: "Leaf", atol: float, rtol: float) -> "Array":
    if a is None or b is None:
        return np.array([(a is None) != (b is None)])
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
        return np.ones(1, bool)
    if a.dtype.kind != "f":
        return np.asarray(a != b).reshape(-1)
    x, y = a.astype(np.float64), b.astype(np.float64)
    return ~np.isclose(y, x, rtol=rtol, atol=atol, equal_nan=True).reshape(-1)


def _timed(paths: tuple[Path, Path], feed: "Mapping[str, Array]", file: Path) -> Paired:
    from ...runtime.ab import measure_pair
    from ...runtime.feeds import save_feeds

    save_feeds(file, feed)
    return measure_pair(*paths, file)
