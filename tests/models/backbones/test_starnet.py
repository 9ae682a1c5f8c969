"""StarNet: equal to timm, gradients, fusing, sizes, export."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from torch import nn

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.starnet import VARIANTS, StarBlock, StarNet
from efftasks.structures.features import FeatureSpec


def counted(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("variant", VARIANTS)  # the largest has 7 million parameters
def test_equals_timm(randomised: Any, check_equal: Any, timm: ModuleType, variant: str, tmp_path: Path) -> None:
    reference = randomised(timm.create_model(f"starnet_{variant}", pretrained=False))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    check_equal(
        StarNet(variant, out_strides=(4, 8, 16, 32), weights=tmp_path / "w.pth").eval(), reference, ("norm.", "head.")
    )


def test_own_checkpoints_load(randomised: Any, tmp_path: Path) -> None:
    net = randomised(StarNet("s050"))
    torch.save(net.state_dict(), tmp_path / "own.pth")
    again = StarNet("s050", weights=tmp_path / "own.pth")
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("kernel_size", [5, 7])
def test_fused_equals_unfused(randomised: Any, kernel_size: int) -> None:
    net = randomised(StarNet("s050", out_strides=(4, 8, 16, 32), kernel_size=kernel_size))
    fused = inference_model(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    assert counted(fused) < counted(net)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for expected, got in zip(net(x), fused(x), strict=True):
            scale = expected.abs().max().item()
            torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    net = StarNet("s050").train()
    sum(feature.square().mean() for feature in net(torch.randn(2, 3, 64, 96))).backward()
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (4, 16), (8,)])
def test_maps_are_as_declared(variant: str, strides: tuple[int, ...]) -> None:
    with torch.device("meta"):  # shapes only
        net = StarNet(variant, out_strides=strides)
        maps = net(torch.zeros(2, 3, 64, 96))
    assert tuple(spec.stride for spec in net.specs) == strides
    for feature, spec in zip(maps, net.specs, strict=True):
        assert feature.shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)


def test_an_odd_size_rounds_up() -> None:
    # Every halving gives the ceiling: 97, 49, 25, 13, 7, 4 and 65, 33, 17, 9, 5, 3.
    net = StarNet("s050", out_strides=(4, 8, 16, 32)).eval()
    with torch.no_grad():
        maps = net(torch.randn(1, 3, 97, 65))
    assert [tuple(feature.shape[2:]) for feature in maps] == [(25, 17), (13, 9), (7, 5), (4, 3)]


def test_stages_behind_the_last_stride_are_not_built() -> None:
    assert len(StarNet(out_strides=(4, 16)).stages) == 3
    assert counted(StarNet(out_strides=(8, 16))) < 0.5 * counted(StarNet())


def blocks_of(net: StarNet) -> list[int]:
    return [sum(isinstance(part, StarBlock) for part in stage.children()) for stage in net.stages]


def test_width_depth_and_kernel_by_hand() -> None:
    assert StarNet("s100").specs == (FeatureSpec(40, 8), FeatureSpec(80, 16), FeatureSpec(160, 32))
    # 40, 80, 160 by 0.7: 28, 56, 112 to the nearest multiple of 8, a half up.
    narrow = StarNet("s100", width=0.7)
    assert narrow.specs == (FeatureSpec(32, 8), FeatureSpec(56, 16), FeatureSpec(112, 32))
    assert all(part.out_channels % 8 == 0 for part in narrow.modules() if isinstance(part, nn.Conv2d))
    assert blocks_of(StarNet("s1")) == [2, 2, 8, 3]
    assert blocks_of(StarNet("s1", depth=0.5)) == [1, 1, 4, 2]
    assert blocks_of(StarNet("s1", depth=0.01)) == [1, 1, 1, 1]
    # s050: blocks 1, 1, 3, 1 of 16, 32, 64, 128 channels with two depthwise convolutions each.
    removed = counted(StarNet("s050")) - counted(StarNet("s050", kernel_size=5))
    assert removed == 2 * (49 - 25) * (16 + 32 + 3 * 64 + 128)


def test_branches_are_multiplied_by_hand() -> None:
    block = StarBlock(1, 1, 1).eval()
    with torch.no_grad():
        for conv, weight, bias in [
            (block.dwconv.conv, 2.0, 0.0),
            (block.f1, 1.0, 1.0),
            (block.f2, 0.5, 0.0),
            (block.g.conv, 1.0, 0.0),
            (block.dwconv2, 3.0, 0.25),
        ]:
            conv.weight.fill_(weight)
            assert conv.bias is not None
            conv.bias.fill_(bias)
        for part in (block.dwconv.norm, block.g.norm):
            part.eps = 0.0
        # x = 1: 2; relu6(3) * 1 = 3; 3 * 3 + 0.25 + 1. x = 4: 8; relu6(9) * 4 = 24; 24 * 3 + 0.25 + 4.
        got = block(torch.tensor([1.0, 4.0]).view(2, 1, 1, 1)).flatten()
    torch.testing.assert_close(got, torch.tensor([10.25, 76.25]))


def test_frozen_parts_get_no_gradient() -> None:
    net = StarNet("s050", frozen=("stem", "norms"))
    net.train()
    assert not any(parameter.requires_grad for parameter in net.stem.parameters())
    assert not any(part.training for part in net.modules() if isinstance(part, nn.BatchNorm2d))
    assert any(parameter.requires_grad for parameter in net.stages.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "x"}, r"variant: got 'x', allowed .*s050"),
        ({"width": 0}, r"width: got 0, allowed"),
        ({"depth": -1.0}, r"depth: got -1\.0, allowed"),
        ({"kernel_size": 4}, r"kernel_size: got 4, allowed an odd"),
        ({"kernel_size": -3}, r"kernel_size: got -3, allowed an odd"),
        ({"out_strides": (2, 4)}, r"out_strides: got \(2, 4\), allowed .*\(4, 8, 16, 32\)"),
        ({"out_strides": ()}, r"out_strides: got \(\), allowed"),
        ({"frozen": ("neck",)}, r"frozen: got 'neck'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StarNet(**arguments)
