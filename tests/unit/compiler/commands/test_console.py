import io

import pytest
from rich.console import Console

from nncc.compiler.commands.console import (
    NORMAL,
    QUIET,
    VERBOSE,
    ConsoleProgress,
    printable,
    show,
)
from nncc.compiler.events import Event
from nncc.compiler.outcome import Outcome
from nncc.compiler.writing.artifact import planned
from nncc.compiler.writing.verdict import verdict
from outcomes import HOSTILE, outcome, paired, row


def plain() -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=False)


def shown(told: Outcome, level: int = NORMAL) -> str:
    out = plain()
    show(planned(told), out, level=level)
    return out.file.getvalue()  # type: ignore[attr-defined]


def heard(level: int, *events: Event, terminal: bool = False) -> str:
    out = Console(file=io.StringIO(), width=120, force_terminal=terminal)
    with ConsoleProgress(level, out) as progress:
        for event in events:
            progress.on_event(event)
    return out.file.getvalue()  # type: ignore[attr-defined]


EVENTS = (
    Event("survey", 1, 2, "first layer"),
    Event("survey", 2, 2, "second layer"),
    Event("allocate", 0, 0),
)


def test_without_a_terminal_there_is_one_plain_line_a_stage():
    lines = heard(NORMAL, *EVENTS).splitlines()
    assert [line.split(",")[0] for line in lines] == ["survey 2/2", "allocate"]
    assert "\x1b" not in heard(NORMAL, *EVENTS)


def test_verbose_tells_every_step_and_quiet_tells_none():
    assert "survey 1/2: first layer" in heard(VERBOSE, *EVENTS)
    assert heard(QUIET, *EVENTS) == ""


def test_a_terminal_gets_bars():
    assert "survey" in heard(NORMAL, *EVENTS, terminal=True)


def test_a_stage_that_failed_is_not_shown_as_finished():
    out = plain()

    def failing() -> None:
        with ConsoleProgress(NORMAL, out) as progress:
            progress.on_event(Event("ingest", 0, 0))
            progress.on_event(Event("survey", 1, 9, "x"))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        failing()
    assert [line.split(",")[0] for line in out.file.getvalue().splitlines()] == ["ingest"]  # type: ignore[attr-defined]


def test_the_result_says_what_changed_what_it_gained_and_what_is_left():
    text = shown(outcome(latency=paired()))
    for part in (
        "changed 1 of 2 layers",
        "size: 46,800,000 to 17,500,000 bytes (37.4%)",
        "MACs:",
        "speed-up: 1.99 x (1.95 to 2.03, 95 %), 4.02 to 2.02 ms",
        "left undone: 1 layer kept dense",
        "UNCALIBRATED",
    ):
        assert part in text
    assert text.splitlines()[-1].startswith("PASS") and "(exit code 0)" in text


def test_a_missing_measurement_says_why_once():
    text = shown(outcome(latency_note="not measured: jetson-nano is not this machine"))
    assert "speed-up: not measured: jetson-nano is not this machine" in text


def test_quiet_prints_the_verdict_alone():
    assert shown(outcome(), QUIET) == verdict(outcome())[1] + "\n"


@pytest.mark.parametrize(
    ("code", "part"),
    [(4, "budget not met; the best so far is written"), (7, "nothing changed; --allow-noop")],
)
def test_a_failing_verdict_explains_its_code(code: int, part: str):
    last = shown(outcome(exit_code=code, budget_met=code != 4)).splitlines()[-1]
    assert last.startswith("FAIL") and part in last and f"(exit code {code})" in last


def test_many_layers_are_cut_and_verbose_shows_them_all():
    told = outcome(*(row(f"/b/{i}") for i in range(60)))
    assert "and 20 more; -v shows every layer" in shown(told)
    assert "/b/59" in shown(told, VERBOSE) and "/b/59" not in shown(told)


def test_a_name_from_a_model_cannot_drive_the_terminal():
    told = outcome(row(HOSTILE + "[bold red]x[/]"), warnings=(HOSTILE,), undone=(HOSTILE,))
    assert "\x1b" not in shown(told)
    assert printable("a\x1b[31mb\u202ec") == "a?[31mb?c"


def test_markup_in_names_is_shown_as_it_is():
    assert "[bold]x[/]" in shown(outcome(row("[bold]x[/]")))


def test_an_interval_that_holds_one_is_called_inconclusive():
    import dataclasses

    unsure = dataclasses.replace(paired(), speedup=1.1, speedup_ci=(0.9, 1.3))
    assert "INCONCLUSIVE" in shown(outcome(latency=unsure))
    assert "INCONCLUSIVE" not in shown(outcome(latency=paired()))
