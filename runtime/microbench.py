"""Microbenchmarks: single kernels timed inside ONNX Runtime, to calibrate this machine.

Each case is a model of its own: a small convolution that hands over its input in the runtime's
layout, the kernel, its activation. Between runs a pass over a large input empties the caches,
so that weights come from memory as they do in a net; activations stay where the node before
left them, as they do in a net.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..device_profiles.cost.cpu import Sample
from .layer_times import node_times
from .microbench_cases import FEED_CHANNELS, REORDER, RUN, Case
from .session import Array, open_session, run

OPSET, IR_VERSION = 13, 7
FLUSH_FLOATS = 16 << 20
"""64 MiB, read and written: more than the caches of the machines that nncc is used on."""
RUNS, WARMUP = 6, 2
CALLS = 200
"""Empty runs that the cost of a run is taken from."""
_LEAST = 0.05e-6
"""Seconds that no launch is below."""
PASSES = 2
"""Times that everything is measured; the faster one counts."""

_BLOCKED = ("MaxPool", "AveragePool", "GlobalAveragePool")


def measured(
    cases: Sequence[Case],
    *,
    threads: int = 1,
    passes: int = PASSES,
    on_case: Callable[[int, int], None] | None = None,
) -> list[Sample]:
    """The time of every case, the fastest of `passes` visits.

    Raises:
        MeasureError: a profile cannot be read.
        ModelError: the runtime does not take a case.
    """
    best = [float("inf")] * len(cases)
    with TemporaryDirectory(prefix="nncc-calibrate-") as folder:
        path = Path(folder) / "case.onnx"
        flush = np.zeros(FLUSH_FLOATS, dtype=np.float32)
        for visit in range(passes):
            for at, case in enumerate(cases):
                seconds = _seconds(case, path, flush, threads)
                best[at] = min(best[at], seconds)
                if on_case is not None:
                    on_case(visit * len(cases) + at + 1, passes * len(cases))
    return [
        Sample(case.kernel, seconds, case.resident)
        for case, seconds in zip(cases, best, strict=True)
    ]


def _seconds(case: Case, path: Path, flush: Array, threads: int) -> float:
    if case.kernel.op == RUN:
        return _run_seconds(path, threads)
    model, feeds = _model(case)
    if not case.resident:
        feeds["flush"] = flush
    path.write_bytes(model.SerializeToString())
    times = node_times(
        path, feeds, threads=threads, runs=RUNS, warmup=WARMUP, with_reorders=False
    )
    if case.kernel.op == REORDER:  # of both, in and out, once for each of the two
        return max(times[""] * 1e-3 / 2, _LEAST)
    return max(times["test"] * 1e-3, _LEAST)


def _run_seconds(path: Path, threads: int) -> float:
    """The time of a run whose one kernel does nothing worth mentioning."""
    draft = _Draft(np.random.default_rng(0))
    feeds = {"x": np.zeros((1, 1), dtype=np.float32)}
    draft.inputs.append(_value("x", (1, 1)))
    draft.end_at("x")
    path.write_bytes(draft.model().SerializeToString())
    session = open_session(path, threads=threads)
    times: list[float] = []
    for _ in range(CALLS):
        start = time.perf_counter()
        run(session, feeds)
        times.append(time.perf_counter() - start)
    return sorted(times)[CALLS // 4]


def _model(case: Case) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model of one case and what to feed it; its node is called "test"."""
    draft = _Draft(np.random.default_rng(0))
    if not case.resident:
        draft.flush()
    linear = case.kernel.linear
    kind = draft.memory if linear is None else draft.conv
    if linear is not None and linear.op == "MatMul":
        kind = draft.product
    for tag in ("warm", "test"):
        draft.tag = tag
        draft.end(kind(case))
    return draft.model(), draft.feeds


class _Draft:
    """Nodes of one case being written down: the kernel twice, with weights of their own.

    The first one brings code and buffers back into the caches, as other layers of a net do;
    the second one, "test", reads its weights from memory.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, Any] = {}
        self.tag = ""
        self.after = ""
        """Scalar on which everything that is written next depends."""

    def flush(self) -> None:
        """A pass over a large input."""
        self.inputs.append(_value("flush", (FLUSH_FLOATS,)))
        self._last(self._node("Neg", ["flush"], "flushed"), "emptied")

    def end(self, y: str) -> None:
        """What makes the nodes before come before the nodes after."""
        self._last(y, "y" if self.tag == "test" else f"{self.tag}_end")

    def end_at(self, value: str) -> None:
        """The model's output, made of one value."""
        self._last(value, "y")

    def _last(self, value: str, name: str) -> None:
        self.after = self._node("ReduceMax", [value], name, keepdims=0)

    def _node(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:  # noqa: ANN401
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, shape: tuple[int, ...], name: str) -> str:
        name = f"{self.tag}_{name}"
        array = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(0.05)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _input(self, shape: tuple[int, ...], name: str) -> str:
        """An input, written by a node right before it is read."""
        if name not in self.feeds:
            self.inputs.append(_value(name, shape))
            self.feeds[name] = self.rng.standard_normal(shape, dtype=np.float32)
        if not self.after:
            return name
        return self._node("Add", [name, self.after], f"{self.tag}_{name}")

    def _fed(self, channels: int, size: tuple[int, ...]) -> str:
        """An image in the runtime's own layout, as a convolution leaves it."""
        if channels < FEED_CHANNELS:
            return self._input((1, channels, *size), "x")
        x = self._input((1, FEED_CHANNELS, *size), "x")
        weights = self._constant((channels, FEED_CHANNELS, 1, 1), "wf")
        return self._node("Conv", [x, weights], f"{self.tag}_feed")

    def conv(self, case: Case) -> str:
        linear = case.kernel.linear
        assert linear is not None and linear.in_extent is not None, "a convolution has sizes"
        g, m, c = linear.groups, linear.outputs, linear.inputs
        x = self._fed(g * c, linear.in_extent[1:])
        shape = (g * c, m) if linear.op == "ConvTranspose" else (g * m, c)
        y = self._node(
            linear.op,
            [x, self._constant((*shape, *linear.kernel), "w"), self._constant((g * m,), "b")],
            self.tag,
            group=g,
            kernel_shape=list(linear.kernel),
            strides=list(case.kernel.strides),
            pads=list(case.pads),
        )
        for op in case.kernel.fused:
            y = self._node(op, [y, *self._limits(op)], f"{self.tag}_{op}")
        return y

    def product(self, case: Case) -> str:
        linear = case.kernel.linear
        assert linear is not None and linear.in_extent is not None, "a product has sizes"
        if case.shapes:
            operands = [self._input(shape, f"x{i}") for i, shape in enumerate(case.shapes)]
        else:
            x = self._input((*linear.in_extent, linear.inputs), "x")
            operands = [x, self._constant((linear.inputs, linear.outputs), "w")]
        return self._node("MatMul", operands, self.tag)

    def memory(self, case: Case) -> str:
        op = case.kernel.op
        if op in _BLOCKED or op == REORDER:
            x = self._fed(*_channels_and_size(case.shapes[0]))
            return (
                x if op == REORDER else self._node(op, [x], self.tag, **dict(case.attributes))
            )
        names = [self._input(shape, f"x{i}") for i, shape in enumerate(case.shapes)]
        if op == "BatchNormalization":
            names += [self._constant((case.shapes[0][1],), f"w{i}") for i in range(3)]
            self.constants.append(
                numpy_helper.from_array(
                    np.ones(case.shapes[0][1], np.float32), f"{self.tag}_v"
                )
            )
            names.append(f"{self.tag}_v")
        return self._node(op, [*names, *self._limits(op)], self.tag, **dict(case.attributes))

    def _limits(self, op: str) -> list[str]:
        return [self._scalar(0.0), self._scalar(6.0)] if op == "Clip" else []

    def _scalar(self, value: float) -> str:
        name = f"{self.tag}_{value:g}"
        self.constants.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def model(self) -> onnx.ModelProto:
        outputs = [_value("y", ())]
        # the runtime would move a transposition behind what reads it, unless it is an output
        outputs += [_value(n.name, None) for n in self.nodes if n.op_type == "Transpose"]
        graph = helper.make_graph(self.nodes, "case", self.inputs, outputs, self.constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )


def _channels_and_size(shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return shape[1], shape[2:]


def _value(name: str, shape: Sequence[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
