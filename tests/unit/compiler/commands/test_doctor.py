"""`diagnose` looks at the real machine and names what is missing and how to get it."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from nncc.compiler.commands.doctor import Probe, diagnose


def by_name() -> dict[str, Probe]:
    return {probe.name: probe for probe in diagnose()}


def test_the_test_environment_is_healthy():
    assert [probe for probe in diagnose() if probe.ok is False] == []


def test_dependencies_are_told_with_their_versions():
    probes = by_name()
    for name in ("numpy", "onnx", "onnx-ir", "onnxruntime", "pydantic", "scipy", "typer"):
        assert probes[name] == Probe(name, True, version(name))


def test_onnxruntime_is_run_not_only_found():
    assert by_name()["onnxruntime runs"].detail.startswith("reads opset ")


def test_python_is_told():
    assert by_name()["python"].detail.startswith(".".join(map(str, sys.version_info[:3])))


def test_an_absent_extra_is_no_fault_and_names_what_to_install():
    for name, probe in by_name().items():
        if name.startswith("extra ") and probe.ok is None:
            assert probe.remedy == f"pip install 'nncc[{name.removeprefix('extra ')}]'"


def test_a_cache_folder_that_cannot_be_written_is_a_fault(tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    monkeypatch.setenv("NNCC_CACHE_DIR", str(blocker / "cache"))
    probe = by_name()["cache folder"]
    assert probe.ok is False
    assert "NNCC_CACHE_DIR" in probe.remedy


def test_looking_creates_nothing(tmp_path, monkeypatch):
    cache = tmp_path / "not" / "yet"
    monkeypatch.setenv("NNCC_CACHE_DIR", str(cache))
    assert by_name()["cache folder"].ok in (True, None)
    assert list(tmp_path.iterdir()) == []


def test_without_ssh_on_the_path_the_client_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    probe = by_name()["ssh"]
    assert probe.ok is None
    assert "OpenSSH" in probe.remedy


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux only")
def test_cores_are_those_this_process_may_use():
    assert f"{len(os.sched_getaffinity(0))} cores" in by_name()["cpu"].detail
