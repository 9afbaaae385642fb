"""Which engine is built for which device, and what is said where none is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import rtx
from nets import build
from nncc.compiler.engines import Engines, build_shapes, engines, parser_warnings
from nncc.compiler.events import Event
from nncc.compiler.half import halved, wants_half
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.writing.save import write
from nncc.device_profiles.registry import load
from nncc.passes.half_islands import KEPT
from nncc.passes.model import Model
from nncc.passes.precision import in_half
from small_models import write as write_text

FEEDS = [{"input": np.zeros((1, 3, 32, 32), np.float32)}]
RTX = load("rtx")


def net(folder: Path, batch: int | str = 1, shape: tuple[str, ...] = ()) -> Model:
    onnx.save(build("resnet20", "noise", batch=batch), folder / "source.onnx")
    return ingest(folder / "source.onnx", shapes=shape, workdir=folder)


def in_file(model: Model, folder: Path) -> Path:
    write(model, folder / "compiled.onnx")
    return folder / "compiled.onnx"


@pytest.mark.parametrize("target", ["x86-cpu", "raspberry-pi-4"])
def test_a_device_without_tensorrt_has_nothing_to_do(tmp_path, target):
    model = net(tmp_path)
    path = in_file(model, tmp_path)
    assert engines(tmp_path, model, path, load(target), FEEDS) == Engines()
    assert parser_warnings(model, load(target), tmp_path) == ()


def test_the_engine_lies_in_the_folder_of_its_fingerprint(tmp_path):
    rtx.library()
    model = in_half(net(tmp_path))
    heard: list[Event] = []
    made = engines(tmp_path, model, in_file(model, tmp_path), RTX, FEEDS, heard.append)
    assert made.facts is not None and not made.failed
    assert (tmp_path / made.facts.path).stat().st_size == made.facts.bytes
    assert made.facts.path.parts[:2] == ("engines", made.facts.fingerprint)
    assert made.facts.path.as_posix() in made.note
    assert {event.stage for event in heard} == {"engine"}


def test_what_an_interrupted_compile_left_is_removed(tmp_path):
    rtx.library()
    (tmp_path / "engines" / "older").mkdir(parents=True)
    model = in_half(net(tmp_path))
    engines(tmp_path, model, in_file(model, tmp_path), RTX, FEEDS)
    assert not (tmp_path / "engines" / "older").exists()


def test_a_card_that_cannot_compute_it_is_left_out_and_named(tmp_path):
    """In float32 a Turing card has no matrix product."""
    rtx.library()
    model = net(tmp_path)
    made = engines(tmp_path, model, in_file(model, tmp_path), RTX, FEEDS)
    assert made.facts is not None
    assert made.facts.capabilities == ("8.6", "8.9", "12.0")
    assert "not for sm 7.5: " in made.note and "FP32 GEMM is not supported" in made.note


def test_a_refused_build_is_told_and_leaves_nothing(tmp_path):
    rtx.library()
    model = in_half(net(tmp_path))
    older = replace(RTX, compute_capabilities=("5.3",))
    made = engines(tmp_path, model, in_file(model, tmp_path), older, FEEDS)
    assert made.failed and made.facts is None
    assert "does not build for compute capability 5.3" in made.note
    assert list((tmp_path / "engines").iterdir()) == []


def test_asked_shapes_are_the_profile_and_others_are_guessed(tmp_path):
    asked = net(tmp_path, "N", ("input:1x3x32x32:2x3x32x32:4x3x32x32",))
    low, best, high = (1, 3, 32, 32), (2, 3, 32, 32), (4, 3, 32, 32)
    assert build_shapes(asked, FEEDS) == ({"input": (low, best, high)}, ())
    assert build_shapes(net(tmp_path, "N"), FEEDS) == ({"input": (low,) * 3}, ("input",))
    assert build_shapes(net(tmp_path), FEEDS) == ({}, ())


def test_the_parser_of_the_device_itself_is_not_called_foreign(tmp_path):
    rtx.library()
    path = write_text(
        tmp_path / "m.onnx",
        "g (float[4] x) => (float[4] y) "
        '{ i = Cast<to=2>(x) h = BitShift<direction="LEFT">(i, i) y = Cast<to=1>(h) }',
    )
    model = ingest(path, workdir=tmp_path)
    (own, *_) = parser_warnings(model, RTX, tmp_path)
    (foreign, *_) = parser_warnings(model, load("jetson-agx-orin"), tmp_path)
    assert own.startswith("TensorRT-RTX parser: ")
    assert foreign.startswith("TensorRT-RTX parser (not the device's own): ")


def test_only_a_device_that_wants_it_gets_float16():
    assert wants_half(RTX)
    assert not wants_half(load("jetson-nano"))
    assert not wants_half(load("x86-cpu"))


def test_what_overflowed_on_the_samples_stays_in_float32(tmp_path):
    """h reaches 8 · 10⁴ on these samples; nothing but its numbers tells."""
    path = write_text(
        tmp_path / "m.onnx",
        "g (float[N,2] x) => (float[N,2] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }",
        w=np.full((2, 2), 2e4, np.float32),
        v=np.full((2, 2), 1e-3, np.float32),
    )
    model = ingest(path, workdir=tmp_path)
    large = halved(model, path, [{"x": np.full((1, 2), 2, np.float32)}])
    small = halved(model, path, [{"x": np.full((1, 2), 1e-3, np.float32)}])
    kept = [n.op_type for n in large.graph_model.graph if KEPT in n.metadata_props]
    assert kept == ["MatMul", "Relu", "MatMul"]
    assert not any(KEPT in n.metadata_props for n in small.graph_model.graph)
