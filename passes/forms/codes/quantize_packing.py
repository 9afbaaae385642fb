"""Codes packed into bytes, and the nodes that unpack them when a model is loaded."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..form import Emitter

Bytes = npt.NDArray[np.uint8]

_INT32 = int(ir.DataType.INT32)


@dataclass(frozen=True)
class Plane:
    """Digits of the codes in one base, several to a byte, the first most significant.

    Args:
        base: digits are 0 … base − 1.
        per: digits in a byte, baseᵖᵉʳ ≤ 256.
        weight: what a digit counts in the code.
    """

    base: int
    per: int
    weight: int

    def table(self) -> npt.NDArray[np.int64]:
        """(baseᵖᵉʳ, per) the digits of every byte, times their weight."""
        numbers = np.arange(self.base**self.per, dtype=np.int64)[:, None]
        places = self.base ** np.arange(self.per - 1, -1, -1, dtype=np.int64)
        return numbers // places % self.base * self.weight


def planes(k: int) -> tuple[Plane, ...]:
    """The smallest of two ways to write codes 0 … k − 1: digits in base k, or planes of bits.

    Digits in base k: ⌊8 / log₂ k⌋ codes to a byte, so that k = 3 takes 1.6 bits and k = 5 or 6
    take 8/3. Planes of 4, 2 and 1 bits: ⌈log₂ k⌉ bits for any k.

    Example:
        >>> planes(2)
        (Plane(base=2, per=8, weight=1),)
        >>> planes(8)
        (Plane(base=4, per=4, weight=2), Plane(base=2, per=8, weight=1))
    """
    width = (k - 1).bit_length()
    per = 8
    while k**per > 256:
        per -= 1
    if k == 1 or per * width >= 8 or width == 8:
        return (Plane(k, per, 1),)
    found: list[Plane] = []
    left = width
    for bits in (4, 2, 1):
        if left >= bits:
            left -= bits
            found.append(Plane(1 << bits, 8 // bits, 1 << left))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Packed:
    """Codes of a matrix as bytes.

    Args:
        k: codes are 0 … k − 1.
        bytes_: one array of bytes for each of `planes(k)`.
        tail: the last codes, fewer than fill a byte of every plane.
    """

    k: int
    bytes_: tuple[Bytes, ...]
    tail: Bytes

    def arrays(self) -> dict[str, Bytes]:
        """By part name; the tail only where there is one."""
        if len(self.bytes_) == 1:
            found = {"codes": self.bytes_[0]}
        else:
            found = {f"codes.{i}": part for i, part in enumerate(self.bytes_)}
        return found | ({"tail": self.tail} if self.tail.size else {})

    def unpacked(self, emitter: Emitter, values: npt.NDArray[Any]) -> ir.Value:
        """Nodes for values[code] of every code, flat.

        uint8 → Cast → Gather from a table that holds the values of all the codes of a byte →
        Reshape. With several planes the sum of their digits looks the value up.

        Args:
            emitter: writes the nodes.
            values: (k,) float32 or int32; what the nodes compute.
        """
        parts = planes(self.k)
        if len(parts) == 1:
            table = values[parts[0].table()]
            flat = self._gathered(emitter, 0, table)
            tail = values[self.tail]
        else:
            digits = [
                self._gathered(emitter, i, plane.table().astype(np.int32))
                for i, plane in enumerate(parts)
            ]
            flat = digits[0]
            for digit in digits[1:]:
                flat = emitter.node("Add", [flat, digit], "q.code")
            if not _counts(values):
                book = emitter.stored(values, "q.codebook")
                flat = emitter.node("Gather", [book, flat], "q.level", {"axis": 0})
            tail = values[self.tail]
        if not tail.size:
            return flat
        rest = emitter.stored(tail, "q.tail")
        if not self.bytes_[0].size:
            return rest
        return emitter.node("Concat", [flat, rest], "q.whole", {"axis": 0})

    def _gathered(self, emitter: Emitter, at: int, table: npt.NDArray[Any]) -> ir.Value:
        name = "q" if len(self.bytes_) == 1 else f"q.{at}"
        codes = emitter.stored(self.bytes_[at], f"{name}.codes")
        index = emitter.node("Cast", [codes], f"{name}.index", {"to": _INT32})
        held = emitter.stored(table, f"{name}.table")
        wide = emitter.node("Gather", [held, index], f"{name}.digits", {"axis": 0})
        flat = emitter.stored(np.array([-1], np.int64), f"{name}.flat")
        return emitter.node("Reshape", [wide, flat], f"{name}.line")


def pack(codes: Bytes, k: int) -> Packed:
    """The codes 0 … k − 1 in as few bytes as `planes` needs.

    Args:
        codes: any shape, in C order.
        k: number of levels, ≤ 256.
    """
    flat = codes.reshape(-1)
    parts = planes(k)
    most = max(plane.per for plane in parts)
    whole = flat.size // most * most
    packed: list[Bytes] = []
    for plane in parts:
        digits = flat[:whole] // np.uint8(plane.weight)
        if plane.base * plane.weight < k:
            digits %= np.uint8(plane.base)
        byte = np.zeros(whole // plane.per, np.uint8)
        for place in range(plane.per):
            byte *= np.uint8(plane.base & 255)
            byte += digits[place :: plane.per]
        packed.append(byte)
    return Packed(k, tuple(packed), flat[whole:].copy())


def _counts(values: npt.NDArray[Any]) -> bool:
    """Whether a code is its own value."""
    return values.dtype.kind == "i" and np.array_equal(values, np.arange(values.size))
