"""Mixed precision on a CPU, which mmengine's wrapper refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from efftasks.registry import OPTIM_WRAPPERS

__all__ = ["CpuAmpOptimWrapper"]


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast on the CPU; its range is float32's, so nothing is scaled."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context that mmengine runs the loss in."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield
