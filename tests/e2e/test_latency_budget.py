"""Budgets in time, from the command line to the artifact."""

import json

import pytest

import nncc
from models import ref_model
from nncc.compiler.commands.cli import main
from nncc.compiler.writing.artifact import load_artifact

VGGS = ref_model("vggs")


def test_a_predicted_speedup_stands_in_metrics_and_report_with_its_tier(tmp_path):
    done = nncc.compile(VGGS, "x86-cpu", speedup="1.2x", output=tmp_path / "b")
    assert done.outcome.budget_met
    held = json.loads((tmp_path / "b/metrics.json").read_text())["latency"]["predicted_ms"]
    assert held["reference"] / held["compressed"] >= 1.2
    assert held["tier"] == "analytic"
    assert "Speed-up, predicted" in (tmp_path / "b/report.html").read_text()
    assert "Predicted" in (tmp_path / "b/README.md").read_text()
    slower = [
        row.name
        for row in done.outcome.layers
        if row.status == "changed"
        and (row.predicted_ms or 0) >= (row.predicted_reference_ms or 0)
    ]
    assert slower == []


def test_an_artifact_read_back_predicts_the_same(tmp_path):
    done = nncc.compile(VGGS, "x86-cpu", macs=0.7, output=tmp_path / "b")
    again = load_artifact(tmp_path / "b")
    assert again.outcome.predicted == done.outcome.predicted is not None


def test_a_latency_reads_with_its_unit():
    asked = nncc.compile(VGGS, "x86-cpu", speedup=1.2, dry_run=True).outcome.predicted
    text = f"{asked.reference_ms / 1.2 * 1e3:.6f}us"
    done = nncc.compile(VGGS, "x86-cpu", latency=text, dry_run=True)
    assert done.outcome.predicted.compressed_ms <= asked.reference_ms / 1.2 * 1.0001


def test_where_launches_are_all_that_counts_nothing_gets_faster(tmp_path, capsys):
    """The small VGG takes the Nano a few launches; two factors are one launch more."""
    code = main(
        [
            "compile",
            str(VGGS),
            "-t",
            "jetson-nano",
            "--speedup",
            "3",
            "-o",
            str(tmp_path / "b"),
        ]
    )
    assert code == 4
    said = capsys.readouterr().out
    assert "predicted to be reachable" in said
    assert (tmp_path / "b/model.onnx").exists()


def test_a_target_without_a_cost_model_says_what_to_do(tmp_path, capsys):
    code = main(
        ["compile", str(VGGS), "-t", "rtx", "--speedup", "2", "-o", str(tmp_path / "b")]
    )
    assert code == 2
    assert "has no cost model" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["12 parsecs", "-3ms", "0"])
def test_a_latency_that_is_none_is_refused(tmp_path, capsys, text):
    code = main(
        ["compile", str(VGGS), "-t", "x86-cpu", "--latency", text, "-o", str(tmp_path / "b")]
    )
    assert code == 2
    assert "--latency" in capsys.readouterr().err
