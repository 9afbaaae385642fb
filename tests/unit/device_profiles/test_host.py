"""Host detection: the machine is asked, not assumed."""

import os
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from nets import build
from nncc.device_profiles.host import (
    available_cores,
    channel_block,
    cpu_features,
    cpu_name,
    memory_bytes,
    newest_readable,
)
from nncc.device_profiles.registry import load

NANO = "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nFeatures\t: fp asimd aes\n"


@pytest.mark.parametrize(
    ("flags", "machine", "block"),
    [
        ("flags\t: fpu sse2 avx avx2 avx512f avx512_vnni", "x86_64", 16),
        ("flags\t: fpu sse2 avx avx2", "x86_64", 8),
        ("flags\t: fpu sse2", "x86_64", 8),
        (NANO, "aarch64", 4),
        ("", "arm64", 4),
        ("", "riscv64", 1),
    ],
)
def test_the_lattice_follows_the_instruction_set(flags, machine, block):
    assert channel_block(flags, machine)[0] == block


def test_a_feature_is_a_whole_word():
    assert "avx2" not in cpu_features("flags : avx avx256")


def test_the_cpu_of_a_jetson_nano_is_named():
    assert cpu_name(NANO) == "ARMv8 Processor rev 1 (v8l)"


def test_the_newest_opset_found_is_one_the_runtime_runs():
    opset, ir_version = newest_readable()
    model = build("resnet20", "noise", opset=min(opset, onnx.defs.onnx_opset_version()))
    model.ir_version = ir_version
    session: Any = onnxruntime.InferenceSession(model.SerializeToString())
    (y,) = session.run(None, {"input": np.zeros((1, 3, 32, 32), np.float32)})
    assert y.shape == (1, 10)


@pytest.mark.parametrize("beyond", ["opset", "ir_version"])
def test_one_version_beyond_is_one_too_many(beyond):
    opset, ir_version = newest_readable()
    model = build("resnet20", "noise", opset=opset)
    model.ir_version = ir_version
    newest = onnx.defs.onnx_opset_version() if beyond == "opset" else int(onnx.IR_VERSION)
    found = opset if beyond == "opset" else ir_version
    if found == newest:
        pytest.skip("the runtime reads all that onnx writes")
    if beyond == "opset":
        model.opset_import[0].version += 1
    else:
        model.ir_version += 1
    with pytest.raises(Exception, match=r"opset|IR version"):
        onnxruntime.InferenceSession(model.SerializeToString())


def test_memory_is_no_more_than_the_machine_has():
    found = memory_bytes()
    assert found is not None
    assert 2**28 < found <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_the_host_profile_is_local_and_says_what_was_detected():
    host = load("host")
    assert host.is_local
    assert host.runtime_version == onnxruntime.__version__
    assert host.about["cores"] == str(available_cores())
    assert {"max_opset", "rank_step", "memory_bytes"} <= host.sources.keys()
