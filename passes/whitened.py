"""Whitened spectra: the output error of every low-rank candidate, from input moments."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .forms.factors.lowrank_fit import DAMPING
from .forms.factors.lowrank_refine import folded_moments, own_moments
from .forms.metric import Metric, lower_root
from .geometry import Weights, fold, scheme_axes
from .spectra import Spectrum, spectrum


def whitened(W: Weights, metric: Metric, scheme: int, k: int) -> Weights:
    """The folded weight times H^½ of what its first factor reads, block by block.

    A truncation of it loses what a fit of the same rank loses in the output: exactly for
    scheme 0 in one block; otherwise in the moments of each block by itself and of each kernel
    position moved to the outputs by itself, which is where those fits start.

    Args:
        W: (g, m, c, *kernel).
        metric: moments of the layer's input.
        scheme: folding 0 … 3.
        k: number of blocks over the input channels.

    Returns:
        (g, m · A, c, *B).
    """
    axes = scheme_axes(scheme, W.shape[3:])
    F = fold(W, axes)
    if metric.is_round:
        return F
    moments = folded_moments(metric.damped(DAMPING), W.shape[2], W.shape[3:], axes)
    H = own_moments(moments).H
    assert H is not None, "moments were given"
    flat = F.reshape(*F.shape[:2], -1)
    width = flat.shape[2] // k
    white = np.empty(flat.shape, np.float32)
    for at in range(0, flat.shape[2], width):
        part = slice(at, at + width)
        root = lower_root(H[:, part, part])
        white[..., part] = flat[..., part].astype(np.float64) @ root
    return white.reshape(F.shape)


def whitened_spectrum(
    W: Weights,
    metric: Metric,
    scheme: int,
    k: int,
    ranks: npt.NDArray[np.int64],
    *,
    exact: bool = True,
) -> Spectrum:
    """`spectra.spectrum` in the metric: errors relative to the layer's own output.

    With H = I it is the plain one.
    """
    found = spectrum(whitened(W, metric, scheme, k), 0, k, ranks, exact=exact)
    return replace(found, scheme=scheme)
