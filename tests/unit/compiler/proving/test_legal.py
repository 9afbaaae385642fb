"""A rewrite is believed only when ONNX Runtime computes the same before and after."""

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from nncc.compiler.proving.legal import LEGALISED, proven
from nncc.compiler.proving.verify import NORMALISED
from nncc.compiler.writing.save import write
from nncc.device_profiles.errors import Postcondition
from nncc.device_profiles.registry import load
from nncc.passes.legalise import Legalised, legalise
from nncc.passes.model import Model

FEEDS = [{"x": np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)}]


def model(op: str) -> Model:
    text = (
        '<ir_version: 8, opset_import: ["" : 20]> g (float[N, 4] x) => (float[N, 4] y) '
        f"{{ y = {op} (x) }}"
    )
    return Model(ir.from_proto(parser.parse_model(text)), "net", "0" * 64)


def legalised(op: str, tmp_path) -> Legalised:
    given = model(op)
    write(given, tmp_path / NORMALISED)
    return legalise(given, load("jetson-nano"))


def test_an_equal_rewrite_is_kept_beside_the_model_before(tmp_path):
    assert proven(legalised("Gelu", tmp_path), tmp_path, FEEDS) == tmp_path / LEGALISED


def test_where_nothing_was_rewritten_the_normalised_file_stands(tmp_path):
    assert proven(legalised("Relu", tmp_path), tmp_path, FEEDS) == tmp_path / NORMALISED


def test_a_rewrite_that_changes_the_result_is_named(tmp_path):
    made = legalised("Gelu", tmp_path)
    wrong = dataclasses.replace(made, model=model("Neg"))
    with pytest.raises(Postcondition, match=r"net: legalise: output 'y' differs .* Gelu"):
        proven(wrong, tmp_path, FEEDS)
