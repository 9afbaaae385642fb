"""Resize as one matrix an axis, for what a device's own Resize does not do.

Interpolation is linear in its input and separable, so that along each axis y = A x with a
matrix A that sizes and attributes decide: A[i, j] is the weight of input j in output i
(ONNX operators, Resize: coordinate transformations, nearest, linear, cubic, antialias).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..tensorrt_rules import violations
from .known import Refused, first_of, from_front, input_of, known, rank_of, sizes_of
from .lowering import Builder

Values = tuple[ir.Value, ...]
Matrix = NDArray[np.float64]
LARGEST = 1 << 22
"""Entries of a matrix; a Resize of a larger axis is refused."""


@dataclass(frozen=True)
class _Axis:
    """One axis: its sizes, its scale, and what the node says about interpolation."""

    size: int
    made: int
    scale: float
    node: ir.Node

    def text(self, name: str, default: str) -> str:
        return self.node.attributes.get_string(name, default) or default

    @property
    def antialias(self) -> bool:
        return self.node.attributes.get_int("antialias", 0) == 1 and self.scale < 1


def nearest_by_whole_factors(node: ir.Node, builder: Builder) -> Values | None:
    """Enlarging by whole factors repeats each entry, whatever the rounding.

    floor(i / k) is what half_pixel makes of (i + 1/2) / k - 1/2 under either round_prefer: the
    rest is never a half. Written asymmetric and floor, which every parser takes.
    """
    text = node.attributes.get_string
    if (text("mode", "nearest") or "nearest") != "nearest" or "axes" in node.attributes:
        return None
    transform = text("coordinate_transformation_mode", "half_pixel") or "half_pixel"
    rounding = text("nearest_mode", "round_prefer_floor") or "round_prefer_floor"
    centred = transform in ("half_pixel", "pytorch_half_pixel") and "round" in rounding
    factors = known(input_of(node, 2))
    if not centred or factors is None or factors.size == 0:
        return None
    if np.any(factors < 1) or np.any(factors != np.floor(factors)):
        return None
    made = builder.op(
        "Resize",
        *node.inputs[:3],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return (made,)


def as_matrices(node: ir.Node, builder: Builder) -> Values | None:
    """y = A₁ x along each resized axis, where the sizes are static.

    Raises:
        Refused: sizes are dynamic, a region is cropped, or a matrix would be too large.
    """
    if builder.opset == builder.goal.opset and not any(violations(node, builder.goal.profile)):
        return None
    x = first_of(node)
    rank = rank_of(x)
    axes = from_front(tuple(node.attributes.get_ints("axes", None) or range(rank)), rank)
    if (
        node.attributes.get_string("coordinate_transformation_mode", "")
        == "tf_crop_and_resize"
    ):
        raise Refused("crops a region", "crop with Slice")
    for at, axis in enumerate(axes):
        matrix = _matrix(_axis(node, x, at, axis, axes))
        if matrix is not None:
            x = _along(builder, x, axis, matrix, rank)
    return (x,)


def _axis(node: ir.Node, x: ir.Value, at: int, axis: int, axes: tuple[int, ...]) -> _Axis:
    have = sizes_of(x)
    size = None if have is None else have[axis]
    factors, wanted = known(input_of(node, 2)), known(input_of(node, 3))
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch") or "stretch"
    factor = None if factors is None or factors.size == 0 else float(factors[at])
    if factor == 1.0 and size is None:
        return _Axis(1, 1, 1.0, node)
    if size is None or (factor is None and wanted is None):
        raise Refused("its sizes are dynamic", "fix the sizes with --shape")
    if factor is not None:
        return _Axis(size, math.floor(size * factor), factor, node)
    assert wanted is not None, "Resize has scales or sizes"
    if policy == "stretch":
        return _Axis(size, int(wanted[at]), int(wanted[at]) / size, node)
    lengths = [(sizes_of(first_of(node)) or ())[a] for a in axes]
    known_lengths = np.array([n for n in lengths if n is not None], np.float64)
    if len(known_lengths) < len(lengths):
        raise Refused("its sizes are dynamic", "fix the sizes with --shape")
    ratios = wanted / known_lengths
    scale = float(ratios.min() if policy == "not_larger" else ratios.max())
    return _Axis(size, math.floor(scale * size + 0.5), scale, node)


def _along(builder: Builder, x: ir.Value, axis: int, matrix: Matrix, rank: int) -> ir.Value:
    """A x along an axis: the last one multiplies from the right, the others from the left."""
    if matrix.size > LARGEST:
        raise Refused("its interpolation matrix is too large", "use a mode the device has")
    if axis == rank - 1:
        return builder.op("MatMul", x, builder.constant(matrix.T, like=x))
    if axis == rank - 2:
        return builder.op("MatMul", builder.constant(matrix, like=x), x)
    perm = [at for at in range(rank) if at != axis] + [axis]
    turned = builder.transpose(x, perm)
    made = builder.op("MatMul", turned, builder.constant(matrix.T, like=x))
    return builder.transpose(made, [perm.index(at) for at in range(rank)])


def _matrix(axis: _Axis) -> Matrix | None:
    """A of one axis; None where it is the identity."""
    if axis.size == axis.made and axis.scale == 1.0:
        return None
    mode = axis.text("mode", "nearest")
    matrix = np.zeros((axis.made, axis.size))
    for row in range(axis.made):
        place = _place(axis, row)
        if mode == "nearest":
            matrix[row, min(max(_nearest(axis, place), 0), axis.size - 1)] = 1
            continue
        _spread(axis, matrix[row], place, mode)
    return matrix


def _place(axis: _Axis, row: int) -> float:
    """The coordinate in the input of an output.

    In float32, as runtimes compute it: where it falls on a tie the last bit decides. With
    align_corners lengths are whole, as in ONNX Runtime (onnx's reference leaves them broken).
    """
    transform = axis.text("coordinate_transformation_mode", "half_pixel")
    scale, half, at = np.float32(axis.scale), np.float32(0.5), np.float32(row)
    if transform == "asymmetric":
        return float(at / scale)
    if transform == "align_corners":
        return (
            0.0 if axis.made == 1 else float(at * (axis.size - 1) / np.float32(axis.made - 1))
        )
    if transform == "pytorch_half_pixel" and axis.made == 1:
        return 0.0
    if transform == "tf_half_pixel_for_nn":
        return float((at + half) / scale)
    if transform == "half_pixel_symmetric":
        exact = scale * np.float32(axis.size)
        centre = np.float32(axis.size / 2) * (1 - np.float32(axis.made) / exact)
        return float(centre + (at + half) / scale - half)
    return float((at + half) / scale - half)


def _nearest(axis: _Axis, place: float) -> int:
    rounding = axis.text("nearest_mode", "round_prefer_floor")
    return {
        "floor": math.floor(place),
        "ceil": math.ceil(place),
        "round_prefer_floor": math.ceil(place - 0.5),
        "round_prefer_ceil": math.floor(place + 0.5),
    }[rounding]


def _spread(axis: _Axis, row: NDArray[np.float64], place: float, mode: str) -> None:
    """Adds the weights of one output; entries past the ends count for the ends."""
    weight, reach = _kernel(axis, mode)
    stretch = 1 / axis.scale if axis.antialias else 1.0
    first = math.floor(place - reach * stretch) + 1
    taps = range(first, math.ceil(place + reach * stretch))
    if not axis.antialias:
        start = math.floor(place) - math.ceil(reach) + 1
        taps = range(start, start + 2 * math.ceil(reach))
    weights = np.array([weight((tap - place) / stretch) for tap in taps])
    if axis.node.attributes.get_int("exclude_outside", 0) == 1:
        weights = np.where([0 <= tap < axis.size for tap in taps], weights, 0.0)
    weights = weights / weights.sum()
    for tap, part in zip(taps, weights, strict=True):
        row[min(max(tap, 0), axis.size - 1)] += part


def _kernel(axis: _Axis, mode: str) -> tuple[Callable[[float], float], int]:
    """The weight of a distance, and the distance from where on it is 0."""
    if mode == "linear":
        return lambda t: max(0.0, 1 - abs(t)), 1
    a = axis.node.attributes.get_float("cubic_coeff_a", -0.75)

    def cubic(t: float) -> float:
        """Keys, Cubic convolution interpolation (1981), with his a as a parameter."""
        t = abs(t)
        if t <= 1:
            return ((a + 2) * t - (a + 3)) * t * t + 1
        if t < 2:
            return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        return 0.0

    return cubic, 2
