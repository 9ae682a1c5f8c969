"""RegNet: the rule by hand and against timm, the networks against timm, and the block's groups."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from torch import nn

from efftasks.models.backbones.regnet import VARIANTS, RegNet, Stage, regnet_stages
from efftasks.structures.features import FeatureSpec

LARGE = {"x_032", "x_016", "y_016", "y_032"}


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return pytest.importorskip("timm", exc_type=ImportError)


def test_the_rule_by_hand() -> None:
    # u = 24, 60, 96, 132, 168; log2(u / 24) = 0, 1.32, 2, 2.46, 2.81 -> steps 0, 1, 2, 2, 3 -> 24, 48, 96, 96, 192.
    assert regnet_stages(24, 36.0, 2.0, 5, 16) == (
        Stage(32, 1, 16),  # 24 lies between 16 and 32, of which 32 is the even multiple of 16
        Stage(48, 1, 16),
        Stage(96, 2, 16),
        Stage(192, 1, 16),
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_published_stages(timm: ModuleType, variant: str) -> None:
    """Those of timm's built networks."""
    family, number = variant.split("_")
    with torch.device("meta"):
        network: Any = timm.create_model(f"regnet{family}_{number}")
    expected = []
    for stage in (network.s1, network.s2, network.s3, network.s4):
        conv = stage.b1.conv2.conv
        expected.append(Stage(conv.out_channels, len(list(stage.children())), conv.out_channels // conv.groups))
    assert regnet_stages(*VARIANTS[variant]) == tuple(expected)


@pytest.mark.parametrize("variant", [pytest.param(v, marks=[pytest.mark.slow] if v in LARGE else []) for v in VARIANTS])
def test_equal_to_timm(timm: ModuleType, variant: str, tmp_path: Path) -> None:
    family, number = variant.split("_")
    reference: Any = timm.create_model(f"regnet{family}_{number}", pretrained=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in reference.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None and part.running_var is not None
                part.running_mean.normal_(0, 0.1, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                part.weight.fill_(1.0)  # timm's last norm of a block starts at zero
        for parameter in reference.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    reference.eval()
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    ours = RegNet(variant, out_strides=(4, 8, 16, 32), weights=tmp_path / "w.pth").eval()
    body = sum(p.numel() for key, p in reference.named_parameters() if not key.startswith("head."))
    assert sum(p.numel() for p in ours.parameters()) == body
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = reference.forward_intermediates(x, indices=4, intermediates_only=True)
        for got, want in zip(ours(x), expected, strict=True):
            scale = want.abs().max()
            torch.testing.assert_close(got / scale, want / scale, rtol=0, atol=1e-5)


def groups(net: RegNet) -> list[int]:
    return [conv.groups for conv in net.modules() if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)][1:]


def test_split_and_dense() -> None:
    split, dense, depthwise = (RegNet(group_width=g) for g in (None, 10_000, 1))
    assert set(groups(split)) == {3, 7, 19, 46}  # widths 24, 56, 152, 368 in groups of 8
    assert set(groups(dense)) == {1} and [spec.channels for spec in dense.specs] == [56, 152, 368]
    assert set(groups(depthwise)) == {24, 56, 152, 368}
    sizes = [sum(p.numel() for p in net.parameters()) for net in (depthwise, split, dense)]
    assert sizes == sorted(sizes) and sizes[2] > 3 * sizes[1]


def test_stages_by_hand() -> None:
    net = RegNet(stages=((16, 1, 8), (32, 2, 8), (64, 3, 16), (96, 1, 32)), width=1.5, depth=2)
    assert net.specs == (FeatureSpec(48, 8), FeatureSpec(96, 16), FeatureSpec(128, 32))  # 144 = 4.5 groups of 32
    assert [len(stage) for stage in net.stages] == [2, 4, 6, 2]  # type: ignore[arg-type]
    assert len(RegNet(out_strides=(4, 8)).stages) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(variant="z_040"), "variant: got 'z_040'"),
        (dict(group_width=0), "group_width: got 0"),
        (dict(stages=((8, 1, 8),)), "stages: got 1, expected 4"),
        (dict(kernel_size=2), "kernel_size: got 2"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegNet(**options)
