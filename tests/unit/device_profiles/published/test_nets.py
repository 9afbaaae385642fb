"""Networks of the published rows: counts against torchvision's, launches against fusion's."""

from collections import Counter

import onnx
import onnx_ir as ir
import pytest

import nets
from nncc.device_profiles.errors import UsageError
from nncc.device_profiles.published.nets import LOW_RANK_ALEXNETS, NETS, net
from nncc.passes.fusion import fused_kernels
from nncc.passes.model import Model
from nncc.passes.sites import find_sites

# GFLOPS (multiply-adds, two digits) and parameters of torchvision's table of weights, 0.20.
TORCHVISION = {
    "alexnet": (0.71, 61_100_840),
    "densenet121": (2.83, 7_978_856),
    "densenet161": (7.73, 28_681_000),
    "densenet169": (3.36, 14_149_480),
    "densenet201": (4.29, 20_013_928),
    "efficientnet_b0": (0.39, 5_288_548),
    "googlenet": (1.50, 6_624_904),
    "mobilenet_v2": (0.30, 3_504_872),
    "mobilenet_v3_large": (0.22, 5_483_032),
    "mobilenet_v3_small": (0.06, 2_542_856),
    "resnet18": (1.81, 11_689_512),
    "resnet34": (3.66, 21_797_672),
    "resnet50": (4.09, 25_557_032),
    "resnet101": (7.80, 44_549_160),
    "resnet152": (11.51, 60_192_808),
    "squeezenet1_0": (0.82, 1_248_424),
    "squeezenet1_1": (0.35, 1_235_496),
    "vgg11": (7.61, 132_863_336),
    "vgg11_bn": (7.61, 132_868_840),
    "vgg13": (11.31, 133_047_848),
    "vgg13_bn": (11.31, 133_053_736),
    "vgg16": (15.47, 138_357_544),
    "vgg16_bn": (15.47, 138_365_992),
    "vgg19": (19.63, 143_667_240),
    "vgg19_bn": (19.63, 143_678_248),
}
# Part V, Table 9: millions of multiply-adds and megabytes of the low-rank AlexNets; the sizes
# of Figure 4 for the last two, which are those of the released models.
PART_V = {"l1": (227, 100.9), "l2": (185, 69.8), "l3": (152, 45.9)}


@pytest.mark.parametrize("name", TORCHVISION)
def test_counts_are_those_that_torchvision_publishes(name):
    gmacs, parameters = TORCHVISION[name]
    assert net(name).parameters == parameters
    assert round(net(name).macs / 1e9, 2) == pytest.approx(gmacs, abs=0.011)


def test_an_fcn_of_torchvision_has_its_published_multiply_adds():
    """152.717 billion at 520 × 520 and 35,322,218, both with a head that we omit."""
    head = 1024 * 256 * 9, 256 * 21
    found = net("fcn_resnet50", 520, 21)
    assert found.macs + sum(head) * 65**2 == pytest.approx(152.717e9, rel=1e-4)
    assert found.parameters + sum(head) + 2 * 256 + 21 == 35_322_218


def test_caffe_alexnet_has_the_multiply_adds_and_size_that_papers_give():
    whole = net("caffe-alexnet", 227)
    assert round(whole.macs / 1e6) == 724
    assert whole.parameters * 4 / 1e6 == pytest.approx(243.5, rel=2e-3)


@pytest.mark.parametrize("name", PART_V)
def test_low_rank_alexnets_have_the_multiply_adds_and_sizes_of_part_v(name):
    mmacs, megabytes = PART_V[name]
    found = net(f"low-rank-alexnet-{name}", 227)
    assert found.macs / 1e6 == pytest.approx(mmacs, abs=1.5)
    assert found.parameters * 4 / 1e6 == pytest.approx(megabytes, rel=5e-3)
    assert len(LOW_RANK_ALEXNETS[name]) == 8


@pytest.mark.parametrize(
    ("graph", "name"),
    [("resnet18", "resnet18"), ("resnet50", "resnet50"), ("mobilenet-v2", "mobilenet_v2")],
)
def test_launches_are_those_that_fusion_finds_in_the_graph(graph, name):
    proto = onnx.shape_inference.infer_shapes(nets.build(graph, "noise"))
    values = [*proto.graph.value_info, *proto.graph.output, *proto.graph.input]
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values
    } | {i.name: tuple(i.dims) for i in proto.graph.initializer}
    model = Model(ir.from_proto(proto), graph, "")
    found = fused_kernels(model, shapes, "tensorrt", find_sites(model)[0])
    ours = net(name).kernels

    def launch(k):
        return k.kind, k.flops, k.written, k.linear.weights if k.linear else 0

    assert Counter(map(launch, found)) == Counter(map(launch, ours))
    # which of two convolutions takes the sum of both branches in is a matter of order
    assert sum(k.read for k in found) == sum(k.read for k in ours)


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="no network is called 'resnet19'; known: alexnet"):
        net("resnet19")


@pytest.mark.parametrize("name", NETS)
def test_every_network_can_be_written_down(name):
    found = net(name, 256)
    assert found.macs > 0 and all(k.elements > 0 for k in found.kernels)
