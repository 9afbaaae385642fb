"""The CPU's analytic model: code paths, what they do, and fits that find it again."""

import numpy as np
import pytest

from nncc.device_profiles.cost.cpu import CpuModel, Sample, amounts, errors, fitted, path
from nncc.device_profiles.cost.fused import FusedKernel
from nncc.device_profiles.errors import MeasureError
from nncc.device_profiles.kernel import Kernel

BLOCK = 16


def conv(ci: int, co: int, k: int, size: int, groups: int = 1) -> FusedKernel:
    linear = Kernel(
        "Conv", groups, co // groups, ci // groups, (k, k), (1, size, size), (1, size, size)
    )
    return FusedKernel("Conv", linear, ci * size**2, co * size**2, (1, 1), ("Relu",))


def product(rows: int, inputs: int, outputs: int) -> FusedKernel:
    linear = Kernel("MatMul", 1, outputs, inputs, (), (rows,), (rows,))
    return FusedKernel("MatMul", linear, rows * inputs, rows * outputs)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (conv(64, 64, 3, 56), "blocked"),
        (conv(64, 64, 1, 56), "pointwise"),
        (conv(3, 64, 3, 56), "stem"),
        (conv(64, 64, 3, 56, groups=64), "depthwise"),
        (conv(64, 64, 3, 56, groups=4), "blocked-grouped"),
        (conv(64, 64, 3, 56, groups=8), "unaligned-grouped"),
        (conv(18, 64, 3, 56), "unaligned"),
        (conv(18, 64, 1, 56), "unaligned-pointwise"),
        (conv(20, 64, 3, 56), "blocked"),
        (product(1, 64, 64), "gemv"),
        (product(8, 64, 64), "gemm"),
    ],
)
def test_kernels_take_the_path_that_the_runtime_has_for_them(
    kernel: FusedKernel, expected: str
) -> None:
    assert path(kernel, BLOCK) == expected


def test_without_a_blocked_layout_every_convolution_is_a_matrix_product() -> None:
    assert path(conv(64, 64, 3, 56), 1) == "unaligned"


def test_channels_are_padded_to_whole_blocks() -> None:
    odd, whole = amounts(conv(64, 50, 3, 28), BLOCK), amounts(conv(64, 64, 3, 28), BLOCK)
    assert odd[1] == whole[1] > 0


def test_padding_computes_nothing() -> None:
    linear = Kernel("Conv", 1, 16, 16, (3, 3), (1, 4, 4), (1, 4, 4))
    kernel = FusedKernel("Conv", linear, 256, 256, (1, 1))
    # of 3 x 3 taps at 4 x 4 positions, (2 + 3 + 3 + 2)² fall on the image
    assert amounts(kernel, BLOCK)[1] == pytest.approx(16 * 16 * 10**2)


def test_a_fit_finds_the_machine_that_made_the_samples() -> None:
    true = CpuModel(
        BLOCK,
        {"blocked": (2e-6, 8e-12, 5e-11, 0.0, 4e-11, 0.0, 0.0, 0.0, 0.0)},
        {"blocked": (1e-6, 8e-12, 5e-11, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)},
    )
    sizes = [(c, d, n) for c in (16, 64, 256) for d in (32, 128) for n in (7, 14, 56)]
    samples = [
        Sample(kernel, model.predict(kernel).seconds, resident)
        for resident, model in (
            (False, true.for_weights(1 << 30, 1 << 20, 1 << 25)),
            (True, true.for_weights(0, 1 << 20, 1 << 25)),
        )
        for kernel in (conv(c, d, 3, n) for c, d, n in sizes)
    ]
    found = fitted(samples, BLOCK)
    assert np.abs(errors(found, samples)).max() < 1e-6
    unseen = conv(512, 512, 3, 28)
    large = true.for_weights(1 << 30, 1 << 20, 1 << 25)
    assert found.for_weights(1 << 30, 1 << 20, 1 << 25).predict(
        unseen
    ).seconds == pytest.approx(large.predict(unseen).seconds, rel=1e-3)


def test_times_that_do_not_grow_with_work_are_refused() -> None:
    samples = [Sample(conv(64, 64, 3, n), 1e-3) for n in (7, 14, 28, 56)]
    with pytest.raises(MeasureError, match="does not grow"):
        fitted(samples, BLOCK)


def test_what_was_never_calibrated_is_named() -> None:
    samples = [Sample(conv(64, 64, 3, n), 1e-5 * n**2) for n in (7, 14, 28)]
    found = fitted(samples, BLOCK).predict(conv(18, 64, 3, 14))
    assert found.extrapolated == ("unaligned",)
    assert "extrapolated" in found.label
