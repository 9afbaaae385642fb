import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nncc.compiler.commands.settings import read_config, resolve, to_toml
from nncc.compiler.options import CompileOptions
from nncc.device_profiles.errors import UsageError


def test_flag_beats_variable_beats_file_beats_default():
    table, environ = (
        {"macs": 0.4, "seed": 3, "rounds": 9},
        {"NNCC_MACS": "0.5", "NNCC_SEED": "5"},
    )
    found = resolve({"macs": "0.6"}, environ=environ, table=table)
    assert (found.macs, found.seed, found.rounds, found.threads) == (0.6, 5, 9, 1)


def test_forms_in_a_variable_stand_between_semicolons():
    environ = {"NNCC_FORM": "head=dense; quantize(k=4) + prune(1%)", "NNCC_SHAPE": "a:1 b:2"}
    found = resolve({}, environ=environ)
    assert found.form == ("head=dense", "quantize(k=4) + prune(1%)")
    assert found.shape == ("a:1", "b:2")
    table = tomllib.loads(to_toml(found, "host", version="1"))["compile"]
    del table["target"]
    assert resolve({}, table=table).form == found.form


@pytest.mark.parametrize("text", ["0.3", "30%", " 30 % ", 0.3])
def test_a_fraction_may_be_a_number_or_a_percentage(text: object):
    assert resolve({"size": text}).size == pytest.approx(0.3)


def test_a_percentage_of_something_that_is_no_fraction_is_refused():
    with pytest.raises(UsageError, match="--seconds: '50%'"):
        resolve({"seconds": "50%"})


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"flags": {"macs": "2"}}, "--macs: '2': input should be less than or equal to 1"),
        ({"flags": {}, "environ": {"NNCC_RECIPE": "lowrank"}}, "NNCC_RECIPE: 'lowrank'"),
        ({"flags": {}, "table": {"mac": 1}, "file": "f.toml"}, "did you mean 'macs'?"),
        ({"flags": {}, "table": {"trim": 0.7}, "file": "f.toml"}, "f.toml: compile.trim: 0.7"),
        ({"flags": {"maks": 1}}, "there is no option 'maks'; did you mean 'macs'?"),
    ],
)
def test_a_refused_value_names_its_source_and_what_to_do(given_: dict, message: str):
    with pytest.raises(UsageError) as error:
        resolve(**given_)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_written_configuration_reads_back_as_the_same_options(tmp_path: Path):
    asked = resolve({"macs": "33%", "shape": ['x"\\:1x3', "ÿ\x7f\n:1"], "trim_side": "high"})
    file = tmp_path / "config.toml"
    file.write_text(to_toml(asked, "jetson-nano", version="1"), encoding="utf-8")
    table = read_config(file)
    assert table.pop("target") == "jetson-nano"
    assert resolve({}, table=table) == asked


@given(st.text(), st.floats(0.001, 1), st.integers(0, 2**40))
def test_any_text_and_number_survives_toml(text: str, macs: float, seed: int):
    asked = CompileOptions.model_validate({"shape": [text], "macs": macs, "seed": seed})
    table = tomllib.loads(to_toml(asked, text, version="1"))["compile"]
    assert (table["shape"], table["macs"], table["seed"]) == ([text], macs, seed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("macs = 0.3", r"put it under \[compile\]"),
        ("[compil]\nmacs = 0.3", "did you mean 'compile'"),
        ("compile = 3", "not a table"),
        ("a = = 3", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_one_line(tmp_path: Path, text: str, message: str):
    file = tmp_path / "nncc.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(file)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        read_config(tmp_path / "b.toml")
