"""A model with everything that a graph of integers has, captured in a fraction of a second."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from efftasks.compression.quantization.part import quantized_parts
from efftasks.compression.quantization.quantize_aware import QuantizeAware
from efftasks.compression.transform import DecideContext
from efftasks.models.layers.conv import ConvNormAct
from efftasks.structures.features import FeatureSpec


class Maps(nn.Module):
    """Two maps of strides 2 and 4: a sum, a ReLU6 and a SiLU."""

    specs = (FeatureSpec(8, 2), FeatureSpec(8, 4))

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 8, 3, stride=2, act="relu6")
        self.same = ConvNormAct(8, 8, 3, groups=8, act=None)
        self.down = ConvNormAct(8, 8, 3, stride=2, act="silu")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.stem(images)
        fine = fine + self.same(fine)
        return fine, self.down(fine)


class Fusion(nn.Module):
    """Max pooling, upsampling, a concatenation and halves of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.merge = ConvNormAct(16, 16, 1)

    def forward(self, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        fine, coarse = maps
        coarse = functional.interpolate(self.pool(coarse), scale_factor=2.0, mode="nearest")
        one, two = self.merge(torch.cat([fine, coarse], 1)).chunk(2, dim=1)
        return one, torch.cat([two, one], 1)


class Tower(nn.Module):
    """A convolution in integers, and a prediction layer in float."""

    float_layers = ("out",)

    def __init__(self) -> None:
        super().__init__()
        self.hidden = ConvNormAct(16, 8, 3)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x))


class Toy(nn.Module):
    """Images (B, 3, H, W) -> (B, 2, H / 2, W / 2)."""

    divisor = 4
    integer_parts = ("maps", "fusion", "tower")
    float_layers = ("tower.out",)

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.fusion, self.tower = Maps(), Fusion(), Tower()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.data.normal_(std=0.2)  # type: ignore[union-attr, operator]
                module.running_var.data.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]

    def infer(self, images: Tensor) -> tuple[Tensor]:
        return (self.tower(self.fusion(self.maps(images))[1]),)

    def forward(self, images: Tensor) -> Tensor:
        return self.infer(images)[0]


def seeded(kind: type[nn.Module], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return kind()


def quantized(model: Any, **arguments: Any) -> Any:
    """After the transform, in training mode; nothing is measured yet."""
    step = QuantizeAware(**arguments)
    return step.apply(model, step.decide(model, DecideContext(has_weights=True)))


def set_phase(model: nn.Module, observe: bool, quantize: bool) -> None:
    for part in quantized_parts(model).values():
        part.set_phase(observe=observe, quantize=quantize)


def calibrated(model: Any, images: Tensor, **arguments: Any) -> Any:
    """Measured on images, rounding, in evaluation mode."""
    result = quantized(model, **arguments).train()
    set_phase(result, observe=True, quantize=False)
    with torch.no_grad():
        result(images)
    set_phase(result, observe=False, quantize=True)
    return result.eval()


class One(nn.Module):
    """One convolution and a ReLU, as the only part."""

    divisor = 1
    integer_parts = ("part",)
    float_layers = ()

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.part = nn.Sequential(OrderedDict(conv=conv, act=nn.ReLU()))

    def infer(self, images: Tensor) -> tuple[Tensor]:
        return (self.part(images),)

    def forward(self, images: Tensor) -> Tensor:
        return self.infer(images)[0]
