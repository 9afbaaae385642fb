"""In-graph decoding: small constants that unfold into a dense weight when the model is loaded.

A runtime computes what depends on constants alone once, while it loads a model. A weight of
few levels is therefore stored as one byte for several neighbouring weights and looked up in a
table of all their combinations; sparse corrections are stored as gaps and values. What costs
when a model is loaded is the number of passes over the dense weight (fresh memory, more than
arithmetic), and this takes two, corrections included: a look-up and a change of shape.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .geometry import Weights

if TYPE_CHECKING:
    from .forms.form import Emitter

Integers = npt.NDArray[np.integer[Any]]

BYTE = 256
_WORTH_A_TABLE = 1 << 14
"""Weights from which corrections go through the table: more nodes, but fewer dense passes."""
_WORTH_NIBBLES = 4096
"""Gaps from which the nodes that take 4-bit ones apart are smaller than what they save."""
_NIBBLE = 16
_EMPTY_WORD = 8


@dataclass(frozen=True)
class Words:
    """A weight as words of `width` neighbours in row order, each a row of a table.

    Args:
        at: (words,) int32, the row of each word.
        table: (rows, width) float32.
        rows, width: of the table.
        count: number of weights; the last word may be filled up.
    """

    at: ir.Value
    table: ir.Value
    rows: int
    width: int
    count: int

    @property
    def words(self) -> int:
        """Number of words."""
        return -(-self.count // self.width)


def packed_width(levels: int, count: int = 0) -> int:
    """Weights of `levels` levels that share a byte: the largest w with levels^w ≤ 256.

    A narrower word is taken where it divides `count` and is nearly as small, for a weight that
    does not fill its words has to be cut to size when it is decoded.

    Example:
        >>> [packed_width(k) for k in (1, 2, 3, 4, 16, 17, 256)]
        [8, 8, 5, 4, 2, 1, 1]
        >>> packed_width(3, 64)
        4
    """
    width = 8 if levels <= 2 else max(int(math.log(BYTE + 0.5, levels)), 1)
    narrower = next((w for w in range(width, 0, -1) if count % w == 0), width)
    return narrower if 4 * narrower >= 3 * width else width


def packed_codes(
    emitter: "Emitter", index: Integers, codebook: Weights, part: str = "q"
) -> Words:
    """Weights codebook[index], several a byte.

    The table is made in the graph from the codebook and the digits of every byte in base K;
    more than 256 levels take two bytes a weight.

    Args:
        emitter: of the site.
        index: level of every weight in row order, of any shape.
        codebook: (K,) float32.
        part: name of the nodes and constants.
    """
    flat = np.ravel(index)
    K = max(codebook.size, 1)
    levels = emitter.stored(codebook.astype(np.float32, copy=False), f"{part}.codebook")
    if K > BYTE:
        table = emitter.node("Reshape", [levels, _sizes(emitter, (-1, 1), part)], part)
        codes = emitter.stored(flat.astype(np.uint16), f"{part}.codes")
        return Words(_int32(emitter, codes, part), table, K, 1, flat.size)
    width = packed_width(K, flat.size)
    base = max(K, 2)
    powers: Integers = np.array([base**i for i in range(width)], np.int64)
    every = np.arange(base**width, dtype=np.int64)
    digits = np.minimum(every[:, None] // powers % base, K - 1).astype(np.uint8)
    table = emitter.node(
        "Gather",
        [levels, _int32(emitter, emitter.stored(digits, f"{part}.digits"), part)],
        f"{part}.table",
    )
    filled = np.zeros((-(-flat.size // width), width), np.int64)
    filled.ravel()[: flat.size] = flat
    codes = emitter.stored((filled @ powers).astype(np.uint8), f"{part}.codes")
    return Words(_int32(emitter, codes, part), table, len(digits), width, flat.size)


def no_codes(emitter: "Emitter", count: int, part: str = "p") -> Words:
    """Weights that are all zero, for corrections to stand on."""
    table = emitter.stored(np.zeros((1, _EMPTY_WORD), np.float32), f"{part}.zero")
    words = -(-count // _EMPTY_WORD)
    row = emitter.stored(np.zeros(1, np.int32), f"{part}.none")
    at = emitter.node("Expand", [row, _sizes(emitter, (words,), part)], part)
    return Words(at, table, 1, _EMPTY_WORD, count)


def matrix(
    emitter: "Emitter", words: Words, shape: tuple[int, int], part: str = "q"
) -> ir.Value:
    """The dense matrix of `shape`: one look-up and a change of shape."""
    W = emitter.node("Gather", [words.table, words.at], f"{part}.words")
    if words.count % words.width:
        W = emitter.node("Reshape", [W, _sizes(emitter, (-1,), part)], f"{part}.flat")
        start = emitter.stored(np.zeros(1, np.int64), f"{part}.start")
        stop = emitter.stored(np.array([words.count], np.int64), f"{part}.stop")
        W = emitter.node("Slice", [W, start, stop], f"{part}.cut")
    return emitter.node("Reshape", [W, _sizes(emitter, shape, part)], f"{part}.matrix")


def corrected_matrix(
    emitter: "Emitter",
    words: Words,
    at: Integers,
    values: Weights,
    shape: tuple[int, int],
    part: str = "p",
) -> ir.Value:
    """The dense matrix of `shape` with values added at some weights.

    Every word that holds a correction gets a row of its own behind the table, so that the
    corrections are added to a few words instead of to the whole weight.

    Args:
        emitter: of the site.
        words: what is corrected.
        at: (p,) positions in row order, increasing.
        values: (p,) float16 or float32, added in float32.
        shape: rows and columns.
        part: name of the nodes and constants.
    """
    touched = np.unique(at // words.width)
    if at.size == 0 or words.count < _WORTH_A_TABLE or 2 * touched.size > words.words:
        return scattered(emitter, matrix(emitter, words, shape, part), at, values, shape, part)
    filled = with_fillers(touched, 0)
    own = np.searchsorted(filled, at // words.width) * words.width + at % words.width
    word_at = _positions(emitter, filled, f"{part}.word")
    rows = emitter.node("Gather", [words.at, word_at], f"{part}.row")
    rows = emitter.node("Gather", [words.table, rows], f"{part}.row")
    rows = emitter.node("Reshape", [rows, _sizes(emitter, (-1,), part)], f"{part}.row")
    rows = _added(emitter, rows, own, values, part)
    sizes = _sizes(emitter, (-1, words.width), f"{part}.row")
    rows = emitter.node("Reshape", [rows, sizes], f"{part}.row")
    table = emitter.node("Concat", [words.table, rows], f"{part}.table", {"axis": 0})
    first, last, step = (
        emitter.stored(np.array(number, np.int32), f"{part}.{name}")
        for name, number in (
            ("first", words.rows),
            ("last", words.rows + filled.size),
            ("step", 1),
        )
    )
    own_rows = emitter.node("Range", [first, last, step], f"{part}.own")
    codes = emitter.node("ScatterElements", [words.at, word_at, own_rows], f"{part}.codes")
    corrected = Words(codes, table, words.rows + filled.size, words.width, words.count)
    return matrix(emitter, corrected, shape, part)


def scattered(
    emitter: "Emitter",
    W: ir.Value,
    at: Integers,
    values: Weights,
    shape: tuple[int, int],
    part: str = "p",
) -> ir.Value:
    """A dense matrix with values added at some weights: three more passes over it.

    Args:
        emitter: of the site.
        W: of `shape`, float32.
        at: (p,) positions in row order, increasing.
        values: (p,) float16 or float32, added in float32.
        shape: rows and columns.
        part: name of the nodes and constants.
    """
    if at.size == 0:
        return W
    flat = emitter.node("Reshape", [W, _sizes(emitter, (-1,), part)], f"{part}.flat")
    flat = _added(emitter, flat, at, values, part)
    return emitter.node("Reshape", [flat, _sizes(emitter, shape, part)], f"{part}.sum")


def with_fillers(positions: Integers, value_bytes: int) -> npt.NDArray[np.int64]:
    """Increasing positions whose gaps, from zero on, fit the cheapest integer type.

    Where a gap does not fit, positions between are filled in, as LC part V does (appendix
    B.1): the dummy entries of gap coding.

    Args:
        positions: increasing, not negative.
        value_bytes: what is stored beside every gap.

    Example:
        >>> import numpy as np
        >>> with_fillers(np.array([3, 300, 310, 320]), 2).tolist()
        [3, 258, 300, 310, 320]
    """
    wide = positions.astype(np.int64)
    gaps = np.diff(wide, prepend=0)

    def fillers(limit: int) -> npt.NDArray[np.int64]:
        return np.maximum(-(-gaps // limit) - 1, 0)

    def size(limit: int, width: int) -> int:
        return (wide.size + int(fillers(limit).sum())) * (width + value_bytes)

    limit = 255 if size(255, 1) <= size(65535, 2) else 65535
    extra = fillers(limit)
    if not extra.any():
        return wide
    before = np.repeat(wide - gaps, extra)
    step = np.arange(before.size) - np.repeat(np.cumsum(extra) - extra, extra) + 1
    return np.sort(np.concatenate([wide, before + limit * step]))


def _added(
    emitter: "Emitter", flat: ir.Value, at: Integers, values: Weights, part: str
) -> ir.Value:
    """`flat` with values added at increasing positions."""
    filled = _even(with_fillers(at, values.dtype.itemsize))
    padded = np.zeros(filled.size, values.dtype)
    padded[np.searchsorted(filled, at)] = values
    where = _positions(emitter, filled, part)
    stored = emitter.stored(padded, f"{part}.values")
    if padded.dtype != np.float32:
        to = int(ir.DataType.FLOAT)
        stored = emitter.node("Cast", [stored], f"{part}.values", {"to": to})
    was = emitter.node("Gather", [flat, where], f"{part}.was")
    now = emitter.node("Add", [was, stored], f"{part}.now")
    return emitter.node("ScatterElements", [flat, where, now], f"{part}.scattered")


def _positions(emitter: "Emitter", filled: npt.NDArray[np.int64], part: str) -> ir.Value:
    """Increasing positions (int32) from the gaps between them: 4, 8 or 16 bits each."""
    gaps = np.diff(filled, prepend=0)
    if gaps.size >= _WORTH_NIBBLES and gaps.size % 2 == 0 and gaps.max() < _NIBBLE:
        pairs = gaps.reshape(-1, 2)
        stored = emitter.stored(
            (pairs[:, 0] + _NIBBLE * pairs[:, 1]).astype(np.uint8), f"{part}.gaps"
        )
        every = np.arange(BYTE)
        digits = np.stack([every % _NIBBLE, every // _NIBBLE], axis=1).astype(np.uint8)
        table = _int32(emitter, emitter.stored(digits, f"{part}.nibbles"), part)
        steps = emitter.node("Gather", [table, _int32(emitter, stored, part)], f"{part}.gaps")
        steps = emitter.node("Reshape", [steps, _sizes(emitter, (-1,), part)], f"{part}.gaps")
    else:
        narrow = np.uint8 if gaps.max(initial=0) < BYTE else np.uint16
        steps = _int32(emitter, emitter.stored(gaps.astype(narrow), f"{part}.gaps"), part)
    axis = emitter.stored(np.array(0, np.int64), f"{part}.axis")
    return emitter.node("CumSum", [steps, axis], f"{part}.at")


def _even(filled: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The positions and one more between them where their number is odd and there is room."""
    free = np.flatnonzero(np.diff(filled, prepend=-1) > 1)
    if filled.size % 2 == 0 or free.size == 0:
        return filled
    return np.insert(filled, free[0], filled[free[0]] - 1)


def _int32(emitter: "Emitter", value: ir.Value, part: str) -> ir.Value:
    to = int(ir.DataType.INT32)
    return emitter.node("Cast", [value], f"{part}.int32", {"to": to})


def _sizes(emitter: "Emitter", shape: tuple[int, ...], part: str) -> ir.Value:
    name = "x".join("n" if size < 0 else str(size) for size in shape)
    return emitter.stored(np.array(shape, np.int64), f"{part}.{name}")
