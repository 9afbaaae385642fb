"""What is shipped: all of the package, nothing else, and it works where nothing else is."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {"build", "demo", "dist", "docs", "node_modules", "tests"}
PATTERNS = (
    "device_profiles/*.toml",
    "device_profiles/operators/*.toml",
    "device_profiles/published/*.csv",
    "compiler/writing/templates/*",
    "py.typed",
)
HEAVY = (
    "jinja2",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "plotly",
    "scipy",
    "polygraphy",
    "tensorrt",
    "tensorrt_rtx",
    "torch",
)


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def package_folders() -> list[Path]:
    """Folders of the repository with an `__init__.py`, tests and hidden ones left out."""
    tops = [p for p in ROOT.iterdir() if p.is_dir() and p.name not in NOT_OURS]
    tops = [p for p in tops if not p.name.startswith(".") and not p.name.endswith(".egg-info")]
    return [file.parent for top in tops for file in top.rglob("__init__.py")]


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing left in the checkout can leak into it."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    ignore = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "demo", "dist")
    shutil.copytree(ROOT, copy, ignore=ignore)
    built = run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", folder, copy, cwd=folder,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def shipped(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_every_folder_with_an_init_is_in_packages():
    named = set(project()["tool"]["setuptools"]["packages"])
    found = {
        ".".join(("nncc", *folder.relative_to(ROOT).parts)) for folder in package_folders()
    }
    assert found | {"nncc"} == named


def test_only_two_python_files_are_at_the_root():
    assert {path.name for path in ROOT.glob("*.py")} <= {"__init__.py", "__main__.py"}


def test_every_module_is_in_the_wheel(shipped):
    modules = {
        f"nncc/{path.relative_to(ROOT).as_posix()}"
        for folder in (ROOT, *package_folders())
        for path in folder.glob("*.py")
    }
    assert modules == {name for name in shipped if name.endswith(".py")}


def test_profiles_templates_and_the_typing_marker_are_in_the_wheel(shipped):
    data = {
        f"nncc/{path.relative_to(ROOT).as_posix()}"
        for pattern in PATTERNS
        for path in ROOT.glob(pattern)
    }
    assert {"nncc/device_profiles/jetson-nano.toml", "nncc/py.typed"} <= data
    assert data == {name for name in shipped if not name.endswith(".py")}


def test_the_wheel_carries_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/LICENSE")]
        assert b"Apache License" in archive.read(name)


def test_the_wheel_works_in_an_empty_environment(wheel, tmp_path):
    """About a minute: a real environment is made and every dependency is installed into it."""
    made = run(sys.executable, "-m", "venv", "empty", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    binaries = tmp_path / "empty" / "bin"
    installed = run(
        binaries / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path
    )
    if "NewConnectionError" in installed.stderr:
        pytest.skip("the package index cannot be reached")
    assert installed.returncode == 0, installed.stderr
    version = run(binaries / "nncc", "--version", cwd=tmp_path)
    assert version.returncode == 0, version.stderr
    assert version.stdout.split() == ["nncc", wheel.name.split("-")[1]]
    helped = run(binaries / "python", "-m", "nncc", "--help", cwd=tmp_path)
    assert helped.returncode == 0, helped.stderr
    assert "compile" in helped.stdout
    checked = run(binaries / "nncc", "doctor", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compile", "--help"]])
def test_asking_for_help_loads_no_heavy_package(arguments, tmp_path):
    script = (
        "import sys; from nncc.compiler.commands.cli import main; sys.argv[1:] = ARGS\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    ).replace("ARGS", repr(arguments))
    told = run(sys.executable, "-c", script, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    loaded = set(told.stdout.rpartition("LOADED")[2].split())
    assert "nncc" in loaded
    assert not loaded & set(HEAVY)


def test_importing_the_package_loads_none_of_it(tmp_path):
    script = "import nncc, sys; print(*[m for m in sys.modules if m.startswith('nncc.')])"
    assert run(sys.executable, "-c", script, cwd=tmp_path).stdout.split() == []


def test_the_version_is_written_once():
    assert "version" in project()["project"]["dynamic"]
    assert "version" not in project()["project"]
