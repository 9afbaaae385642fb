"""float16 in the graph, for a device whose builder computes what is written."""

from collections.abc import Sequence
from pathlib import Path

from ..device_profiles.profile import DeviceProfile
from ..passes.half_islands import HALF_MAX, is_float
from ..passes.legalise.infer import infer_model
from ..passes.model import Model
from ..passes.precision import in_half
from .samples.inputs import Feeds

HEADROOM = 4
"""Samples are few: a value that came this close to float16's end may pass it on another."""


def wants_half(profile: DeviceProfile) -> bool:
    """Whether the device's graph is written in float16."""
    return profile.lowering.graph_precision == "fp16"


def halved(model: Model, path: Path, feeds: Sequence[Feeds]) -> Model:
    """The model in float16, but for what overflowed when it ran on the samples.

    Args:
        model: compressed and legal, in float32.
        path: its file.
        feeds: samples it is run on, in float32.
    """
    from ..runtime.magnitudes import magnitudes

    typed = model.copied()
    infer_model(typed.graph_model, typed.opset)
    graph = typed.graph_model.graph
    inner = [value.name or "" for node in graph for value in node.outputs if is_float(value)]
    inputs = [value.name or "" for value in graph.inputs if is_float(value)]
    seen = magnitudes(path, feeds, [*inputs, *inner])
    return in_half(model, {name for name, most in seen.items() if most * HEADROOM > HALF_MAX})
