"""Every net and operator by both torch exporters at every opset, and all published models.

    pytest tests/bench/test_legalise_sweep.py -s          (some minutes)

To opset 13, IR 7 (TensorRT 8.2) and opset 11, IR 6 (TensorRT 7.1), static and dynamic axes:
ONNX Runtime before = after within 1e-5 of an output's largest value, onnx's checker clean,
nothing left that `check` objects to; or refused, for the reason that is listed. The table has
one row a model and target, worst case first.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

pytest.importorskip("torch", reason="the exports are made by torch: pip install nncc[train]")

from bars import Bar, check, print_table
from exports import (
    FAILS_IN_DYNAMO,
    FAILS_IN_TORCH,
    NETS,
    OPERATORS,
    OPSETS,
    export,
    is_writable,
    several,
)
from legal_exports import CLOSE, Proven, proven, refusal
from lowered import OLD
from models import MODEL_NAMES, REF_DIGESTS, ref_model, wheel_model

HEAD = ("model", "exporter", "opset", "axes", "target", "nodes", "after", "rewritten", "said")


@dataclass(frozen=True)
class Case:
    """One file for one target, and what came of it."""

    name: str
    exporter: str
    opset: int
    dynamic: bool
    target: str
    made: Proven

    @property
    def expected(self) -> str:
        """Why it is refused; empty where it must come out equal."""
        return refusal(self.name, self.target, self.exporter, self.opset, self.dynamic)

    @property
    def holds(self) -> bool:
        if self.expected:
            return any(self.expected in told for told in self.made.refused)
        return self.made.difference is not None and self.made.difference <= CLOSE

    def apart(self) -> float:
        """Its difference; what was refused stands last."""
        return float("inf") if self.made.difference is None else self.made.difference

    def row(self) -> tuple[str, ...]:
        made = self.made
        said = f"{made.difference:.1e}" if made.difference is not None else made.refused[0]
        axes = "dynamic" if self.dynamic else "fixed"
        numbers = (str(self.opset), axes, self.target, str(made.before), str(made.after))
        return (self.name, self.exporter, *numbers, str(made.changes), said[:90])


def cases(name, net, exporter, opsets) -> Iterator[Case]:
    """A net at all opsets that torch writes it at, both kinds of axes, both targets."""
    for dynamic in (False, True):
        for opset in opsets:
            if not is_writable(name, exporter, opset, dynamic):
                continue
            proto = export(net, exporter, opset, dynamic)
            for target in OLD:
                made = proven(proto, net.arrays(), target)
                yield Case(name, exporter, opset, dynamic, target, made)


def report(title: str, done: list[Case]) -> None:
    """Prints the worst case of each model, exporter and target; asserts that all hold."""
    worst: dict[tuple[str, ...], Case] = {}
    for case in sorted(done, key=Case.apart):
        worst[case.name, case.exporter, case.target] = case
    print_table(title, HEAD, [case.row() for case in reversed(worst.values())])
    equal = [case for case in done if case.made.difference is not None]
    largest = max((case.made.difference or 0.0 for case in equal), default=0.0)
    wrong = [case.row() for case in done if not case.holds]
    for row in wrong:
        print("  WRONG", *row)
    check(
        f"{title}: {len(done)} cases, {len(equal)} equal, {len(done) - len(equal)} refused",
        [
            Bar("largest relative difference", largest, CLOSE),
            Bar("cases that are neither equal nor refused as listed", len(wrong), 0),
        ],
    )


@pytest.mark.parametrize("exporter", OPSETS)
def test_every_net_at_every_opset(exporter):
    """Some minutes: torch captures each net anew."""
    done: list[Case] = []
    for name, net in NETS.items():
        done += cases(name, net, exporter, OPSETS[exporter])
    report(f"Nets by the {exporter} exporter", done)


def test_every_operator_by_the_torchscript_exporter():
    """Minutes: 1,800 files."""
    done: list[Case] = []
    for group, names in OPERATORS.items():
        for name in names:
            net = several(group, (name,))
            done += cases(f"{group}:{name}", net, "torchscript", OPSETS["torchscript"])
    report("Operators by the torchscript exporter", done)


def test_every_operator_by_the_dynamo_exporter():
    """Minutes: what some target refuses by itself, the others of a group in one graph."""
    done: list[Case] = []
    for group, names in OPERATORS.items():
        kept: list[str] = []
        for name in names:
            full = f"{group}:{name}"
            refused = any(refusal(full, target, "dynamo", 99) for target in OLD)
            if refused or full in FAILS_IN_DYNAMO:
                done += cases(full, several(group, (name,)), "dynamo", (18, 23))
            else:
                kept.append(name)
        done += cases(group, several(group, tuple(kept)), "dynamo", OPSETS["dynamo"])
    report("Operators by the dynamo exporter", done)


def test_every_published_model():
    done: list[Case] = []
    for name in (*MODEL_NAMES, *REF_DIGESTS):
        path = ref_model(name) if name in REF_DIGESTS else wheel_model(name)
        for target in OLD:
            start = time.perf_counter()
            made = proven(path, None, target)
            print(f"  {name} for {target}: {time.perf_counter() - start:.1f} s")
            done.append(Case(name, "", 0, True, target, made))
    report("Published models", done)


def test_what_torch_cannot_write_is_as_listed():
    """A newer torch that writes more should have it proven too."""
    for name, (first, _) in FAILS_IN_TORCH.items():
        group, _, operator = name.partition(":")
        net = several(group, (operator,)) if operator else NETS[name]
        for opset in (first - 1, 20):
            if opset < 11 or (opset == 20 and first <= 20):
                continue
            with pytest.raises(Exception):  # noqa: B017, PT011 - torch raises many kinds
                export(net, "torchscript", min(opset, 20), dynamic=False)
