"""`nncc explain` on artifacts of real compiles, whole and damaged."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest

import nncc
from models import ref_model, wheel_model
from nncc.compiler.commands.cli import main
from nncc.compiler.writing.alternatives import read
from nncc.compiler.writing.artifact import load_artifact

REJECTED = 3


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lenet5 at 40 % of its multiply-adds: two layers change, two are too small."""
    output = tmp_path_factory.mktemp("lenet") / "build"
    nncc.compile(ref_model("lenet5"), "x86-cpu", output=output, macs=0.4)
    return output


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PP-OCR's direction classifier, a MobileNetV3, with more speed asked than there is."""
    output = tmp_path_factory.mktemp("cls") / "build"
    shape = ("x:1x3x48x192",)
    given: dict[str, object] = {"speedup": 1.5, "shape": shape, "output": output}
    nncc.compile(wheel_model("pp-ocr-cls"), "x86-cpu", **given)
    return output


@pytest.fixture
def copy(lenet: Path, tmp_path: Path) -> Path:
    """The files that are read, to be damaged."""
    without = shutil.ignore_patterns("model.onnx*", "report.html")
    return Path(shutil.copytree(lenet, tmp_path / "build", ignore=without))


def told(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["explain", *args]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, object]:
    found = json.loads(told(capsys, *args, "--json"))
    assert isinstance(found, dict)
    return found  # pyright: ignore[reportUnknownVariableType]


def test_the_file_holds_what_was_taken_and_at_which_price(lenet: Path):
    held = read((lenet / "alternatives.json").read_text())
    rows = {row.name: row for row in load_artifact(lenet).outcome.layers}
    assert [layer.name for layer in held.layers] == list(rows)
    for layer in held.layers:
        assert layer.chosen is not None
        taken, row = layer.candidates[layer.chosen], rows[layer.name]
        assert taken.form == row.form and taken.macs == row.macs_compressed
        assert taken.predicted_ms == pytest.approx(row.predicted_ms)
        assert layer.compressed is not None
        assert layer.compressed.ms == pytest.approx(row.predicted_ms)
        assert layer.candidates[0].form == "dense"
        assert layer.candidates[0].bits == row.bits_reference


def test_the_predicted_times_in_the_file_add_up_to_the_whole(lenet: Path):
    held = read((lenet / "alternatives.json").read_text())
    predicted = load_artifact(lenet).outcome.predicted
    assert predicted is not None
    rest = sum(entry.time.ms for entry in held.rest)
    before = sum(layer.reference.ms for layer in held.layers if layer.reference is not None)
    after = sum(layer.compressed.ms for layer in held.layers if layer.compressed is not None)
    assert rest + before == pytest.approx(predicted.reference_ms)
    assert rest + after == pytest.approx(predicted.compressed_ms)


def test_a_compile_is_explained_as_a_whole_and_layer_by_layer(lenet: Path, capsys):
    whole = told(capsys, str(lenet))
    assert "changed 2 of 4 layers" in whole and "macs <= 0.4" in whole
    assert "caps the speed-up at" in whole and "dense: 2 layers, too small" in whole
    layer = told(capsys, str(lenet), "--layer", "/f1/Gemm")
    assert "next cheaper: lowrank(j=" in layer and "next better: lowrank(j=" in layer
    assert "sets the bound" in layer or "within the least bound" in layer
    small = told(capsys, str(lenet), "--layer", "/f2/Gemm")
    assert "10 × 500 is too small: no rank on the device's steps of 16" in small


def test_json_holds_every_layer_or_the_one_that_was_asked_for(lenet: Path, capsys):
    found = as_json(capsys, str(lenet))
    keys = {"artifact", "model", "target", "recipe", "summary", "limits", "margins", "layers"}
    assert keys <= set(found)
    layers = found["layers"]
    assert isinstance(layers, list) and len(layers) == 4
    one = as_json(capsys, str(lenet), "--layer", "/c2/Conv")["layers"]
    assert isinstance(one, list)
    assert one == [layer for layer in layers if layer["name"] == "/c2/Conv"]
    step = one[0]["better"]
    assert step["value"] < 0 < step["cost"] and step["to"]["form"] != one[0]["form"]


def test_a_layer_that_is_not_there_names_the_nearest(lenet: Path, capsys):
    assert main(["explain", str(lenet), "--layer", "/c2/Convv"]) == 2
    said = capsys.readouterr()
    assert "did you mean /c2/Conv" in said.err and said.err.count("\n") == 1


def test_where_most_time_cannot_change_the_cap_is_near_what_was_reached(classifier, capsys):
    found = as_json(capsys, str(classifier))["limits"]
    assert isinstance(found, dict)
    # by Amdahl from layers.csv alone: what is no candidate of any plan stays as it is
    rows = list(csv.DictReader((classifier / "layers.csv").open(newline="")))
    predicted = load_artifact(classifier).outcome.predicted
    changed = [float(r["predicted_reference_ms"]) for r in rows if r["status"] == "changed"]
    assert predicted is not None and predicted.rewritten_ms is not None
    left = predicted.rewritten_ms - sum(changed)
    assert found["cap"] == pytest.approx(predicted.reference_ms / left)
    assert found["speedup"] <= found["fastest_candidates"] <= found["cap"] < 1.2 * 1.42
    assert 1.2 < found["exact_rewriting"] < 1.42, "scales folded, hard sigmoids in one node"
    kinds = [share["what"] for share in found["fixed"]]
    assert "depthwise layers" in kinds and "HardSigmoid" in kinds
    text = told(capsys, str(classifier))
    assert "cannot be held" in text and "launch overhead bounds it" in text
    assert "exact rewriting alone" in text


def test_a_given_plan_says_that_nothing_was_weighed(lenet: Path, tmp_path: Path, capsys):
    output, plan = tmp_path / "again", lenet / "plan.json"
    nncc.compile(ref_model("lenet5"), "x86-cpu", output=output, plan=plan)
    text = told(capsys, str(output))
    assert "nothing was chosen: every form was said" in text and "as said" in text


def test_a_folder_of_an_older_version_is_explained_without_alternatives(copy: Path, capsys):
    (copy / "alternatives.json").unlink()
    assert "there is no alternatives.json" in told(capsys, str(copy))
    assert "why: " in told(capsys, str(copy), "--layer", "/c1/Conv")


NESTED = "[" * 200_000
READ = (
    "alternatives.json",
    "metrics.json",
    "manifest.json",
    "layers.csv",
    "logs/outputs.json",
)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("text", ["", "{", "null", NESTED, "\x00" * 64, '{"schema": 2}'])
def test_a_damaged_file_is_one_error_that_names_it(copy: Path, capsys, name: str, text: str):
    (copy / name).write_text(text)
    assert_rejected(copy, capsys, name)


def changed_json(path: Path, change) -> None:
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held["layers"][1].update(chosen=99),
        lambda held: held["layers"][1]["candidates"][0].update(error=float("nan")),
        lambda held: held["layers"][1]["candidates"][0].update(bits=-1),
        lambda held: held["layers"][1].update(candidates=held["layers"][1]["candidates"] * 99),
        lambda held: held["rest"][0]["time"].update(launch_ms=1e300),
        lambda held: held["choice"].update(rule="luck"),
        lambda held: held.update(more=1),
    ],
)
def test_hostile_numbers_are_refused(copy: Path, capsys, change):
    changed_json(copy / "alternatives.json", change)
    assert_rejected(copy, capsys, "alternatives.json")


def test_sizes_are_checked_before_anything_is_read(copy: Path, capsys):
    for name in ("alternatives.json", "layers.csv", "metrics.json"):
        before = (copy / name).read_bytes()
        os.truncate(copy / name, 1 << 40)  # a hole: nothing is on the disk
        assert_rejected(copy, capsys, name)
        (copy / name).write_bytes(before)


def test_what_is_no_file_of_the_folder_is_refused(copy: Path, tmp_path: Path, capsys):
    outside = tmp_path / "outside.json"
    shutil.move(copy / "alternatives.json", outside)
    (copy / "alternatives.json").symlink_to(outside)
    assert_rejected(copy, capsys, "alternatives.json")
    (copy / "layers.csv").unlink()
    os.mkfifo(copy / "layers.csv")
    assert_rejected(copy, capsys, "layers.csv")


def test_a_name_cannot_drive_the_terminal(copy: Path, capsys):
    rows = list(csv.reader(io.StringIO((copy / "layers.csv").read_text())))
    rows[1][0] = "\x1b[2Jevil"
    with (copy / "layers.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    assert "\x1b" not in told(capsys, str(copy))


def test_what_is_no_artifact_is_a_usage_error(tmp_path: Path, capsys):
    assert main(["explain", str(tmp_path)]) == 2
    assert main(["explain", str(tmp_path / "none")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def assert_rejected(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["explain", str(folder)]) == REJECTED
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and name in said.err
    assert "compile again" in said.err and "Traceback" not in said.err


def test_what_is_not_timed_is_said(tmp_path: Path, capsys):
    """silero's layers stand in bodies of If, of which no launch is predicted."""
    output = tmp_path / "vad"
    nncc.compile(wheel_model("silero-vad"), "x86-cpu", speedup=1.1, output=output)
    text = told(capsys, str(output))
    assert "the time of 1 node is not known, and in none of these numbers" in text
