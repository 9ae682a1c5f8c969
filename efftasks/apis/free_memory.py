"""Memory that a training may use, and has used: of a GPU, or of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from efftasks.bench.memory import peak_rss_mb

__all__ = ["free_memory", "peak_memory", "restart_peak"]

# Of a container: its limit, what it uses, and in the last file how much of that are files that were read.
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: str) -> int | None:
    """Bytes that are free on a device, ``cuda`` or ``cpu``; None where the system does not tell."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device != "cpu":
        return None
    limits = _free_of_container(_CGROUP)
    free = _free_of_machine()
    return min(free, *limits) if limits and free is not None else free


def peak_memory(device: str) -> int:
    """The largest memory that this process has used on a device, in bytes."""
    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    return int((peak_rss_mb() or 0.0) * 1e6)


def restart_peak(device: str) -> None:
    """Begin a new peak with what is in use now; on other systems than Linux a CPU's continues."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    file = Path("/proc/self/clear_refs")
    try:
        file.write_text("5", encoding="ascii")
    except OSError:
        return


def _free_of_container(folder: Path) -> list[int]:
    """What the limits of a container leave, in bytes; empty without a limit.

    Files that were read stay in memory until it is needed, and count as used: they are free.
    """
    free = []
    for names in _LIMITS:
        limit, used, stat = (folder / name for name in names)
        if _number(limit) > 0:
            free.append(_number(limit) - _number(used) + _files_read(stat))
    return free


def _files_read(stat: Path) -> int:
    try:
        pairs = dict(line.split() for line in stat.read_text(encoding="ascii").splitlines())
        return int(pairs.get("total_inactive_file") or pairs["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0


def _free_of_machine() -> int | None:
    info = Path("/proc/meminfo")
    if info.is_file():
        for line in info.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:  # macOS states no free memory: half of all
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _number(file: Path) -> int:
    """The number in a file; 0 where there is none, or no limit."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
