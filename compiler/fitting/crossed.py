"""Crossed sensitivity: layers seen by few samples are judged by others than they were fit to.

A layer behind a pooling or a flattening reads one vector a sample. With fewer samples than
inputs a fit can follow the samples themselves, and judged by the same ones every rank looks
harmless. Such layers are fitted on one half of the samples and judged by the other, both ways.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...passes.forms import Term
from ...passes.sites import Site
from ..samples.inputs import Feeds
from .moments import Moments, collect
from .sensitivity import sensitivity

Vector = npt.NDArray[np.float64]
Terms = Callable[[Mapping[str, Moments]], Mapping[str, Sequence[Term]]]

THIN = 2
"""Positions an input from which on a fit cannot follow the samples themselves."""


def thin(site: Site, moments: Mapping[str, Moments]) -> bool:
    """Whether a layer was seen at too few positions to be judged by them too."""
    seen = moments.get(site.name)
    inputs = int(np.prod(site.shape[2:]))
    return seen is not None and seen.count < THIN * inputs


def crossed_sensitivity(
    model: Path,
    sites: Sequence[Site],
    terms: Terms,
    feeds: Sequence[Feeds],
    *,
    jobs: int = 0,
    on_found: Callable[[str, Vector], None] | None = None,
    on_done: Callable[[int, int, str], None] | None = None,
) -> Mapping[str, Vector]:
    """`sensitivity` of sites, each fitted on half of the samples and judged by the others.

    Args:
        model: file of the normalised model.
        sites: those that are judged.
        terms: the terms of every site in the metric of given moments; as many for any.
        feeds: calibration samples, two or more.
        jobs: threads that collect moments; 0 takes one a core.
        on_found: told what was found of a site.
        on_done: told (finished, all, name).

    Returns:
        By site name the mean divergence over both ways, one entry a candidate.
    """
    halves = feeds[::2], feeds[1::2]
    found: dict[str, Vector] = {}
    for fitted, judged in (halves, halves[::-1]):
        moments = collect(model, fitted, sites, jobs=jobs)
        one = sensitivity(
            model, sites, terms(moments), judged, moments=moments, on_done=on_done
        )
        for name, values in one.items():
            found[name] = found.get(name, 0.0) + values / 2
    if on_found is not None:
        for name, values in found.items():
            on_found(name, values)
    return found
