"""Memory that a training step frees is kept for the next step."""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["keep_freed_memory"]

# glibc's mallopt: which setting, and the variable by which a user states it.
_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2
_STATED_BY = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES", "LD_PRELOAD")
_GROWTH = 64 << 20  # bytes that the heap grows by


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed instead of giving it back to the system, whose pages must be cleared again.

    A step allocates and frees the same tensors again and again. By default those above some megabytes are mapped anew
    each time, and the page faults of that are a tenth of a step at 320 px. What the user has set in the environment
    stays, another allocator too; other systems are left alone.

    Returns:
        Whether it was set.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _STATED_BY):
        return False
    libc = ctypes.CDLL(None)
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: _GROWTH}
    results = [libc.mallopt(key, value) for key, value in settings.items()]
    return results == [1] * len(settings)
