"""The layout of a device's file: what is refused, and what the published schema says."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest

from nncc.device_profiles.cost.roofline import Calibration, Roofline
from nncc.device_profiles.errors import UsageError
from nncc.device_profiles.profile import Lowering, Protocol
from nncc.device_profiles.registry import FOLDER, from_file, shipped
from nncc.device_profiles.schema import (
    CalibrationTable,
    CostTable,
    LoweringTable,
    ProtocolTable,
    json_schema,
)
from nncc.device_profiles.toml_file import MOST_BYTES, read_toml

PUBLISHED = Path(__file__).parents[3] / "docs" / "target-schema.json"
FACTS = """
title = "a test board"
runtime = "tensorrt"

[facts]
parser = { value = "tensorrt-8.2", source = "s" }
max_opset = { value = 13, source = "s" }
max_ir_version = { value = 7, source = "s" }
dtypes = { value = ["float"], source = "s" }
precisions = { value = ["fp16", "fp32"], source = "s" }
rank_step = { value = 4, source = "s" }
group_width = { value = 4, source = "s" }
build_weight_copies = { value = 2, source = "s" }
build_workspace_bytes = { value = 0, source = "s" }
operators = { value = "tensorrt-8.2", source = "s" }
bandwidth_gbs = { value = 25.6, source = "s" }
peak_gflops = { value = { fp16 = 471.9 }, source = "s" }
"""
COST = """
[cost.fp16]
launch_us = 20.0
peak_gflops = 300.0
bandwidth_gbs = 12.0
element_bytes = 2
tile = 32
rates = { "3x3" = 1.7, "1x1" = 0.8 }
traffic = { depthwise = 3.0 }
classes_seen = ["direct", "3x3", "1x1"]

[calibration.fp16]
source = "a table"
rows = 26
protocol = "leave one architecture out"
median_error = 0.062
worst_error = 0.25
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "toy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    """The one line that a file is refused with, without the file's name."""
    path = written(folder, text)
    with pytest.raises(UsageError) as caught:
        from_file(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 600
    return line.removeprefix(f"{path}: ")


def test_cost_and_calibration_are_read_as_they_are_written(tmp_path):
    board = from_file(written(tmp_path, FACTS + COST))
    assert board.cost["fp16"] == Roofline(
        launch_us=20.0,
        peak_gflops=300.0,
        bandwidth_gbs=12.0,
        element_bytes=2,
        tile=32,
        rates={"3x3": 1.7, "1x1": 0.8},
        traffic={"depthwise": 3.0},
        classes_seen=frozenset({"direct", "3x3", "1x1"}),
    )
    assert board.calibration["fp16"] == Calibration(
        "a table", 26, "leave one architecture out", 0.062, 0.25
    )
    assert board.sources["cost.fp16"] == "a table"


def test_lowering_and_protocol_are_read_and_default_where_silent(tmp_path):
    told = (
        '[lowering]\nsource = "s"\nquantized = "s8s8"\n'
        '[protocol]\nsource = "t"\niterations = 1000\n'
    )
    board = from_file(
        written(tmp_path, FACTS + 'sparse = { value = "2:4", source = "u" }\n' + told)
    )
    assert board.lowering == Lowering(quantized="s8s8", sparse="2:4")
    assert board.protocol == Protocol(iterations=1000)
    assert [board.sources[k] for k in ("lowering", "protocol", "sparse")] == ["s", "t", "u"]
    silent = from_file(written(tmp_path, FACTS))
    assert (silent.lowering, silent.protocol) == (Lowering(), Protocol())


@pytest.mark.parametrize(
    ("table", "value"),
    [
        (CostTable, Roofline),
        (CalibrationTable, Calibration),
        (ProtocolTable, Protocol),
        (LoweringTable, Lowering),
    ],
)
def test_a_table_has_the_fields_of_the_value_it_makes(table, value):
    keys = set(table.model_fields) - {"source"}
    fields = {field.name for field in dataclasses.fields(value)} - {"source"}
    assert keys | ({"sparse"} & fields) == fields


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("launch_us = 20.0", "launch_us = 0.0", "cost.fp16.launch_us"),
        ("launch_us = 20.0", "launch_us = -1", "cost.fp16.launch_us"),
        ("launch_us = 20.0", "launch_us = nan", "cost.fp16.launch_us"),
        ("launch_us = 20.0", "launch_us = inf", "cost.fp16.launch_us"),
        ("launch_us = 20.0", 'launch_us = "20"', "cost.fp16.launch_us"),
        ("launch_us = 20.0", "launch_us = true", "cost.fp16.launch_us"),
        ("launch_us = 20.0", "", "cost.fp16.launch_us"),
        ("tile = 32", "tile = 0", "cost.fp16.tile"),
        ("tile = 32", "tile = 32.0", "cost.fp16.tile"),
        ('"3x3" = 1.7', '"3x3" = 0', "cost.fp16.rates.3x3"),
        ('"3x3" = 1.7', '"4x4" = 1.7', "cost.fp16.rates.4x4"),
        ("depthwise = 3.0", "wide = 3.0", "cost.fp16.traffic.wide"),
        ('["direct", "3x3", "1x1"]', '["direkt"]', "cost.fp16.classes_seen.0"),
        ("[cost.fp16]", "[cost.fp8]", "cost.fp8"),
        ("[cost.fp16]", "[cost.int8]", "cost.int8"),
        ("median_error = 0.062", "median_error = -0.1", "calibration.fp16.median_error"),
        ("rows = 26", "rows = -1", "calibration.fp16.rows"),
        ('source = "a table"', 'source = ""', "calibration.fp16.source"),
        ("[calibration.fp16]", "[calibration.fp32]", "calibration.fp16"),
    ],
)
def test_a_wrong_cost_is_refused_with_its_key(tmp_path, old, new, key):
    assert old in COST
    assert refused(tmp_path, FACTS + COST.replace(old, new, 1)).startswith(key)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("bandwidth_gbs = 12.0", "bandwidth_gbs = 25.7", "25.7 GB/s, and the memory's theor"),
        ("peak_gflops = 300.0", "peak_gflops = 1062.0", "1805.4 GFLOP/s of 3x3 kernels"),
        ('{ "3x3" = 1.7, "1x1" = 0.8 }', '{ "1x1" = 3.6 }', "1080 GFLOP/s of 1x1 kernels"),
    ],
)
def test_a_physically_impossible_fit_is_refused(tmp_path, old, new, told):
    line = refused(tmp_path, FACTS + COST.replace(old, new, 1))
    assert line.startswith("cost.fp16.")
    assert "physically impossible" in line
    assert told in line


def test_winograd_may_pass_the_peak_by_its_factor(tmp_path):
    """2.25 x 471.9 = 1061.775 GFLOP/s: a rate just below is believed, just above is not."""
    at_most = COST.replace("300.0", "624.0")  # x 1.7 = 1060.8
    assert from_file(written(tmp_path, FACTS + at_most)).cost["fp16"].peak_gflops == 624.0
    assert "1062.5" in refused(tmp_path, FACTS + COST.replace("300.0", "625.0"))


def test_without_the_theoretical_facts_nothing_is_called_impossible(tmp_path):
    bare = "\n".join(
        line for line in FACTS.splitlines() if not line.startswith(("bandwidth", "peak"))
    )
    fast = COST.replace("300.0", "90000.0").replace("12.0", "9000.0")
    assert from_file(written(tmp_path, bare + fast)).cost["fp16"].bandwidth_gbs == 9000.0


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"tensorrt-8.2", source', '"tensorrt-9", source', "facts.parser.value"),
        ('parser = { value = "tensorrt-8.2", source = "s" }', "", "facts.parser"),
        (
            'operators = { value = "tensorrt-8.2"',
            'operators = { value = "../errors"',
            "facts.operators.value",
        ),
        ("value = 25.6", "value = 0", "facts.bandwidth_gbs.value"),
        ("fp16 = 471.9", "fp64 = 471.9", "facts.peak_gflops.value.fp64"),
        ("value = 13", "value = 99999", "facts.max_opset.value"),
        ("value = 13", f"value = {'9' * 400}", "facts.max_opset.value"),
        ('dtypes = { value = ["float"]', 'dtypes = { value = ["a b"]', "facts.dtypes.value.0"),
        ('title = "a test board"', 'title = ["a"]', "title"),
        ('title = "a test board"', f'title = "{"x" * 5000}"', "title"),
        ('title = "a test board"', 'title = "a"\nbase = 7', "base"),
        ('title = "a test board"', 'title = "a"\nbase = "../rtx"', "base"),
        ('title = "a test board"', 'title = "a"\naliases = ["../x"]', "aliases.0"),
    ],
)
def test_a_wrong_fact_is_refused_with_its_key(tmp_path, old, new, key):
    assert old in FACTS
    assert refused(tmp_path, FACTS.replace(old, new, 1)).startswith(key)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        "a = " + "[" * 50_000,
        "a = " + "{ b = " * 10_000,
        "a." * 30_000 + "b = 1",
        '"\\"". a .' * 5_000 + "b = 1",
        "[" + "'a'." * 10_000 + "b]\nc = 1",
        f"a = {'9' * 60_000}",
        "\x00",
        "a = '\ud800'",
        "facts = 1",
        "facts = []",
        "[[facts]]",
        "[cost]\nfp16 = 3",
        "",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_toml_is_refused_with_one_line(tmp_path, text):
    path = tmp_path / "toy.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError) as caught:
        from_file(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "toy.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=rf"1,099,511,627,776 bytes.* {MOST_BYTES:,}"):
        from_file(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "device", "nul"])
def test_what_is_no_file_is_refused_with_one_line(tmp_path, kind):
    path = {
        "missing": tmp_path / "none.toml",
        "folder": tmp_path,
        "device": Path("/dev/zero"),
        "nul": Path("a\0b.toml"),
    }[kind]
    with pytest.raises(UsageError) as caught:
        from_file(path)
    assert "\n" not in str(caught.value)


def test_the_published_schema_is_current():
    """Write it again with `nncc targets schema > docs/target-schema.json`."""
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == json_schema()


def test_the_published_schema_takes_every_shipped_file():
    validator = jsonschema.Draft202012Validator(json_schema())
    for name in shipped():
        validator.validate(read_toml(FOLDER / f"{name}.toml"))


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (FACTS + COST, True),
        ('base = "jetson-nano"', True),
        ('base = "jetson-nano"\n[facts]\nrank_step = { value = 16, source = "s" }', True),
        ('base = "jetson-nano"\n[facts]\nrank_step = 16', False),
        ('title = "a"', False),
        (FACTS.replace("group_width", "group_with"), False),
        (FACTS + COST.replace("20.0", "-1.0"), False),
    ],
)
def test_the_published_schema_agrees_with_the_reader(tmp_path, text, valid):
    path = written(tmp_path, text)
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(read_toml(path)) == valid
    if valid:
        from_file(path)
    else:
        refused(tmp_path, text)
