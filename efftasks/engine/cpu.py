"""What a CPU needs to train at its speed: no denormal numbers, freed memory kept, and a format that does not crash."""

from __future__ import annotations

import ctypes
import os
import platform

import numpy as np
import torch

__all__ = ["crashes_channels_last", "flush_denormals", "keep_freed_memory"]

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


def flush_denormals() -> None:
    """Let the CPU treat denormal numbers as zero: in training they slow a step down by up to twenty times.

    Adam's second moments and vanishing gradients become denormal within the first hundred steps. The setting belongs
    to a thread and is inherited by the threads it starts, so this must come before torch starts its workers.
    """
    # numpy computes its limits when first asked, with denormals; flushed, they would be wrong, with a warning.
    np.finfo(np.float32), np.finfo(np.float64)
    torch.set_flush_denormal(True)


def crashes_channels_last(model: torch.nn.Module) -> bool:
    """Whether it has a layer whose gradient ends the process on a CPU in the channels-last format.

    Seen with PyTorch 2.13 (oneDNN) for 1x1 convolutions with a stride and fewer channels than a vector register holds:
    ``Conv2d(8, 24, 1, stride=2)`` on (8, 8, 80, 80) writes past its buffer in the backward pass.
    """
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    return any(conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.in_channels < 16 for conv in convolutions)
