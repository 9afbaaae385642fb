"""Stages: a model cut before every layer, so that parts of it run by themselves.

What a layer's approximation does to the outputs needs nothing before the layer to run again,
and what a layer reads once all before it are compressed needs nothing behind it to run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from ...passes.absorb import takes_bias
from ...passes.geometry import Weights
from ...passes.model import Model
from ...passes.sites import Site, gemm_transposes
from ...runtime.session import Session, open_source, run
from ...runtime.weight_files import external_locations, read_structure
from ..samples.inputs import Feeds
from ..writing.save import write

Array = npt.NDArray[Any]
Values = Mapping[str, Array]
"""The values that are alive at a cut, by name."""

MEMORY = 1 << 30
"""Bytes of values alive at a cut, over all samples, unless said otherwise."""
_GROWTH = 4
"""Bytes of values inside a model over those before its first layer, a guess."""
_ELEMENT = {
    f"tensor({word})": getattr(onnx.TensorProto, word.upper())
    for word in ("float", "double", "float16", "bool", "int8", "int16", "int32", "int64")
}
_ELEMENT |= {
    f"tensor(uint{n})": getattr(onnx.TensorProto, f"UINT{n}") for n in (8, 16, 32, 64)
}


@dataclass(frozen=True, eq=False)
class Change:
    """What a layer computes with in place of its weight.

    Args:
        W: (g, m, c, *kernel).
        delta: (g · m,) added to its outputs; None where it takes no bias.
    """

    W: Weights
    delta: npt.NDArray[np.float64] | None = None


class Part:
    """A stretch of the model between two cuts, ready to run.

    Args:
        session: runs it.
        reads: values that it needs.
        writes: values that are alive behind it.
        passed: values alive at both ends.
        fed: the site whose weight is given at every run.
    """

    def __init__(
        self,
        session: Session,
        reads: Sequence[str],
        writes: Sequence[str],
        passed: frozenset[str],
        fed: Site | None,
    ) -> None:
        self._session, self._reads, self._writes = session, reads, writes
        self._passed, self._fed = passed, fed

    def run(self, values: Values, change: Change | None = None) -> dict[str, Array]:
        """The values alive behind it.

        Args:
            values: alive before it.
            change: of the site that it was opened to be fed with.
        """
        feed = {name: values[name] for name in self._reads}
        if self._fed is not None:
            assert change is not None, "a fed part wants a weight at every run"
            feed |= _operands(self._fed, change)
        made = run(self._session, feed)
        kept = {name: array for name, array in values.items() if name in self._passed}
        return kept | {name: made[name] for name in self._writes}


class Stages:
    """A model cut before each of its layers.

    Args:
        model: normalised, or its file.
        sites: layers; those in bodies of If and Loop, and those where something other than a
            tensor is alive, are not cut at.
    """

    def __init__(self, model: Model | Path, sites: Sequence[Site]) -> None:
        with TemporaryDirectory(prefix="nncc-stages-") as folder:
            path = model if isinstance(model, Path) else Path(folder) / "model.onnx"
            if isinstance(model, Model):
                write(model, path)
            self._model = read_structure(path)
            if external_locations(self._model):
                load_external_data_for_model(self._model, str(path.parent))
        graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = tuple(v.name for v in graph.input if v.name not in self._constants)
        self.outputs = tuple(value.name for value in graph.output)
        self._nodes = list(graph.node)
        self._reads = [frozenset(_names_read(node)) for node in self._nodes]
        self._types = self._element_types()
        self._last = {name: at for at, names in enumerate(self._reads) for name in names}
        self._last |= dict.fromkeys(self.outputs, len(self._nodes))
        places = {
            (node.name, output): at
            for at, node in enumerate(self._nodes)
            for output in node.output
        }
        found = [(places.get((s.name, s.output_name)), s) for s in sites]
        kept = sorted(
            ((at, s) for at, s in found if at is not None and self._is_clean(at)),
            key=lambda pair: pair[0],
        )
        self.sites: tuple[Site, ...] = tuple(site for _, site in kept)
        self._cuts = (*(at for at, _ in kept), len(self._nodes))

    def head(self) -> Part:
        """What comes before the first layer."""
        return self._part(0, self._cuts[0], None, None)

    def begun(self, feeds: Sequence[Feeds], memory: int = MEMORY) -> list[Values]:
        """What is alive before the first layer, of as many samples as the memory takes."""
        head = self.head()
        values: list[Values] = []
        held = 0
        for feed in feeds:
            alive = head.run({name: feed[name] for name in self.inputs})
            held += _GROWTH * sum(array.nbytes for array in alive.values())
            if values and held > memory:
                break
            values.append(alive)
        return values

    def layer(self, at: int, change: Change | None = None) -> Part:
        """Layer `at` and what follows it up to the next layer.

        Args:
            at: index into `sites`.
            change: what the layer computes with; its own weight where None.
        """
        return self._part(self._cuts[at], self._cuts[at + 1], self.sites[at], change)

    def rest(self, at: int) -> Part:
        """Layer `at`, fed with a weight at every run, and all that follows."""
        return self._part(self._cuts[at], len(self._nodes), self.sites[at], None, is_fed=True)

    def _alive(self, cut: int) -> list[str]:
        """Names of the values made before a node and read from it on, in their order."""
        made = [*self.inputs, *(o for node in self._nodes[:cut] for o in node.output if o)]
        return [name for name in made if self._last.get(name, -1) >= cut]

    def _is_clean(self, cut: int) -> bool:
        return all(name in self._types for name in self._alive(cut))

    def _part(
        self,
        start: int,
        stop: int,
        site: Site | None,
        change: Change | None,
        *,
        is_fed: bool = False,
    ) -> Part:
        nodes = self._nodes[start:stop]
        alive, after = self._alive(start), self._alive(stop)
        wanted = (
            frozenset[str]().union(*self._reads[start:stop]) if nodes else frozenset[str]()
        )
        reads = [name for name in alive if name in wanted]
        made = {output for node in nodes for output in node.output}
        writes = [name for name in after if name in made]
        inputs = [helper.make_tensor_value_info(n, self._types[n], None) for n in reads]
        constants = [self._constants[n] for n in sorted(wanted) if n in self._constants]
        if site is not None and (is_fed or change is not None):
            nodes = [*_with_operands(nodes[0], site), *nodes[1:]]
            if is_fed:
                kind = onnx.TensorProto.FLOAT
                inputs += [helper.make_tensor_value_info(n, kind, None) for n in _fed(site)]
            elif change is not None:
                operands = _operands(site, change)
                constants += [numpy_helper.from_array(a, n) for n, a in operands.items()]
            constants = [
                t
                for t in constants
                if t.name != site.weight_name
                or any(site.weight_name in _names_read(n) for n in nodes)
            ]
        outputs = [helper.make_tensor_value_info(n, self._types[n], None) for n in writes]
        if not writes:  # a runtime wants an output
            return _Nothing(alive, after)
        graph = helper.make_graph(nodes, "part", inputs, outputs, constants)
        session = open_source(self._wrapped(graph).SerializeToString())
        fed = site if is_fed else None
        return Part(session, reads, writes, frozenset(alive) & frozenset(after), fed)

    def _wrapped(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        made = helper.make_model(
            graph, opset_imports=self._model.opset_import, functions=self._model.functions
        )
        made.ir_version = self._model.ir_version
        return made

    def _element_types(self) -> dict[str, int]:
        """Element types of all tensors, as the runtime infers them."""
        graph = self._model.graph
        names = [o for node in self._nodes for o in node.output if o]
        outputs = [helper.make_empty_tensor_value_info(name) for name in names]
        whole = helper.make_graph(
            self._nodes, "types", graph.input, outputs, graph.initializer
        )
        session = open_source(self._wrapped(whole).SerializeToString(), optimise=False)
        values = [*session.get_inputs(), *session.get_outputs()]
        return {v.name: _ELEMENT[v.type] for v in values if v.type in _ELEMENT}


class _Nothing(Part):
    """A stretch that makes nothing that anyone reads."""

    def __init__(self, alive: Sequence[str], after: Sequence[str]) -> None:
        self._kept = frozenset(alive) & frozenset(after)

    def run(self, values: Values, change: Change | None = None) -> dict[str, Array]:
        del change
        return {name: array for name, array in values.items() if name in self._kept}


def _fed(site: Site) -> list[str]:
    """Names of what is given to a changed layer: its weight, and what its bias gains."""
    names = [f"nncc.weight/{site.name}"]
    return [*names, f"nncc.delta/{site.name}"] if takes_bias(site) else names


def _operands(site: Site, change: Change) -> dict[str, Array]:
    """What is given to a changed layer, in the layout that its node wants."""
    g, m, c, *kernel = site.shape
    W = change.W
    if site.op == "Conv":
        laid = W.reshape(g * m, c, *kernel)
    elif site.op == "ConvTranspose":
        laid = W.swapaxes(1, 2).reshape(g * c, m, *kernel)
    else:
        is_outputs_first = site.geometry.weight_is_left != gemm_transposes(site)
        laid = W[0] if is_outputs_first else W[0].T
        laid = laid.reshape(*site.geometry.lead, *laid.shape)
    arrays = [np.ascontiguousarray(laid, dtype=np.float32)]
    if takes_bias(site):
        delta = np.zeros(g * m) if change.delta is None else change.delta
        sizes: tuple[int, ...] = (-1,)
        if site.geometry.op != "MatMul":
            sizes = (1, -1, *(1 for _ in kernel))
        elif site.geometry.weight_is_left and site.geometry.input_rank != 1:
            sizes = (-1, 1)
        arrays.append(delta.astype(np.float32).reshape(sizes))
    return dict(zip(_fed(site), arrays, strict=True))


def _with_operands(node: onnx.NodeProto, site: Site) -> Iterator[onnx.NodeProto]:
    """The layer's node with its weight, and an Add behind it, to be given from outside."""
    names = _fed(site)
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    changed.input[site.position] = names[0]
    if site.op == "Gemm":  # alpha is part of the weight
        kept = [a for a in node.attribute if a.name != "alpha"]
        del changed.attribute[:]
        changed.attribute.extend(kept)
    if len(names) == 1:
        yield changed
        return
    y = node.output[0]
    changed.output[0] = f"nncc.raw/{site.name}"
    yield changed
    yield helper.make_node("Add", [changed.output[0], names[1]], [y])


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its bodies capture included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            inner = {v.name for v in (*body.input, *body.initializer)}
            for child in body.node:
                yield from (name for name in _names_read(child) if name not in inner)
                inner |= set(child.output)
