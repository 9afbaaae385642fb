"""Packed products: 4-bit weights that ONNX Runtime multiplies by as they are (MatMulNBits).

The one executed branch in which a quantised weight is faster than the dense one: where few
rows meet every weight, a product is as fast as its weights are read. Measured on x86 with ONNX
Runtime 1.31, one thread, against the dense product in float32:

| inputs × outputs | rows | 4 bits, float32 arithmetic |
| --- | --- | --- |
| 4096 × 1024 | 1, 16 | 1.2 to 2.0, 1.25 times faster |
| 512 × 512 | 1, 16 | 1.1 to 1.4, 0.8 |
| 128 × 256 | 1, 16 | 0.9, 0.7 |

The operator's arithmetic is set here, for its default rounds what the layer reads to 8 bits,
an error of 2 to 4 % of the output. In float32 arithmetic 2 and 8 bits, and zero points that
are no integers, are up to thirty times slower than the dense product: they are folded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..device_profiles.profile import DeviceProfile
from .emitter import SiteEmitter
from .forms import CodedTerm, Term
from .geometry import Weights
from .sites import Site, gemm_transposes_input

DOMAIN = "com.microsoft"
FLOAT_ARITHMETIC = 1
"""accuracy_level of float32 arithmetic."""
BITS = 4
BLOCK = 128
"""Weights that share a scale, where a form says no number."""
LEAST_WEIGHTS = {1: 1 << 18, 16: 1 << 22}
"""Weights from which it is faster, by the most rows read at a time."""
_BLOCKS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Packed:
    """Operands of the product, as the operator wants them.

    Args:
        outputs, inputs: of the weight.
        block: inputs that share a scale.
        codes: (outputs, blocks, block / 2) uint8, the first of two codes in the low bits.
        scales: (outputs · blocks,) float32.
        zeros: (outputs · ⌈blocks / 2⌉,) uint8, two a byte; None where all are 8.
    """

    outputs: int
    inputs: int
    block: int
    codes: npt.NDArray[np.uint8]
    scales: Weights
    zeros: npt.NDArray[np.uint8] | None

    @property
    def stored_bytes(self) -> int:
        """What the operands take in a file."""
        zeros = 0 if self.zeros is None else self.zeros.nbytes
        return self.codes.nbytes + self.scales.nbytes + zeros


def is_faster(site: Site, profile: DeviceProfile) -> bool:
    """Whether a packed product was measured to be no slower than the dense one."""
    if profile.runtime != "onnxruntime" or profile.lowering.quantized != "u8s8":
        return False
    rows = site.geometry.as_kernel(site.shape[1], site.shape[2], site.shape[0]).positions
    if rows is None:
        return False
    limit = next((least for most, least in LEAST_WEIGHTS.items() if rows <= most), None)
    return limit is not None and site.weights >= limit


def packed(site: Site, term: Term) -> Packed | None:
    """The operands for a term; None where the operator cannot say it exactly.

    It takes 4-bit codes q of values scale · (q − zero), with an integer zero point, at the
    right side of a product.
    """
    if site.op not in ("MatMul", "Gemm") or site.geometry.weight_is_left or site.geometry.lead:
        return None
    if site.dtype != ir.DataType.FLOAT or gemm_transposes_input(site):
        return None
    if not isinstance(term, CodedTerm) or term.levels.k != 1 << BITS:
        return None
    levels = term.levels
    steps = levels.steps
    if steps is None or levels.codebook.shape[:2] != (1, 1):
        return None
    book = levels.codebook[0, 0]
    rows, n = term.codes.shape
    block = BLOCK if steps.shape[1] == 1 else levels.block
    if block not in _BLOCKS or not np.array_equal(book, book[0] + np.arange(1 << BITS)):
        return None
    held = np.zeros((1, 1), np.float32) if levels.zero is None else levels.zero
    zero = held.astype(np.float32) - book[0]
    if not np.isin(zero, np.arange(1 << BITS)).all():
        return None
    blocks = -(-n // block)
    zeros = np.broadcast_to(zero, (rows, blocks)).astype(np.uint8)
    codes = np.zeros((rows, blocks * block), np.uint8)
    codes[:, :n] = term.codes
    return Packed(
        rows,
        n,
        block,
        _nibbles(codes).reshape(rows, blocks, block // 2),
        np.ascontiguousarray(np.broadcast_to(steps, (rows, blocks)), np.float32).reshape(-1),
        None if (zeros == 1 << (BITS - 1)).all() else _nibbles(zeros).reshape(-1),
    )


def packed_product(operands: Packed, emitter: SiteEmitter, x: ir.Value) -> ir.Value:
    """The node that multiplies x by the packed weight."""
    inputs: list[ir.Value | None] = [
        x,
        emitter.stored(operands.codes, "q.codes"),
        emitter.stored(operands.scales, "q.scales"),
    ]
    if operands.zeros is not None:
        inputs.append(emitter.stored(operands.zeros, "q.zeros"))
    attributes: dict[str, int | str | tuple[int, ...]] = {
        "K": operands.inputs,
        "N": operands.outputs,
        "bits": BITS,
        "block_size": operands.block,
        "accuracy_level": FLOAT_ARITHMETIC,
    }
    return emitter.node("MatMulNBits", inputs, "q", attributes, domain=DOMAIN)


def _nibbles(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(rows, n) numbers below 16, two a byte along the row, the first in the low bits."""
    wide = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return (wide[:, ::2] | wide[:, 1::2] << 4).astype(np.uint8)
