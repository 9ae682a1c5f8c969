"""Small networks of several widths."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import Tensor, nn

from efftasks.compression.transform import DecideContext
from efftasks.dynamic.widths.network import SlimmableNetwork
from efftasks.dynamic.widths.plans import width_plans
from efftasks.dynamic.widths.slimmable import Slimmable

WIDTHS = (1.0, 0.5, 0.25)


@pytest.fixture(scope="session")
def dense(families: ModuleType) -> Callable[..., Any]:
    """The dense model of a family, small, with statistics as after some training."""

    def built(family: str = "o2o") -> Any:
        backbone: dict[str, Any] = dict(type="MobileNetV4", variant="conv-s", width=0.5)
        if family == "fpnlite":
            backbone["out_strides"] = (8, 16, 32)
        model = families.build_family(family, backbone=backbone)
        families.randomize_norms(model)
        return model

    return built


@pytest.fixture(scope="session")
def slimmed(families: ModuleType, dense: Callable[..., Any]) -> Callable[..., Any]:
    """A family in several widths, from the model of ``dense``."""
    plans: dict[str, Any] = {}  # to decide takes most of the time

    def built(family: str = "o2o", **arguments: Any) -> Any:
        step = Slimmable(**{"widths": WIDTHS, "round_to": 4, **arguments})
        model, key = dense(family), f"{family} {arguments}"
        if key not in plans:
            plans[key] = step.decide(model, DecideContext(image_size=(families.SIDE, families.SIDE)))
        return step.apply(model, plans[key]).eval()

    return built


class Toy(nn.Module):
    """A network of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.data_preprocessor = nn.Identity()
        self.guide = None
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)

    def forward(self, inputs: Tensor, data_samples: object = None, mode: str = "tensor") -> Tensor:
        return self.last(self.norm(self.first(inputs)))


@pytest.fixture
def toy() -> Callable[..., SlimmableNetwork]:
    """Two layers in several widths."""

    def built(widths: tuple[float, ...], sampled: int | None = None) -> SlimmableNetwork:
        torch.manual_seed(0)
        model = Toy()
        plans = width_plans(model, (8, 8), widths[1:], False, 1)
        return SlimmableNetwork(model, widths, plans, {}, sampled)

    return built
