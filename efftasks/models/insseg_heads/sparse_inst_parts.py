"""The branches of SparseInst: instances with kernels, and the features that the kernels turn into masks.

Source: SparseInst (arXiv 2203.12827, sections 3.3 and 3.4; Group-IAM in 3.3 "instance activation maps"). As in the
neck, convolutions have batch norms where those of the authors have biases.

Legend: B images, N instances, C classes, G groups, D channels, K kernel channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.layers.prediction import outputs_of

__all__ = ["InstanceBranch", "Instances", "MaskBranch", "with_coordinates"]

PRIOR = 0.01  # probability at first, of a class and of a cell of an activation map


class Instances(NamedTuple):
    """The prediction of the instance branch."""

    logits: Tensor  # (B, N, C)
    objectness: Tensor  # (B, N, 1), logit of the IoU of its mask
    kernels: Tensor  # (B, N, K)


def with_coordinates(x: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, 2 + D, h, w): in front x and y of the cells, from -1 in the first to 1 in the last."""
    batch, _, height, width = x.shape
    across = torch.arange(width, device=x.device, dtype=torch.float32) * (2.0 / max(width - 1, 1)) - 1.0
    down = torch.arange(height, device=x.device, dtype=torch.float32) * (2.0 / max(height - 1, 1)) - 1.0
    grid = torch.stack([across[None].expand(height, width), down[:, None].expand(height, width)])
    return torch.cat([grid.to(x.dtype)[None].expand(batch, -1, -1, -1), x], dim=1)


def _stack(in_channels: int, channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ConvNormAct(channels if i else in_channels, channels, 3) for i in range(count)))


class InstanceBranch(nn.Module):
    """Convolutions, activation maps of the instances, and predictions from the features under each map.

    An instance has G activation maps, each made from its own part of the channels; the features under all of them,
    weighted averages over the cells, are concatenated.

    Args:
        in_channels: of the features.
        channels: D, of the convolutions; a multiple of ``groups``.
        num_convs: number of 3x3 convolutions.
        num_instances: N.
        num_classes: C.
        kernel_channels: K.
        groups: G.
    """

    float_parts = ("activation",)  # normalized over all cells: most of a map is nearly zero

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_convs: int,
        num_instances: int,
        num_classes: int,
        kernel_channels: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.convs = _stack(in_channels, channels, num_convs)
        self.activation = nn.Conv2d(channels, groups * num_instances, 3, padding=1, groups=groups)
        self.mix = nn.Linear(groups * channels, groups * channels)
        self.classes = nn.Linear(groups * channels, num_classes)
        self.objectness = nn.Linear(groups * channels, 1)
        self.kernels = nn.Linear(groups * channels, kernel_channels)
        for layer in (self.activation, self.classes):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, math.log(PRIOR / (1 - PRIOR)))
        nn.init.normal_(self.kernels.weight, std=0.01)
        nn.init.zeros_(self.kernels.bias)
        nn.init.kaiming_uniform_(self.mix.weight, a=1)
        nn.init.zeros_(self.mix.bias)

    def class_rows(self) -> dict[str, str]:
        """See :class:`~efftasks.structures.protocols.HasClassRows`."""
        return dict.fromkeys(outputs_of(self.classes, "classes"), "classes")

    def forward(self, x: Tensor) -> Instances:
        """Features (B, in_channels, h, w) -> predictions of the N instances."""
        x = self.convs(x)
        maps = self.activation(x).sigmoid().flatten(2)  # (B, G * N, h * w), group by group
        maps = maps / maps.sum(2, keepdim=True).clamp(min=1e-6)
        features = maps @ x.flatten(2).transpose(1, 2)
        features = features.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(2)  # (B, N, G * D)
        features = self.mix(features).relu()
        return Instances(self.classes(features), self.objectness(features), self.kernels(features))


class MaskBranch(nn.Module):
    """Convolutions and a 1x1 to the channels of the kernels.

    Args:
        in_channels: of the features.
        channels: of the convolutions.
        num_convs: number of 3x3 convolutions.
        kernel_channels: K.
    """

    def __init__(self, in_channels: int, channels: int, num_convs: int, kernel_channels: int) -> None:
        super().__init__()
        self.convs = _stack(in_channels, channels, num_convs)
        self.projection = nn.Conv2d(channels, kernel_channels, 1)
        nn.init.kaiming_normal_(self.projection.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, in_channels, h, w) -> (B, K, h, w)."""
        return self.projection(self.convs(x))
