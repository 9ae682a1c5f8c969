"""What a figure was measured on; every row of every table carries it."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata

from efftasks.runtime.backends.table import BACKENDS

__all__ = ["describe_environment", "instruction_sets"]

_CPUINFO = "/proc/cpuinfo"
# As Linux names them. Those with "vnni" multiply and add integers of 8 bits without saturating; the last two are ARM's.
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
_LIBRARIES = ("timm", "numpy", "opencv-python")


def describe_environment(threads: int | None = None) -> dict[str, str]:
    """Processor, cores, threads, system, versions and date.

    Args:
        threads: of the measured runtime; None where it was left to the runtime.
    """
    environment = {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "threads": str(threads) if threads is not None else "default",
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    runtimes = (backend.module for backend in BACKENDS.values())
    for library in ("efftasks", "torch", *runtimes, *_LIBRARIES):
        try:
            environment[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return environment


def instruction_sets(cpuinfo: str = _CPUINFO) -> tuple[str, ...]:
    """Which of the instruction sets that matter to a network of 8-bit integers the processor has; empty if unknown."""
    flags = set((_cpu_field("flags", cpuinfo) or _cpu_field("Features", cpuinfo) or "").split())
    return tuple(name for name in _INSTRUCTION_SETS if name in flags)


def _cpu() -> str:
    return _cpu_field("model name", _CPUINFO) or platform.processor() or "unknown"


def _cpu_field(name: str, cpuinfo: str) -> str | None:
    """A line of Linux's description of the processor."""
    try:
        with open(cpuinfo, encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return None
