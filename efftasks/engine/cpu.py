"""Settings for training on CPUs: flushing of denormals, reuse of freed memory, and when channels-last is safe."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

__all__ = ["crashes_channels_last", "flush_denormals", "keep_freed_memory"]

# Parameters of glibc's mallopt, and the environment variables by which a user sets them.
_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2
_SET_BY = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES", "LD_PRELOAD")
_CONV2D = (None, None, None, (1, 1), 0, 1, 1)  # what an omitted argument of the operator is
_GROWTH = 64 << 20  # bytes by which the heap grows


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory instead of returning it to the system, which would have to clear its pages again.

    Every step allocates and frees the same tensors. By default those above some megabytes are mapped anew each time,
    and the page faults take a tenth of a step at 320 px. Nothing is changed if the user has set malloc options or
    another allocator in the environment, or on systems without glibc.

    Returns:
        Whether the settings were changed.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SET_BY):
        return False
    libc = ctypes.CDLL(None)
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: _GROWTH}
    results = [libc.mallopt(key, value) for key, value in settings.items()]
    return results == [1] * len(settings)


def flush_denormals() -> None:
    """Let the CPU treat denormal numbers as zero: in training they make steps up to twenty times slower.

    Adam's second moments and vanishing gradients become denormal within the first hundred steps. The setting belongs
    to a thread and is inherited by the threads it starts: call this before torch starts its threads.
    """
    # numpy computes its limits on first use. With denormals flushed they would be wrong, with a warning.
    np.finfo(np.float32), np.finfo(np.float64)
    torch.set_flush_denormal(True)


def crashes_channels_last(model: torch.nn.Module) -> bool:
    """Whether a model has a layer whose gradient crashes on CPUs in the channels-last format.

    Observed with PyTorch 2.13 (oneDNN) for strided 1x1 convolutions with fewer channels than a vector register holds:
    ``Conv2d(8, 24, 1, stride=2)`` on (8, 8, 80, 80) writes past its buffer in the backward pass.
    """
    shapes = [shape for module in model.modules() for shape in _convolutions(module)]
    return any(kernel == (1, 1) and stride != (1, 1) and channels < 16 for kernel, stride, channels in shapes)


def _convolutions(module: torch.nn.Module) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Kernel, stride and input channels of a module that is a convolution, or of those of an exported graph."""
    if isinstance(module, torch.nn.Conv2d):
        yield module.kernel_size, module.stride, module.in_channels
    elif isinstance(module, torch.fx.GraphModule):
        for node in module.graph.nodes:
            if node.target is torch.ops.aten.conv2d.default:
                arguments: list[Any] = [*node.args, *_CONV2D[len(node.args) :]]
                weight, stride, groups = arguments[1], arguments[3], arguments[6]
                source = weight.args[0] if weight.op == "call_module" else weight  # a quantizer of the weights
                if source.op != "get_attr":  # a kernel that the graph computes
                    continue
                shape = module.get_parameter(source.target).shape
                yield tuple(shape[2:]), tuple(stride), shape[1] * groups
