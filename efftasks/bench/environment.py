"""What a figure was measured on; every row of every table carries it."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata

from efftasks.runtime.backends.table import BACKENDS

__all__ = ["describe_environment"]

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


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
