"""`--form`: forms said on the command line are fitted, stored, counted and repeated."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from models import ref_model
from nncc.compiler.commands.cli import main
from nncc.passes.forms import Form, from_json, parse
from nncc.passes.plan import loads

MODEL = ref_model("lenet5")
FORMS = {
    "levels": "quantize(k=4)",
    "levels and corrections": "quantize(k=2) + prune(kappa=1%)",
    "three parts": "quantize(k=2) + prune(kappa=1%) + lowrank(j=2)",
    "nested": "lowrank(j=5, u=quantize(k=4)+prune(1%), v=affine(bits=8))",
    "train": "tt(ranks=(4, 6))",
    "train of a matrix": "tt_matrix(ranks=(8,))",
    "even grid": "affine(bits=4, per=group, group=25)",
    "structured": "pattern(n=1, m=5)",
    "channels": "filters(keep=5) + columns(keep=1)",
}


def compiled(folder: Path, *words: str) -> int:
    shared = ["-t", "x86-cpu", "--no-measure", "-q", "-o", str(folder)]
    return main(["compile", str(MODEL), *shared, *words])


def layers_of(folder: Path) -> dict[str, Form]:
    return dict(loads((folder / "plan.json").read_text()).forms)


def decompressed(forms: dict[str, Form]) -> onnx.ModelProto:
    """The model with every weight replaced by what its form makes of it: no nncc graph."""
    model = onnx.load(MODEL)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        form = forms.get(node.name)
        if form is None:
            continue
        tensor = tensors[node.input[1]]
        W = numpy_helper.to_array(tensor)
        if node.op_type == "Gemm":
            assert any(a.name == "transB" and a.i for a in node.attribute)
        approximation = form.compress(W[None]).decompress()[0]
        tensor.CopyFrom(numpy_helper.from_array(np.array(approximation), tensor.name))
    return model


def outputs(model: onnx.ModelProto | Path) -> np.ndarray:
    source = model if isinstance(model, Path) else None
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        str(source) if source else model.SerializeToString(), options
    )
    x = np.random.default_rng(0).random((16, 1, 28, 28), np.float32)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


@pytest.mark.parametrize("said", FORMS.values(), ids=FORMS)
def test_the_artifact_computes_what_the_forms_decompress_to(tmp_path, capsys, said):
    assert compiled(tmp_path / "b", "--form", said) == 0, capsys.readouterr().err
    forms = layers_of(tmp_path / "b")
    assert forms and set(forms.values()) == {parse(said)}
    y, expected = outputs(tmp_path / "b" / "model.onnx"), outputs(decompressed(forms))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    layers = json.loads((tmp_path / "b" / "metrics.json").read_text())["layers"]
    assert layers["changed"] == len(forms)


@pytest.mark.parametrize("which", ["three parts", "nested", "channels"])
def test_the_plan_of_an_artifact_repeats_it_byte_for_byte(tmp_path, which):
    """Two compiles of a small model."""
    assert compiled(tmp_path / "a", "--form", FORMS[which]) == 0
    assert compiled(tmp_path / "b", "--plan", str(tmp_path / "a" / "plan.json")) == 0
    for file in ("model.onnx", "plan.json"):
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "a" / file).read_bytes()


def test_the_config_of_an_artifact_repeats_its_forms(tmp_path):
    words = ["--form", "/c1/*=half", "--form", FORMS["levels and corrections"]]
    assert compiled(tmp_path / "a", *words) == 0
    assert compiled(tmp_path / "b", "--config", str(tmp_path / "a" / "config.toml")) == 0
    for file in ("model.onnx", "plan.json", "config.toml"):
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "a" / file).read_bytes()


def test_codes_make_the_file_smaller_than_the_dense_weights_by_their_bits(tmp_path):
    assert compiled(tmp_path / "b", "--form", "quantize(k=2)") == 0
    dense, small = MODEL.stat().st_size, (tmp_path / "b" / "model.onnx").stat().st_size
    tables = 4 * 256 * 8 * 4  # of every layer: what each byte of eight codes stands for
    assert small < dense / 32 + tables + 10_000
    bits = json.loads((tmp_path / "b" / "metrics.json").read_text())["size"]
    assert bits["compressed_bits"] < 0.04 * bits["reference_bits"]


def test_a_pattern_says_the_form_of_some_layers(tmp_path):
    words = ["--form", "/f?/*=quantize(k=4)", "--form", "/c2/Conv = lowrank(j=8)"]
    assert compiled(tmp_path / "b", *words) == 0
    assert layers_of(tmp_path / "b") == {
        "/c2/Conv": parse("lowrank(j=8)"),
        "/f1/Gemm": parse("quantize(k=4)"),
        "/f2/Gemm": parse("quantize(k=4)"),
    }
    told = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert "no --form is for it" in json.dumps(told)


def test_a_form_that_fits_some_layers_leaves_the_others_and_says_why(tmp_path):
    assert compiled(tmp_path / "b", "--form", "tucker2(outputs=4, inputs=1)") == 0
    assert set(layers_of(tmp_path / "b")) == {"/c1/Conv", "/c2/Conv"}
    told = (tmp_path / "b" / "manifest.json").read_text()
    assert "tucker2(outputs=4, inputs=1) does not fit" in told


def test_a_plan_may_hold_texts_and_patterns(tmp_path):
    plan = tmp_path / "plan.json"
    said = {
        "schema": 1,
        "layers": {"/c1/Conv": "dense", "/c2/Conv": "affine(bits=4)"},
        "patterns": [{"match": "*", "form": {"form": "quantize", "k": 4}}],
    }
    plan.write_text(json.dumps(said))
    assert compiled(tmp_path / "b", "--plan", str(plan)) == 0
    forms = layers_of(tmp_path / "b")
    assert {name: form for name, form in forms.items() if form.name != "dense"} == {
        "/c2/Conv": parse("affine(bits=4)"),
        "/f1/Gemm": parse("quantize(k=4)"),
        "/f2/Gemm": parse("quantize(k=4)"),
    }


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["--form", "quantize(k=2) + prun(1%)"],
            [
                "nncc: --form: column 17: unknown form 'prun'; did you mean 'prune'?",
                "  quantize(k=2) + prun(1%)",
                "                  ^",
            ],
        ),
        (
            ["--form", "/c1/*=lowrank(j=2, u=)"],
            [
                "nncc: --form: column 16: u: expected a form or none, found ')'",
                "  lowrank(j=2, u=)",
                "                 ^",
            ],
        ),
        (["--form", "/x/*=dense"], ["nncc: plan: the pattern '/x/*' matches no layer"]),
        (["--form", "=dense"], ["nncc: --form: no layer is named before the ="]),
        (["--form", "dense", "--form", "half"], ["nncc: --form: two forms for all layers"]),
        (
            ["--form", "/c1/*=dense", "--form", "/c1/*=half"],
            ["nncc: --form: two forms for the layers '/c1/*'"],
        ),
        (["--form", "half", "--bits", "4"], ["nncc: --form: the form is said for"]),
        (["--form", "half", "--size", "0.3"], ["nncc: --form: the form is said for"]),
        (["--form", "half", "--plan", "p.json"], ["nncc: --plan --form: a plan already says"]),
        (
            ["--form", "lowrank(j=999)"],
            ["nncc: plan: '*', layer '/c1/Conv': fits none of the 4 layers it is for"],
        ),
    ],
)
def test_a_form_that_cannot_be_is_told_in_place_and_code_2(tmp_path, capsys, words, lines):
    assert compiled(tmp_path / "b", *words) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(lines)
    assert all(line.startswith(start) for line, start in zip(said, lines, strict=True)), said
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_json_is_one_object_with_the_column(tmp_path, capsys):
    assert compiled(tmp_path / "b", "--form", "quantize(k=0)", "--json") == 2
    error = json.loads(capsys.readouterr().out)
    assert "column 1" in json.dumps(error)


def test_dense_for_every_layer_is_nothing_done_and_code_7(tmp_path):
    assert compiled(tmp_path / "b", "--form", "dense") == 7


def test_json_forms_of_an_artifact_read_back_as_their_texts(tmp_path):
    assert compiled(tmp_path / "b", "--form", FORMS["nested"]) == 0
    data = json.loads((tmp_path / "b" / "plan.json").read_text())
    assert from_json(data["layers"]["/f1/Gemm"]) == parse(FORMS["nested"])
