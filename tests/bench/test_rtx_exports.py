"""The nets of both torch exporters in float16, through TensorRT-RTX's parser and builder.

No graphics card is needed. Weights are random, so TopK of nearly equal scores (the detector)
may pick others: its outputs are not compared.
"""

import numpy as np
import onnx
import pytest

import rtx
from exports import NETS, export
from nncc.compiler.half import halved
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.writing.save import check_file, write
from nncc.device_profiles.registry import load
from nncc.passes.half_arithmetic import in_float_arithmetic
from nncc.passes.half_islands import KEPT
from nncc.passes.legalise import legalise
from nncc.passes.normalise import normalise
from nncc.passes.precision import in_half
from nncc.runtime.session import open_session, run
from nncc.runtime.tensorrt import build_engine, parse

LEAST_DB = 55


@pytest.mark.parametrize(("exporter", "opset"), [("torchscript", 17), ("dynamo", 18)])
@pytest.mark.parametrize("name", sorted(NETS))
def test_an_export_becomes_an_fp16_engine(tmp_path, name, exporter, opset):
    rtx.library()
    profile = load("rtx")
    onnx.save(export(NETS[name], exporter, opset, True), tmp_path / "source.onnx")
    model = ingest(tmp_path / "source.onnx", workdir=tmp_path)
    model = legalise(normalise(model), profile).model
    write(model, tmp_path / "single.onnx")
    inputs = [str(value.name) for value in model.graph_model.graph.inputs]
    given = dict(zip(inputs, NETS[name].arrays(1).values(), strict=True))
    made = halved(model, tmp_path / "single.onnx", [given])
    write(made, tmp_path / "half.onnx")
    check_file(tmp_path / "half.onnx")
    write(in_float_arithmetic(made), tmp_path / "rounded.onnx")
    want = run(open_session(tmp_path / "single.onnx"), given)
    got = run(open_session(tmp_path / "rounded.onnx"), given)
    floats = [key for key in want if want[key].dtype.kind == "f"]
    signal = sum(float(np.sum(want[key].astype(float) ** 2)) for key in floats)
    noise = sum(float(np.sum((want[key].astype(float) - got[key]) ** 2)) for key in floats)
    decibels = 10 * np.log10(signal / max(noise, 1e-30))
    report = parse(tmp_path / "half.onnx")
    facts = build_engine(
        tmp_path / "half.onnx",
        tmp_path / "model.plan",
        capabilities=("8.6", "8.9", "12.0"),  # sm 7.5 has no float32 product, for islands
        shapes={key: (array.shape,) * 3 for key, array in given.items()},
    )
    nodes = list(made.graph_model.graph)
    kept = sum(KEPT in node.metadata_props for node in nodes)
    print(
        f"{name} {exporter}: {decibels:.1f} dB, {kept} of {len(nodes)} nodes in float32,"
        f" engine {facts.bytes / 1e6:.1f} MB"
    )
    assert report.accepted
    assert in_half(made) == made
    assert decibels > LEAST_DB or name == "detector"
