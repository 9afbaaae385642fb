"""Rules and operator list of `rtx`, held against the parser of the installed tensorrt-rtx.

The parser needs no graphics card. Not part of the default run: the package has 234 MB.
"""

from typing import Any

import pytest
from onnx import parser

from nncc.device_profiles.operator_lists import operator_list
from parser_cases import CASES, OPSET

trt: Any = pytest.importorskip("tensorrt_rtx")

CONSERVATIVE = {
    "a Slice of computed axes": "parses; an engine would need the axes when it is built",
    "a TopK of 4000": "parses; the builder then refuses more than 3840",
}


@pytest.fixture(scope="module")
def parses():
    """Whether the parser takes a model in ONNX's text format, and what it says."""
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)

    def ask(source: str) -> tuple[bool, str]:
        network = builder.create_network()
        reader = trt.OnnxParser(network, logger)
        if reader.parse(parser.parse_model(source).SerializeToString()):
            return True, ""
        return False, reader.get_error(0).desc()

    return ask


@pytest.mark.parametrize("name", CASES)
def test_a_rule_says_what_the_parser_says(parses, name):
    body, signature, releases = CASES[name]
    source = f'<ir_version: 6, opset_import: ["" : {OPSET}]> g {signature} {{ {body} }}'
    taken, said = parses(source)
    if name in CONSERVATIVE:
        assert taken and "rtx" in releases
    else:
        assert taken == ("rtx" not in releases), said


def test_the_parser_supports_every_operator_of_the_list():
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    reader = trt.OnnxParser(trt.Builder(logger).create_network(), logger)
    listed = operator_list("tensorrt-rtx")[0]
    assert {op for op in listed if not reader.supports_operator(op)} == set()


@pytest.mark.parametrize("opset", [9, 13, 17, 20, 22])
def test_the_parser_reads_the_opsets_of_the_profile(parses, opset):
    source = f'<ir_version: 10, opset_import: ["" : {opset}]> g (float[4] x) => (float[4] y)'
    assert parses(source + " { y = Relu (x) }")[0]
