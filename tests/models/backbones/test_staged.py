"""A backbone in two parts gives the maps that it gives as a whole."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from efftasks.models.backbones.mobilenetv4 import MobileNetV4
from efftasks.models.backbones.staged import StagedBackbone
from efftasks.models.backbones.starnet import StarNet


def backbones() -> list[StagedBackbone]:
    torch.manual_seed(0)
    return [MobileNetV4(width=0.25, final_conv=True), MobileNetV4(width=0.25, out_strides=(8, 32)), StarNet(width=0.5)]


@pytest.mark.parametrize("net", backbones(), ids=lambda net: f"{type(net).__name__}-{len(net.out_indices)}")
@torch.no_grad()
def test_first_and_further_maps_are_all_maps(net: StagedBackbone) -> None:
    net.eval()
    images = torch.rand(2, 3, 64, 64)
    maps = net(images)
    assert [x.shape[1] for x in maps] == [spec.channels for spec in net.specs]
    for count in range(1, len(maps)):
        first = net.first_maps(images, count)
        assert len(first) == count
        assert_close((*first, *net.further_maps(first)), maps, rtol=0, atol=0)
