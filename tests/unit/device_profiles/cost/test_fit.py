"""Fits of a roofline: known parameters come back, and what physics forbids is refused."""

import dataclasses
import re

import numpy as np
import pytest

from nncc.device_profiles.cost.fit import (
    Fit,
    Limits,
    Sample,
    classes_of,
    fitted,
    flops_only,
    leave_one_out,
    refit_anchors,
    refuse_impossible,
    scaled,
)
from nncc.device_profiles.cost.model import Analytic, total
from nncc.device_profiles.cost.roofline import Roofline
from nncc.device_profiles.errors import MeasureError
from nncc.device_profiles.published.fits import prior
from nncc.device_profiles.published.nets import net

LIMITS = Limits(peak_gflops=472.0, bandwidth_gbs=25.6)
TRUE = dataclasses.replace(
    prior(LIMITS),
    launch_us=22.0,
    peak_gflops=200.0,
    bandwidth_gbs=14.0,
    rates={"3x3": 2.0, "1x1": 1.2},
    traffic={"depthwise": 5.0},
)
NAMES = (
    "alexnet", "squeezenet1_1", "resnet18", "resnet50", "densenet121", "vgg11", "mobilenet_v2",
    "mobilenet_v3_small", "efficientnet_b0",
)  # fmt: skip


def samples(roof: Roofline, names: tuple[str, ...] = NAMES, added_ms: float = 0.0):
    harness = "slow" if added_ms else ""
    fit = Fit(roof, {"slow": added_ms})
    rows = [Sample(n, net(n).kernels, 1.0, n, harness) for n in names]
    return [dataclasses.replace(row, seconds=fit.seconds(row)) for row in rows]


def test_parameters_of_rows_without_noise_come_back():
    """Within 5 %: the prior, which is elsewhere, still pulls a little."""
    rows = 3 * samples(TRUE) + samples(TRUE, added_ms=2.0)
    found = fitted(rows, prior(LIMITS), LIMITS)
    roof = found.roofline
    assert roof.launch_us == pytest.approx(22, rel=0.05)
    assert roof.peak_gflops == pytest.approx(200, rel=0.05)
    assert roof.bandwidth_gbs == pytest.approx(14, rel=0.05)
    assert roof.rates["3x3"] == pytest.approx(2, rel=0.05)
    assert roof.rates["1x1"] == pytest.approx(1.2, rel=0.05)
    assert roof.traffic["depthwise"] == pytest.approx(5, rel=0.05)
    assert found.harness_ms["slow"] == pytest.approx(2, rel=0.05)
    assert max(abs(found.error(s)) for s in samples(TRUE)) < 0.01


def test_the_time_of_a_net_is_the_sum_over_its_launches():
    row = samples(TRUE, ("mobilenet_v2",))[0]
    parts = total(Analytic(TRUE).predict(kernel) for kernel in row.kernels)
    assert Fit(TRUE).seconds(row) == pytest.approx(parts.seconds)


def test_a_fit_is_deterministic_and_blind_to_the_order_of_rows():
    rows = samples(TRUE)
    first = fitted(rows, prior(LIMITS), LIMITS)
    assert fitted(rows, prior(LIMITS), LIMITS) == first
    turned = fitted(rows[::-1], prior(LIMITS), LIMITS)
    assert turned.roofline.peak_gflops == pytest.approx(first.roofline.peak_gflops, rel=1e-4)
    assert leave_one_out(rows, prior(LIMITS), LIMITS) == leave_one_out(
        rows, prior(LIMITS), LIMITS
    )


def test_the_held_out_row_has_no_say_in_its_own_prediction():
    rows = samples(TRUE)
    errors = leave_one_out(rows, prior(LIMITS), LIMITS)
    twice = [dataclasses.replace(r, seconds=2 * r.seconds) if i == 3 else r for i, r in
             enumerate(rows)]  # fmt: skip
    again = leave_one_out(twice, prior(LIMITS), LIMITS)
    assert again[3] == pytest.approx((1 + errors[3]) / 2 - 1)
    assert again[2] != errors[2]


def test_rows_of_one_group_are_left_out_together():
    rows = samples(TRUE, ("vgg11", "resnet18", "mobilenet_v2"))
    pair = [*rows, dataclasses.replace(rows[0], seconds=3 * rows[0].seconds)]
    alone = leave_one_out(rows, prior(LIMITS), LIMITS)
    assert leave_one_out(pair, prior(LIMITS), LIMITS)[0] == pytest.approx(alone[0])


def test_a_row_below_the_roofline_is_refused():
    fast = dataclasses.replace(samples(TRUE, ("vgg16",))[0], seconds=0.0140)
    with pytest.raises(MeasureError, match="vgg16: 14 ms is physically impossible"):
        fitted([fast], prior(LIMITS), LIMITS)


def test_rows_that_are_too_fast_end_at_the_limit_and_say_so():
    quick = dataclasses.replace(TRUE, bandwidth_gbs=80.0, launch_us=1.0)
    found = fitted(samples(quick), prior(LIMITS), LIMITS)
    assert found.roofline.bandwidth_gbs <= LIMITS.bandwidth_gbs * (1 + 1e-9)
    assert "bandwidth_gbs" in found.at_limit


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bandwidth_gbs": 30.0}, "30.0 GB/s is physically impossible"),
        ({"peak_gflops": 500.0}, "500 GFLOP/s of direct kernels"),
        ({"rates": {"3x3": 6.0}}, "1200 GFLOP/s of 3x3 kernels is physically impossible"),
        ({"rates": {"1x1": 2.4}}, "480 GFLOP/s of 1x1 kernels"),
    ],
)  # fmt: skip
def test_an_impossible_roofline_is_refused(changed, said):
    with pytest.raises(MeasureError, match=re.escape(said)):
        refuse_impossible(dataclasses.replace(TRUE, **changed), LIMITS)


def test_no_rows_are_refused():
    with pytest.raises(MeasureError, match="no rows"):
        fitted([], prior(LIMITS), LIMITS)


def test_two_anchors_find_a_board_of_the_same_shape():
    other = Limits(1332.0, 59.7)
    board = dataclasses.replace(TRUE, launch_us=12.0, peak_gflops=520.0, bandwidth_gbs=33.0)
    rows = samples(board, ("resnet18", "mobilenet_v2", "resnet50", "vgg11"))
    found = refit_anchors(TRUE, LIMITS, rows[:2], other)
    assert [round(abs(found.error(row)), 2) <= 0.1 for row in rows] == [True] * 4
    assert found.roofline.rates == TRUE.rates and found.roofline.traffic == TRUE.traffic


def test_a_refit_has_seen_only_what_shape_and_anchors_have():
    shape = dataclasses.replace(TRUE, classes_seen=classes_of(samples(TRUE, ("resnet18",))))
    found = refit_anchors(shape, LIMITS, samples(TRUE, ("mobilenet_v2",)), LIMITS)
    assert found.roofline.classes_seen == {"1x1", "direct", "gemv", "memory"}


def test_a_scaled_roofline_is_extrapolated_altogether():
    there = scaled(dataclasses.replace(TRUE, classes_seen=frozenset({"3x3"})), LIMITS,
                   Limits(944.0, 51.2))  # fmt: skip
    assert (there.peak_gflops, there.bandwidth_gbs) == (400.0, 28.0)
    kernel = next(k for k in net("resnet18").kernels if k.kind == "3x3")
    assert Analytic(there).predict(kernel).label == "analytic, extrapolated: 3x3"


def test_flops_alone_predict_what_is_linear_in_flops():
    rows = [dataclasses.replace(s, seconds=1e-3 + s.flops * 1e-11) for s in samples(TRUE)]
    np.testing.assert_allclose(flops_only(rows), 0, atol=1e-9)
