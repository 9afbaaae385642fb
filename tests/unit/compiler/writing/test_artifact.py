import csv
import hashlib
import io
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.external_data_helper import set_external_data

from nncc.compiler.options import CompileOptions
from nncc.compiler.outcome import Outcome
from nncc.compiler.writing.artifact import Artifact, load_artifact, planned, write_artifact
from nncc.device_profiles.errors import ModelError, UsageError
from nncc.device_profiles.registry import load
from outcomes import BROKEN, EQUAL, HOSTILE, outcome, paired, row

LENET = Path(__file__).parents[3] / "data" / "refs" / "lenet5_op13.onnx"
PLAN = '{"schema": 1, "layers": {}}'


def asked(**given: object) -> CompileOptions:
    return CompileOptions.model_validate(given)


def write(folder: Path, told: Outcome | None = None, **options: object) -> Artifact:
    (folder / "work" / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "work" / "logs" / "compile.log").write_text("ingest\n")
    return write_artifact(
        folder / "work",
        told or outcome(latency=paired()),
        compiled=LENET,
        plan_json=PLAN,
        options=asked(**{"output": folder / "build", "macs": 0.7, **options}),
        target=load("x86-cpu"),
        source=LENET,
    )


def contents(folder: Path | None) -> dict[str, bytes]:
    assert folder is not None
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_the_folder_holds_what_the_design_lists(tmp_path: Path):
    found = set(contents(write(tmp_path).path))
    times = {name for name in found if name.startswith("profiles/")}
    assert found - times == {
        "model.onnx",
        "plan.json",
        "config.toml",
        "manifest.json",
        "metrics.json",
        "layers.csv",
        "report.html",
        "README.md",
        "logs/compile.log",
        "logs/outputs.json",
    }
    assert len(times) == 1 and times.pop().endswith("/times.json")


def test_the_manifest_holds_the_digest_of_every_other_file(tmp_path: Path):
    folder = write(tmp_path).folder
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    held = contents(folder)
    assert {n: f["sha256"] for n, f in listed.items()} == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in held.items()
        if name != "manifest.json"
    }


def test_twice_gives_the_same_bytes(tmp_path: Path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert contents(first.path) == contents(second.path)


def test_decisions_do_not_depend_on_what_a_clock_said(tmp_path: Path):
    slow = outcome(latency=paired(3), compile_seconds={"ingest": 99.0})
    files = contents(write(tmp_path / "a").path), contents(write(tmp_path / "b", slow).path)
    for name in ("model.onnx", "plan.json", "layers.csv", "config.toml"):
        assert files[0][name] == files[1][name]
    manifests = [json.loads(f["manifest.json"]) for f in files]
    assert manifests[0]["decisions"] == manifests[1]["decisions"]
    assert manifests[0]["profile"] != manifests[1]["profile"]


def test_nothing_written_names_this_machine_s_folders(tmp_path: Path):
    for name, data in contents(write(tmp_path).path).items():
        assert str(tmp_path).encode() not in data, name


@pytest.mark.parametrize(
    "told",
    [
        outcome(latency=paired()),
        outcome(fidelity=EQUAL, exit_code=7, layers=()),
        outcome(fidelity=BROKEN, budget="", budget_used=None, objective_value=None),
        outcome(row(HOSTILE, reason='=cmd|"a"', form="'quoted'"), row("-1", rank=None)),
        outcome(
            row(macs_reference=None, macs_compressed=None, reference_ms=1.5, measured_ms=0.5)
        ),
    ],
    ids=["measured", "equal", "broken", "hostile", "unknown macs"],
)
def test_what_was_written_reads_back_as_the_same_outcome(tmp_path: Path, told: Outcome):
    written = write(tmp_path, told)
    found = load_artifact(written.folder, verify=True)
    assert (found.outcome, found.metrics, found.command) == (
        told,
        written.metrics,
        written.command,
    )


def test_no_cell_of_layers_csv_is_a_spreadsheet_formula(tmp_path: Path):
    told = outcome(row("=1+1"), row("@x"), row("+2", reason="-3"))
    text = (write(tmp_path, told).folder / "layers.csv").read_text()
    cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_the_configuration_and_the_command_repeat_the_compile(tmp_path: Path):
    made = write(tmp_path, macs=0.5, shape=("x:1x3", "y z:2"), measure=False)
    table = tomllib.loads((made.folder / "config.toml").read_text())["compile"]
    assert table["macs"] == 0.5 and table["target"] == "x86-cpu" and "output" not in table
    assert made.command == (
        "nncc compile lenet5_op13.onnx -t x86-cpu --macs 0.5 --shape x:1x3 --shape 'y z:2'"
        " --no-measure"
    )


def test_a_folder_that_holds_something_is_refused_without_force(tmp_path: Path):
    before = contents(write(tmp_path).path)
    with pytest.raises(UsageError, match=r"holds an nncc artifact.*--force"):
        write(tmp_path, outcome(exit_code=4))
    assert contents(tmp_path / "build") == before


def test_force_replaces_the_whole_folder_and_leaves_nothing_beside_it(tmp_path: Path):
    write(tmp_path)
    (tmp_path / "build" / "stale.txt").write_text("old")
    write(tmp_path, outcome(exit_code=4), force=True)
    assert not (tmp_path / "build" / "stale.txt").exists()
    assert load_artifact(tmp_path / "build", verify=True).outcome.exit_code == 4
    assert {p.name for p in tmp_path.iterdir()} == {"build", "work"}


def test_a_failure_on_the_way_leaves_the_old_folder_and_no_litter(tmp_path: Path):
    before = contents(write(tmp_path).path)
    with pytest.raises(FileNotFoundError):
        write_artifact(
            tmp_path / "work",
            outcome(),
            compiled=tmp_path / "none.onnx",
            plan_json=PLAN,
            options=asked(output=tmp_path / "build", force=True),
            target="x86-cpu",
        )
    assert contents(tmp_path / "build") == before
    assert {p.name for p in tmp_path.iterdir()} == {"build", "work"}


def test_a_changed_a_missing_and_an_outside_file_are_found(tmp_path: Path):
    folder = write(tmp_path).folder
    (folder / "plan.json").write_text("{}")
    with pytest.raises(ModelError, match=r"plan\.json differs from the manifest"):
        load_artifact(folder, verify=True)
    (folder / "plan.json").unlink()
    with pytest.raises(ModelError, match=r"plan\.json is missing"):
        load_artifact(folder, verify=True)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"plan.json"', '"../../plan.json"'))
    with pytest.raises(ModelError, match="leaves the folder"):
        load_artifact(folder, verify=True)


@pytest.mark.parametrize("name", ["manifest.json", "metrics.json", "layers.csv"])
@pytest.mark.parametrize("text", ["", "{}", "[1", '{"schema": 2}', "a,b\n1,2\n"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, name: str, text: str):
    folder = write(tmp_path).folder
    (folder / name).write_text(text)
    with pytest.raises(ModelError, match=name) as error:
        load_artifact(folder)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="not an nncc artifact"):
        load_artifact(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        load_artifact(tmp_path / "none")


def test_a_dry_run_has_no_files():
    held = planned(outcome())
    assert held.path is None and held.metrics.layers.changed == 1
    with pytest.raises(UsageError, match="--dry-run"):
        _ = held.model


def external(folder: Path, *, files: int) -> Path:
    """LeNet with its weights in `files` data files."""
    folder.mkdir(parents=True)
    model = onnx.load(LENET)
    for i, tensor in enumerate(model.graph.initializer):
        if tensor.raw_data and len(tensor.raw_data) > 64:
            set_external_data(tensor, f"part{i % files}.bin")
    onnx.save_model(model, folder / "compiled.onnx")
    return folder / "compiled.onnx"


@pytest.mark.parametrize("files", [1, 3])
def test_external_data_becomes_one_file_and_computes_the_same(tmp_path: Path, files: int):
    compiled = external(tmp_path / "work", files=files)
    made = write_artifact(
        tmp_path / "work",
        outcome(),
        compiled=compiled,
        plan_json=PLAN,
        options=asked(output=tmp_path / "build"),
        target="x86-cpu",
    )
    shutil.rmtree(tmp_path / "work")
    assert {p.name for p in made.folder.glob("model*")} == {"model.onnx", "model.onnx.data"}
    x = np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32)
    expected, found = (
        ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for path in (LENET, made.model)
    )
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_external_data_outside_the_folder_is_refused(tmp_path: Path):
    compiled = external(tmp_path / "work", files=1)
    model = onnx.load(compiled, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../../../etc/passwd"
    compiled.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="not a file beside the model"):
        write_artifact(
            tmp_path / "work",
            outcome(),
            compiled=compiled,
            plan_json=PLAN,
            options=asked(output=tmp_path / "build"),
            target="x86-cpu",
        )
    assert not (tmp_path / "build").exists()


def test_the_model_card_survives_hostile_names(tmp_path: Path):
    told = outcome(model_name=HOSTILE, warnings=(HOSTILE,), undone=(HOSTILE,))
    text = (write(tmp_path, told).folder / "README.md").read_text()
    assert "UNCALIBRATED" in text and text.startswith("---\n")
    body = text.split("---\n", 2)[2]
    assert "<script>" not in body.replace("\\<script\\>", "")
