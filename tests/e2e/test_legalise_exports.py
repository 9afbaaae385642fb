"""What torch's two exporters write runs on old devices' operators: equal, valid, accepted.

Every net of `exports`, and every single operator, for TensorRT 8.2 (opset 13, IR 7) and 7.1
(opset 11, IR 6); the sweep over all opsets is `tests/bench/test_legalise_sweep.py`.
"""

import pytest

pytest.importorskip("torch", reason="the exports are made by torch: pip install nncc[train]")

from exports import FAILS_IN_TORCH, NETS, OPERATORS, export, is_writable, several
from legal_exports import CLOSE, proven, refusal
from lowered import OLD


def prove(name, net, exporter, opset, dynamic):
    """Legal and equal for both targets, or refused for the reason that is known."""
    proto = export(net, exporter, opset, dynamic)
    for target in OLD:
        made = proven(proto, net.arrays(), target)
        reason = refusal(name, target, exporter, opset, dynamic)
        if reason:
            assert any(reason in told for told in made.refused), (target, made)
        else:
            assert not made.refused, (target, made.refused)
            assert made.difference is not None and made.difference <= CLOSE, (target, made)


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("name", NETS)
def test_a_net_by_the_torchscript_exporter(name, opset):
    first = FAILS_IN_TORCH.get(name, (0, ""))[0]
    prove(name, NETS[name], "torchscript", max(opset, first), dynamic=True)


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("name", NETS)
def test_a_net_by_the_dynamo_exporter(name, opset):
    prove(name, NETS[name], "dynamo", opset, dynamic=True)


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_fixed_sizes(name):
    prove(name, NETS[name], "torchscript", 17, dynamic=False)


@pytest.mark.parametrize(
    "name", [f"{group}:{name}" for group, names in OPERATORS.items() for name in names]
)
def test_a_single_operator(name):
    group, _, operator = name.partition(":")
    net, opset = several(group, (operator,)), max(17, FAILS_IN_TORCH.get(name, (0, ""))[0])
    if opset > 20:
        prove(name, net, "dynamo", 18, dynamic=True)
        return
    prove(name, net, "torchscript", opset, is_writable(name, "torchscript", opset, True))
