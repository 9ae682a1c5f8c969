"""Convolution, batch norm, activation, and the folding of norms into convolutions."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from efftasks.structures.protocols import FoldsNorm

__all__ = [
    "ConvNormAct",
    "DepthwiseConv2d",
    "NormAct",
    "build_activation",
    "fold_norm",
    "fold_norm_last",
    "norm_factors",
    "split_inputs",
    "split_outputs",
]

_ACTIVATIONS = ("relu", "relu6", "hardswish", "silu", "gelu", None)


def build_activation(name: str | None, inplace: bool = True) -> nn.Module:
    """A new activation module; None gives the identity.

    Working in place is safe after a batch norm, which does not need its own output for the gradient.

    Raises:
        ValueError: ``name`` is not one of relu, relu6, hardswish, silu, gelu, None.
    """
    if name == "relu":
        return nn.ReLU(inplace=inplace)
    if name == "relu6":
        return nn.ReLU6(inplace=inplace)
    if name == "hardswish":
        return nn.Hardswish()
    if name == "silu":
        return nn.SiLU(inplace=inplace)
    if name == "gelu":
        return nn.GELU()
    if name is None:
        return nn.Identity()
    raise ValueError(f"act: got {name!r}, allowed {_ACTIVATIONS}")


def norm_factors(
    norm: nn.BatchNorm2d, bias: Tensor | None, scale: float = 1.0, shift: float = 0.0
) -> tuple[Tensor, Tensor]:
    """What folding ``scale * norm(conv(x)) + shift`` makes of a convolution: a factor on its kernels, and its new bias.

    Computed in float64, so that folding itself adds no error beyond the rounding of the result.

    Args:
        norm: its running statistics count.
        bias: of the convolution (out_channels,).
        scale: of the norm's output.
        shift: of the norm's output.

    Returns:
        Both (out_channels,), float64.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("norm: got a batch norm without running statistics, expected one with them")
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    center = norm.running_mean.double()
    if bias is not None:
        center = center - bias.detach().double()
    offset = torch.zeros_like(gain)
    if norm.affine:
        gain = gain * norm.weight.detach().double()
        offset = norm.bias.detach().double()
    return scale * gain, scale * (offset - center * gain) + shift


def fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, scale: float = 1.0, shift: float = 0.0) -> nn.Conv2d:
    """A new convolution that equals ``scale * norm(conv(x)) + shift`` with the running statistics of ``norm``."""
    gain, offset = norm_factors(norm, conv.bias, scale, shift)
    weight, dtype = conv.weight.detach(), conv.weight.dtype
    return _with_weight(conv, (weight.double() * gain.view(-1, 1, 1, 1)).to(dtype), offset.to(dtype))


def fold_norm_last(layer: nn.Module, norm: nn.BatchNorm2d, scale: float = 1.0, shift: float = 0.0) -> nn.Module:
    """As :func:`fold_norm`, for a convolution, a layer in its place, or a sequence of these, whose last gets the norm.

    A low-rank convolution is a sequence of two.
    """
    if isinstance(layer, nn.Sequential):
        *before, (name, last) = layer.named_children()
        parts = [(key, copy.deepcopy(part)) for key, part in before]
        return nn.Sequential(OrderedDict([*parts, (name, fold_norm_last(last, norm, scale, shift))]))
    if isinstance(layer, FoldsNorm):
        return layer.fold_norm(norm, scale, shift)
    assert isinstance(layer, nn.Conv2d)
    return fold_norm(layer, norm, scale, shift)


def split_inputs(conv: nn.Conv2d, widths: Sequence[int]) -> list[nn.Conv2d]:
    """Convolutions of parts of the input channels whose sum equals ``conv``; the first has the bias."""
    weights = conv.weight.detach().split(list(widths), dim=1)
    return [_with_weight(conv, weight, conv.bias if i == 0 else None) for i, weight in enumerate(weights)]


def split_outputs(conv: nn.Conv2d, count: int) -> list[nn.Conv2d]:
    """``count`` convolutions, each of an equal part of the output channels of ``conv``."""
    biases = [None] * count if conv.bias is None else conv.bias.chunk(count)
    return [_with_weight(conv, weight, bias) for weight, bias in zip(conv.weight.detach().chunk(count), biases)]


def _with_weight(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A new convolution like ``conv``, but for its weight and bias."""
    new = nn.Conv2d(
        weight.shape[1] * conv.groups,
        weight.shape[0],
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        groups=conv.groups,
        bias=bias is not None,
        padding_mode=conv.padding_mode,
        device=weight.device,
        dtype=weight.dtype,
    )
    new.weight.data = weight.clone()
    if new.bias is not None and bias is not None:
        new.bias.data = bias.detach().clone()
    return new


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that trains in float32 where half precision is slower.

    On a CPU the backward pass of a depthwise convolution in bfloat16 is several times slower than in float32 once it
    is strided or wider than 3x3 (oneDNN has no direct kernel for it): 25 to 48 ms against 2 to 5 ms for 192 to 256
    channels at 40 px and batch 8, on 2 cores. Such a layer disables autocast in training on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride)."""
        costly = self.stride[0] > 1 or self.kernel_size[0] > 3
        if costly and self.training and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class ConvNormAct(nn.Module):
    """Convolution, batch norm, activation.

    With the default padding an odd kernel keeps the size at stride 1, and halves an even size at stride 2.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel.
        stride: stride in both directions.
        groups: groups of the convolution; ``in_channels`` for a depthwise one.
        act: see :func:`build_activation`.
        padding: zeros on each side; None for ``(kernel_size - 1) // 2``.
        bias: of the convolution, initially 0. It is redundant before a norm, but some published weights have it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        act: str | None = "relu",
        padding: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if padding is None:
            padding = (kernel_size - 1) // 2
        depthwise = groups == in_channels == out_channels > 1
        layer = DepthwiseConv2d if depthwise else nn.Conv2d
        self.conv = layer(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        if bias:
            self.conv.bias = nn.Parameter(self.conv.weight.new_zeros(out_channels))
        self.norm = nn.BatchNorm2d(out_channels)
        self.act_name = act
        self.act = build_activation(act)
        # He et al., arXiv 1502.01852, in the fan-out form; the fan of a depthwise kernel is that of its group.
        fan_out = kernel_size * kernel_size * out_channels // groups
        nn.init.normal_(self.conv.weight, 0.0, math.sqrt(2.0 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return self.act(self.norm(self.conv(x)))

    def fold(self) -> nn.Module:
        """One convolution with bias (``conv``) and the activation (``act``), equal in evaluation mode."""
        act = build_activation(
            self.act_name, inplace=False
        )  # an observer of quantization may hold the convolution's output
        return nn.Sequential(OrderedDict(conv=fold_norm_last(self.conv, self.norm), act=act)).eval()


class NormAct(nn.Module):
    """Batch norm and activation that do not follow a convolution.

    Args:
        channels: of input and output.
        act: see :func:`build_activation`.
        eps: of the norm.
    """

    def __init__(self, channels: int, act: str | None = "relu", eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps)
        self.act_name = act
        self.act = build_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        return self.act(self.norm(x))

    def fold(self) -> nn.Module:
        """A 1x1 depthwise convolution with the scale and shift of the norm, and the activation."""
        channels = self.norm.num_features
        device, dtype = self.norm.weight.device, self.norm.weight.dtype
        same = nn.Conv2d(channels, channels, 1, groups=channels, bias=False, device=device, dtype=dtype)
        nn.init.ones_(same.weight)
        act = build_activation(self.act_name, inplace=False)  # an observer of quantization may hold the input
        return nn.Sequential(OrderedDict(conv=fold_norm(same, self.norm), act=act)).eval()
