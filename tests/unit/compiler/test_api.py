from pathlib import Path

import onnx
import pytest

import nncc

LENET = Path(__file__).parents[2] / "data" / "refs" / "lenet5_op13.onnx"


def test_the_package_exposes_what_its_docstring_shows():
    assert set(nncc.__all__) <= set(dir(nncc))
    assert issubclass(nncc.errors.UsageError, nncc.NnccError)
    assert nncc.CompileOptions.model_validate({}).output == Path("build")
    with pytest.raises(AttributeError, match="no attribute 'compil'"):
        _ = nncc.compil  # type: ignore[attr-defined]


def test_a_model_in_memory_compiles_as_its_file_does(tmp_path: Path):
    given = {"target": "x86-cpu", "macs": "50%"}
    file = nncc.compile(str(LENET), output=tmp_path / "a", **given)
    held = nncc.compile(onnx.load(LENET), output=tmp_path / "b", **given)
    assert file.model.read_bytes() == held.model.read_bytes()
    assert file.metrics.layers.changed == held.metrics.layers.changed >= 1


def test_events_are_heard_and_options_are_read_as_on_the_command_line(tmp_path: Path):
    heard: list[str] = []
    artifact = nncc.compile(
        LENET,
        "jetson-nano",
        macs=0.5,
        dry_run=True,
        output=tmp_path / "x",
        on_event=lambda event: heard.append(event.stage),
    )
    assert "ingest" in heard and artifact.path is None
    with pytest.raises(nncc.errors.UsageError, match="did you mean 'macs'"):
        nncc.compile(LENET, "x86-cpu", mac=0.5)
