"""Launches of real graphs: what is fused, what is free, what changes the layout."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import nets
from nncc.compiler.prepare import value_names
from nncc.device_profiles.cost.fused import FusedKernel
from nncc.passes.forms import LowRank
from nncc.passes.fusion import REORDER, fused_kernels, reordered, replacement, uncounted
from nncc.passes.model import Model
from nncc.passes.sites import find_sites
from nncc.runtime.probe import probe


def launches(
    model: onnx.ModelProto, folder: Path, runtime: str = "onnxruntime", block: int = 1
):
    path = folder / "model.onnx"
    onnx.save(model, path)
    held = Model(ir.load(path), "model", "")
    given = model.graph.input[0]
    sizes = [d.dim_value or 1 for d in given.type.tensor_type.shape.dim]
    feeds = {given.name: np.zeros(sizes, np.float32)}
    shapes = probe(path, feeds, value_names(held))
    sites, _ = find_sites(held, shapes)
    assert uncounted(held, shapes) == []
    return fused_kernels(held, shapes, runtime, sites, block=block), sites  # pyright: ignore[reportArgumentType]


def small(*nodes: onnx.NodeProto, channels: int = 16) -> onnx.ModelProto:
    weights = [
        helper.make_tensor(
            name, TensorProto.FLOAT, [channels, channels, 3, 3], np.zeros(channels**2 * 9)
        )
        for name in ("w", "w2")
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes), "g", [value("x", TensorProto.FLOAT, [1, channels, 8, 8])],
        [value("y", TensorProto.FLOAT, None)], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def conv(x: str, y: str, w: str = "w") -> onnx.NodeProto:
    return helper.make_node("Conv", [x, w], [y], name=y, pads=[1] * 4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
def test_resnet18_is_twenty_convolutions_two_poolings_and_a_product(
    tmp_path: Path, runtime: str
) -> None:
    found, _ = launches(nets.build("resnet18", "noise"), tmp_path, runtime)
    kinds = [kernel.kind for kernel in found]
    assert len(found) == 23
    assert kinds.count("memory") == 2
    assert kinds.count("gemv") == 1
    assert sum("Add" in kernel.fused for kernel in found) == 8
    # torchvision documents 1.81 GMACs
    assert sum(kernel.flops for kernel in found) / 2 == pytest.approx(1.814e9, rel=1e-3)


def test_a_residual_is_added_by_the_convolution_that_runs_last(tmp_path: Path) -> None:
    model = small(
        conv("x", "a"), conv("x", "b", "w2"),
        helper.make_node("Add", ["a", "b"], ["s"], name="s"),
        helper.make_node("Relu", ["s"], ["y"], name="r"),
    )  # fmt: skip
    found, _ = launches(model, tmp_path)
    assert [(k.name, k.fused) for k in found] == [("a", ()), ("b", ("Add", "Relu"))]


def test_a_value_that_something_else_reads_is_not_fused(tmp_path: Path) -> None:
    model = small(
        conv("x", "a"),
        helper.make_node("Relu", ["a"], ["r"], name="r"),
        helper.make_node("Mul", ["a", "r"], ["y"], name="m"),
    )
    assert [k.fused for k in launches(model, tmp_path)[0]] == [(), (), ()]


def test_tensorrt_joins_chains_of_pointwise_operators(tmp_path: Path) -> None:
    model = small(
        conv("x", "a"),
        helper.make_node("MaxPool", ["a"], ["p"], name="p", kernel_shape=[2, 2]),
        helper.make_node("Exp", ["p"], ["e"], name="e"),
        helper.make_node("Neg", ["e"], ["y"], name="n"),
    )
    assert len(launches(model, tmp_path, "tensorrt")[0]) == 3
    assert len(launches(model, tmp_path, "onnxruntime")[0]) == 4


def test_leaving_the_blocked_layout_is_a_launch(tmp_path: Path) -> None:
    model = small(conv("x", "a"), helper.make_node("Softmax", ["a"], ["y"], name="s"))
    found, _ = launches(model, tmp_path, block=16)
    assert [k.op for k in found] == [REORDER, "Conv", REORDER, "Softmax"]


def test_factors_take_over_what_was_fused(tmp_path: Path) -> None:
    model = small(
        conv("x", "a"), conv("x", "b", "w2"),
        helper.make_node("Add", ["a", "b"], ["s"], name="s"),
        helper.make_node("Relu", ["s"], ["y"], name="r"),
    )  # fmt: skip
    found, sites = launches(model, tmp_path)
    form = LowRank(8)
    made = replacement(found[1], form.kernels(sites[1].shape, sites[1].geometry))
    assert [k.fused for k in made] == [(), ("Add", "Relu")]
    assert made[1].read == 8 * 64 + 16 * 64  # its input and the other side of the sum
    assert made[1].written == found[1].written


def test_a_rank_off_the_lattice_changes_the_layout_twice(tmp_path: Path) -> None:
    found, sites = launches(small(conv("x", "y"), channels=32), tmp_path)
    aligned, odd = (
        replacement(found[0], LowRank(j).kernels(sites[0].shape, sites[0].geometry))
        for j in (16, 18)
    )

    def ops(kernels: list[FusedKernel]) -> list[str]:
        return [kernel.op for kernel in kernels]

    assert ops(reordered(aligned, 16)) == ["Conv", "Conv"]
    assert ops(reordered(odd, 16)) == ["Conv", REORDER, "Conv", REORDER]
