"""The measured tiers answer first, and say which they are."""

from dataclasses import dataclass

import pytest

from nncc.device_profiles.cost.fused import FusedKernel
from nncc.device_profiles.cost.measured import measured
from nncc.device_profiles.cost.model import Prediction, total
from nncc.device_profiles.kernel import Kernel


@dataclass(frozen=True)
class Constant:
    """A model that knows one number."""

    def predict(self, kernel: FusedKernel) -> Prediction:  # noqa: ARG002
        return Prediction(1.0, "analytic", ("1xk",))


def conv(outputs: int, inputs: int = 64, size: int = 14) -> FusedKernel:
    linear = Kernel("Conv", 1, outputs, inputs, (3, 3), (1, size, size), (1, size, size))
    return FusedKernel("Conv", linear, 0, 0, (1, 1), ("Relu",))


def test_a_measured_kernel_is_looked_up() -> None:
    model = measured([(conv(32), 2e-3), (conv(32), 1e-3)], Constant())
    assert model.predict(conv(32)) == Prediction(1e-3, "lookup")


def test_ranks_between_measured_ones_are_interpolated() -> None:
    model = measured([(conv(32), 1e-3), (conv(64), 3e-3), (conv(128), 4e-3)], Constant())
    assert model.predict(conv(48)).seconds == pytest.approx(2e-3)
    assert model.predict(conv(48)).tier == "interpolated"
    assert model.predict(conv(96)).seconds == pytest.approx(3.5e-3)


def test_input_channels_are_interpolated_too() -> None:
    model = measured([(conv(32, 16), 1e-3), (conv(32, 48), 2e-3)], Constant())
    assert model.predict(conv(32, 32)) == Prediction(pytest.approx(1.5e-3), "interpolated")


def test_nothing_is_extrapolated_beyond_what_was_measured() -> None:
    model = measured([(conv(32), 1e-3), (conv(64), 3e-3)], Constant())
    assert model.predict(conv(16)).tier == "analytic"
    assert model.predict(conv(128)).tier == "analytic"


def test_another_size_or_activation_is_another_kernel() -> None:
    model = measured([(conv(32), 1e-3), (conv(64), 3e-3)], Constant())
    assert model.predict(conv(32, size=28)).tier == "analytic"


def test_a_sum_says_its_worst_tier_and_every_class_never_calibrated() -> None:
    parts = [
        Prediction(1.0, "lookup"),
        Prediction(2.0, "analytic", ("1xk",)),
        Prediction(3.0, "interpolated"),
    ]
    whole = total(parts)
    assert whole == Prediction(6.0, "analytic", ("1xk",))
    assert whole.label == "analytic, extrapolated: 1xk"
