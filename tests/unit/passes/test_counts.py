"""Counts of a net: every layer by its form, every other float in full, nothing twice."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import counting
from layers import convolution, product
from nncc.passes.counts import (
    Counts,
    float_count,
    layer_counts,
    net_counts,
    ratio,
    uncompressed,
)
from nncc.passes.forms import LowRank, Quantize, parse
from nncc.passes.model import Model
from nncc.passes.sites import find_sites

CONV = convolution("conv", m=8, c=4, kernel=(3, 3), size=6)


def counted(proto, form):
    """The model, its sites and the counts with `form` in all of them."""
    model = Model(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), "net", "0" * 64)
    sites, _ = find_sites(model)
    terms = {site.name: form.compress(site.W()) for site in sites}
    return sites, terms, net_counts(model, sites, terms)


def test_a_quantised_convolution_is_counted_as_appendix_b_says():
    _, _, counts = counted(CONV.model, Quantize(2))

    m, n, M = 8, 4 * 9, 2 * 4 * 4  # filters, weights of one, positions (a batch of two)
    assert counts.parameters == m * n + m
    assert counts.reference_bits == 32 * (m * n + m)
    assert counts.bits == 2 * 32 + m * n + 32 * m  # eq. (8); the bias in full
    assert (counts.reference_ops, counts.adds) == (m * n * M, m * n * M)
    assert counts.mults == 2 * m * M  # B.2.2
    assert counts.rho_mult == n / 2
    assert counts.bits_per_parameter == counts.bits / (m * n + m)


@pytest.mark.parametrize(
    "text",
    [
        "quantize(k=2)+prune(kappa=5%)",
        "lowrank(j=2)+prune(kappa=5%)",
        "lowrank(j=2,u=quantize(k=2)+prune(kappa=10%))",
        "affine(bits=4,per=channel)",
    ],
)
def test_bits_of_a_net_equal_a_second_count(text):
    form = parse(text)
    sites, terms, counts = counted(CONV.model, form)

    (site,) = sites
    assert counts.bits == counting.bits(form, terms[site.name], site.shape) + 32 * 8


def test_a_layer_that_is_left_alone_counts_as_it_is():
    model = Model(ir.from_proto(onnx.shape_inference.infer_shapes(CONV.model)), "", "")
    sites, _ = find_sites(model)

    counts = net_counts(model, sites, {})

    assert counts.rho_s == counts.rho_add == counts.rho_mult == 1
    assert counts.bits == 32 * float_count(model)


def test_a_weight_that_two_layers_read_is_stored_once_and_applied_twice():
    proto = onnx.ModelProto.FromString(product("p", m=6, n=6).model.SerializeToString())
    first = proto.graph.node[0]
    again = helper.make_node("MatMul", ["y", *first.input[1:]], ["z"], name="again")
    proto.graph.node.append(again)
    proto.graph.output[0].name = "z"

    _, _, counts = counted(proto, LowRank(1))

    assert counts.parameters == 36
    assert counts.bits == 16 * 12
    assert counts.reference_ops == 2 * 36 * 5
    assert counts.adds == counts.mults == 2 * 12 * 5


def test_a_layer_at_an_unknown_number_of_positions_is_left_out_of_the_operations():
    proto = onnx.ModelProto.FromString(CONV.model.SerializeToString())
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"s{axis}"

    sites, _, counts = counted(proto, Quantize(2))

    assert not counts.is_complete
    assert (counts.reference_ops, counts.adds, counts.mults) == (0, 0, 0)
    assert layer_counts(sites[0]).bits == 32 * sites[0].weights


def test_floats_in_constant_nodes_count_and_integers_do_not():
    constant = helper.make_node(
        "Constant", [], ["c"], value=numpy_helper.from_array(np.ones(5, np.float32))
    )
    nodes = [constant, helper.make_node("Add", ["x", "c"], ["s"])]
    nodes.append(helper.make_node("Reshape", ["s", "shape"], ["y"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [5])],
        [value("y", TensorProto.FLOAT, [5, 1])],
        [numpy_helper.from_array(np.array([5, 1]), "shape")],
    )

    assert float_count(Model(ir.from_proto(helper.make_model(graph)), "", "")) == 5


def test_counts_add_up():
    one, two = Counts(1, 32, 16, 10, 5, 2), uncompressed(3)

    whole = one + two

    assert (whole.parameters, whole.reference_bits, whole.bits) == (4, 128, 112)
    assert whole.rho_s == 128 / 112 and whole.rho_mult == 5
    assert ratio(1, 0) is None and ratio(0, 0) == 1
