"""The command line as a person or a script meets it: in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nncc import __version__
from nncc.compiler.commands.cli import main
from nncc.compiler.commands.settings import kebab
from nncc.compiler.options import CompileOptions
from nncc.compiler.writing.metrics import Metrics

REFS = Path(__file__).parents[3] / "data" / "refs"
LENET = str(REFS / "lenet5_op13.onnx")
HEAVY = ("torch", "tensorrt", "onnxruntime", "onnxscript", "scipy", "jinja2", "plotly", "onnx")
RUN = "import sys; from nncc.compiler.commands.cli import main; sys.exit(main())"


def nncc(
    *args: str, cwd: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NNCC_")}
    return subprocess.run(
        [sys.executable, "-c", RUN, *args],
        cwd=cwd,
        env=clean | {"COLUMNS": "200", **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, part: str) -> None:
    assert done.returncode == code, done
    assert part in done.stderr and done.stderr.startswith("nncc: ")
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("args", [["--help"], ["compile", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]):
    code = (
        "import sys\nfrom nncc.compiler.commands.cli import main\ncode = main(sys.argv[1:])\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_the_version_is_the_package_s():
    assert nncc("--version").stdout == f"nncc {__version__}\n"


def test_every_option_is_on_the_command_line_with_its_help():
    text = " ".join(nncc("compile", "--help", COLUMNS="300").stdout.split())
    for name, field in CompileOptions.model_fields.items():
        assert f"--{kebab(name)}" in text
        assert " ".join((field.description or "?").split()) in text


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (["bogus"], 2, "bogus"),
        (["compile"], 2, "MODEL"),
        (["compile", LENET], 2, "no target device"),
        (["compile", LENET, "-t", "jetson-nanoo"], 2, "did you mean jetson-nano?"),
        (["compile", LENET, "-t", "x86-cpu", "--maks", "1"], 2, "--maks"),
        (["compile", LENET, "-t", "x86-cpu", "--macs", "300%"], 2, "--macs: 3.0"),
        (["compile", LENET, "-t", "x86-cpu", "--recipe", "lowrank"], 2, "--recipe: 'lowrank'"),
        (["compile", LENET, "-t", "x86-cpu", "-c", "none.toml"], 2, "none.toml"),
        (["compile", "none.onnx", "-t", "x86-cpu"], 2, "none.onnx"),
        (["inspect", "none.onnx"], 2, "none.onnx"),
        (["compare", LENET, "none.onnx"], 2, "none.onnx"),
        (["report", "none"], 2, "none"),
        (["targets", "show", "jetson"], 2, "known devices"),
        (["check", LENET], 2, "no target device"),
        (["check", LENET, "-t", "x"], 2, "known devices"),
    ],
)
def test_a_wrong_command_is_one_line_and_its_code(
    tmp_path: Path, args: list[str], code: int, part: str
):
    assert_one_line(nncc(*args, cwd=tmp_path), code, part)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x07\x3a\xff\xff\xff\xff\x0f"])
@pytest.mark.parametrize("command", ["compile", "check", "inspect"])
def test_a_broken_model_is_one_line_and_code_3(tmp_path: Path, command: str, data: bytes):
    (tmp_path / "m.onnx").write_bytes(data)
    target = [] if command == "inspect" else ["-t", "x86-cpu"]
    assert_one_line(nncc(command, "m.onnx", *target, cwd=tmp_path), 3, "m.onnx")


def test_an_error_as_json_is_one_object_on_stdout_and_nothing_else():
    done = nncc("compile", LENET, "-t", "x86-cpu", "--macs", "7", "--json")
    error = json.loads(done.stdout)["error"]
    assert set(error) == {"type", "where", "what", "hint", "exit_code"}
    assert (error["type"], error["where"], error["exit_code"]) == ("UsageError", "--macs", 2)
    assert done.returncode == 2 and done.stderr == ""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with an artifact `out`, and what the command that wrote it printed."""
    folder = tmp_path_factory.mktemp("made")
    done = nncc("compile", LENET, "-t", "x86-cpu", "--macs", "50%", "-o", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_compile_writes_the_artifact_and_prints_the_verdict(made: tuple[Path, str]):
    folder, told = made
    assert told.splitlines()[-1].startswith("PASS") and "UNCALIBRATED" in told
    held = Metrics.model_validate_json((folder / "out" / "metrics.json").read_text())
    assert held.layers.changed >= 1 and held.ops.rho_mult >= 2
    assert [p.name for p in folder.iterdir()] == ["out"]


def test_an_output_that_holds_something_is_refused_before_any_work(made: tuple[Path, str]):
    again = nncc("compile", LENET, "-t", "x86-cpu", "-o", "out", cwd=made[0])
    assert_one_line(again, 2, "--force")


def test_the_written_configuration_gives_the_same_model_again(
    made: tuple[Path, str], tmp_path: Path
):
    config = str(made[0] / "out" / "config.toml")
    done = nncc("compile", LENET, "-c", config, "-o", "b", "--json", cwd=tmp_path)
    for name in ("model.onnx", "plan.json", "config.toml", "layers.csv"):
        assert (tmp_path / "b" / name).read_bytes() == (made[0] / "out" / name).read_bytes()
    told = json.loads(done.stdout)
    assert told["metrics"] == json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert told["artifact"] == "b" and told["layers"][0]["name"]


def test_a_dry_run_writes_nothing(tmp_path: Path):
    done = nncc(
        "compile", LENET, "-t", "x86-cpu", "--macs", "0.5", "--dry-run", "--json", cwd=tmp_path
    )
    told = json.loads(done.stdout)
    assert told["artifact"] is None and told["metrics"]["layers"]["changed"] >= 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_changed_is_code_7_and_can_be_allowed(tmp_path: Path):
    """Over five seconds on a busy machine: processes that each load ONNX Runtime."""
    args = ["compile", LENET, "-t", "x86-cpu", "--macs", "1.0", "-o"]
    done = nncc(*args, "a", cwd=tmp_path)
    assert done.returncode == 7 and "FAIL: nothing changed" in done.stdout
    assert nncc(*args, "b", "--allow-noop", cwd=tmp_path).returncode == 0


def test_variables_and_files_set_options_and_the_target(tmp_path: Path):
    """Over five seconds on a busy machine: processes that each load ONNX Runtime."""
    (tmp_path / "n.toml").write_text('[compile]\ntarget = "x86-cpu"\nmacs = "50%"\nseed = 7\n')
    args = ["compile", LENET, "-c", "n.toml", "--dry-run", "--json"]
    told = json.loads(nncc(*args, cwd=tmp_path).stdout)
    assert told["metrics"]["target"] == "x86-cpu" and told["metrics"]["layers"]["changed"]
    other = json.loads(nncc(*args, cwd=tmp_path, NNCC_TARGET="jetson-nano").stdout)
    assert other["metrics"]["target"] == "jetson-nano"
    wrong = nncc(*args, cwd=tmp_path, NNCC_SEED="x")
    assert json.loads(wrong.stdout)["error"]["where"] == "NNCC_SEED"


def test_an_artifact_can_be_inspected(made: tuple[Path, str]):
    told = json.loads(nncc("inspect", "out", "--json", cwd=made[0]).stdout)
    assert told["artifact"]["metrics"]["layers"]["changed"] >= 1


def test_an_artifact_can_be_compared_with_its_model(made: tuple[Path, str]):
    """Two processes that each start ONNX Runtime."""
    assert nncc("compare", LENET, "out", cwd=made[0]).returncode == 5
    assert nncc("compare", LENET, "out", "--atol", "1e9", cwd=made[0]).returncode == 0


def test_a_report_can_be_written_again(made: tuple[Path, str], tmp_path: Path):
    args = ["report", str(made[0] / "out"), "-o", "r.html"]
    assert nncc(*args, cwd=tmp_path).returncode == 0
    assert (tmp_path / "r.html").read_bytes() == (made[0] / "out/report.html").read_bytes()
    assert_one_line(nncc(*args, cwd=tmp_path), 2, "--force")


def test_check_names_every_node_a_device_cannot_take(tmp_path: Path):
    """Over five seconds on a busy machine: processes that each load ONNX Runtime."""
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"], name="act")],
        "g",
        [value("x", TensorProto.FLOAT, [1, 4])],
        [value("y", TensorProto.INT64, [2, "n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    done = nncc("check", "m.onnx", "-t", "jetson-nano", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 3 and not told["ok"]
    assert ("act", "NonZero") in [(f["node"], f["op"]) for f in told["findings"]]
    words = nncc("check", "m.onnx", "-t", "jetson-nano", cwd=tmp_path).stdout
    assert "act (NonZero)" in words and words.splitlines()[-1].startswith("FAIL")


def test_targets_and_doctor_answer_in_json():
    names = [t["name"] for t in json.loads(nncc("targets", "list", "--json").stdout)]
    assert {"host", "jetson-nano", "x86-cpu"} <= set(names)
    facts = json.loads(nncc("targets", "show", "jetson-nano", "--json").stdout)
    assert facts["max_opset"]["value"] == 13 and facts["max_opset"]["source"]
    assert {"ok", "probes"} == set(json.loads(nncc("doctor", "--json").stdout))


def test_a_bug_is_one_line_and_a_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import nncc.compiler.commands.inspect as module

    def broken(_: Path) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(module, "inspect", broken)
    assert main(["inspect", LENET]) == 1
    told = capsys.readouterr().err
    assert told.startswith("nncc: internal error: KeyError") and told.count("\n") == 1
    assert main(["inspect", LENET, "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("NNCC_DEBUG", "1")
    assert main(["inspect", LENET]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupting_a_compile_says_how_to_go_on(tmp_path: Path):
    """Waits for a real compile to reach its measurement, which is what people interrupt."""
    args = ["compile", LENET, "-t", "host", "--macs", "0.5", "--seconds", "20", "-v"]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *args],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        lines: list[str] = []
        for line in process.stderr or []:
            lines.append(line)
            if line.startswith("prove"):
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (lines, out, err)
    assert err.splitlines()[-1] == "nncc: interrupted; continue with --resume"
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -c '{RUN}' targets show jetson-nano | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "" and done.stdout == "name: jetson-nano\n"
