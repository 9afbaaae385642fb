"""PruneTerm: a few corrections, stored as gaps between positions and 16-bit values."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...decode import corrected_matrix, no_codes, scattered, with_fillers
from ...geometry import Geometry, Weights
from ..form import Cost, Emitter, Shape, read_only

_LEAST, _MOST = 2.0**-10, 2.0**15
"""Largest corrections that 16 bits hold at full precision; others take 32."""

Positions = npt.NDArray[np.int64]
Values = npt.NDArray[Any]
"""float16, or float32 where 16 bits cannot hold them."""


@dataclass(frozen=True, eq=False)
class PruneTerm:
    """A sparse weight: W ≈ S with few entries that are not zero.

    Args:
        shape: (g, m, c, *kernel).
        index: positions in W.ravel(), increasing.
        values: one a position, float16; float32 where all are too large or small for that.
    """

    shape: Shape
    index: Positions
    values: Values

    def decompress(self) -> Weights:
        S = np.zeros(math.prod(self.shape), np.float32)
        S[self.index] = self.values
        return read_only(S.reshape(self.shape))

    def cost(self) -> Cost:
        """Pairs of p + 16 bits with the cheapest p (LC part V, eq. 9); p additions too."""
        kept = len(self.index)
        return Cost(kept, gap_bits(self.index, 8 * self.values.itemsize), kept, kept)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Gaps and values as a file holds them, pads of value zero included."""
        filled = with_fillers(self.index, self.values.itemsize)
        gaps = np.diff(filled, prepend=0)
        values = np.zeros(len(filled), self.values.dtype)
        values[np.searchsorted(filled, self.index)] = self.values
        kind = np.uint8 if gaps.max(initial=0) < 256 else np.uint16
        return {"gaps": closed(gaps.astype(kind)), "values": closed(values)}

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        """One dense layer: a sparse branch is slower than it on every target."""
        return emitter.apply(x, self.decompress(), "p", geometry.folded(frozenset()))

    def decode(self, emitter: Emitter) -> ir.Value | None:
        if not len(self.index):
            return None
        words = no_codes(emitter, math.prod(self.shape))
        return corrected_matrix(emitter, words, self.index, self.values, self.matrix_shape)

    def decode_onto(self, emitter: Emitter, base: ir.Value) -> ir.Value:
        """Nodes that add the corrections to the matrix `base`."""
        return scattered(emitter, base, self.index, self.values, self.matrix_shape)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(g · m, n)."""
        g, m, *rest = self.shape
        return g * m, math.prod(rest)


def prune_term(shape: Shape, index: Positions, values: npt.NDArray[Any]) -> PruneTerm:
    """The term with `values` (any float) rounded to 16 bits, at increasing positions."""
    return PruneTerm(shape, closed(index.astype(np.int64)), closed(narrowed(values)))


def narrowed(values: npt.NDArray[Any]) -> Values:
    """The values in 16 bits, or in 32 where all are too large or too small for that."""
    largest = float(np.abs(values).max(initial=0.0))
    kind = np.float16 if largest == 0 or _LEAST <= largest < _MOST else np.float32
    return values.astype(kind)


def gap_bits(index: Positions, value_bits: int = 16) -> int:
    """Bits of the gap-coded pairs, pads included, with the best gap width p.

    diffs × (p + 16), LC part V, eq. (9); p is chosen a layer.
    """
    gaps = np.diff(index, prepend=0)
    widths = range(1, 33)
    counts = [len(index) + int(_padding(gaps, 2**p - 1).sum()) for p in widths]
    return min(n * (p + value_bits) for n, p in zip(counts, widths, strict=True))


def _padding(gaps: Positions, most: int) -> Positions:
    """Pads before each gap: as many as bring it to `most` or below."""
    return np.maximum(-(-gaps // most) - 1, 0)


def closed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in C order, closed for writing."""
    frozen = np.ascontiguousarray(array).view()
    frozen.flags.writeable = False
    return frozen
