"""RepViT: equal to timm, gradients, fusing, sizes, export."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from torch import nn

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.repvit import VARIANTS, RepViT, StageModule, TokenMixer
from efftasks.structures.features import FeatureSpec


def counted(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# The last two have 13 and 22 million parameters.
CASES = [pytest.param(name, marks=[pytest.mark.slow] if name in ("m1_5", "m2_3") else []) for name in VARIANTS]


@pytest.mark.parametrize("variant", CASES)
def test_equals_timm(randomised: Any, check_equal: Any, timm: ModuleType, variant: str, tmp_path: Path) -> None:
    reference = randomised(timm.create_model(f"repvit_{variant}", pretrained=False))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    check_equal(RepViT(variant, out_strides=(4, 8, 16, 32), weights=tmp_path / "w.pth").eval(), reference)


def test_equals_timm_with_another_kernel(randomised: Any, check_equal: Any, timm: ModuleType, tmp_path: Path) -> None:
    reference = randomised(timm.create_model("repvit_m0_9", pretrained=False, kernel_size=5))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    ours = RepViT(out_strides=(4, 8, 16, 32), kernel_size=5, weights=tmp_path / "w.pth").eval()
    check_equal(ours, reference)


def test_own_checkpoints_load(randomised: Any, tmp_path: Path) -> None:
    net = randomised(RepViT("m0_9", depth=0.2))
    torch.save(net.state_dict(), tmp_path / "own.pth")
    again = RepViT("m0_9", depth=0.2, weights=tmp_path / "own.pth")
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_fused_equals_unfused(randomised: Any, kernel_size: int) -> None:
    net = randomised(RepViT("m0_9", depth=0.2, out_strides=(4, 8, 16, 32), kernel_size=kernel_size))
    fused = inference_model(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    assert counted(fused) < counted(net)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for expected, got in zip(net(x), fused(x), strict=True):
            scale = expected.abs().max().item()
            torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    net = RepViT("m0_9", depth=0.2).train()
    sum(feature.square().mean() for feature in net(torch.randn(2, 3, 64, 96))).backward()
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (4, 16), (8,)])
def test_maps_are_as_declared(variant: str, strides: tuple[int, ...]) -> None:
    with torch.device("meta"):  # shapes only
        net = RepViT(variant, out_strides=strides)
        maps = net(torch.zeros(2, 3, 64, 96))
    assert tuple(spec.stride for spec in net.specs) == strides
    for feature, spec in zip(maps, net.specs, strict=True):
        assert feature.shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)


def test_an_odd_size_rounds_up() -> None:
    # Every halving gives the ceiling: 97, 49, 25, 13, 7, 4 and 65, 33, 17, 9, 5, 3.
    net = RepViT("m0_9", depth=0.2, out_strides=(4, 8, 16, 32)).eval()
    with torch.no_grad():
        maps = net(torch.randn(1, 3, 97, 65))
    assert [tuple(feature.shape[2:]) for feature in maps] == [(25, 17), (13, 9), (7, 5), (4, 3)]


def test_stages_behind_the_last_stride_are_not_built() -> None:
    assert len(RepViT(out_strides=(4, 16)).stages) == 3
    assert counted(RepViT(out_strides=(8, 16))) < 0.6 * counted(RepViT())


def blocks_of(net: RepViT) -> list[int]:
    return [len(stage.blocks) for stage in net.stages if isinstance(stage, StageModule)]


def test_width_depth_and_kernel_by_hand() -> None:
    assert RepViT("m1_0").specs == (FeatureSpec(112, 8), FeatureSpec(224, 16), FeatureSpec(448, 32))
    # 112, 224, 448 by 0.55: 61.6, 123.2, 246.4 to the nearest multiple of 8.
    narrow = RepViT("m1_0", width=0.55)
    assert narrow.specs == (FeatureSpec(64, 8), FeatureSpec(120, 16), FeatureSpec(248, 32))
    assert all(part.out_channels % 8 == 0 for part in narrow.modules() if isinstance(part, nn.Conv2d))
    assert blocks_of(RepViT("m0_9")) == [2, 2, 14, 2]
    assert blocks_of(RepViT("m0_9", depth=0.5)) == [1, 1, 7, 1]
    assert blocks_of(RepViT("m0_9", depth=0.01)) == [1, 1, 1, 1]
    # m0_9: blocks and downsamplings have 2 + 2 + 14 + 2 + 3 token mixers and 3 strided depthwise convolutions.
    added = counted(RepViT("m0_9", kernel_size=5)) - counted(RepViT("m0_9"))
    mixed = 48 * 2 + 96 * 2 + 192 * 14 + 384 * 2 + 2 * (48 + 96 + 192)
    assert added == (25 - 9) * mixed


def test_every_other_block_has_squeeze_excite() -> None:
    for stage in RepViT("m1_1").stages:
        assert isinstance(stage, StageModule)
        kinds = [
            type(child).__name__ for block in stage.blocks for name, child in block.named_children() if name == "se"
        ]
        assert kinds == ["SqueezeExcite", "Identity"] * (len(kinds) // 2)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_a_fused_token_mixer_is_one_convolution(randomised: Any, kernel_size: int) -> None:
    mixer = randomised(TokenMixer(8, kernel_size))
    before = {key: value.clone() for key, value in mixer.state_dict().items()}
    fused = mixer.fold()
    assert type(fused) is nn.Conv2d
    assert fused.groups == 8 and fused.kernel_size == (kernel_size, kernel_size) and fused.bias is not None
    assert fused.weight.dtype == torch.float32
    x = torch.randn(2, 8, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), mixer(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in mixer.state_dict().items())


def test_frozen_parts_get_no_gradient() -> None:
    net = RepViT("m0_9", depth=0.2, frozen=("stem", "norms"))
    net.train()
    assert not any(parameter.requires_grad for parameter in net.stem.parameters())
    assert not any(part.training for part in net.modules() if isinstance(part, nn.BatchNorm2d))
    assert any(parameter.requires_grad for parameter in net.stages.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "x"}, r"variant: got 'x', allowed .*m0_9"),
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
        RepViT(**arguments)
