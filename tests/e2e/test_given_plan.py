"""`--plan`: an earlier plan repeats its compile, and a wrong one is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest

import nncc
from models import ref_model, wheel_model
from nncc.compiler.commands.cli import main

LENET = ref_model("lenet300")
VGGS = ref_model("vggs")
CONV = "/f/f.10/Conv"  # 32 filters of 32 x 3 x 3
LOW_RANK = {"form": "lowrank", "j": 16}


def written(folder: Path, layers: object, schema: object = 1) -> Path:
    path = folder / "plan.json"
    path.write_text(json.dumps({"schema": schema, "layers": layers}))
    return path


def compiled(folder: Path, plan: Path, *more: str) -> int:
    words = ["compile", str(VGGS), "-t", "x86-cpu", "--plan", str(plan)]
    return main([*words, "-o", str(folder / "build"), *more])


@pytest.mark.parametrize(
    ("name", "target"), [("pp-ocr-rec", "x86-cpu"), ("pp-ocr-cls", "jetson-nano")]
)
def test_an_earlier_plan_repeats_the_compile_byte_for_byte(tmp_path, name, target):
    """Over five seconds on a busy machine: two compiles of a real model."""
    first = nncc.compile(wheel_model(name), target, macs=0.8, output=tmp_path / "a")
    plan = first.folder / "plan.json"
    again = nncc.compile(wheel_model(name), target, plan=plan, output=tmp_path / "b")
    for file in ("model.onnx", "plan.json"):
        assert (again.folder / file).read_bytes() == (first.folder / file).read_bytes()
    errors = [(row.name, row.form, row.error_op) for row in first.outcome.layers]
    assert errors == [(row.name, row.form, row.error_op) for row in again.outcome.layers]
    manifest = json.loads((again.folder / "manifest.json").read_text())
    assert manifest["decisions"]["recipe"] == "plan"
    assert manifest["inputs"]["plan"]["name"] == "plan.json"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calib") / "x.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.random((8, 1, 28, 28), dtype=np.float32))
    return path


@pytest.mark.parametrize(
    ("asked", "fit"),
    [
        ({"recipe": "low-rank", "macs": 0.5}, "nearest"),
        ({"recipe": "svd", "macs": 0.6}, "weights"),
    ],
)
def test_with_the_same_samples_a_plan_repeats_a_calibrated_compile(
    tmp_path, images, asked, fit
):
    """The plan says how terms are fitted; more recipes: tests/bench/test_repeated_plans.py."""
    more = {"calib": str(images), "force": True}
    first = nncc.compile(LENET, "x86-cpu", output=tmp_path / "a", **asked, **more)
    plan = first.folder / "plan.json"
    assert json.loads(plan.read_text()).get("fit", "apart") == fit
    again = nncc.compile(LENET, "x86-cpu", output=tmp_path / "b", plan=plan, **more)
    for file in ("model.onnx", "plan.json"):
        assert (again.folder / file).read_bytes() == (first.folder / file).read_bytes()
    assert again.outcome.calibrated == first.outcome.calibrated == (fit != "weights")


def test_a_plan_of_codes_repeats_without_samples_too(tmp_path):
    first = nncc.compile(LENET, "x86-cpu", output=tmp_path / "a", recipe="quantize", bits=3)
    plan = first.folder / "plan.json"
    assert json.loads(plan.read_text())["halves"] is True
    again = nncc.compile(LENET, "x86-cpu", output=tmp_path / "b", plan=plan)
    assert again.model.read_bytes() == first.model.read_bytes()


@pytest.mark.parametrize(
    ("more", "said"),
    [({"fit": "loosely"}, "'loosely'"), ({"fit": 3}, "'3'"), ({"halves": "yes"}, "halves")],
)
def test_an_unknown_way_to_fit_is_one_line_and_code_2(tmp_path, capsys, more, said):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"schema": 1, "layers": {CONV: LOW_RANK}, **more}))
    assert compiled(tmp_path, plan, "-q") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_plan_that_names_few_layers_leaves_the_others_dense(tmp_path):
    plan = written(tmp_path, {CONV: LOW_RANK})
    done = nncc.compile(VGGS, "x86-cpu", plan=plan, output=tmp_path / "b")
    changed = [row for row in done.outcome.layers if row.status == "changed"]
    assert [(row.name, row.rank) for row in changed] == [(CONV, 16)]
    assert done.outcome.exit_code == 0


@pytest.mark.parametrize(
    ("layers", "parts"),
    [
        ({"/nobody": LOW_RANK}, ["'/nobody'", "does not have", "/f/f.0/Conv"]),
        ({CONV: {"form": "lowrang", "j": 16}}, [CONV, "'lowrang'", "lowrank"]),
        ({CONV: {"form": "lowrank", "j": 33}}, [CONV, "j=33", "32"]),
        ({CONV: {"form": "lowrank", "j": 0}}, [CONV, "j=0"]),
        ({CONV: {"form": "lowrank", "j": "16"}}, [CONV, "whole number", "'16'"]),
        ({CONV: {"form": "lowrank", "j": True}}, [CONV, "whole number"]),
        ({CONV: {"form": "lowrank", "j": LOW_RANK}}, [CONV, "whole number", "lowrank"]),
        ({CONV: {"form": "lowrank", "j": 16, "i": 2}}, [CONV, "takes j", "i"]),
        ({CONV: {"form": "blocks", "k": 7, "of": LOW_RANK}}, [CONV, "k=7", "divisor of 32"]),
        (
            {CONV: {"form": "blocks", "k": 2, "of": 3}},
            [CONV, "of of form", "expected lowrank", "3"],
        ),
        (
            {CONV: {"form": "blocks", "k": 2, "of": {"form": "dense"}}},
            [CONV, "expected lowrank", "dense"],
        ),
        ({CONV: {"form": "folded", "scheme": 9, "of": LOW_RANK}}, [CONV, "scheme 9"]),
        ({CONV: None}, [CONV, "None"]),
        ([CONV], ["layers"]),
    ],
)
def test_a_plan_that_does_not_fit_is_one_line_and_code_2(tmp_path, capsys, layers, parts):
    plan = written(tmp_path, layers)
    assert compiled(tmp_path, plan, "-q") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nncc: ")
    assert all(part in line for part in parts)
    assert list(tmp_path.iterdir()) == [plan]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 2, "layers": {}}', "[" * 100_000, "\x00"]
)
def test_what_is_no_plan_is_one_line_and_code_2(tmp_path, capsys, text):
    plan = tmp_path / "plan.json"
    plan.write_text(text)
    assert compiled(tmp_path, plan, "-q") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(plan) in line
    assert len(line) < 1000


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"form": "lowrank", "j": 17}, "rank 17 is off the x86-cpu lattice of 16"),
        (
            {"form": "blocks", "k": 4, "of": LOW_RANK},
            "group width 8 is off the x86-cpu lattice of 16",
        ),
        ({"form": "tucker2", "outputs": 16, "inputs": 12}, "rank 12 is off"),
    ],
)
def test_a_plan_off_the_lattice_is_done_and_said_in_every_place(tmp_path, capsys, form, said):
    assert compiled(tmp_path, written(tmp_path, {CONV: form})) == 0
    assert said in capsys.readouterr().out
    for name in ("README.md", "report.html", "manifest.json"):
        assert said in (tmp_path / "build" / name).read_text().replace("\\", ""), name


def test_a_plan_on_the_lattice_is_said_to_be_off_nothing(tmp_path, capsys):
    form = {"form": "blocks", "k": 2, "of": LOW_RANK}
    assert compiled(tmp_path, written(tmp_path, {CONV: form})) == 0
    assert "is off" not in capsys.readouterr().out


@pytest.mark.parametrize("more", [["--macs", "0.5"], ["--recipe", "none"]])
def test_a_plan_and_a_wish_for_another_are_refused(tmp_path, capsys, more):
    plan = written(tmp_path, {CONV: LOW_RANK})
    assert compiled(tmp_path, plan, *more) == 2
    assert "--plan" in capsys.readouterr().err
