"""Memory of a load: what unfolding leaves behind, held against the device's."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from nncc.device_profiles.registry import load
from nncc.passes.emitter import SiteEmitter
from nncc.passes.load_memory import load_bytes, result_bytes, too_much

MIB = 1 << 20


def test_every_result_of_a_chain_counts_its_bytes():
    emitter = SiteEmitter("w", ir.DataType.FLOAT, set(), {})
    codes = emitter.stored(np.zeros(100, np.uint8), "codes")
    index = emitter.node("Cast", [codes], "index", {"to": int(ir.DataType.INT32)})
    table = emitter.stored(np.zeros((256, 8), np.float32), "table")
    emitter.node("Gather", [table, index], "words", {"axis": 0})

    found = result_bytes(emitter.nodes, emitter.initializers, 11)

    assert found == {"w/index": 100 * 4, "w/words": 100 * 8 * 4}
    assert result_bytes([], [], 11) == {}


def test_a_load_holds_the_weights_twice_and_what_unfolding_leaves():
    profile = load("x86-cpu")

    assert load_bytes(100 * MIB, 40 * MIB, profile) == 240 * MIB


def test_more_than_half_the_memory_is_refused_in_numbers():
    small = replace(load("raspberry-pi-4"), memory_bytes=1024 * MIB)

    assert too_much(200 * MIB, 100 * MIB, small) == ""
    said = too_much(200 * MIB, 200 * MIB, small)
    assert said.startswith("unfolding the weights would take 600 MiB while loading")
    assert "half the memory of raspberry-pi-4 is 512 MiB" in said


def test_nothing_is_refused_where_nothing_unfolds_or_the_memory_is_unknown():
    profile = load("raspberry-pi-4")

    assert too_much(1 << 40, 0, profile) == ""
    assert too_much(1 << 40, 1 << 40, replace(profile, memory_bytes=None)) == ""
