"""Activations written out equal the operator in ONNX Runtime or onnx's own reference."""

from dataclasses import replace

import numpy as np
import pytest

from lowered import OLD, lowered, one_node, outcome, profile, run
from nncc.passes.opset_change import schema_of

CLOSE = 2e-6  # a few roundings of float32, relative to the largest value


def draw(seed, *shape, scale=3.0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (1, 2, 3, 4, 2)])
@pytest.mark.parametrize(
    ("op", "opset", "attributes"),
    [
        ("Gelu", 20, {}),
        ("Gelu", 20, {"approximate": "tanh"}),
        ("HardSwish", 14, {}),
        ("HardSwish", 22, {}),
        ("Mish", 18, {}),
        ("Swish", 24, {}),
        ("Swish", 24, {"alpha": 1.7}),
        ("Celu", 12, {"alpha": 0.6}),
        ("Shrink", 13, {"lambd": 0.8}),
        ("Shrink", 13, {"lambd": 0.8, "bias": 0.3}),
    ],
)
def test_an_activation_equals_its_operator(target, shape, op, opset, attributes):
    x = {"x": draw(1, *shape)}
    made = outcome(one_node(op, x, opset=opset, **attributes), x, target)
    assert made.difference < CLOSE
    assert op not in made.operators or schema_of(op, profile(target).max_opset)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Softplus", {}),
        ("Softsign", {}),
        ("ThresholdedRelu", {"alpha": 0.4}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ],
)
def test_an_activation_that_a_device_lacks_is_written_out(op, attributes):
    x = {"x": draw(2, 3, 5, scale=40.0)}  # e⁴⁰ and more: what overflows must not show
    device = profile()
    without = replace(device, operators=device.operators - {op})
    model = one_node(op, x, opset=13, **attributes)
    done, made = lowered(model, without)
    assert not done.refused
    assert op not in [node.op_type for node in made.graph.node]
    np.testing.assert_allclose(run(made, x)[0], run(model, x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("slope", [(4, 1, 1), (1,), (4, 5, 6)])
def test_prelu_that_a_device_lacks_is_two_rectifiers(slope):
    x = {"x": draw(2, 3, 4, 5, 6), "slope": draw(3, *slope, scale=0.3)}
    device = profile()
    without = replace(device, operators=device.operators - {"PRelu"})
    model = one_node("PRelu", x, opset=16, constants=("slope",))
    done, made = lowered(model, without)
    assert not done.refused
    np.testing.assert_allclose(run(made, x)[0], run(model, x)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("op", ["Gelu", "FastGelu", "QuickGelu", "BiasGelu"])
def test_activations_of_the_runtimes_own_domain_become_standard_ones(op):
    x = {"x": draw(4, 2, 6)}
    if op == "BiasGelu":
        x["bias"] = draw(5, 6)
    model = one_node(op, x, opset=17, domain="com.microsoft")
    made = outcome(model, x)
    assert made.difference < CLOSE
    assert {entry.domain for entry in made.proto.opset_import} == {""}


def test_the_tanh_form_of_gelu_stays_finite_in_half_precision():
    x = {"x": np.array([-300, -20, -1, 0, 1, 20, 300], np.float16)}
    model = one_node("Gelu", x, opset=20, approximate="tanh")
    _, made = lowered(model, profile())
    (y,) = run(made, x)
    np.testing.assert_allclose(
        y.astype(np.float32), [0, 0, -0.1588, 0, 0.8412, 20, 300], atol=2e-3
    )
