"""Mixed precision on a CPU, which mmengine's wrapper refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from efftasks.registry import OPTIM_WRAPPERS

__all__ = ["CpuAmpOptimWrapper", "has_fast_bfloat16"]


def has_fast_bfloat16() -> bool:
    """Whether this CPU may gain from bfloat16.

    Without instructions of its own oneDNN does not even run bfloat16 convolutions, and PyTorch's emulation is several
    times slower than float32. AVX-512 without its bfloat16 part counts as a may: there, only a trial tells.
    """
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast on the CPU; its range is float32's, so nothing is scaled.

    Attributes:
        enabled: whether it does; :class:`efftasks.engine.hooks.precision.ChoosePrecision` switches it.
    """

    enabled = True

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context that mmengine runs the loss in."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16, enabled=self.enabled):
            yield
