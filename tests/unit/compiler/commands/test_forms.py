"""`nncc forms`: what a person and a script see of the forms."""

import json

import pytest

from compositions import registered
from nncc.compiler.commands.cli import main


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_list_shows_how_every_form_is_written_and_what_it_is(capsys):
    assert main(["forms", "list"]) == 0
    said = capsys.readouterr().out
    assert "quantize(k, [per=layer], [group=0], [scale=none])" in said
    lines = said.splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in registered())


def test_list_is_one_json_object_a_form(capsys):
    assert main(["forms", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {form["name"] for form in found} == registered()
    assert all(form["usage"].startswith(form["name"]) and form["title"] for form in found)


def test_show_tells_parameters_equation_storage_and_lowering(capsys):
    assert main(["forms", "show", "lowrank"]) == 0
    said = capsys.readouterr().out
    assert "  j: a whole number. rank." in said
    assert "  u: a form or none (default: none)." in said
    assert "example: lowrank(j=2) on 32 filters of 16 x 3 x 3" in said
    assert "stores: u float16 1x32x2; v float16 1x2x16x3x3" in said
    assert "runs: Conv 3x3 16 -> 2; then Conv 1x1 2 -> 32" in said


def test_show_says_that_codes_run_as_the_dense_layer(capsys):
    assert main(["forms", "show", "quantize"]) == 0
    said = capsys.readouterr().out
    assert "LC part V" in said
    assert "runs: one dense layer, as before" in said
    assert "the runtime unfolds them when it loads" in said


def test_show_in_json_has_the_same(capsys):
    assert main(["forms", "show", "prune", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in found["parameters"]] == ["kappa", "by", "of"]
    assert found["example"]["is_folded"] is True
    assert found["example"]["stored"]["values"].startswith("float16 ")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_unknown_form_is_code_2_with_the_nearest_name(capsys, more):
    assert main(["forms", "show", "quantise", *more]) == 2
    said = capsys.readouterr()
    assert "did you mean 'quantize'?" in said.out + said.err


def test_help_of_compile_tells_of_forms(capsys):
    assert main(["compile", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("--form", "quantize(k=4) + prune(1%)", "nncc forms list", "--bits"):
        assert words in said
