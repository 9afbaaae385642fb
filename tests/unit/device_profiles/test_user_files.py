"""A person's own devices: found, inherited from, and never in the way of the shipped ones."""

import dataclasses
import logging
import os
from pathlib import Path

import pytest

from nncc.device_profiles.errors import UnknownDevice, UsageError
from nncc.device_profiles.registry import free_name, load, names, shipped
from nncc.device_profiles.user_files import checked_name, save, user_files, user_folder

MINE = 'base = "jetson-nano"\n'
COST = """
[cost.fp16]
launch_us = 20.0
peak_gflops = 300.0
bandwidth_gbs = 12.0
element_bytes = 2
[calibration.fp16]
source = "s"
rows = 2
protocol = "p"
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("NNCC_TARGETS_DIR", str(folder))
    return folder


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_own_device_loads_by_its_file_s_name(own):
    put(own, "my-board", MINE)
    assert "my-board" in names()
    assert "my-board" not in shipped()
    assert load("my-board").max_opset == 13


def test_what_is_not_stated_comes_from_the_base(own):
    put(
        own,
        "my-board",
        'base = "jetson-nano"\ntitle = "my board"\naliases = ["mb"]\n'
        '[facts]\nmemory_bytes = { value = 2000000000, source = "free -b" }\n'
        '[about]\nplace = { value = "the shed", source = "me" }\n',
    )
    nano, mine = load("jetson-nano"), load("mb")
    changed = {"name", "title", "aliases", "memory_bytes", "sources", "about"}
    changed |= {"cost", "calibration"}
    for field in dataclasses.fields(nano):
        if field.name not in changed:
            assert getattr(mine, field.name) == getattr(nano, field.name), field.name
    assert (mine.title, mine.memory_bytes) == ("my board", 2_000_000_000)
    assert mine.sources["memory_bytes"] == "free -b"
    assert mine.about == {**nano.about, "place": "the shed"}


def test_costs_are_not_inherited_but_may_be_stated(own):
    put(own, "plain", 'base = "jetson-nano"\n')
    put(own, "fitted", 'base = "jetson-nano"\n' + COST)
    assert load("plain").cost == {}
    assert load("fitted").cost["fp16"].launch_us == 20.0


def test_physics_of_the_base_holds_for_the_costs_of_an_own_device(own):
    put(own, "fast", 'base = "jetson-nano"\n' + COST.replace("12.0", "26.0"))
    with pytest.raises(UsageError, match="physically impossible: 26 GB/s"):
        load("fast")


def test_a_base_must_be_a_shipped_device(own):
    put(own, "one", MINE)
    put(own, "two", 'base = "one"\n')
    with pytest.raises(UsageError, match="'one' is no device that nncc ships"):
        load("two")


def test_a_shipped_name_is_refused_clearly_and_only_there(own):
    path = put(own, "jetson-nano", MINE)
    with pytest.raises(UsageError) as refused:
        load("jetson-nano")
    assert str(refused.value) == (
        f"{path}: 'jetson-nano' is a device that nncc knows; "
        'rename the file; base = "jetson-nano" in it keeps what it does not state'
    )
    assert load("jetson-tx2").name == "jetson-tx2"
    assert names() == shipped()


def test_a_shipped_alias_wins_over_an_own_one(own):
    put(own, "my-board", MINE + 'aliases = ["tegra210-nano", "mine"]\n')
    assert load("tegra210-nano").name == "jetson-nano"
    assert load("mine").name == "my-board"


def test_a_broken_own_file_does_not_hide_other_devices(own, caplog):
    path = put(own, "broken", "title = ")
    with pytest.raises(UsageError, match="not TOML"):
        load("broken")
    assert load("jetson-nano").name == "jetson-nano"
    with caplog.at_level(logging.WARNING), pytest.raises(UnknownDevice):
        load("no-such-board")
    assert str(path) in caplog.text


def test_files_whose_names_are_no_targets_are_left_out(own):
    for name in ("A board", ".hidden", "-x", "ü", "a" * 80):
        put(own, name, MINE)
    (own / "note.txt").write_text("x")
    assert user_files() == {}


def test_a_pipe_among_the_files_does_not_hang(own):
    os.mkfifo(own / "pipe.toml")
    with pytest.raises(UsageError, match="is not a file"):
        load("pipe")


def test_the_folder_is_the_variable_s_else_the_configuration_s(tmp_path, monkeypatch):
    assert user_folder() == tmp_path / "own"
    monkeypatch.delenv("NNCC_TARGETS_DIR")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert user_folder() == tmp_path / "x" / "nncc" / "targets"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder() == tmp_path / ".config" / "nncc" / "targets"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/etc/x", "a\\b", "a..b", "A", "a b", "a\n", "-a", "a-",
     "\x00", "é", "a" * 65],
)  # fmt: skip
def test_a_name_that_could_be_a_path_is_refused(own, name):
    with pytest.raises(UsageError, match="--name") as refused:
        save(MINE.encode(), name)
    assert "\n" not in str(refused.value)
    assert list(own.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "my-board", "board_2", "orin.v2", "a" * 64])
def test_a_plain_name_is_taken(name):
    assert checked_name(name) == name


def test_saving_twice_wants_to_be_asked(own):
    path = save(b"one", "board")
    assert path == own / "board.toml"
    with pytest.raises(UsageError, match="exists"):
        save(b"two", "board")
    assert path.read_bytes() == b"one"
    save(b"two", "board", replace=True)
    assert path.read_bytes() == b"two"
    assert list(own.iterdir()) == [path]


def test_saving_never_writes_through_a_link(own, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (own / "board.toml").symlink_to(precious)
    with pytest.raises(UsageError, match="exists"):
        save(b"x", "board")
    save(b"x", "board", replace=True)
    assert precious.read_text() == "keep"
    assert (own / "board.toml").read_bytes() == b"x"


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("x")
    monkeypatch.setenv("NNCC_TARGETS_DIR", str(file / "below"))
    with pytest.raises(UsageError, match="NNCC_TARGETS_DIR"):
        save(b"x", "board")


@pytest.mark.parametrize(
    ("name", "aliases"),
    [
        ("jetson-nano", ()),
        ("tegra210-nano", ()),
        ("b", ("host",)),
        ("b", ("rpi4",)),
        ("b", ("a",)),
    ],
)
def test_a_taken_name_or_alias_is_refused(own, name, aliases):
    path = put(own, "a", MINE)
    with pytest.raises(UsageError, match="is a device that nncc knows"):
        free_name(name, aliases, path)


def test_a_device_may_replace_itself_with_its_aliases(own):
    path = put(own, "a", MINE + 'aliases = ["mine"]\n')
    free_name("a", ("mine",), path)
