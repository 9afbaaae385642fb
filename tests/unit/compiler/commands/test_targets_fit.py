"""`nncc targets fit`: shipped parameters are those of the rows, and a change is noticed."""

import dataclasses
import json

import pytest

from nncc.compiler.commands.fitted_costs import (
    differences,
    recalibrated,
    sections,
    table,
    without_sections,
)
from nncc.compiler.commands.targets_fit import fit
from nncc.device_profiles.errors import UsageError
from nncc.device_profiles.published.fits import SCALED_FROM, known
from nncc.device_profiles.registry import FOLDER, from_file, load


@pytest.mark.parametrize("name", known())
def test_shipped_parameters_are_those_of_the_rows(name):
    assert differences(load(name), recalibrated(name)) == []


def test_a_changed_parameter_is_noticed():
    profile = load("jetson-tx2")
    cost = dataclasses.replace(profile.cost["fp16"], launch_us=99.0)
    changed = dataclasses.replace(profile, cost={"fp16": cost})
    (said,) = differences(changed, recalibrated("jetson-tx2"))
    assert said.startswith("cost.fp16.launch_us: fitted 2") and said.endswith("shipped 99.0")


def test_a_profile_without_its_costs_is_noticed():
    bare = dataclasses.replace(load("jetson-tx2"), cost={}, calibration={})
    assert differences(bare, recalibrated("jetson-tx2")) == ["cost.fp16: is not in the file"]


def test_the_table_shows_every_row_its_error_and_flops_beside_it():
    text = table("jetson-nano", "fp16", recalibrated("jetson-nano")["fp16"])
    assert len([line for line in text if line.endswith("left out")]) == 26
    assert any("refused: fcn_resnet50" in line for line in text)
    assert text[-2].startswith("  held out: median ")
    assert text[-1].startswith("  FLOPs only: median 17.6%")


def test_what_is_written_reads_back(tmp_path):
    text = (FOLDER / "jetson-nano.toml").read_text(encoding="utf-8")
    parts = recalibrated("jetson-nano")
    bare = without_sections(text)
    assert "[cost." not in bare and "[calibration." not in bare and "[about]" in bare
    made = "\n\n".join(sections(key, part) for key, part in sorted(parts.items()))
    path = tmp_path / "jetson-nano.toml"
    path.write_text(f"{bare}\n\n{made}\n", encoding="utf-8")
    again = from_file(path)
    assert again.cost == {key: part.roofline for key, part in parts.items()}
    assert again.calibration == {key: part.calibration for key, part in parts.items()}


def test_json_holds_parameters_and_rows(capsys):
    assert fit("jetson-tx2", as_json=True) == 0
    told = json.loads(capsys.readouterr().out)["jetson-tx2"]
    assert told["same"] is True and told["fp16"]["calibration"]["rows"] == 2
    assert [row["role"] for row in told["fp16"]["rows"]].count("predicted") == 3


def test_people_see_a_verdict(capsys):
    assert fit("jetson-tx2") == 0
    assert "PASS: jetson-tx2: the shipped parameters" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(SCALED_FROM))
def test_a_board_without_rows_says_so_and_extrapolates_everything(name):
    profile = load(name)
    told = profile.calibration["fp16"]
    assert told.source.startswith("NOT CALIBRATED") and told.rows == 0
    assert told.median_error is None and not profile.cost["fp16"].classes_seen


def test_a_target_without_rows_is_refused():
    with pytest.raises(UsageError, match="'x86-cpu' has no cost parameters"):
        fit("x86-cpu")
