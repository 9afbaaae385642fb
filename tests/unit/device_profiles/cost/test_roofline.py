"""The roofline: the equation term by term, and what classes nobody measured run at."""

import dataclasses

import pytest

from nncc.device_profiles.cost.fused import FusedKernel
from nncc.device_profiles.cost.roofline import Roofline, padded_flops
from nncc.device_profiles.kernel import Kernel

ROOF = Roofline(
    10.0, 100.0, 10.0, 2, 32, {"3x3": 2.0, "1x1": 1.5}, {"depthwise": 4.0}, frozenset({"3x3"})
)


def conv(outputs=64, inputs=64, kernel=(3, 3), groups=1, side=16, strides=()):
    linear = Kernel(
        "Conv", groups, outputs, inputs, kernel, (1, side, side), (1, side, side)
    )  # fmt: skip
    elements = side * side * groups
    return FusedKernel("Conv", linear, elements * inputs, elements * outputs, strides)


def test_arithmetic_counts_where_it_is_slower():
    kernel = conv()
    flops = 2 * 64 * 64 * 9 * 256
    assert ROOF.seconds(kernel) == pytest.approx(10e-6 + flops / 200e9)


def test_traffic_counts_where_it_is_slower():
    pool = FusedKernel("MaxPool", None, 40_000, 10_000)
    assert ROOF.seconds(pool) == pytest.approx(10e-6 + 50_000 * 2 / 10e9)


def test_output_channels_are_rounded_up_to_tiles():
    assert padded_flops(conv(33), 32) == pytest.approx(conv(64).flops)
    assert padded_flops(conv(64), 32) == conv(64).flops
    assert padded_flops(conv(64), 1) == conv(64).flops


def test_a_depthwise_convolution_has_no_tiles_and_its_own_traffic():
    kernel = conv(1, 1, groups=64)
    assert padded_flops(kernel, 32) == kernel.flops
    assert ROOF.seconds(kernel) == pytest.approx(10e-6 + kernel.elements * 2 * 4 / 10e9)


@pytest.mark.parametrize("kernel", [(1, 5), (7, 1)])
def test_a_long_kernel_runs_as_a_direct_one(kernel):
    assert conv(kernel=kernel).kind == "1xk"
    assert ROOF.rate("1xk") == ROOF.rate("direct") == ROOF.rate("transposed") == 1.0


def test_a_product_runs_as_a_pointwise_convolution():
    assert ROOF.rate("gemm") == ROOF.rate("gemv") == 1.5


def test_a_group_runs_as_a_convolution_of_its_own():
    grouped, one = conv(64, 64, groups=4), conv(64, 64)
    assert grouped.kind == "grouped"
    assert ROOF.seconds(grouped) - 10e-6 == pytest.approx(4 * (ROOF.seconds(one) - 10e-6))
    measured = dataclasses.replace(ROOF, rates={**ROOF.rates, "grouped": 0.5})
    assert measured.seconds(grouped) == pytest.approx(10e-6 + grouped.flops / 50e9)
