"""Device profiles: what the shipped files say, and how a broken one is refused."""

from pathlib import Path

import onnx_ir as ir
import pytest

from nncc.device_profiles.errors import UnknownDevice, UsageError
from nncc.device_profiles.registry import FOLDER, from_file, load, names

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


def test_the_three_first_targets_are_known():
    assert names() == ["host", "jetson-nano", "x86-cpu"]


@pytest.mark.parametrize("name", names())
def test_every_fact_of_every_profile_has_a_source(name):
    profile = load(name)
    facts = {"max_opset", "max_ir_version", "rank_step", "group_width", "dtypes", "precisions"}
    assert facts | {"operators", "build_weight_copies"} <= profile.sources.keys()
    assert all(source.strip() for source in profile.sources.values())


@pytest.mark.parametrize("name", names())
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
        "known devices: host, jetson-nano, x86-cpu"
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
    for path in FOLDER.glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text and "/work/" not in text
