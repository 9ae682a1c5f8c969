"""Parameters and operations of a PyTorch module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["Complexity", "count_complexity"]


@dataclass(frozen=True)
class Complexity:
    """Size of a network at one input size.

    ``gflops`` counts a multiplication and an addition as two operations, as YOLO's tables do; ``gmacs`` is half of it.
    Convolutions and matrix products are counted, element-wise operations are not.
    """

    params_m: float
    gflops: float

    @property
    def gmacs(self) -> float:
        """Multiply-accumulates in 10^9."""
        return self.gflops / 2


def count_complexity(module: nn.Module, forward: Callable, size: tuple[int, int]) -> Complexity:
    """Parameters of a module, and operations of ``forward`` on one image of ``size`` (height, width)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(torch.zeros(1, 3, *size))
    return Complexity(sum(p.numel() for p in module.parameters()) / 1e6, counter.get_total_flops() / 1e9)
