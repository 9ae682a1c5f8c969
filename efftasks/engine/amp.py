"""Mixed precision on CPUs, which mmengine's `AmpOptimWrapper` does not support."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from efftasks.registry import OPTIM_WRAPPERS

__all__ = ["CpuAmpOptimWrapper", "has_fast_bfloat16"]


def has_fast_bfloat16() -> bool:
    """Whether bfloat16 may be faster on this CPU.

    On CPUs without support oneDNN does not run bfloat16 convolutions, and PyTorch's emulation is several times slower
    than float32. The result is true for AVX-512 without bfloat16 instructions, where it has to be measured.
    """
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast on the CPU. Losses are not scaled: its range is that of float32.

    Attributes:
        enabled: whether autocast is on; set by :class:`efftasks.engine.hooks.precision.ChoosePrecision`.
    """

    enabled = True

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context in which mmengine computes the loss."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16, enabled=self.enabled):
            yield
