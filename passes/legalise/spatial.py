"""Convolution and pooling: one spatial axis as two, and what poolings learned later."""

import math

import numpy as np
import onnx_ir as ir

from .known import Refused, dtype_of, first_of, input_of, is_used, known, rank_of, sizes_of
from .lowering import Attribute, Builder

Values = tuple[ir.Value, ...]


def as_two_dimensional(node: ir.Node, builder: Builder) -> Values | None:
    """A 1-D Conv, ConvTranspose or pooling with an axis of height 1 before the other."""
    x = first_of(node)
    if rank_of(x) != 3 or is_used(node, 1):
        return None
    wide = builder.unsqueeze(x, [2])
    inputs: list[ir.Value | None] = [wide]
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = known(first_of(node, 1))
        if weight is None:
            raise Refused("its weights are computed", "fold constants first")
        inputs.append(builder.constant(weight[:, :, None, :], like=first_of(node, 1)))
        inputs.append(input_of(node, 2))
    attributes = {name: _widened(a) for name, a in node.attributes.items()}
    y = builder.op(node.op_type, *inputs, more=attributes)
    return (builder.squeeze(y, [2]),)


def _widened(attribute: ir.Attr) -> Attribute:
    """An attribute of one spatial axis for two; the new one has size and step 1."""
    if attribute.name in ("kernel_shape", "strides", "dilations", "output_shape"):
        return (1, *attribute.as_ints())
    if attribute.name == "pads":
        begin, end = attribute.as_ints()
        return (0, begin, 0, end)
    if attribute.name == "output_padding":
        return (0, *attribute.as_ints())
    return attribute.value


def average_pool(node: ir.Node, builder: Builder) -> Values | None:
    """AveragePool with dilations or the `ceil_mode` of opset 19.

    Without dilations and with sizes that need no rounding up it is the older operator. Else
    sums are taken by a depthwise convolution with ones and divided by the counts of what is
    inside: the input, and with `count_include_pad` its padding as well.
    """
    x = first_of(node)
    kernel, strides, dilations, pads = _window(node)
    rounds_up = node.attributes.get_int("ceil_mode", 0) == 1
    extra = _extra(x, kernel, strides, dilations, pads) if rounds_up else [0] * len(kernel)
    attributes: dict[str, Attribute] = {
        name: a.value
        for name, a in node.attributes.items()
        if name not in ("ceil_mode", "dilations")
    }
    if all(step == 1 for step in dilations) and not any(extra):
        return (builder.op("AveragePool", x, more=attributes),)
    if (node.attributes.get_string("auto_pad", "NOTSET") or "NOTSET") not in (
        "NOTSET",
        "VALID",
    ):
        raise Refused("dilations with auto_pad", "export with explicit pads")
    sizes = sizes_of(x)
    if sizes is None or None in sizes[1:]:
        raise Refused("its counts depend on dynamic sizes", "fix the sizes with --shape")
    spatial = [int(size or 0) for size in sizes[2:]]
    channels = int(sizes[1] or 0)
    dims = len(kernel)
    padded = [*pads[:dims], *(p + e for p, e in zip(pads[dims:], extra, strict=True))]
    ones = np.ones((channels, 1, *kernel), np.float32)
    total = builder.op(
        "Conv",
        x,
        builder.constant(ones, like=x),
        group=channels,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=padded,
    )
    with_pads = node.attributes.get_int("count_include_pad", 0) == 1
    counts = _counts(spatial, kernel, strides, dilations, pads, extra, with_pads)
    return (builder.op("Div", total, builder.constant(counts, like=x)),)


def _window(node: ir.Node) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations and pads of a pooling."""
    kernel = list(node.attributes["kernel_shape"].as_ints())
    dims = len(kernel)
    names = ("strides", "dilations", "pads")
    given = {n: list(node.attributes[n].as_ints()) for n in names if n in node.attributes}
    ones = [1] * dims
    return (
        kernel,
        given.get("strides", ones),
        given.get("dilations", ones),
        given.get("pads", [0] * (2 * dims)),
    )


def _extra(
    x: ir.Value, kernel: list[int], strides: list[int], dilations: list[int], pads: list[int]
) -> list[int]:
    """Padding behind each axis that rounding up implies; no window may start inside it."""
    sizes = sizes_of(x)
    dims = len(kernel)
    made: list[int] = []
    for axis in range(dims):
        size = None if sizes is None else sizes[axis + 2]
        if size is None:
            if strides[axis] == 1:
                made.append(0)
                continue
            raise Refused("rounds dynamic sizes up", "fix the sizes, or use ceil_mode=0")
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        room = size + pads[axis] + pads[axis + dims] - reach
        steps = math.ceil(room / strides[axis])
        if steps * strides[axis] >= size + pads[axis]:
            steps -= 1
        made.append(max(0, steps * strides[axis] - room))
    return made


def _counts(
    spatial: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    extra: list[int],
    with_pads: bool,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """How many entries each window averages, (1, 1, *output)."""
    dims = len(kernel)
    total = np.ones((1, 1), np.float32)
    for axis in range(dims):
        begin, end = pads[axis], pads[axis + dims]
        inside = np.zeros(begin + spatial[axis] + end + extra[axis], np.float32)
        if with_pads:
            inside[: begin + spatial[axis] + end] = 1
        else:
            inside[begin : begin + spatial[axis]] = 1
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        starts = range(0, len(inside) - reach + 1, strides[axis])
        counted = [inside[s : s + reach : dilations[axis]].sum() for s in starts]
        total = total[..., None] * np.array(counted, np.float32)
    return total


def lp_pool(node: ir.Node, builder: Builder) -> Values | None:
    """LpPool without dilations as (n mean |x|^p)^(1/p), n entries a window."""
    kernel, strides, dilations, pads = _window(node)
    x = first_of(node)
    rounds_up = node.attributes.get_int("ceil_mode", 0) == 1
    if any(step != 1 for step in dilations):
        raise Refused("pools with dilations", "pool without dilations")
    if rounds_up and any(_extra(x, kernel, strides, dilations, pads)):
        raise Refused("rounds sizes up", "export with ceil_mode=0")
    p = node.attributes.get_int("p", 2)
    size = builder.op("Abs", x)
    if p != 1:
        size = builder.op("Pow", size, builder.constant(p, like=x))
    mean = builder.op(
        "AveragePool",
        size,
        kernel_shape=kernel,
        strides=strides,
        pads=pads if "pads" in node.attributes else None,
        auto_pad=node.attributes.get_string("auto_pad", None),
        count_include_pad=1,
    )
    total = builder.op("Mul", mean, builder.constant(math.prod(kernel), like=x))
    if p == 1:
        return (total,)
    return (builder.op("Pow", total, builder.constant(1 / p, like=x)),)


def max_pool(node: ir.Node, builder: Builder) -> Values | None:
    """MaxPool without an Indices output that nobody reads, dilations of 1 and late windows.

    Rounding up is written as padding behind, since opset 22 leaves out windows in the padding.
    """
    if is_used(node, 1):
        raise Refused("its Indices output is read", "remove the second output")
    x = first_of(node)
    kernel, strides, dilations, pads = _window(node)
    dropped = {"storage_order"} | ({"dilations"} if set(dilations) == {1} else set[str]())
    attributes: dict[str, Attribute] = {
        name: a.value for name, a in node.attributes.items() if name not in dropped
    }
    late = node.op_type == "MaxPool" and attributes.get("ceil_mode") == 1
    if late and builder.opset > builder.goal.opset:
        extra = _extra(x, kernel, strides, dilations, pads)
        behind = [p + e for p, e in zip(pads[len(kernel) :], extra, strict=True)]
        attributes |= {"ceil_mode": 0, "pads": [*pads[: len(kernel)], *behind]}
    if attributes == {name: a.value for name, a in node.attributes.items()}:
        return None
    return (builder.op("MaxPool", x, more=attributes),)


def global_lp_pool(node: ir.Node, builder: Builder) -> Values:
    """The p-norm over all spatial axes, p 1 or 2."""
    p = node.attributes.get_int("p", 2)
    if p not in (1, 2):
        raise Refused(f"pools by the {p}-norm", "use p = 1 or 2")
    x = first_of(node)
    axes = list(range(2, rank_of(x)))
    return (builder.reduce(f"ReduceL{p}", x, axes),)


def lp_normalization(node: ir.Node, builder: Builder) -> Values:
    """x / ‖x‖_p along one axis, p 1 or 2; 0 where the norm is 0."""
    x = first_of(node)
    p = node.attributes.get_int("p", 2)
    axis = node.attributes.get_int("axis", -1)
    norm = builder.reduce(f"ReduceL{p}", x, [axis])
    zero, one = (builder.constant(v, like=x) for v in (0, 1))
    divisor = builder.op("Where", builder.op("Greater", norm, zero), norm, one)
    return (builder.op("Div", x, divisor),)


def roi_align(node: ir.Node, builder: Builder) -> Values:
    """RoiAlign in the coordinates that it had before opset 16."""
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if mode != "output_half_pixel":
        raise Refused(f"its coordinates are {mode}", "export with output_half_pixel")
    attributes: dict[str, Attribute] = {
        name: a.value
        for name, a in node.attributes.items()
        if name != "coordinate_transformation_mode"
    }
    return (
        builder.op("RoiAlign", *node.inputs, more=attributes, dtype=dtype_of(first_of(node))),
    )
