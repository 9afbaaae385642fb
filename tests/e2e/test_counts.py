"""Counts of a compile, as metrics.json, layers.csv and the report tell them."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import nncc
from models import ref_model
from nncc.compiler.writing.artifact import load_artifact

FORM = "quantize(k=2) + prune(kappa=2%)"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> nncc.Artifact:
    """One bit and two percent in every layer of lenet5."""
    folder = tmp_path_factory.mktemp("counts")
    return nncc.compile(ref_model("lenet5"), "x86-cpu", form=(FORM,), output=folder / "a")


def test_ratios_are_the_sums_of_the_layers_and_of_what_stays(artifact: nncc.Artifact):
    found, rows = artifact.metrics, artifact.outcome.layers
    biases = sum(row.shape[0] * row.shape[1] for row in rows)
    assert artifact.outcome.other_floats == biases
    bits = sum(row.bits_compressed for row in rows) + 32 * biases
    parameters = sum(math.prod(row.shape) for row in rows) + biases
    assert found.size.parameters == parameters
    assert found.size.rho_s == 32 * parameters / bits
    assert found.size.bits_per_parameter == bits / parameters < 2
    macs = sum(row.macs_reference or 0 for row in rows)
    assert found.ops.rho_mult == macs / sum(row.mults_compressed or 0 for row in rows)
    assert found.ops.rho_add == macs / sum(row.adds_compressed or 0 for row in rows)
    # a correction adds, and spares nothing: LC part V, appendix B.2
    assert found.ops.rho_add is not None and found.ops.rho_mult is not None
    assert found.ops.rho_add < 1 < 5 < found.ops.rho_mult


def test_a_layer_counts_one_bit_a_weight_two_levels_and_its_corrections(
    artifact: nncc.Artifact,
):
    for row in artifact.outcome.layers:
        g, m, *_ = row.shape
        weights = math.prod(row.shape)
        kept = round(0.02 * weights)
        M = (row.macs_reference or 0) // weights
        assert row.adds_compressed == (weights + kept) * M
        assert row.mults_compressed == (2 * g * m + kept) * M
        gaps = (row.bits_compressed - weights - 2 * 32) / max(kept, 1)
        assert 16 + 1 <= gaps <= 16 + 14


def test_factors_that_are_codes_are_stored_as_codes(tmp_path: Path):
    said = "lowrank(j=16)", "lowrank(j=16, u=quantize(k=4), v=quantize(k=4))"
    plain, nested = (
        nncc.compile(ref_model("lenet5"), "x86-cpu", form=(form,), output=tmp_path / str(at))
        for at, form in enumerate(said)
    )
    assert nested.metrics.size.compressed_bytes < 0.7 * plain.metrics.size.compressed_bytes
    assert plain.metrics.size.compressed_bytes < 0.06 * plain.metrics.size.reference_bytes


def test_a_target_that_stores_codes_dense_says_that_no_byte_is_saved(tmp_path: Path):
    done = nncc.compile(
        ref_model("lenet5"), "jetson-nano", form=(FORM,), output=tmp_path / "a"
    )
    assert done.metrics.size.compressed_bytes > 0.9 * done.metrics.size.reference_bytes
    assert any(
        "stored dense" in text and "not saved" in text for text in done.outcome.warnings
    )


def test_the_file_holds_what_the_table_says(artifact: nncc.Artifact, tmp_path: Path):
    text = (artifact.folder / "layers.csv").read_text()
    table = {row["name"]: row for row in csv.DictReader(text.splitlines())}
    stored = sum(int(row["bytes_compressed"]) for row in table.values())
    size = artifact.model.stat().st_size
    assert stored < size < stored + 40_000  # biases, and nodes with their names
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    ort.InferenceSession(str(artifact.model), options)
    left = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert left.isdisjoint({"Cast", "ScatterElements", "CumSum", "Range", "Concat"})


def test_counts_read_back_and_stand_in_the_report(artifact: nncc.Artifact):
    again = load_artifact(artifact.folder, verify=True)
    assert again.outcome == artifact.outcome
    held = json.loads((artifact.folder / "metrics.json").read_text())["size"]
    page = (artifact.folder / "report.html").read_text()
    assert f"{held['bits_per_parameter']:.3g} a parameter" in page
    assert f"{artifact.metrics.ops.rho_mult:.3g}" in page
    assert np.isfinite(held["rho_s"])
