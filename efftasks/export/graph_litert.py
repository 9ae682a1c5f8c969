"""A model as it is exported for LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["ConvertibleCalls", "NamedChannelsLast"]


class NamedChannelsLast(nn.Module):
    """A graph whose images come with channels last, and whose outputs have names.

    Args:
        network: images (B, 3, H, W) -> tensors.
        names: of these, in order.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network  # ``graph`` is a name of torch.fx
        self.names = tuple(names)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Preprocessed images (B, H, W, 3), of whatever name -> name -> tensor."""
        (images,) = inputs.values()
        return dict(zip(self.names, self.network(images.permute(0, 3, 1, 2)), strict=True))


class ConvertibleCalls(TorchFunctionMode):
    """Calls of PyTorch as litert-torch 0.10 converts them; the numbers are the same.

    It knows a top-k by its indices: one of which only the values are used becomes an operator for sorting that the
    runtime lacks, so the values are gathered by the indices. And it fails at a split into one part.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        result = func(*args, **given)
        if func in _TOP_K:
            values = args[0] if args else given["input"]
            dim = args[2] if len(args) > 2 else given.get("dim", -1)
            return type(result)((values.gather(dim, result.indices), result.indices))
        if func in _SPLIT and len(result) == 1:
            return (args[0] if args else given["tensor"],)
        return result


_TOP_K = (torch.topk, Tensor.topk)
_SPLIT = (torch.split, Tensor.split)
