"""Shapes of values inside a model, found by running it.

Shape inference gives up where shapes depend on data; the runtime never does. Every value asked
for gets a Shape node, and those small results become outputs: the run needs no more memory
than any other, whatever is asked.

Nodes and outputs are added by *appending* bytes to the serialised model: two messages written
one after another are parsed as their union (protobuf encoding, "last one wins" and merging of
embedded messages). So the weights are neither parsed nor copied in Python.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import helper

from ..device_profiles.errors import ModelError
from .session import Array, Session, open_source, run
from .weight_files import external_locations, read_structure

PREFIX = "nncc.probe"
OPSET_IF_NONE = 13  # for models of other domains only


def probe(
    path: Path, feeds: Mapping[str, Array], values: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """The shape of each named value of the top-level graph when the model is given `feeds`.

    The graph runs as it is written, without optimisation, so every value exists. What cannot
    be probed is absent from the result: values of subgraphs, sequences, unknown names.

    Args:
        path: the .onnx file; external data stays where it is.
        feeds: an array for every input.
        values: names of values: node outputs, inputs or initialisers.

    Raises:
        ModelError: the runtime does not take the model, or an operator failed on `feeds`.
    """
    model = read_structure(path)
    known = _values(model)
    wanted = [name for name in dict.fromkeys(values) if name in known]
    tags = _tags(known, len(wanted))
    is_external = bool(external_locations(model))
    has_opset = any(opset.domain in ("", "ai.onnx") for opset in model.opset_import)
    del model  # a second copy of the weights, where they lie inside the file

    shapes: dict[str, tuple[int, ...]] = {}
    is_sound = False
    chunks = [list(zip(wanted, tags, strict=True))]
    with TemporaryDirectory(prefix="nncc-probe-") as folder:
        while chunks:
            chunk = chunks.pop()
            if not chunk:
                continue
            tail = _tail(chunk, has_opset)
            try:
                session = open_extended(path, tail, is_external, Path(folder))
            except ModelError:
                if not is_sound:
                    open_source(path, optimise=False)  # raises if the model itself is at fault
                    is_sound = True
                # A value without a shape (a sequence) spoils its chunk: found by halving.
                middle = len(chunk) // 2
                chunks += [chunk[middle:], chunk[:middle]] if middle else []
                continue
            found = run(session, feeds)
            shapes |= {name: tuple(int(n) for n in found[tag]) for name, tag in chunk}
    return {name: shapes[name] for name in wanted if name in shapes}


def _values(model: onnx.ModelProto) -> set[str]:
    graph = model.graph
    return {
        *(value.name for value in graph.input),
        *(tensor.name for tensor in graph.initializer),
        *(name for node in graph.node for name in node.output if name),
    }


def _tags(known: set[str], count: int) -> list[str]:
    prefix = PREFIX
    while any(name.startswith(prefix) for name in known):
        prefix += "_"
    return [f"{prefix}.{index}" for index in range(count)]


def _tail(chunk: Sequence[tuple[str, str]], has_opset: bool) -> bytes:
    """The serialised addition: a Shape node and an output for each (value, tag)."""
    extra = onnx.ModelProto()
    for name, tag in chunk:
        extra.graph.node.append(helper.make_node("Shape", [name], [tag], name=tag))
        extra.graph.output.append(
            helper.make_tensor_value_info(tag, onnx.TensorProto.INT64, [None])
        )
    if not has_opset:
        extra.opset_import.append(helper.make_opsetid("", OPSET_IF_NONE))
    return extra.SerializeToString()


def open_extended(path: Path, tail: bytes, is_external: bool, folder: Path) -> Session:
    """A session of the model with `tail`: from memory if the weights are elsewhere.

    Args:
        path: the .onnx file.
        tail: a serialised ModelProto whose nodes and outputs come after the model's own.
        is_external: whether the model's weights lie in other files.
        folder: where a copy of the model may be written.

    Raises:
        ModelError: the runtime does not take it.
    """
    if is_external:
        return open_source(
            path.read_bytes() + tail, folder=path.parent, optimise=False, for_shapes=True
        )
    copy = folder / "probed.onnx"
    shutil.copyfile(path, copy)
    with copy.open("ab") as stream:
        stream.write(tail)
    return open_source(copy, optimise=False, for_shapes=True)
