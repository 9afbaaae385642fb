"""Real engines: `nncc compile -t rtx` with TensorRT-RTX, built on a CPU without a card."""

import hashlib
import json
from pathlib import Path

import onnx
import pytest

import nncc
import rtx
from models import ref_model, wheel_model
from nets import NETS, build
from nncc.compiler.commands.cli import main
from nncc.compiler.writing.artifact import load_artifact

MIB = 1 << 20
SIZES = {
    "resnet18": ("input", "1x3x224x224", "8x3x224x224"),
    "mobilenet-v2": ("input", "1x3x224x224", "8x3x224x224"),
    "pp-ocr-rec": ("x", "1x3x48x320", "8x3x48x640"),
    "lenet5": ("x", "1x1x28x28", "64x1x28x28"),
}


def source(name: str, folder: Path, batch: int | str) -> Path:
    if name == "lenet5":
        return ref_model(name)
    if name == "pp-ocr-rec":
        return wheel_model(name)
    onnx.save(build(name, "noise", batch=batch), folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


def floats_in_half(path: Path) -> float:
    """Share of the float weights' numbers that the file holds in float16."""
    sizes = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0}
    for tensor in onnx.load(path).graph.initializer:
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += max(1, int(onnx.numpy_helper.to_array(tensor).size))
    return sizes[onnx.TensorProto.FLOAT16] / sum(sizes.values())


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("name", list(SIZES))
def test_a_real_fp16_engine_is_built(tmp_path, name, kind):
    """Over five seconds for the larger nets: each is proved in float16 and built for 4 cards.

    Its line says size and fidelity; ResNet18 and MobileNetV2 have random weights.
    """
    library = rtx.library()
    given, low, high = SIZES[name]
    shape = f"{given}:{low}" if kind == "static" else f"{given}:{low}:{low}:{high}"
    artifact = nncc.compile(
        source(name, tmp_path, 1 if kind == "static" else "N"),
        "rtx",
        recipe="none",
        shape=(shape,),
        output=tmp_path / "build",
    )
    (plan,) = (tmp_path / "build" / "engines").glob("*/model.plan")
    facts = json.loads(plan.with_name("build.json").read_text())
    model = artifact.model.stat().st_size
    outcome = artifact.outcome
    print(
        f"{name} {kind}: model.onnx {model / MIB:.1f} MiB, engine {facts['bytes'] / MIB:.1f}"
        f" MiB for sm {', '.join(facts['capabilities'])}, {outcome.fidelity.sqnr_db:.1f} dB"
    )
    assert outcome.exit_code == 0
    assert facts["bytes"] == plan.stat().st_size > 0.9 * model
    assert facts["sha256"] == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert facts["version"] == library.version
    assert facts["capabilities"] == ["7.5", "8.6", "8.9", "12.0"]
    assert facts["fingerprint"] == plan.parent.name
    ends = (low, low, low if kind == "static" else high)
    bounds = [[int(size) for size in sizes.split("x")] for sizes in ends]
    fixed = kind == "static" and name in NETS  # no axis is free: no profile is needed
    assert facts["shapes"] == ({} if fixed else {given: bounds})
    assert floats_in_half(artifact.model) > 0.98
    assert "engine" in outcome.compile_seconds
    assert outcome.engine.startswith(f"engine: {facts['bytes']:,} bytes for sm 7.5, 8.6")


def test_the_artifact_holds_the_engine_and_reads_back(tmp_path, capsys):
    rtx.library()
    words = ["compile", str(ref_model("lenet5")), "-t", "rtx", "--recipe", "none"]
    assert main([*words, "-o", str(tmp_path / "build")]) == 0
    told = capsys.readouterr().out
    assert "engine: " in told and "give --shape NAME:MIN:OPT:MAX for more" in told
    read = load_artifact(tmp_path / "build", verify=True)
    assert read.outcome.engine and read.outcome.engine in " ".join(told.split())
    manifest = json.loads((tmp_path / "build" / "manifest.json").read_text())
    assert sorted(Path(n).name for n in manifest["files"] if n.startswith("engines/")) == [
        "build.json",
        "model.plan",
    ]
    assert read.outcome.engine in (tmp_path / "build" / "report.html").read_text()


def test_two_compiles_give_the_same_engine(tmp_path):
    rtx.library()
    made = [
        nncc.compile(ref_model("lenet5"), "rtx", macs=0.7, output=tmp_path / str(i))
        for i in range(2)
    ]
    first, other = (
        {p.relative_to(a.folder): p.read_bytes() for p in a.folder.glob("engines/*/*")}
        for a in made
    )
    assert first == other
    assert len(first) == 2


def test_without_the_library_the_compile_succeeds_and_says_what_to_install(
    tmp_path, monkeypatch
):
    """As on a machine where `import tensorrt_rtx` finds nothing."""
    from importlib.util import find_spec

    from nncc.runtime.tensorrt import libraries

    monkeypatch.setattr(
        libraries, "find_spec", lambda n: None if n.startswith("tensorrt") else find_spec(n)
    )
    artifact = nncc.compile(
        ref_model("lenet5"), "rtx", recipe="none", output=tmp_path / "build"
    )
    assert artifact.outcome.exit_code == 0
    assert "engine not built: pip install 'nncc[rtx]'" in artifact.outcome.undone
    assert not (tmp_path / "build" / "engines").exists()
    assert floats_in_half(artifact.model) == 1


def test_what_only_a_foreign_parser_refuses_is_a_warning(tmp_path):
    """TensorRT-RTX has dropped nothing that lenet5 needs, so a node is made that it lacks."""
    from dataclasses import replace

    from nncc.compiler.engines import second_opinion
    from nncc.compiler.reading.ingest import ingest

    rtx.library()
    model = ingest(ref_model("lenet5"), workdir=tmp_path)
    path = tmp_path / "odd.onnx"
    proto = onnx.load(ref_model("lenet5"))
    proto.graph.node[1].op_type = "BitShift"
    proto.graph.node[1].name = "odd"
    onnx.save(proto, path)
    (line, *_) = second_opinion(replace(model), path)
    assert line.startswith("TensorRT-RTX parser (not the device's own): odd (BitShift)")


@pytest.mark.parametrize("target", ["jetson-nano", "jetson-agx-orin"])
def test_the_parser_takes_what_is_compiled_for_a_jetson(tmp_path, target):
    rtx.library()
    artifact = nncc.compile(
        ref_model("lenet5"), target, recipe="none", output=tmp_path / "build"
    )
    assert artifact.outcome.warnings == ()
    assert artifact.outcome.engine == ""
    assert not (tmp_path / "build" / "engines").exists()


def test_check_asks_the_parser_and_passes(capsys):
    rtx.library()
    for target in ("rtx", "jetson-nano"):
        assert main(["check", str(ref_model("lenet5")), "-t", target, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["warnings"] == []
