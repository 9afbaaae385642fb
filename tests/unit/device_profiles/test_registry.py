"""Device profiles: what the shipped files say, and how a broken one is refused."""

import itertools
from pathlib import Path

import onnx_ir as ir
import pytest
from onnx import helper

from nncc.compiler.options import CompileOptions
from nncc.device_profiles.errors import UnknownDevice, UsageError
from nncc.device_profiles.operator_lists import operator_list
from nncc.device_profiles.registry import FOLDER, from_file, load, names, shipped

FACTS = """
title = "a test device"
runtime = "onnxruntime"

[facts]
max_opset = { value = 17, source = "s" }
max_ir_version = { value = 8, source = "s" }
dtypes = { value = ["float"], source = "s" }
precisions = { value = ["fp32"], source = "s" }
rank_step = { value = 4, source = "s" }
group_width = { value = 4, source = "s" }
build_weight_copies = { value = 2, source = "s" }
build_workspace_bytes = { value = 0, source = "s" }
operators = { value = "any", source = "s" }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "toy.toml"
    path.write_text(text, encoding="utf-8")
    return path


SHIPPED = [
    "host", "jetson-agx-orin", "jetson-agx-orin-jp6", "jetson-agx-xavier", "jetson-nano",
    "jetson-nano-jp44", "jetson-orin-nano", "jetson-orin-nano-jp6", "jetson-orin-nx",
    "jetson-orin-nx-jp6", "jetson-tx2", "jetson-xavier-nx", "raspberry-pi-4", "raspberry-pi-5",
    "rtx", "x86-cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """The person's own folder, which is not there yet."""
    folder = tmp_path / "own"
    monkeypatch.setenv("NNCC_TARGETS_DIR", str(folder))
    return folder


def test_these_targets_are_known():
    assert shipped() == names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_fact_of_every_profile_has_a_source(name):
    profile = load(name)
    facts = {"max_opset", "max_ir_version", "rank_step", "group_width", "dtypes", "precisions"}
    facts |= {"operators", "build_weight_copies", "build_workspace_bytes", "sparse"}
    facts |= {"lowering", "runtime_version"}
    if name != "x86-cpu":  # never measured
        facts |= {"protocol"}
    if profile.runtime == "tensorrt":
        facts |= {"parser", "compute_capabilities"}
    facts |= {f"cost.{precision}" for precision in profile.cost} | profile.about.keys()
    assert facts <= profile.sources.keys()
    assert all(source.strip() for source in profile.sources.values())


@pytest.mark.parametrize(
    ("name", "parser", "opset", "ir_version", "int8", "capability"),
    [
        ("jetson-nano", "tensorrt-8.2", 13, 7, False, "5.3"),
        ("jetson-nano-jp44", "tensorrt-7.1", 11, 6, False, "5.3"),
        ("jetson-tx2", "tensorrt-8.2", 13, 7, False, "6.2"),
        ("jetson-xavier-nx", "tensorrt-8.2", 13, 7, True, "7.2"),
        ("jetson-agx-xavier", "tensorrt-8.2", 13, 7, True, "7.2"),
        ("jetson-orin-nano", "tensorrt-8.5", 17, 8, True, "8.7"),
        ("jetson-orin-nx", "tensorrt-8.5", 17, 8, True, "8.7"),
        ("jetson-agx-orin", "tensorrt-8.5", 17, 8, True, "8.7"),
        ("jetson-orin-nano-jp6", "tensorrt-10", 20, 9, True, "8.7"),
        ("jetson-orin-nx-jp6", "tensorrt-10", 20, 9, True, "8.7"),
        ("jetson-agx-orin-jp6", "tensorrt-10", 20, 9, True, "8.7"),
        ("rtx", "tensorrt-rtx", 22, 10, True, "8.6"),
    ],
)
def test_tensorrt_boards_are_what_their_software_is(
    name, parser, opset, ir_version, int8, capability
):
    board = load(name)
    assert (board.runtime, board.parser) == ("tensorrt", parser)
    assert (board.max_opset, board.max_ir_version) == (opset, ir_version)
    assert ("int8" in board.precisions) == ("int8" in board.dtypes) == int8
    assert capability in board.compute_capabilities
    assert board.operators == operator_list(parser)[0]
    assert "uint8" not in board.dtypes
    assert board.lowering.graph_precision == ("fp16" if name == "rtx" else "fp32")
    assert board.lowering.quantized == ("s8s8" if int8 else "folded")


@pytest.mark.parametrize(("name", "opset", "ir"), [("4", 20, 9), ("5", 20, 9)])
def test_raspberry_pis_run_onnx_runtime(name, opset, ir):
    board = load(f"raspberry-pi-{name}")
    assert (board.runtime, board.parser, board.operators) == ("onnxruntime", None, None)
    assert (board.max_opset, board.max_ir_version) == (opset, ir)
    assert ("int8" in board.precisions) == (name == "5")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_ir_version_is_that_of_the_opset_s_onnx_release(name):
    """As in ONNX's own table of releases, which knows an IR version for every opset."""
    profile = load(name)
    if profile.is_local:  # detected
        return
    rows = [row for row in helper.VERSION_TABLE if row[2] == profile.max_opset]
    assert profile.max_ir_version in {row[1] for row in rows}


def test_operator_lists_grow_but_for_what_was_dropped():
    lists = [operator_list(f"tensorrt-{v}")[0] for v in ("7.1", "8.2", "8.5", "10")]
    for older, newer in itertools.pairwise(lists):
        assert older < newer
    assert "LayerNormalization" in lists[3] - lists[2]
    assert "Reciprocal" in lists[2] - lists[1]
    assert "Round" in lists[1] - lists[0]


@pytest.mark.parametrize(
    "name", ["jetson-nano", "jetson-tx2", "jetson-agx-orin", "raspberry-pi-5"]
)
def test_boards_are_measured_as_the_paper_did(name):
    protocol = load(name).protocol
    assert (protocol.trim, protocol.trim_side, protocol.cooldown_s) == (0.1, "high", 30.0)
    assert protocol.iterations == (1000 if name.startswith("jetson") else 100)


def test_the_host_is_measured_as_options_say_by_default():
    protocol, options = load("host").protocol, CompileOptions()
    assert (protocol.rounds, protocol.round_s) == (options.rounds, options.seconds)
    assert (protocol.trim, protocol.trim_side) == (options.trim, options.trim_side)


def test_the_peak_of_a_nano_is_its_cores_by_its_clock():
    peak = load("jetson-nano").peak_gflops
    assert peak["fp32"] == pytest.approx(128 * 2 * 0.9216, rel=1e-3)
    assert peak["fp16"] == pytest.approx(2 * 128 * 2 * 0.9216, rel=1e-3)


@pytest.mark.parametrize("name", SHIPPED)
def test_element_types_are_onnx_names(name):
    known = {dtype.name.lower() for dtype in ir.DataType}
    assert load(name).dtypes <= known


def test_jetson_nano_is_tensorrt_8_2_without_int8():
    nano = load("jetson-nano")
    assert (nano.runtime, nano.runtime_version) == ("tensorrt", "8.2.1")
    assert (nano.max_opset, nano.max_ir_version) == (13, 7)
    assert nano.precisions == ("fp16", "fp32")
    assert nano.lattice.rank == 8
    assert nano.memory_bytes == 3957 * 2**20
    assert not nano.is_local
    assert nano.operators is not None
    assert {"Conv", "Gemm", "If", "Resize"} <= nano.operators
    assert not {"HardSwish", "Gelu", "OneHot", "QLinearConv", "NonZero"} & nano.operators


def test_generic_x86_has_the_avx512_lattice_and_is_never_measured():
    x86 = load("x86-cpu")
    assert x86.lattice.rank == x86.lattice.group_width == 16
    assert not x86.is_local


def test_an_alias_loads_the_same_profile():
    assert load("jetson-nano-4gb") == load("jetson-nano")


def test_an_unknown_device_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownDevice) as refused:
        load("jetson-nan")
    assert str(refused.value) == (
        "no device is called 'jetson-nan'; did you mean jetson-nano? "
        f"known devices: {', '.join(SHIPPED)}"
    )
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("name", ["", "../errors", "/etc/passwd", "jetson-nano.toml"])
def test_a_path_is_not_a_device(name):
    with pytest.raises(UnknownDevice):
        load(name)


def test_a_complete_file_is_read(tmp_path):
    profile = from_file(written(tmp_path, FACTS))
    assert (profile.name, profile.max_opset, profile.operators) == ("toy", 17, None)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("value = 17", 'value = "17"', "facts.max_opset.value"),
        ("value = 17", "value = 3", "facts.max_opset.value"),
        ('max_opset = { value = 17, source = "s" }', "max_opset = 17", "facts.max_opset"),
        ('max_opset = { value = 17, source = "s" }', "", "facts.max_opset"),
        ('value = 17, source = "s"', "value = 17", "facts.max_opset.source"),
        ('value = 17, source = "s"', 'value = 17, source = ""', "facts.max_opset.source"),
        ("rank_step", "rank_stp", "facts.rank_stp"),
        ('"fp32"', '"fp8"', "facts.precisions.value.0"),
        ('runtime = "onnxruntime"', 'runtime = "openvino"', "runtime"),
        ('title = "a test device"', "", "title"),
        ('title = "a test device"', 'title = "a"\ndetected = true', "facts.max_opset"),
    ],
)
def test_a_broken_file_is_refused_with_file_and_key(tmp_path, old, new, key):
    path = written(tmp_path, FACTS.replace(old, new, 1))
    with pytest.raises(UsageError) as refused:
        from_file(path)
    assert str(refused.value).startswith(f"{path}: {key}")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    path = written(tmp_path, "title = ")
    with pytest.raises(UsageError, match="not TOML"):
        from_file(path)


def test_shipped_files_hold_no_path_of_a_machine():
    for path in FOLDER.rglob("*.toml"):
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text and "/work/" not in text
