"""What this machine has and lacks for nncc: every probe looks, none changes anything."""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from ...device_profiles.host import available_cores, channel_block, cpu_name, memory_bytes
from ..cache import cache_folder

_GIB = 1 << 30
_LOW_MEMORY = 2 * _GIB
_LOW_DISK = 2 * _GIB
OLDEST_PYTHON = (3, 11)

# Extra -> the packages it installs, for what. Their absence is no fault.
EXTRAS = {
    "train": (("torch",), "compile a torch module, learn"),
    "rtx": (("polygraphy", "tensorrt-rtx"), "build engines for RTX cards, ask its parser"),
    "tensorrt": (("onnx-graphsurgeon",), "inspect models for TensorRT by hand"),
    "report": (("plotly",), "charts that can be explored"),
    "sweep": (("optuna",), "search over many options"),
}


@dataclass(frozen=True)
class Probe:
    """One thing looked at.

    Args:
        name: what was looked at.
        ok: True, False (nncc will not work as it should), or None (optional and not there).
        detail: what was found.
        remedy: what to do; "" when there is nothing to do.
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


def diagnose() -> list[Probe]:
    """Everything that is looked at, in the order a person reads it. Never raises."""
    looks: list[Callable[[], list[Probe]]] = [
        _python, _packages, _runtime, _cpu, _memory, _folders, _ssh, _extras,
    ]  # fmt: skip
    probes: list[Probe] = []
    for look in looks:
        try:
            probes += look()
        except Exception as error:  # noqa: BLE001 - a doctor reports what breaks under it
            probes.append(Probe(look.__name__.strip("_"), False, f"cannot be told: {error}"))
    return probes


def _python() -> list[Probe]:
    good = sys.version_info[:2] >= OLDEST_PYTHON
    remedy = "" if good else f"use Python {'.'.join(map(str, OLDEST_PYTHON))} or newer"
    detail = f"{platform.python_version()} on {platform.platform()}"
    return [Probe("python", good, detail, remedy)]


def _packages() -> list[Probe]:
    """Each core dependency as installed; the list is the package's own metadata."""
    probes: list[Probe] = []
    for name in _requirements():
        found = _version(name)
        if found is None:
            probes.append(Probe(name, False, "not installed", "pip install --upgrade nncc"))
        else:
            probes.append(Probe(name, True, found))
    return probes


def _requirements() -> list[str]:
    """Names of nncc's dependencies, extras left out."""
    try:
        lines = distribution("nncc").requires or []
    except PackageNotFoundError:
        return ["numpy", "onnx", "onnx-ir", "onnxruntime", "scipy"]
    core = [line for line in lines if "extra ==" not in line]
    return sorted(_name(line) for line in core)


def _name(requirement: str) -> str:
    """The project's name in a requirement line.

    Example:
        >>> _name("onnx-ir>=1.1")
        'onnx-ir'
    """
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return found[0] if found else requirement


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _runtime() -> list[Probe]:
    """Whether ONNX Runtime really computes: 2 + 2 by a model made here."""
    import numpy as np
    from onnx import TensorProto, helper

    from ...device_profiles.host import newest_readable

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doctor",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    remedy = "reinstall it: pip install --force-reinstall onnxruntime"
    try:
        ort: Any = import_module("onnxruntime")
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (y,) = session.run(None, {"x": np.array([2], np.float32)})
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return [Probe("onnxruntime runs", False, str(error).splitlines()[0], remedy)]
    if y[0] != np.float32(4):
        return [Probe("onnxruntime runs", False, f"2 + 2 gives {y[0]}", remedy)]
    opset, ir_version = newest_readable()
    return [Probe("onnxruntime runs", True, f"reads opset {opset}, IR version {ir_version}")]


def _cpu() -> list[Probe]:
    block, why = channel_block()
    known = block > 1
    return [
        Probe("cpu", True, f"{cpu_name()}, {available_cores()} cores"),
        Probe(
            "rank lattice",
            True if known else None,
            f"multiples of {block}: {why}",
            "" if known else "compile for a named target (nncc targets list)",
        ),
    ]


def _memory() -> list[Probe]:
    found = memory_bytes()
    if found is None:
        return [Probe("memory", None, "cannot be told on this system")]
    good = found >= _LOW_MEMORY
    remedy = "" if good else "compile small models only, or use a machine with more"
    return [Probe("memory", good or None, f"{found / _GIB:.1f} GiB", remedy)]


def _folders() -> list[Probe]:
    """The cache and the temporary folder: writable, and room on their disks."""
    cache, temporary = cache_folder(), Path(tempfile.gettempdir())
    return [
        _folder("cache folder", cache, "set NNCC_CACHE_DIR to a folder you can write to"),
        _folder("temporary folder", temporary, "set TMPDIR to a folder you can write to"),
    ]


def _folder(name: str, folder: Path, remedy: str) -> Probe:
    standing = next(p for p in (folder, *folder.parents) if p.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        return Probe(name, False, f"{folder} cannot be written", remedy)
    free = shutil.disk_usage(standing).free
    detail = f"{folder}, {free / _GIB:.1f} GiB free"
    if free < _LOW_DISK:
        return Probe(name, None, detail, f"little room; {remedy}")
    return Probe(name, True, detail)


def _ssh() -> list[Probe]:
    """OpenSSH's client: devices over the network are reached through it."""
    found = shutil.which("ssh")
    if found is None:
        return [Probe("ssh", None, "not installed", "install the OpenSSH client for devices")]
    return [Probe("ssh", True, found)]


def _extras() -> list[Probe]:
    probes: list[Probe] = []
    for extra, (packages, purpose) in EXTRAS.items():
        found = {name: _version(name) for name in packages}
        missing = [name for name, installed in found.items() if installed is None]
        if missing:
            detail = f"{', '.join(missing)} not installed; only needed to {purpose}"
            remedy = f"pip install 'nncc[{extra}]'"
            probes.append(Probe(f"extra {extra}", None, detail, remedy))
        else:
            detail = ", ".join(f"{name} {installed}" for name, installed in found.items())
            probes.append(Probe(f"extra {extra}", True, detail))
    return probes
