"""A shared codebook times a scale of its own for every row or block: the plain fit."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...geometry import Weights
from .kmeans import kmeans
from .quantize_levels import Codes, Halves, Levels, as_half

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

_ROUNDS = 12
"""Alternations of codebook and scales at most."""
_GAIN = 1e-3
"""A round that lowers the error by a smaller share is the last."""
_SAMPLE = 1 << 22
"""Weights that the alternation looks at; more are thinned out by columns."""


def scaled_levels(W: Weights, k: int, block: int, weights: Floats | None) -> Levels:
    """argmin over s and c of Σ h (w − s_r c_z)², alternating k-means and least squares.

    Each step is the exact minimum over its own variables: k-means of w / s with weights h s²
    first and last, its centroids between, and s = Σ h w q / Σ h q² with q = c_z. The codebook
    keeps the unit of the weights; scales are at most one, so that float16 holds them.

    Args:
        W: (R, n).
        k: levels.
        block: columns that share a scale; n for one a row.
        weights: (R, n) diagonal metric; None is 1.
    """
    n = W.shape[1]
    stride = max(1, W.size // _SAMPLE) if block >= n else 1
    X = np.ascontiguousarray(W[:, ::stride], np.float32)
    size = np.exp2(np.floor(np.log2(max(float(np.abs(X).max()), 1e-38))))
    X = X / np.float32(size)  # exact: squares of very small weights stay above zero
    h = None if weights is None else np.ascontiguousarray(weights[:, ::stride], np.float32)
    width = min(block, X.shape[1])
    starts = np.arange(0, X.shape[1], width, dtype=np.intp)

    def sums(values: Floats) -> npt.NDArray[np.float64]:
        return np.add.reduceat(values, starts, axis=1, dtype=np.float64)

    def wide(s: Floats) -> Weights:
        spread = s if s.shape[1] == 1 else np.repeat(s, width, axis=1)[:, : X.shape[1]]
        return spread.astype(np.float32)

    hX = X if h is None else h * X
    total = np.full(X.shape, 1.0, np.float32) if h is None else h
    power = sums(hX * X) / np.maximum(sums(total), np.finfo(np.float64).tiny)
    scale = np.sqrt(power)
    scale = as_half(scale / max(float(scale.max()), np.finfo(np.float64).tiny))
    found: list[tuple[float, Levels]] = []

    def offer(book: Doubles, scale: Halves) -> tuple[float, Codes]:
        """The error of a codebook and scales, which are kept where it is the least."""
        levels = _levels(book, width, scale)
        codes = levels.nearest(X)
        R = X - levels.values(codes)
        R *= R if h is None else h * R
        error = float(R.sum(dtype=np.float64))
        if not found or error < found[0][0]:
            found[:] = [(error, levels)]
        return error, codes

    book = _solved(X, wide(scale), h, k)
    last, codes = offer(book, scale)
    for _ in range(_ROUNDS):
        q = book.astype(np.float32)[codes]
        below = sums(q * q if h is None else h * q * q)
        new = np.divide(sums(q * hX), below, out=scale.astype(np.float64), where=below > 0)
        new = np.where(new > 0, new, scale)
        scale = as_half(new / max(float(new.max()), np.finfo(np.float64).tiny))
        s = wide(scale)
        codes = _levels(book, width, scale).nearest(X)
        mass = np.bincount(codes.ravel(), (s * s * total).ravel(), k)
        moment = np.bincount(codes.ravel(), (s * hX).ravel(), k)
        book = np.sort(np.divide(moment, mass, out=book.copy(), where=mass > 0))
        error, codes = offer(book, scale)
        if error > last * (1 - _GAIN):
            break
        last = error
    kept = found[0][1]
    assert kept.scale is not None
    offer(_solved(X, wide(kept.scale), h, k), kept.scale)
    codebook = (found[0][1].codebook * np.float32(size)).astype(np.float32)
    return replace(found[0][1], codebook=codebook, block=block)


def _solved(X: Weights, s: Weights, h: Weights | None, k: int) -> Doubles:
    """The best codebook for scales as they are."""
    u = np.divide(X, s, out=np.zeros_like(X), where=s > 0)
    return kmeans(u, k, s * s if h is None else h * s * s).centres


def _levels(book: Doubles, block: int, scale: Halves) -> Levels:
    return Levels(book.astype(np.float32)[None, None], scale, None, block, book.size)
