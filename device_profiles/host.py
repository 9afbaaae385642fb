"""The machine nncc runs on: its instruction set, its memory and what its runtime reads."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

# Floats in one NCHWc block of ONNX Runtime's CPU kernels, by instruction set, widest first.
_BLOCKS = (
    ("avx512f", 16, "AVX-512: NCHWc blocks of 16 floats (measured)"),
    ("avx2", 8, "AVX2: NCHWc blocks of 8 floats (ONNX Runtime's MLAS)"),
)


@dataclass(frozen=True)
class DetectedFacts:
    """The facts of a profile that a machine can tell itself; see `DeviceProfile`.

    Args:
        sources: fact name to how it was found.
        about: further facts in words.
    """

    max_opset: int
    max_ir_version: int
    rank_step: int
    group_width: int
    memory_bytes: int | None
    runtime_version: str
    sources: Mapping[str, str]
    about: Mapping[str, str]


@cache
def detect() -> DetectedFacts:
    """What this machine can do, found once a process.

    Loads onnxruntime: opset and IR version are found by opening one-node models.
    """
    onnxruntime: Any = import_module("onnxruntime")
    block, why = channel_block()
    opset, ir_version = newest_readable()
    version = str(onnxruntime.__version__)
    return DetectedFacts(
        max_opset=opset,
        max_ir_version=ir_version,
        rank_step=block,
        group_width=block,
        memory_bytes=memory_bytes(),
        runtime_version=version,
        sources={
            "runtime_version": "the installed onnxruntime package",
            "max_opset": f"newest that both onnx writes and onnxruntime {version} opens",
            "max_ir_version": f"newest that both onnx writes and onnxruntime {version} opens",
            "rank_step": why,
            "group_width": why,
            "memory_bytes": "/proc/meminfo, or the memory limit of the control group",
            "cpu": "/proc/cpuinfo",
            "cores": "cores this process may run on",
        },
        about={"cpu": cpu_name(), "cores": str(available_cores())},
    )


@cache
def newest_readable() -> tuple[int, int]:
    """The newest (opset, IR version) that the installed ONNX Runtime opens.

    Tried, newest first, on a model of one Identity node: no table of versions to go stale.
    """
    import onnx

    oldest_ir = 3
    ir_version = next(
        (v for v in range(int(onnx.IR_VERSION), oldest_ir, -1) if _opens(7, v)), oldest_ir
    )
    newest = onnx.defs.onnx_opset_version()
    opset = next((v for v in range(newest, 7, -1) if _opens(v, ir_version)), 7)
    return opset, ir_version


def _opens(opset: int, ir_version: int) -> bool:
    """Whether ONNX Runtime opens a one-node model of these versions."""
    from onnx import TensorProto, helper

    onnxruntime: Any = import_module("onnxruntime")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "probe",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # noqa: BLE001 - the binding raises a dozen unrelated classes
        return False
    return True


def channel_block(cpuinfo: str | None = None, machine: str | None = None) -> tuple[int, str]:
    """Channels in one block of the fast layout, and how that is known.

    Args:
        cpuinfo: text of /proc/cpuinfo; read when None.
        machine: architecture name; this machine's when None.

    Example:
        >>> channel_block("flags : fpu avx avx2 avx512f", "x86_64")[0]
        16
    """
    machine = platform.machine() if machine is None else machine
    features = cpu_features(cpuinfo)
    for feature, block, why in _BLOCKS:
        if feature in features:
            return block, why
    if machine.lower() in ("aarch64", "arm64"):
        return 4, "NEON registers hold 4 floats (inferred, not measured)"
    if machine.lower() in ("x86_64", "amd64"):
        return 8, "x86-64: NCHWc blocks of 8 floats unless AVX-512 (ONNX Runtime's MLAS)"
    return 1, f"nothing is known of {machine or 'this machine'}: ranks are left as they come"


def cpu_features(cpuinfo: str | None = None) -> frozenset[str]:
    """The CPU's feature flags; empty where /proc/cpuinfo does not exist."""
    for line in _cpuinfo(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_name(cpuinfo: str | None = None) -> str:
    """The CPU's model name, or the architecture where it has none."""
    for line in _cpuinfo(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_cache_bytes() -> int:
    """The largest cache that one core has to itself; 1 MiB where nothing says."""
    return max((size for shared, size in _caches() if shared == "0"), default=1 << 20)


def last_cache_bytes() -> int:
    """The largest cache there is; a core's own where nothing says more."""
    return max((size for _, size in _caches()), default=own_cache_bytes())


def _caches() -> Iterator[tuple[str, int]]:
    """The cores that share a cache of core 0 and its bytes, as Linux lists them."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        size = _text(str(folder / "size")).strip()
        if size.endswith("K") and size[:-1].isdigit():
            yield _text(str(folder / "shared_cpu_list")).strip(), int(size[:-1]) * 1024


def memory_bytes() -> int | None:
    """Memory of this machine, or the control group's limit where that is lower."""
    known = [size for size in (_physical_bytes(), _group_limit_bytes()) if size]
    return min(known) if known else None


def _physical_bytes() -> int | None:
    for line in _text("/proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    return None


def _group_limit_bytes() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _text(path).strip()
        if limit.isdigit():
            return int(limit)
    return None


def _cpuinfo(given: str | None) -> str:
    return _text("/proc/cpuinfo") if given is None else given


def _text(path: str) -> str:
    """A small system file, empty where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
