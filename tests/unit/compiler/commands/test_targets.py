"""`nncc targets`: what a person sees of devices, and how they add their own."""

import json
from pathlib import Path

import pytest

from nncc.compiler.commands.cli import main
from nncc.compiler.commands.facts import device_facts, percent
from nncc.device_profiles.registry import load, names, shipped

MINE = """
base = "jetson-nano"
title = "my board"

[cost.fp16]
launch_us = 20.0
peak_gflops = 300.0
bandwidth_gbs = 12.0
element_bytes = 2
rates = { "3x3" = 1.7 }
classes_seen = ["3x3"]

[calibration.fp16]
source = "a table of mine"
rows = 26
protocol = "leave one architecture out"
median_error = 0.0617
worst_error = 0.25
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    monkeypatch.setenv("NNCC_TARGETS_DIR", str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE, encoding="utf-8")
    return path


def told(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    """What a command prints."""
    assert main(["targets", *args]) == code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    return shown.out


def error(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line that a command fails with."""
    assert main(["targets", *args]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("nncc: ") and shown.err.count("\n") == 1
    return shown.err


def test_the_list_has_a_line_a_device(capsys):
    lines = told(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines] == ["name", *names()]
    nano = next(line for line in lines if line.startswith("jetson-nano "))
    assert "TensorRT 8.2.1" in nano and " 13 " in nano and "fp16 fp32" in nano


def test_the_list_in_json_says_what_can_be_compared(capsys):
    rows = {row["name"]: row for row in json.loads(told(capsys, "list", "--json"))}
    assert list(rows) == names()
    nano = rows["jetson-nano"]
    keys = {"name", "title", "runtime", "runtime_version", "max_opset", "precisions", "own"}
    assert nano.keys() == keys | {"cost"}
    assert (nano["runtime"], nano["max_opset"], nano["own"]) == ("tensorrt", 13, False)


def test_an_added_device_is_listed_shown_and_compiled_for(capsys, file, own):
    assert "added mine (my board)" in told(capsys, "add", str(file))
    assert (own / "mine.toml").read_text(encoding="utf-8") == MINE
    line = next(x for x in told(capsys, "list").splitlines() if x.startswith("mine (yours)"))
    assert "fp16 analytic 6.2 %" in line
    rows = {row["name"]: row for row in json.loads(told(capsys, "list", "--json"))}
    fitted = {"tier": "analytic", "rows": 26, "median_error": 0.0617}
    assert rows["mine"]["cost"] == {"fp16": fitted}
    shown = told(capsys, "show", "mine")
    assert (
        "calibration.fp16: error: median 6.2 %, worst 25.0 % "
        "(leave one architecture out; 26 rows) [a table of mine]" in shown
    )
    assert "rates 3x3 1.7" in shown.replace("(", "").replace(")", "")
    facts = json.loads(told(capsys, "show", "mine", "--json"))
    assert facts["cost.fp16"]["value"]["rates"] == {"3x3": 1.7}
    assert facts["calibration.fp16"]["value"]["worst_error"] == 0.25
    assert load("mine").title == "my board"


@pytest.mark.parametrize("name", shipped())
def test_every_fact_that_is_shown_has_a_source(name):
    of_the_file = {"name", "title", "runtime", "is_local", "aliases"}
    for fact in device_facts(load(name)):
        known = fact.value not in (None, [], {})
        unset = fact.name in ("parser", "protocol") and not fact.source
        assert fact.source or fact.name in of_the_file or not known or unset, fact


def test_showing_in_json_has_value_and_source(capsys):
    facts = json.loads(told(capsys, "show", "jetson-agx-orin-jp6", "--json"))
    assert facts["max_opset"]["value"] == 20
    assert facts["lowering"]["value"]["sparse"] == "2:4"
    assert facts["peak_gflops"]["value"]["fp16"] > facts["peak_gflops"]["value"]["fp32"]
    assert "LayerNormalization" in facts["operators"]["value"]
    assert facts["operators"]["source"]


def test_a_valid_file_passes(capsys, file):
    assert told(capsys, "validate", str(file)) == (
        f"PASS: {file} describes my board (exit code 0)\n"
    )
    assert json.loads(told(capsys, "validate", str(file), "--json"))["ok"] is True


def test_a_wrong_file_is_one_line_with_its_key(capsys, file, own):
    file.write_text(MINE.replace("20.0", "0"), encoding="utf-8")
    for command in ("validate", "add"):
        assert f"{file}: cost.fp16.launch_us" in error(capsys, command, str(file))
    assert main(["targets", "validate", str(file), "--json"]) == 2
    failure = json.loads(capsys.readouterr().out)["error"]
    assert failure["where"] == str(file)
    assert not own.exists()


@pytest.mark.parametrize(
    "name", ["../mine", "/tmp/mine", "..", "a/b", "", "A", "a\nb", "-x", "\x1b[2J", "x" * 300]
)
def test_a_name_that_is_a_path_is_refused(capsys, file, own, name):
    line = error(capsys, "add", str(file), f"--name={name}")
    assert "--name" in line
    assert len(line) < 400
    assert not own.exists()
    assert sorted(p.name for p in file.parent.iterdir()) == ["mine.toml"]


@pytest.mark.parametrize("name", ["jetson-nano", "tegra210-nano", "host"])
def test_a_shipped_name_cannot_be_taken(capsys, file, own, name):
    assert "is a device that nncc knows" in error(capsys, "add", str(file), "--name", name)
    assert not own.exists()


def test_a_cost_without_rows_is_called_uncalibrated(capsys, file):
    file.write_text(MINE.replace("rows = 26", "rows = 0"), encoding="utf-8")
    told(capsys, "add", str(file))
    assert "fp16 analytic uncalibrated" in told(capsys, "list")


def test_an_own_device_is_replaced_only_when_asked(capsys, file, own):
    told(capsys, "add", str(file), "--name", "board")
    file.write_text(MINE.replace("my board", "new board"), encoding="utf-8")
    assert "--force" in error(capsys, "add", str(file), "--name", "board")
    assert load("board").title == "my board"
    told(capsys, "add", str(file), "--name", "board", "--force")
    assert load("board").title == "new board"
    assert [p.name for p in own.iterdir()] == ["board.toml"]


def test_a_broken_own_file_is_named_and_hides_nothing(capsys, own):
    own.mkdir()
    (own / "broken.toml").write_text("title = ")
    shown = told(capsys, "list")
    assert f"left out: {own / 'broken.toml'}: not TOML" in shown
    assert "jetson-nano" in shown
    rows = {row["name"]: row for row in json.loads(told(capsys, "list", "--json"))}
    assert rows["broken"]["error"]


def test_texts_of_a_file_cannot_drive_the_terminal(capsys, file):
    file.write_text(MINE.replace('"my board"', '"\\u001b[2J\\nboard"'), encoding="utf-8")
    told(capsys, "add", str(file))
    for args in (["show", "mine"], ["validate", str(file)], ["list"]):
        shown = told(capsys, *args)
        assert "\x1b" not in shown
    assert "title: ?[2J board\n" in told(capsys, "show", "mine")


@pytest.mark.parametrize(
    "args", [["validate", "none.toml"], ["add", "none.toml"], ["add", "/"]]
)
def test_a_file_that_is_not_there_is_one_line(capsys, args, own):
    assert "nncc: " in error(capsys, *args)
    assert not own.exists()


def test_the_schema_is_printed_as_published(capsys):
    published = Path(__file__).parents[4] / "docs" / "target-schema.json"
    assert told(capsys, "schema") == published.read_text(encoding="utf-8")


def test_a_percentage_is_told_plainly():
    assert [percent(x) for x in (0.0, 0.0617, 0.25, None)] == [
        "0.0 %", "6.2 %", "25.0 %", "unknown",
    ]  # fmt: skip
