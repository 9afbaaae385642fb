"""Every shipped conformance model and every real one goes in and out, its function kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models import MODEL_NAMES, REF_DIGESTS, ref_model, wheel_model
from nncc.compiler.proving.verify import difference, verified_normalise
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.samples.inputs import synthetic_inputs
from nncc.compiler.writing.save import check_file, write
from nncc.device_profiles.errors import ModelError
from nncc.runtime.session import open_session, run
from quality import score

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
FAMILIES = ("simple", "pytorch-converted", "pytorch-operator")

# What ONNX Runtime cannot run, and why; everything else must come out equal.
REFUSED = {
    "test_gradient_of_add": "Gradient",
    "test_gradient_of_add_and_mul": "Gradient",
}
NEEDS_LOCALE = "test_strnorm_model_"
"""Sorting case needs the locale en_US.UTF-8, which a machine may lack."""

FAMILY_CASES = [
    (family, path.name) for family in FAMILIES for path in sorted((DATA / family).iterdir())
]


@dataclass(frozen=True)
class Sample:
    """Inputs and expected outputs, by name."""

    feeds: dict[str, Any]
    expected: dict[str, Any]


def samples(folder: Path) -> Iterator[Sample]:
    graph = onnx.load(folder / "model.onnx").graph
    for data in sorted(folder.glob("test_data_set_*")):
        yield Sample(
            read(data, "input", list(graph.input)), read(data, "output", list(graph.output))
        )


def read(data: Path, kind: str, values: list[onnx.ValueInfoProto]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index, value in enumerate(values):
        path = data / f"{kind}_{index}.pb"
        if path.exists() and value.type.WhichOneof("value") == "sequence_type":
            found[value.name] = numpy_helper.to_list(
                onnx.SequenceProto.FromString(path.read_bytes())
            )
        elif path.exists():
            found[value.name] = numpy_helper.to_array(
                onnx.TensorProto.FromString(path.read_bytes())
            )
    return found


def test_all_families_are_there() -> None:
    assert len(FAMILY_CASES) == 140


@pytest.mark.parametrize(("family", "name"), FAMILY_CASES)
def test_conformance_model_gives_the_expected_outputs_after_normalising(
    family: str, name: str, tmp_path: Path
) -> None:
    folder = DATA / family / name
    given = list(samples(folder))
    assert given
    out = tmp_path / "out.onnx"
    try:
        model = ingest(folder / "model.onnx", workdir=tmp_path)
        done, _ = verified_normalise(model, tmp_path, [sample.feeds for sample in given])
        write(done, out)
        refusal = ""
    except ModelError as error:
        refusal = str(error)
    if refusal:
        missing = "locale" in refusal and name.startswith(NEEDS_LOCALE)
        assert missing or REFUSED.get(name, "not refused") in refusal
        assert "\n" not in refusal
        return
    assert name not in REFUSED
    check_file(out)
    session = open_session(out)
    for sample in given:
        got = run(session, sample.feeds)
        assert list(got) == list(sample.expected)
        for key, want in sample.expected.items():
            same(got[key], want)


def same(got: Any, want: Any) -> None:
    """Equal within what the conformance suite itself allows (rtol 1e-3, atol 1e-7)."""
    if isinstance(want, list):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            same(one, other)
    elif want.dtype.kind in "fc":
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-6)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", [*MODEL_NAMES, *REF_DIGESTS])
def test_real_model_keeps_its_outputs_interface_and_metadata(
    name: str, tmp_path: Path
) -> None:
    path = ref_model(name) if name in REF_DIGESTS else wheel_model(name)
    model = ingest(path, workdir=tmp_path)
    feeds = synthetic_inputs(model, 2, seed=1)
    done, warnings = verified_normalise(model, tmp_path, feeds)
    assert (model.warnings, warnings) == ((), [])
    out = tmp_path / "out.onnx"
    write(done, out)
    check_file(out)
    before, after = open_session(path), open_session(out)
    for feed in feeds:
        assert difference(run(before, feed), run(after, feed)) == ""
    assert interface(path) == interface(out)
    assert (
        before.get_modelmeta().custom_metadata_map == after.get_modelmeta().custom_metadata_map
    )
    names = [n.name for g in done.graph_model.graphs() for n in g]
    assert len(set(names)) == len(names)
    assert not any(n.op_type == "Constant" for g in done.graph_model.graphs() for n in g)


def interface(path: Path) -> list[tuple[str, int, list[int | str]]]:
    """Names, element types and axes of the inputs and outputs; -1 reads as unnamed."""
    graph = onnx.load(path, load_external_data=False).graph
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [d.dim_param or max(d.dim_value, 0) for d in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input, *graph.output)
    ]


@pytest.mark.parametrize(
    ("name", "n", "least"),
    [
        ("pp-ocr-rec", 20, 0.97),
        ("pp-ocr-cls", 60, 0.95),
        ("magika", 100, 0.8),
        ("silero-vad", 2, 0.95),
        ("mtcnn-rnet", 50, 0.99),
        ("mtcnn-onet", 50, 0.99),
        ("lenet300", 5000, 0.89),
        ("lenet5", 5000, 0.885),
        ("vggs", 5000, 0.87),
    ],
)
def test_real_model_is_as_good_at_its_task_as_before(
    name: str, n: int, least: float, tmp_path: Path
) -> None:
    path = ref_model(name) if name in REF_DIGESTS else wheel_model(name)
    model = ingest(path, workdir=tmp_path)
    verified_normalise(model, tmp_path, synthetic_inputs(model, 2, seed=0))
    before = score(name, path, n)
    assert before >= least
    assert score(name, tmp_path / "normalised.onnx", n) == pytest.approx(before, abs=0.005)
