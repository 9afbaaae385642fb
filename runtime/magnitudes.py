"""The largest magnitude of values inside a model, found by running it.

Every value asked for gets an Abs and a ReduceMax, whose single number becomes an output: a run
needs no more memory than any other. Nodes are appended as in `probe`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import helper

from .probe import open_extended
from .session import Array, run
from .weight_files import external_locations, read_structure

PREFIX = "nncc.magnitude"


def magnitudes(
    path: Path, feeds: Iterable[Mapping[str, Array]], values: Sequence[str]
) -> dict[str, float]:
    """max |x| of each named value over all feeds; NaNs do not count.

    Args:
        path: the .onnx file, of a default operator set of 1 or newer.
        feeds: an array for every input, a mapping a sample.
        values: names of float32 values of the top-level graph. Names that it does not have
            are left out of the result.

    Raises:
        ModelError: the runtime does not take the model, or an operator failed on a sample.
    """
    model = read_structure(path)
    graph = model.graph
    known = {value.name for value in graph.input}
    known |= {name for node in graph.node for name in node.output}
    known.discard("")  # an output that is left out
    prefix = PREFIX
    while any(name.startswith(prefix) for name in known):
        prefix += "_"
    wanted = [name for name in dict.fromkeys(values) if name in known]
    tags = [f"{prefix}.{index}" for index in range(len(wanted))]
    is_external = bool(external_locations(model))
    del model, graph
    found = dict.fromkeys(wanted, 0.0)
    if not wanted:
        return found
    with TemporaryDirectory(prefix="nncc-magnitudes-") as folder:
        session = open_extended(path, _tail(wanted, tags), is_external, Path(folder))
        for sample in feeds:
            results = run(session, sample)
            for name, tag in zip(wanted, tags, strict=True):
                found[name] = max(found[name], float(results[tag]))
    return found


def _tail(values: Sequence[str], tags: Sequence[str]) -> bytes:
    """The serialised addition: |x|, its maximum, and an output for each (value, tag)."""
    extra = onnx.ModelProto()
    for name, tag in zip(values, tags, strict=True):
        extra.graph.node.extend(
            (
                helper.make_node("Abs", [name], [f"{tag}.abs"], name=f"{tag}.abs"),
                helper.make_node("ReduceMax", [f"{tag}.abs"], [tag], name=tag, keepdims=0),
            )
        )
        extra.graph.output.append(
            helper.make_tensor_value_info(tag, onnx.TensorProto.FLOAT, [])
        )
    return extra.SerializeToString()
