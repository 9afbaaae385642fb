"""Finished rounds on disk: what is read back, and what is dropped."""

import dataclasses

import pytest

from nncc.runtime.ab_state import RoundSamples, append_round, read_rounds, write_rounds

IDENTITY = {"seconds": 0.5, "threads": 1, "cpu": "some processor"}
ROUNDS = [
    RoundSamples(((10, 11), (12,)), ((5, 6), (7, 8)), 0.5),
    RoundSamples(((10,), (13,)), ((5,), (9,)), None),
]


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "deep" / "rounds.jsonl"
    write_rounds(path, IDENTITY, [])
    for index, entry in enumerate(ROUNDS):
        append_round(path, index, entry)
    return path


def test_rounds_come_back_as_they_were_written(state):
    assert read_rounds(state, IDENTITY) == ROUNDS


def test_a_file_made_anew_is_the_same_as_one_appended_to(state, tmp_path):
    write_rounds(tmp_path / "anew.jsonl", IDENTITY, ROUNDS)

    assert (tmp_path / "anew.jsonl").read_bytes() == state.read_bytes()
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["anew.jsonl"]


@pytest.mark.parametrize(
    "other", [{"seconds": 0.6}, {"threads": 2}, {"cpu": "another"}, {"more": 1}]
)
def test_rounds_of_another_measurement_are_not_read(state, other):
    assert read_rounds(state, {**IDENTITY, **other}) == []


def test_an_absent_file_holds_no_rounds(tmp_path):
    assert read_rounds(tmp_path / "absent", IDENTITY) == []


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe no text", b"[]\n", b"[" * 100_000 + b"\n"]
)
def test_a_file_that_is_something_else_holds_no_rounds(tmp_path, content):
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(content)

    assert read_rounds(path, IDENTITY) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"round": 1', '"round": 7'),
        ('"round": 1', '"round": "1"'),
        ('"reference": [[10]', '"reference": [[-10]'),
        ('"reference": [[10]', '"reference": [[0]'),
        ('"reference": [[10]', '"reference": [["10"]'),
        ('"reference": [[10]', '"reference": [[NaN]'),
        ('"reference": [[10]', '"reference": [[1e3]'),
        ('"reference": [[10]', '"reference": [[true]'),
        ('"reference": [[10]', '"reference": [[]'),
        ('"reference": [[10]', '"reference": [[10], [10]'),
        ('"reference": [[10]', '"reference": [{"0": 10}'),
        ('"compressed"', '"compromised"'),
        ("{", "["),
        ("}\n", ""),
        ("}\n", "}"),
    ],
)
def test_a_torn_or_forged_round_and_those_after_it_are_dropped(state, old, new):
    header, first, second = state.read_text().splitlines(keepends=True)
    assert old in second
    third = second.replace('"round": 1', '"round": 2')
    for after in ("", third) if new else ("",):
        state.write_text(header + first + second.replace(old, new) + after)

        assert read_rounds(state, IDENTITY) == ROUNDS[:1]


def test_an_unreadable_load_is_unknown(state):
    state.write_text(state.read_text().replace('"load": 0.5', '"load": NaN'))

    found = read_rounds(state, IDENTITY)

    assert found == [dataclasses.replace(ROUNDS[0], load=None), ROUNDS[1]]
