"""Node names that every tool can carry, and the way back to the file's own."""

import re

import onnx_ir as ir
from onnx import parser

from nncc.passes.names import SOURCE, legal, name_nodes, originals


def model() -> ir.Model:
    made = ir.from_proto(
        parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]>'
            "g (float[N] x) => (float[N] y) { a = Relu(x) b = Neg(a) c = Abs(b) y = Exp(c) }"
        )
    )
    for node, name in zip(
        made.graph, ["block:1/conv é", "block_1/conv__", "", "block_1/conv__"], strict=True
    ):
        node.name = name
    return made


def test_names_are_unique_and_of_the_letters_that_every_parser_takes():
    made = model()
    assert name_nodes(made)
    names = [str(node.name) for node in made.graph]
    assert len(set(names)) == 4
    assert all(re.fullmatch("[A-Za-z0-9_./]+", name) for name in names)


def test_naming_twice_changes_nothing_more_and_two_runs_agree():
    one, other = model(), model()
    assert name_nodes(one) and name_nodes(other)
    assert [n.name for n in one.graph] == [n.name for n in other.graph]
    assert not name_nodes(one)


def test_reports_can_name_the_files_own_nodes():
    made = model()
    name_nodes(made)
    told = originals(made)
    first, second, third, last = (str(node.name) for node in made.graph)
    assert told[first] == "block:1/conv é"
    assert told[second] == second == "block_1/conv__"
    assert told[third] == third == "Abs.c"
    assert told[last] == "block_1/conv__"
    assert next(iter(made.graph)).metadata_props[SOURCE] == "block:1/conv é"


def test_inputs_and_outputs_keep_their_names():
    made = model()
    made.graph.inputs[0].name, made.graph.outputs[0].name = "in:0", "out:0"
    name_nodes(made)
    assert [v.name for v in (*made.graph.inputs, *made.graph.outputs)] == ["in:0", "out:0"]


def test_a_name_of_other_letters_becomes_underscores():
    assert legal("a:b c-d/e.f") == "a_b_c_d/e.f"
