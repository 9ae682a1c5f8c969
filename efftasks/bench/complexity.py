"""Parameters, operations and activations of a PyTorch module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["Complexity", "count_complexity"]


@dataclass(frozen=True)
class Complexity:
    """Size of a network at one input size.

    ``gflops`` counts a multiplication and an addition as two operations, as YOLO's tables do; ``gmacs`` is half of it.
    Convolutions and matrix products are counted, element-wise operations are not. ``activations_m`` is how many
    numbers those write, in millions (arXiv 2003.13678, section 4, where convolutions alone are counted, and where it
    tells more of the time on GPUs than FLOPs do); an attention that is one operator is not in it.
    """

    params_m: float
    gflops: float
    activations_m: float

    @property
    def gmacs(self) -> float:
        """Multiply-accumulates in 10^9."""
        return self.gflops / 2


def count_complexity(module: nn.Module, forward: Callable, size: tuple[int, int]) -> Complexity:
    """Parameters of a module; operations and activations of ``forward`` on one image of ``size`` (height, width)."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    aten = torch.ops.aten
    counted = {aten.convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm}

    class Activations(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket in counted:
                self.total += out.numel()
            return out

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with torch.no_grad(), Activations() as activations, FlopCounterMode(display=False) as counter:
        forward(torch.zeros(1, 3, *size, device=device))
    params = sum(p.numel() for p in module.parameters())
    return Complexity(params / 1e6, counter.get_total_flops() / 1e9, activations.total / 1e6)
