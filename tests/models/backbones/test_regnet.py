"""RegNet: the width rule, equal to timm, groups, gradients, fusing, sizes, export."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from torch import nn

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.regnet import VARIANTS, Bottleneck, RegNet, Stage, regnet_stages
from efftasks.structures.features import FeatureSpec

TINY = ((16, 1, 8), (32, 2, 8), (48, 1, 16), (64, 1, 64))


def counted(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def blocks_of(net: RegNet) -> list[list[Bottleneck]]:
    return [[block for block in stage.modules() if isinstance(block, Bottleneck)] for stage in net.stages]


def built(net: RegNet) -> list[Stage]:
    """The stages as the convolutions have them, read from the last block of each."""
    convs = [blocks[-1].conv2.conv for blocks in blocks_of(net)]
    return [
        Stage(conv.out_channels, len(blocks), conv.in_channels // conv.groups)
        for conv, blocks in zip(convs, blocks_of(net))
    ]


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        # Linear 8, 16, 24, 32; their powers of 2 over 8 are 0, 1, 1.58, 2, so that the third block joins the fourth.
        ((8, 8, 2, 4, 8), [(8, 1, 8), (16, 1, 8), (32, 2, 8)]),
        # 8 is a single group; 16 / 12 = 1.33 and 32 / 12 = 2.67 groups become 1 and 3.
        ((8, 8, 2, 4, 12), [(8, 1, 8), (12, 1, 12), (36, 2, 12)]),
        # Linear 4, 10, 16; powers of 1.5 are 0, 2.26, 3.42; 4 * 1.5**2 = 9 and 4 * 1.5**3 = 13.5 by 4 are 2.25, 3.38.
        ((4, 6, 1.5, 3, 4, 4), [(4, 1, 4), (8, 1, 4), (12, 1, 4)]),
        ((16, 0, 2, 5, 8), [(16, 5, 8)]),
        # The paper's X-200MF, X-400MF, X-3.2GF and Y-400MF.
        ((24, 36.44, 2.49, 13, 8), [(24, 1, 8), (56, 1, 8), (152, 4, 8), (368, 7, 8)]),
        ((24, 24.48, 2.54, 22, 16), [(32, 1, 16), (64, 2, 16), (160, 7, 16), (384, 12, 16)]),
        ((88, 26.31, 2.25, 25, 48), [(96, 2, 48), (192, 6, 48), (432, 15, 48), (1008, 2, 48)]),
        ((48, 27.89, 2.09, 16, 8), [(48, 1, 8), (104, 3, 8), (208, 6, 8), (440, 6, 8)]),
    ],
)
def test_stages_by_hand(arguments: tuple[Any, ...], stages: list[tuple[int, int, int]]) -> None:
    assert regnet_stages(*arguments) == tuple(Stage(*stage) for stage in stages)


def test_stages_equal_timms(timm: ModuleType) -> None:
    from timm.models import regnet as theirs

    names = [name for name in theirs.model_cfgs if name.startswith(("regnetx_", "regnety_"))]
    assert len(names) >= 24
    for name in names:
        cfg = theirs.model_cfgs[name]
        each, count, groups = theirs.generate_regnet(cfg.wa, cfg.w0, cfg.wm, cfg.depth, cfg.group_size)
        blocks = Counter(each)
        widths, groups = theirs.adjust_widths_groups_comp(sorted(blocks), [1.0] * count, groups)
        expected = [Stage(*row) for row in zip(widths, (blocks[width] for width in sorted(blocks)), groups)]
        assert list(regnet_stages(cfg.w0, cfg.wa, cfg.wm, cfg.depth, cfg.group_size)) == expected, name


def test_the_table_equals_timms(timm: ModuleType) -> None:
    from timm.models import regnet as theirs

    for name, variant in VARIANTS.items():
        cfg = theirs.model_cfgs[f"regnet{name}"]
        assert variant == (cfg.w0, cfg.wa, cfg.wm, cfg.depth, cfg.group_size, cfg.se_ratio)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width_start": 0}, "width_start: got 0, allowed positive multiples of 8"),
        ({"width_start": 20}, "width_start: got 20, allowed positive multiples of 8"),
        ({"width_slope": -1.0}, r"width_slope: got -1\.0, allowed"),
        ({"width_factor": 1.0}, r"width_factor: got 1\.0, allowed"),
        ({"depth": 0}, "depth: got 0, allowed"),
        ({"group_width": 0}, "group_width: got 0, allowed"),
        ({"quantum": 0}, "quantum: got 0, allowed"),
    ],
)
def test_wrong_arguments_of_the_rule(arguments: dict[str, Any], message: str) -> None:
    right = dict(width_start=8, width_slope=8.0, width_factor=2.0, depth=4, group_width=8)
    with pytest.raises(ValueError, match=message):
        regnet_stages(**{**right, **arguments})


# These have 14.3, 10.3 and 17.9 million parameters.
SLOW = ("x_032", "y_016", "y_032")
CASES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in VARIANTS]


@pytest.mark.parametrize("variant", CASES)
def test_equals_timm(randomised: Any, timm: ModuleType, variant: str, tmp_path: Path) -> None:
    reference = randomised(timm.create_model(f"regnet{variant}", pretrained=False))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    ours = RegNet(variant, out_strides=(4, 8, 16, 32), weights=tmp_path / "w.pth").eval()
    body = sum(value.numel() for key, value in reference.named_parameters() if not key.startswith("head."))
    assert counted(ours) == body
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = reference.forward_intermediates(x, indices=4, intermediates_only=True)
        for got, want in zip(ours(x), expected, strict=True):
            assert want.std() > 0.01  # or anything would be equal
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_own_checkpoints_load(randomised: Any, tmp_path: Path) -> None:
    net = randomised(RegNet("y_002", depth=0.2))
    torch.save(net.state_dict(), tmp_path / "own.pth")
    again = RegNet("y_002", depth=0.2, weights=tmp_path / "own.pth")
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize(
    "arguments",
    [
        {"variant": "x_002"},
        {"variant": "y_002"},
        {"stages": TINY, "kernel_size": 5, "se_ratio": 0.5},
        {"stages": TINY, "group_width": 1},
        {"stages": TINY, "group_width": 64},
    ],
)
def test_fused_equals_unfused(randomised: Any, arguments: dict[str, Any]) -> None:
    net = randomised(RegNet(out_strides=(4, 8, 16, 32), **arguments))
    fused = inference_model(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    assert counted(fused) < counted(net)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for expected, got in zip(net(x), fused(x), strict=True):
            scale = expected.abs().max().item()
            torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", ["x_002", "y_002"])
def test_every_parameter_gets_a_gradient(variant: str) -> None:
    net = RegNet(variant).train()
    with torch.no_grad():  # a fresh block's last scale is zero, which hides what lies before it
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.0)
    # Random weights: a norm makes the mean square of a channel the same whatever lies before it.
    sum((feature * torch.randn_like(feature)).sum() for feature in net(torch.randn(2, 3, 64, 96))).backward()
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, key


def test_training_starts_at_the_shortcuts() -> None:
    block = Bottleneck(16, 16, 1, 8, 3, 0.25).eval()
    x = torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        assert torch.equal(block(x), x)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (4, 16), (8,)])
def test_maps_are_as_declared(variant: str, strides: tuple[int, ...]) -> None:
    with torch.device("meta"):  # shapes only
        net = RegNet(variant, out_strides=strides)
        maps = net(torch.zeros(2, 3, 64, 96))
    assert tuple(spec.stride for spec in net.specs) == strides
    for feature, spec in zip(maps, net.specs, strict=True):
        assert feature.shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_an_odd_size_rounds_up(kernel_size: int) -> None:
    # Every halving gives the ceiling: 97, 49, 25, 13, 7, 4 and 65, 33, 17, 9, 5, 3.
    net = RegNet(stages=TINY, out_strides=(4, 8, 16, 32), kernel_size=kernel_size, se_ratio=0.25).eval()
    with torch.no_grad():
        maps = net(torch.randn(1, 3, 97, 65))
    assert [tuple(feature.shape[2:]) for feature in maps] == [(25, 17), (13, 9), (7, 5), (4, 3)]


def test_stages_behind_the_last_stride_are_not_built() -> None:
    assert len(RegNet(stages=TINY, out_strides=(4, 16)).stages) == 3
    assert counted(RegNet("x_002", out_strides=(8, 16))) < 0.5 * counted(RegNet("x_002"))


def test_stages_of_ones_own() -> None:
    net = RegNet(stages=TINY)
    assert built(net) == list(TINY)
    assert net.specs == (FeatureSpec(32, 8), FeatureSpec(48, 16), FeatureSpec(64, 32))
    assert built(RegNet(stages=[list(row) for row in TINY])) == list(TINY)  # as a config has them
    # A group width above the width is a single group.
    assert built(RegNet(stages=((20, 1, 64), (24, 1, 8)), out_strides=(8,))) == [(20, 1, 20), (24, 1, 8)]
    table = regnet_stages(24, 36.44, 2.49, 13, 8)
    with torch.device("meta"):
        assert built(RegNet(stages=table)) == built(RegNet("x_002")) == list(table)
        assert built(RegNet()) == built(RegNet("x_002"))


def test_width_by_hand() -> None:
    with torch.device("meta"):
        # 24, 56, 152, 368 by 0.75: 18, 42, 114, 276, which are 2.25, 5.25, 14.25, 34.5 groups of 8.
        assert [stage.width for stage in built(RegNet("x_002", width=0.75))] == [16, 40, 112, 272]
        # 48, 96, 240, 528 by 0.4: 19.2 is less than a group of 24, so 16 in one; 38.4, 96, 211.2 are 1.6, 4, 8.8.
        assert built(RegNet("x_006", width=0.4)) == [(16, 1, 16), (48, 3, 24), (96, 5, 24), (216, 7, 24)]
        assert [stage.width for stage in built(RegNet("x_002", width=2.0))] == [48, 112, 304, 736]
        assert [stage.width for stage in built(RegNet("x_002", width=0.01))] == [8, 8, 8, 8]
        assert RegNet("x_002", width=0.01).stem.conv.out_channels == 32


def test_depth_by_hand() -> None:
    with torch.device("meta"):
        assert [stage.blocks for stage in built(RegNet("x_002"))] == [1, 1, 4, 7]
        assert [stage.blocks for stage in built(RegNet("x_002", depth=0.4))] == [1, 1, 2, 3]  # 0.4, 0.4, 1.6, 2.8
        assert [stage.blocks for stage in built(RegNet("x_002", depth=2.0))] == [2, 2, 8, 14]
        assert [stage.blocks for stage in built(RegNet("x_002", depth=0.01))] == [1, 1, 1, 1]


def test_kernel_by_hand() -> None:
    added = counted(RegNet(stages=TINY, kernel_size=5)) - counted(RegNet(stages=TINY))
    assert added == (25 - 9) * sum(width * group_width * blocks for width, blocks, group_width in TINY)


def test_group_width_by_hand() -> None:
    with torch.device("meta"):
        # 24, 56, 152, 368 are 1.5, 3.5, 9.5, 23 groups of 16; ties go to even.
        assert built(RegNet("x_002", group_width=16)) == [(32, 1, 16), (64, 1, 16), (160, 4, 16), (368, 7, 16)]
        depthwise = RegNet("x_002", group_width=1)
        assert built(depthwise) == [(24, 1, 1), (56, 1, 1), (152, 4, 1), (368, 7, 1)]
        dense = RegNet("x_002", group_width=368)
        assert built(dense) == [(24, 1, 24), (56, 1, 56), (152, 4, 152), (368, 7, 368)]
        assert all(block.conv2.conv.groups == 1 for blocks in blocks_of(dense) for block in blocks)
        # Of the grouped convolutions alone: 9 weights for each channel and each channel of its group.
        assert counted(dense) - counted(depthwise) == 9 * sum(
            width * (width - 1) * blocks for width, blocks, _ in built(dense)
        )
        assert {stage.width % 8 for stage in built(RegNet("x_002", group_width=368, width=0.55))} == {0}


def test_split_transform_merge_is_a_sum_of_paths(randomised: Any) -> None:
    """ResNeXt's equivalence: what follows from each group by itself, added, is the block's branch."""
    block = randomised(Bottleneck(16, 16, 1, 4, 3, 0.0))
    fused: Any = inference_model(block)
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        total = fused.conv3.conv.bias.view(1, -1, 1, 1) + x
        for i in range(4):
            part = slice(4 * i, 4 * i + 4)
            down = torch.relu(nn.functional.conv2d(x, fused.conv1.conv.weight[part], fused.conv1.conv.bias[part]))
            weight, bias = fused.conv2.conv.weight[part], fused.conv2.conv.bias[part]
            mixed = torch.relu(nn.functional.conv2d(down, weight, bias, padding=1))
            total = total + nn.functional.conv2d(mixed, fused.conv3.conv.weight[:, part])
        torch.testing.assert_close(torch.relu(total), block(x), rtol=1e-5, atol=1e-5)


def squeezed(net: RegNet) -> list[int]:
    """Hidden units of squeeze-excite, block by block."""
    return [part.out_channels for name, part in net.named_modules() if isinstance(part, nn.Conv2d) and "fc1" in name]


def test_squeeze_excite_by_hand() -> None:
    with torch.device("meta"):
        # A quarter of what goes into a block: the stem's 32, then 24, 56, 152 (3 more blocks of it), 368.
        assert squeezed(RegNet("y_002")) == [8, 6, 14, *[38] * 3, 38, *[92] * 6]
        assert squeezed(RegNet("y_002", se_ratio=0)) == squeezed(RegNet("x_002")) == squeezed(RegNet(stages=TINY)) == []
        assert squeezed(RegNet(stages=TINY, se_ratio=0.5)) == [16, 8, 16, 16, 24]
        assert counted(RegNet("y_002", se_ratio=0)) == counted(RegNet("x_002"))


def test_frozen_parts_get_no_gradient() -> None:
    net = RegNet(stages=TINY, frozen=("stem", "norms"))
    net.train()
    assert not any(parameter.requires_grad for parameter in net.stem.parameters())
    assert not any(part.training for part in net.modules() if isinstance(part, nn.BatchNorm2d))
    assert any(parameter.requires_grad for parameter in net.stages.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "z_040"}, r"variant: got 'z_040', allowed .*x_002.*y_032"),
        ({"variant": "x_002", "stages": TINY}, r"stages: got .* beside the variant 'x_002', allowed one of the two"),
        ({"stages": ()}, r"stages: got \(\), allowed 1 to 4 of \(width, blocks, group width\)"),
        ({"stages": TINY + TINY[:1]}, r"stages: got .* allowed 1 to 4"),
        ({"stages": ((16, 1),)}, r"stages: got \(\(16, 1\),\), allowed 1 to 4"),
        ({"stages": ((16, 0, 8),)}, r"stages: got .* all positive"),
        ({"stages": ((20, 1, 8),), "out_strides": (4,)}, r"stages: got Stage\(width=20.*allowed .* multiple"),
        ({"stages": TINY[:2]}, r"out_strides: got \(8, 16, 32\), allowed .*\(4, 8\)"),
        ({"width": 0}, r"width: got 0, allowed"),
        ({"depth": -1.0}, r"depth: got -1\.0, allowed"),
        ({"group_width": 0}, r"group_width: got 0, allowed"),
        ({"kernel_size": 4}, r"kernel_size: got 4, allowed"),
        ({"kernel_size": -3}, r"kernel_size: got -3, allowed"),
        ({"se_ratio": -0.1}, r"se_ratio: got -0\.1, allowed 0 to 1"),
        ({"out_strides": (2, 4)}, r"out_strides: got \(2, 4\), allowed .*\(4, 8, 16, 32\)"),
        ({"out_strides": ()}, r"out_strides: got \(\), allowed"),
        ({"frozen": ("neck",)}, r"frozen: got 'neck'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegNet(**arguments)
