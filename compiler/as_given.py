"""As given: the model that a speed-up is relative to, as its runtime makes it while loading.

What normalising does beyond that (scales and shifts folded into convolutions, hard sigmoids in
one node) is a gain of the compile like any other, and budgets of time count it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..device_profiles.profile import Runtime
from ..passes.fusion import Shapes
from ..passes.model import Model
from ..passes.normalise import as_it_runs
from ..passes.sites import Site, find_sites
from .samples.inputs import Feeds
from .writing.save import write

logger = logging.getLogger(__name__)

_REWRITTEN = frozenset({"Mul", "Div", "Clip"})
"""What every pass that a runtime leaves to us takes away at least one of."""


@dataclass(frozen=True)
class AsGiven:
    """The model as its runtime runs it when nobody compiles it.

    Args:
        model: after what the runtime does by itself.
        shapes: size of every value, for one sample.
        sites: its linear layers.
    """

    model: Model
    shapes: Shapes
    sites: Sequence[Site]


def as_given(loaded: Model, feed: Feeds, runtime: Runtime, folder: Path) -> AsGiven | None:
    """The loaded model as its runtime runs it; None where that is the normalised one too.

    Args:
        loaded: as it was read, before normalising.
        feed: a sample.
        runtime: of the target.
        folder: for a file of it.
    """
    from ..runtime.probe import probe

    if runtime != "onnxruntime":
        return None
    if not any(node.op_type in _REWRITTEN for node in loaded.graph_model.graph):
        return None
    try:
        model = as_it_runs(loaded, runtime)
        path = folder / "given.onnx"
        write(model, path)
        shapes = probe(path, feed, value_names(model))
        sites, _ = find_sites(model, shapes)
    except Exception:  # what a pass cannot take was told while normalising
        logger.debug("the model as given cannot be timed", exc_info=True)
        return None
    return AsGiven(model, shapes, sites)


def value_names(model: Model) -> list[str]:
    """Names of the values of the top-level graph: inputs, weights, and what nodes make."""
    graph = model.graph_model.graph
    made = [value for node in graph for value in node.outputs]
    values = [*graph.inputs, *graph.initializers.values(), *made]
    return [value.name for value in values if value.name]
