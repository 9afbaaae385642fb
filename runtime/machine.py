"""What this machine says of itself, for the protocol of a measurement. Unknown is absent."""

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def cpu_model() -> str:
    """The processor's name."""
    names = _cpuinfo("model name") or _cpuinfo("Hardware") or _cpuinfo("CPU part")
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def load_average() -> float | None:
    """Runnable processes over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def clock_mhz() -> float | None:
    """Mean clock of the cores now."""
    try:
        clocks = [float(text) for text in _cpuinfo("cpu MHz")]
    except ValueError:
        return None
    return sum(clocks) / len(clocks) if clocks else None


def governor() -> str | None:
    """The kernel's frequency policy, e.g. "performance"."""
    try:
        return GOVERNOR.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _cpuinfo(key: str) -> list[str]:
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == key]
