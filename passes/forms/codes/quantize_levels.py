"""Levels: the values that the codes of a quantised weight stand for."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...geometry import Weights

Codes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]
Floats = npt.NDArray[np.floating[Any]]

_COMPARED_TO = 32
"""Levels up to which a border at a time is compared; a search takes over above."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Value of code q, row r, block b: unit · scale[r, b] · (codebook[r, b, q] − zero[r, b]).

    Each part has one entry for all rows (blocks), or one for each.

    Args:
        codebook: (R or 1, B or 1, K) float32, ascending, K ≤ 256.
        scale: (R or 1, B or 1) float16, ≥ 0; None is 1.
        zero: (R or 1, B or 1) float16; None is 0.
        block: columns in a block; the last block of a row may be shorter.
        free: numbers of every codebook that are stored: K where it is adaptive, 1 where only
            its scale is, 0 where everybody knows it.
        unit: a power of two for all scales, float32; 1, which nobody stores, unless float16
            would lose their digits.
        is_rigid: whether no other numbers will do, as where they are powers of two.
    """

    codebook: Weights
    scale: Halves | None
    zero: Halves | None
    block: int
    free: int
    unit: float = 1.0
    is_rigid: bool = False

    @property
    def steps(self) -> Weights | None:
        """unit · scale, float32, (R or 1, B or 1)."""
        if self.scale is None:
            return None
        return self.scale.astype(np.float32) * np.float32(self.unit)

    @property
    def k(self) -> int:
        """Levels in a codebook."""
        return self.codebook.shape[2]

    def blocks(self, n: int) -> int:
        """Blocks in a row of n columns."""
        return -(-n // self.block)

    def coordinates(self, W: Floats) -> Floats:
        """W (R, n) in the units of the codebook: W / scale + zero."""
        u = W
        if self.steps is not None:
            scale = self._wide(self.steps, W.shape[1]).astype(W.dtype)
            u = np.divide(W, scale, out=np.zeros_like(W), where=scale > 0)
        if self.zero is not None:
            u = u + self._wide(self.zero, W.shape[1]).astype(W.dtype)
        return u

    def nearest(self, W: Floats) -> Codes:
        """The code of the nearest level of every weight; the lower one of two as near.

        Args:
            W: (R, n).
        """
        return nearest_in(self.codebook, self.block, self.coordinates(W))

    def values(self, codes: Codes) -> Weights:
        """The weights that the codes stand for, float32.

        Args:
            codes: (R, n).
        """
        q = looked_up(self.codebook, self.block, codes)
        n = codes.shape[1]
        if self.zero is not None:
            q = q - self._wide(self.zero, n).astype(np.float32)
        if self.steps is not None:
            q = q * self._wide(self.steps, n)
        return q

    def column(self, at: int) -> "Levels":
        """The levels of one column alone."""
        b = at // self.block

        def of(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return part if part.shape[1] == 1 else part[:, b : b + 1]

        return replace(
            self,
            codebook=of(self.codebook),
            scale=None if self.scale is None else of(self.scale),
            zero=None if self.zero is None else of(self.zero),
        )

    def ascending(self, codes: Codes) -> "tuple[Levels, Codes]":
        """The same with every codebook in ascending order, and the codes to match."""
        order = np.argsort(self.codebook, axis=2, kind="stable")
        if np.array_equal(order, np.broadcast_to(np.arange(self.k), order.shape)):
            return self, codes
        rank = np.argsort(order, axis=2, kind="stable").astype(np.uint8)
        sorted_book = np.take_along_axis(self.codebook, order, 2)
        return replace(self, codebook=sorted_book), looked_up(rank, self.block, codes)

    def stored(self) -> int:
        """Numbers stored: codebooks, scales and zero points."""
        rows, blocks, _ = self.codebook.shape
        return rows * blocks * self.free + self._halves() + (self.unit != 1)

    def bits(self) -> int:
        """Bits of what `stored` counts: 32 a codebook entry, 16 a scale or zero point."""
        rows, blocks, _ = self.codebook.shape
        return 32 * (rows * blocks * self.free + (self.unit != 1)) + 16 * self._halves()

    def _halves(self) -> int:
        return sum(part.size for part in (self.scale, self.zero) if part is not None)

    def _wide(self, part: Floats, n: int) -> Floats:
        """One column per weight, where there are several blocks."""
        return part if part.shape[1] == 1 else np.repeat(part, self.block, axis=1)[:, :n]


def looked_up(table: npt.NDArray[Any], block: int, codes: Codes) -> npt.NDArray[Any]:
    """table[r, b, codes[r, i]] for every weight i of block b in row r."""
    rows, n = codes.shape
    if table.shape[:2] == (1, 1):
        return table[0, 0][codes]
    wide = (rows, table.shape[1], table.shape[2])
    b = np.minimum(np.arange(n, dtype=np.intp) // block, table.shape[1] - 1)
    return np.broadcast_to(table, wide)[np.arange(rows, dtype=np.intp)[:, None], b, codes]


def nearest_in(codebook: Weights, block: int, u: Floats) -> Codes:
    """The code of the level nearest to u (R, n), in the codebook's own units."""
    if codebook.shape[2] == 1:
        return np.zeros(u.shape, np.uint8)
    wide = codebook.astype(np.float64)
    borders = (0.5 * (wide[..., 1:] + wide[..., :-1])).astype(u.dtype)
    if borders.shape[:2] == (1, 1):
        return _among(borders[0, 0], u)
    codes = np.zeros(u.shape, np.uint8)
    for at in range(borders.shape[2]):
        border = borders[..., at]
        if border.shape[1] > 1:
            border = np.repeat(border, block, axis=1)[:, : u.shape[1]]
        codes += u > border
    return codes


def _among(borders: Floats, u: Floats) -> Codes:
    if borders.size >= _COMPARED_TO:
        return np.searchsorted(borders, u).astype(np.uint8)
    codes = np.zeros(u.shape, np.uint8)
    rows = max(1, (1 << 18) // max(u.shape[-1], 1))
    for at in range(0, len(u), rows):
        part, out = u[at : at + rows], codes[at : at + rows]
        for border in borders:
            out += part > border
    return codes


def as_half(values: Floats) -> Halves:
    """float16, the largest finite where a value is beyond it."""
    top = float(np.finfo(np.float16).max)
    return np.clip(values, -top, top).astype(np.float16)


def halved(scale: Floats) -> tuple[Halves, float]:
    """Scales as float16, and the power of two that they are to be multiplied by.

    The power is 1, and nobody stores it, unless the largest scale is so small (or large) that
    float16 would lose its digits.

    Example:
        >>> halved(np.array([0.5, 0.25]))[1], halved(np.array([2.0**-20]))[1]
        (1.0, 9.5367431640625e-07)
    """
    top = float(scale.max())
    unit = 1.0 if top <= 0 or 2.0**-12 <= top <= 2.0**15 else 2.0 ** np.floor(np.log2(top))
    return as_half(scale / unit), float(unit)
