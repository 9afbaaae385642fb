"""The cost models of boards against published latencies that they did not see.

    pytest tests/bench/test_cost_model.py -s            (seconds; no device is needed)

Every number is one of device_profiles/published/rows.csv; `nncc targets fit` prints each row.
"""

from collections import Counter
from statistics import median

import onnx
import onnx_ir as ir
import pytest

import nets
from bars import Bar, check, print_table
from nncc.compiler.commands.fitted_costs import recalibrated
from nncc.device_profiles.published.fits import MEASURED_ON
from nncc.device_profiles.published.nets import net
from nncc.device_profiles.registry import load
from nncc.passes.fusion import fused_kernels
from nncc.passes.model import Model
from nncc.passes.sites import find_sites

TABLE_10 = {"l1": 2.06, "l2": 2.66, "l3": 3.46}


def test_nano_fp16_with_one_architecture_left_out():
    lines = recalibrated("jetson-nano")["fp16"].lines
    print_table(
        "Jetson Nano, fp16, TensorRT, one architecture left out",
        ("", "measured", "predicted", "error", "FLOPs only"),
        [
            (x.name, f"{x.measured_ms:.2f} ms", f"{x.predicted_ms:.2f} ms", f"{x.error:+.1%}",
             f"{x.flops_only:+.1%}")
            for x in lines
        ],
    )  # fmt: skip
    errors = [100 * abs(x.error) for x in lines]
    flops = [100 * abs(x.flops_only or 0) for x in lines]
    check(
        "Jetson Nano, fp16: error of predicted latency in %",
        [
            Bar("median", median(errors), 8, note=f"FLOPs only {median(flops):.1f}"),
            Bar("max", max(errors), 25, note=f"FLOPs only {max(flops):.1f}"),
            Bar("rows", len(lines), 26, is_floor=True),
        ],
    )


def test_two_anchors_calibrate_another_jetson():
    boards = sorted(name for name in MEASURED_ON if not name.startswith("jetson-nano"))
    lines = [(b, x) for b in boards for x in recalibrated(b)["fp16"].lines]
    print_table(
        "other Jetsons, fp16: launch, P and B from ResNet18 and MobileNetV3-large",
        ("", "measured", "predicted", "error", ""),
        [
            (f"{b} {x.name}", f"{x.measured_ms:.2f} ms", f"{x.predicted_ms:.2f} ms",
             f"{x.error:+.1%}", x.role)
            for b, x in lines
        ],
    )  # fmt: skip
    errors = [100 * abs(x.error) for _, x in lines if x.role == "predicted"]
    note = f"{len(errors)} rows, max {max(errors):.1f}"
    check("other Jetsons: held-out error in %", [Bar("median", median(errors), 5, note=note)])


def test_table_10_in_prediction():
    """Ratios of Caffe-AlexNet to its low-rank variants; none of the variants was fitted."""
    roof = load("jetson-nano-jp44").cost["fp32"]

    def ms(name):
        return 1e3 * sum(roof.seconds(kernel) for kernel in net(name, 227).kernels)

    whole = ms("caffe-alexnet")
    bars = []
    for name, published in TABLE_10.items():
        ratio = whole / ms(f"low-rank-alexnet-{name}")
        note = f"predicted {ratio:.2f} times, published {published}"
        bars.append(
            Bar(f"{name}: ratio off by, %", 100 * abs(ratio / published - 1), 10, note=note)
        )
    check("Table 10: Jetson Nano, fp32, TensorRT 7.1", bars)


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_launches_of_large_nets_are_those_that_fusion_finds(name):
    """Half a minute: graphs of 240 and 550 MB."""
    proto = onnx.shape_inference.infer_shapes(nets.build(name, "noise"))
    values = [*proto.graph.value_info, *proto.graph.output, *proto.graph.input]
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values
    } | {i.name: tuple(i.dims) for i in proto.graph.initializer}
    model = Model(ir.from_proto(proto), name, "")
    found = fused_kernels(model, shapes, "tensorrt", find_sites(model)[0])

    def launch(k):
        return k.kind, k.flops, k.elements

    assert Counter(map(launch, found)) == Counter(map(launch, net(name).kernels))
