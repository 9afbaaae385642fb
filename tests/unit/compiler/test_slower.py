"""A plan that is predicted to slow the net down says so, why, and what to ask instead."""

import json
import re

import pytest

import nncc
from models import ref_model
from nncc.compiler.commands.cli import main
from nncc.compiler.outcome import Outcome

VGGS = ref_model("vggs")


def planned(**asked: object) -> Outcome:
    return nncc.compile(VGGS, "jetson-nano", dry_run=True, **asked).outcome


def slower(outcome: Outcome) -> list[str]:
    return [said for said in outcome.warnings if said.startswith("predicted slower")]


def test_fewer_multiply_adds_that_take_longer_are_a_warning():
    """On a Jetson Nano a launch takes as long as these layers compute."""
    done = planned(macs=0.7)
    assert done.predicted is not None and done.predicted.speedup < 0.75
    (said,) = slower(done)
    times = f"{done.predicted.reference_ms:.3g} ms to {done.predicted.compressed_ms:.3g} ms"
    assert f"{done.predicted.speedup:.2f} x, {times}" in said
    assert f"{done.changed} changed layers take {2 * done.changed} launches" in said
    assert f"in place of {done.changed}: launching +" in said
    assert "ranks run in steps of 8" in said
    assert "--speedup 1.2 in place of --macs" in said


def test_what_it_names_adds_up_to_what_is_lost():
    """Launching and computing grow; here nothing else changes much."""
    done = planned(macs=0.7)
    assert done.predicted is not None
    (said,) = slower(done)
    grown = sum(map(float, re.findall(r"\+([\d.]+) ms", said)))
    lost = done.predicted.compressed_ms - done.predicted.reference_ms
    assert grown == pytest.approx(lost, rel=0.15)


def test_asking_for_what_it_names_is_not_slower():
    """A budget of storage keeps its place, and time gets one of its own."""
    (said,) = slower(planned(size=0.4))
    assert "ask for --size 0.4 --speedup 1: both hold then" in said
    done = planned(size=0.4, speedup=1)
    assert done.budget_met and not slower(done)
    assert done.predicted is not None and done.predicted.speedup >= 1


@pytest.mark.parametrize(
    ("asked", "instead"),
    [
        ({"recipe": "low-rank", "size": 0.3}, "--size 0.3 --speedup 1 and no --recipe"),
        ({"form": ("lowrank(j=16)",)}, "leave these layers out of --form"),
        ({"recipe": "svd", "macs": 0.5}, "--speedup 1.2 in place of --macs"),
    ],
)
def test_what_to_ask_instead_follows_from_what_was_asked(asked, instead):
    (said,) = slower(planned(**asked))
    assert instead in said


@pytest.mark.parametrize("asked", [{}, {"recipe": "none"}, {"macs": 1.0}])
def test_what_is_as_fast_as_it_was_is_no_warning(asked):
    assert not slower(planned(**asked))


def test_it_stands_wherever_a_person_looks(tmp_path, capsys):
    words = ["compile", str(VGGS), "-t", "jetson-nano", "--macs", "0.7"]
    assert main([*words, "-o", str(tmp_path / "b")]) == 0
    shown = capsys.readouterr().out
    assert "warning: predicted slower than the original: 0.6" in shown
    notes = json.loads((tmp_path / "b" / "manifest.json").read_text())["notes"]
    assert any(said.startswith("predicted slower") for said in notes["warnings"])
    for name in ("report.html", "README.md"):
        assert "predicted slower than the original" in (tmp_path / "b" / name).read_text()
