"""The networks inside a model."""

from __future__ import annotations

import efftasks.compat  # noqa: F401

# isort: split
from torch import nn

from efftasks.engine.cpu import crashes_channels_last
from efftasks.engine.wrapped import networks_of


class Several(nn.Module):
    """Two networks of one convolution; the layer that is registered is that of the larger one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(32, 8, 1, stride=2)
        self.active = 32

    def choices(self) -> tuple[int, ...]:
        return 32, 8

    def activate(self, choice: int) -> None:
        self.active = choice

    def extract(self) -> nn.Module:
        return nn.Conv2d(self.active, 8, 1, stride=2)


def test_a_model_may_be_several_networks() -> None:
    model = Several()
    assert [network.in_channels for network in networks_of(model)] == [8, 32] and model.active == 32
    assert list(networks_of(model.layer)) == [model.layer]
    # A narrower network may have a layer that crashes, though the model shows none.
    assert not crashes_channels_last(model) and any(map(crashes_channels_last, networks_of(model)))
