"""onnx's conformance cases of every operator, legalised for opset 13 and 11: never wrong.

Each case brings inputs and expected outputs. What a runtime must know beforehand (axes, sizes,
shapes) is an input there; where that is refused the case is tried again with everything but
its first input as constants, normalised as a compile does.
"""

import dataclasses
import functools
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from nncc.device_profiles.profile import DeviceProfile
from nncc.device_profiles.registry import load
from nncc.passes.legalise import legalise
from nncc.passes.model import Model
from nncc.passes.normalise import normalise
from nncc.passes.opset_change import change

TOLERANCE = 1e-5
"""Relative to an output's largest value: to the case's own, or to ONNX Runtime's before."""
LEAST_EQUAL = {
    "opset-13": 1040,
    "opset-11": 1250,
    "jetson-nano": 640,
    "jetson-nano-jp44": 840,
}
"""Cases that come out equal, so that a lowering that silently stops working is noticed."""
RANDOM = ("Bernoulli", "RandomNormal", "RandomUniform", "Multinomial")
Arrays = dict[str, Any]


def target(name: str) -> DeviceProfile:
    """A Jetson, or a runtime that takes all operators of an older opset."""
    if name.startswith("jetson"):
        return load(name)
    opset = int(name.removeprefix("opset-"))
    oldest = {13: 7, 11: 6}[opset]
    return dataclasses.replace(load("x86-cpu"), max_opset=opset, max_ir_version=oldest)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A conformance case: a model, its inputs, what must come out, and how near."""

    name: str
    proto: onnx.ModelProto
    feeds: Arrays
    expected: list[Any]
    rtol: float
    atol: float


@functools.cache
def samples() -> tuple[Sample, ...]:
    """All cases but those of random results."""
    return tuple(_samples())


def _samples() -> Iterator[Sample]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = cast("list[Any]", collect_testcases(""))
    for case in cases:
        if case.model is None or any(
            n.op_type.startswith(RANDOM) for n in case.model.graph.node
        ):
            continue
        if "bernoulli" in case.name:
            continue
        given, wanted = case.data_sets[0]
        names = [value.name for value in case.model.graph.input]
        feeds = {name: _array(item) for name, item in zip(names, given, strict=False)}
        expected = [_array(item) for item in wanted]
        yield Sample(case.name, case.model, feeds, expected, case.rtol, case.atol)


def _array(item: object) -> Any:
    if isinstance(item, onnx.TensorProto):
        return numpy_helper.to_array(item)
    return item if isinstance(item, list) or item is None else np.asarray(item)


def outputs(proto: onnx.ModelProto, feeds: Arrays) -> list[Any] | None:
    """What ONNX Runtime computes; None where it does not take the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, feeds))
    except Exception:  # noqa: BLE001  of many kinds, none exported
        return None


def equal(want: Any, got: Any, rtol: float, atol: float = 0.0) -> bool:
    if isinstance(want, list):
        return len(want) == len(got) and all(
            equal(a, b, rtol, atol) for a, b in zip(want, got, strict=True)
        )
    if want is None or got is None:
        return want is got
    a, b = np.asarray(want), np.asarray(got)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fiub":
        return bool(np.array_equal(a, b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=rtol, atol=atol + rtol * scale, equal_nan=True))


def constant_but_first(sample: Sample) -> Sample:
    """The case with its other inputs as constants, normalised."""
    proto = onnx.ModelProto()
    proto.CopyFrom(sample.proto)
    first, *others = list(proto.graph.input)
    feeds = {first.name: sample.feeds[first.name]}
    for value in others:
        item = sample.feeds.get(value.name)
        if isinstance(item, np.ndarray):
            proto.graph.initializer.append(numpy_helper.from_array(item, value.name))
            proto.graph.input.remove(value)
        else:
            feeds[value.name] = item
    folded = normalise(Model(ir.from_proto(proto), sample.name, ""))
    return dataclasses.replace(sample, proto=ir.to_proto(folded.graph_model), feeds=feeds)


def verdict(sample: Sample, profile: DeviceProfile) -> str:
    """equal, refused, fits (nothing to do), no kernel (in ONNX Runtime), or what is wrong."""
    model = Model(ir.from_proto(sample.proto), sample.name, "")
    done = legalise(model, profile)
    if done.refused:
        assert all(r.reason and r.remedy for r in done.refused)
        return "refused"
    if not done.changes and done.model.opset == model.opset:
        return "fits"
    made = ir.to_proto(done.model.graph_model)
    onnx.checker.check_model(made, full_check=True)
    assert made.ir_version <= profile.max_ir_version
    nodes = [
        n for n in done.model.graph_model.graph.all_nodes() if n.domain in ("", "ai.onnx")
    ]
    assert not any(change(n, done.model.opset, profile.max_opset) for n in nodes)
    after = outputs(made, sample.feeds)
    if after is not None and equal(sample.expected, after, TOLERANCE):
        return "equal"
    before = outputs(sample.proto, sample.feeds)
    if after is None:
        return "no kernel" if before is None else "runs no more"
    if before is not None and equal(before, after, TOLERANCE):
        return "equal"
    rtol = max(sample.rtol, TOLERANCE)
    return "equal" if equal(sample.expected, after, rtol, sample.atol) else "wrong"


@pytest.mark.parametrize("name", ["opset-13", "opset-11", "jetson-nano", "jetson-nano-jp44"])
def test_every_case_is_lowered_equal_or_refused_with_its_reason(name):
    """10 to 25 s each: up to 1,900 models, each normalised, written, checked and run."""
    profile = target(name)
    counts: Counter[str] = Counter()
    bad: list[str] = []
    for sample in samples():
        if name.startswith("jetson") and "_expanded" in sample.name:
            continue  # functions written out: their operators are tried above
        said = verdict(sample, profile)
        if said == "refused" and len(sample.feeds) > 1:
            said = _again(sample, profile)
        counts[said] += 1
        if said not in ("equal", "refused", "fits", "no kernel"):
            bad.append(f"{sample.name}: {said}")
    print(name, dict(counts))
    assert not bad, bad
    assert counts["equal"] >= LEAST_EQUAL[name], counts


def _again(sample: Sample, profile: DeviceProfile) -> str:
    """The verdict with constants; the case stays refused where it cannot be written so."""
    try:
        constant = constant_but_first(sample)
    except Exception:  # noqa: BLE001  types that numpy_helper or the folder do not take
        return "refused"
    return verdict(constant, profile)
