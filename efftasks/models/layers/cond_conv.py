"""A convolution whose kernel depends on the image: a mixture of the kernels of several experts.

Sources: CondConv (arXiv 1904.04971, section 3): the gates are sigmoids of a linear layer on global averages of the
input; dynamic convolution (arXiv 1912.03458, section 3): a softmax with a temperature instead. Written from the papers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.layers.conv import norm_factors

__all__ = ["CondConv2d"]


class CondConv2d(nn.Module):
    """A convolution with the kernel ``sum_e gate_e(x) * kernel_e`` for each image x.

    ``gate(x)`` is the softmax, or the sigmoid, of ``router @ mean(x) + router_bias``. The router starts at zero: all
    gates are equal then. ``bias`` is the same for all images, so that a batch norm folds into it and the experts.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: (height, width).
        stride: (rows, columns).
        padding: zeros on each side, (rows, columns).
        groups: of the convolution.
        bias: whether it has one.
        experts: number of kernels.
        temperature: of the softmax; None for the sigmoid.

    Attributes:
        weight: the kernels (experts, out_channels, in_channels / groups * height * width).
        kernel_shape: of one output channel, (in_channels / groups, height, width).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int] = (1, 1),
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        groups: int = 1,
        bias: bool = False,
        experts: int = 4,
        temperature: float | None = 1.0,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.groups = tuple(stride), tuple(padding), groups
        self.experts, self.temperature = experts, temperature
        self.kernel_shape = (in_channels // groups, *kernel_size)
        # Not in five dimensions, to which PyTorch cannot give the channels-last format of maps.
        self.weight = nn.Parameter(torch.empty(experts, out_channels, math.prod(self.kernel_shape)))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        # Not a linear layer: optimizers and compression treat those as layers that mix channels of a map.
        self.router = nn.Parameter(torch.zeros(experts, in_channels))
        self.router_bias = nn.Parameter(torch.zeros(experts))
        nn.init.normal_(self.weight, 0.0, math.sqrt(2.0 / (math.prod(kernel_size) * out_channels // groups)))
        self._exported = False

    @classmethod
    def of_conv(cls, conv: nn.Conv2d, experts: int, temperature: float | None, noise: float) -> CondConv2d:
        """Experts around the kernel of a convolution; with the equal gates of the start it computes the same.

        Args:
            conv: without dilation, padded with zeros; it is not changed.
            experts: number of kernels.
            temperature: as above.
            noise: standard deviation of the differences of the experts, relative to that of the kernel. Their mean is
                zero. Without any all experts would have the same gradient, and the router none.
        """
        kernel: Any = conv.weight.detach().flatten(1)
        new = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            experts,
            temperature,
        ).to(kernel.device, kernel.dtype)
        spread = torch.randn_like(new.weight)
        spread = (spread - spread.mean(0)) * (noise * kernel.std(unbiased=False))
        new.weight.data = (kernel + spread) / (1.0 if temperature is not None else experts / 2)  # a sigmoid of 0 is 1/2
        if new.bias is not None and conv.bias is not None:
            new.bias.data = conv.bias.detach().clone()
        return new.requires_grad_(conv.weight.requires_grad).train(conv.training)

    def gates(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> the share of each expert (B, experts)."""
        logits = F.linear(x.mean((2, 3)), self.router, self.router_bias)
        return logits.sigmoid() if self.temperature is None else (logits / self.temperature).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H', W')."""
        gates = self.gates(x)
        if not self._is_pointwise:
            return self._sum_of_experts(x, gates) if self._exported else self._grouped(x, gates)
        kernels = (gates @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])
        height, width = x.shape[2:]
        if self._exported:
            out = kernels @ x.flatten(2)
            return (out if self.bias is None else out + self.bias[:, None]).unflatten(2, (height, width))
        cells = x.permute(0, 2, 3, 1).flatten(1, 2)  # training has channels last
        out = cells @ kernels.mT
        return (out if self.bias is None else out + self.bias).unflatten(1, (height, width)).permute(0, 3, 1, 2)

    @property
    def _is_pointwise(self) -> bool:
        return self.kernel_shape[1:] == (1, 1) and self.groups == 1 and self.stride == (1, 1) and self.padding == (0, 0)

    def _grouped(self, x: Tensor, gates: Tensor) -> Tensor:
        """Images as groups of channels of one image."""
        batch = x.shape[0]
        kernels = (gates @ self.weight.flatten(1)).reshape(-1, *self.kernel_shape)
        one = x.reshape(1, -1, *x.shape[2:])
        out = F.conv2d(one, kernels, None, self.stride, self.padding, groups=batch * self.groups)
        out = out.reshape(batch, -1, *out.shape[2:])
        return out if self.bias is None else out + self.bias[:, None, None]

    def _sum_of_experts(self, x: Tensor, gates: Tensor) -> Tensor:
        """The outputs of all experts: a file has no number of groups that depends on the batch."""
        total: Any = 0 if self.bias is None else self.bias[:, None, None]
        for kernel, gate in zip(self.weight.unflatten(2, self.kernel_shape).unbind(), gates.unbind(1)):
            out = F.conv2d(x, kernel, None, self.stride, self.padding, groups=self.groups)
            total = total + out * gate[:, None, None, None]
        return total

    def use_export_form(self) -> None:
        """Compute with operators that every runtime has from now on, for any batch."""
        self._exported = True

    def fold_norm(self, norm: nn.BatchNorm2d, scale: float = 1.0, shift: float = 0.0) -> CondConv2d:
        """A new layer that equals ``scale * norm(self(x)) + shift`` with the running statistics of ``norm``."""
        gain, offset = norm_factors(norm, self.bias, scale, shift)
        new = copy.deepcopy(self)
        new.weight = nn.Parameter((self.weight.detach().double() * gain[:, None]).to(self.weight.dtype))
        new.bias = nn.Parameter(offset.to(self.weight.dtype))
        return new
