"""Against timm itself: equal sizes and equal outputs with its state dicts; and any of its networks as a backbone."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from torch import nn

from efftasks.models.backbones.base import Backbone, build_backbone
from efftasks.models.backbones.hgnetv2 import HGNetV2
from efftasks.models.backbones.mobilenetv4 import MobileNetV4
from efftasks.models.backbones.timm_backbone import TimmBackbone
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec


def randomised(net: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.1, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
        for parameter in net.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


HGNETS = [pytest.param(f"b{i}", marks=[pytest.mark.slow] if i > 3 else []) for i in range(7)]


@pytest.mark.parametrize("variant", HGNETS)
def test_hgnetv2_equals_timm(timm: ModuleType, variant: str, tmp_path: Path) -> None:
    reference = randomised(timm.create_model(f"hgnetv2_{variant}", pretrained=False))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    ours = HGNetV2(variant, out_strides=(4, 8, 16, 32), weights=tmp_path / "w.pth").eval()
    check_equal(ours, reference, ("head.",), 4)


@pytest.mark.parametrize(
    ("variant", "width", "name"),
    [("conv-s", 1.0, "small"), ("conv-s", 0.5, "small_050"), ("conv-s", 0.35, "small_035"), ("conv-m", 1.0, "medium")],
)
def test_mobilenetv4_equals_timm(timm: ModuleType, variant: str, width: float, name: str, tmp_path: Path) -> None:
    reference = randomised(timm.create_model(f"mobilenetv4_conv_{name}", pretrained=False))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    ours = MobileNetV4(
        variant, out_strides=(4, 8, 16, 32), width=width, final_conv=True, weights=tmp_path / "w.pth"
    ).eval()
    check_equal(ours, reference, ("conv_head.", "norm_head.", "classifier."), 4)


def check_equal(ours: Backbone, reference: Any, head: tuple[str, ...], stages: int) -> None:
    body = sum(value.numel() for key, value in reference.named_parameters() if not key.startswith(head))
    assert sum(value.numel() for value in ours.parameters()) == body
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = reference.forward_intermediates(x, indices=stages, intermediates_only=True)
        for got, want in zip(ours(x), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kwargs", "specs"),
    [
        ("resnet18", {}, [(128, 8), (256, 16), (512, 32)]),
        ("resnet18", {"out_strides": (4, 16)}, [(64, 4), (256, 16)]),
        ("resnet18", {"out_indices": (2,)}, [(128, 8)]),
        ("mobilenetv4_conv_small", {}, [(64, 8), (96, 16), (960, 32)]),
        ("hgnetv2_b0", {}, [(256, 8), (512, 16), (1024, 32)]),
        ("starnet_s1", {"drop_path_rate": 0.1}, [(48, 8), (96, 16), (192, 32)]),
        ("repvit_m0_9", {}, [(96, 8), (192, 16), (384, 32)]),
        ("efficientnet_lite0", {}, [(40, 8), (112, 16), (320, 32)]),
    ],
)
def test_networks_of_timm(timm: ModuleType, name: str, kwargs: dict, specs: list[tuple[int, int]]) -> None:
    net = build_backbone({"type": "TimmBackbone", "name": name, **kwargs})
    assert isinstance(net, TimmBackbone)
    assert net.specs == tuple(FeatureSpec(*spec) for spec in specs)
    maps = net(torch.randn(2, 3, 96, 64))
    assert [tuple(feature.shape) for feature in maps] == [(2, c, 96 // s, 64 // s) for c, s in specs]


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv4_conv_small", "hgnetv2_b0", "convnext_atto"])
def test_weights_of_the_classifier_load(timm: ModuleType, name: str, tmp_path: Path) -> None:
    reference = randomised(timm.create_model(name, pretrained=False))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    net = TimmBackbone(name, weights=tmp_path / "w.pth").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[-1], reference.forward_features(x), rtol=1e-4, atol=1e-4)
    torch.save(net.state_dict(), tmp_path / "own.pth")
    again = TimmBackbone(name, weights=tmp_path / "own.pth").eval()
    with torch.no_grad():
        assert torch.equal(again(x)[0], net(x)[0])


def test_wrong_names_and_strides(timm: ModuleType) -> None:
    with pytest.raises(UserError, match=r"no model 'resnet_18'.*resnet18"):
        TimmBackbone("resnet_18")
    with pytest.raises(ValueError, match=r"out_strides: got \(8, 64\)"):
        TimmBackbone("resnet18", out_strides=(8, 64))
    with pytest.raises(ValueError, match="weights: got a file and pretrained=True"):
        TimmBackbone("resnet18", pretrained=True, weights="w.pth")
    with pytest.raises(ValueError, match=r"timm's levit_128s: out_strides: got \(8, 16, 32\), .* \(16, 32, 64\)"):
        TimmBackbone("levit_128s")
    with pytest.raises(UserError, match=r"does not take inputs of 256x384 .*img_size=\(height, width\)"):
        TimmBackbone("efficientformer_l1")


def test_weights_by_timms_own_loader(timm: ModuleType, tmp_path: Path) -> None:
    """The path of ``pretrained=True``, from a file instead of the net."""
    reference = randomised(timm.create_model("fastvit_t8", pretrained=False))
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    overlay = dict(file=str(tmp_path / "w.pth"))
    net = TimmBackbone("fastvit_t8.apple_in1k", pretrained=True, pretrained_cfg_overlay=overlay).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = reference.forward_intermediates(x, indices=(1, 2, 3), intermediates_only=True)
        for got, want in zip(net(x), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"could not fetch the weights of fastvit_t8.*local file"):
        TimmBackbone("fastvit_t8", pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path / "none.pth")))


def test_maps_with_channels_last_are_turned(timm: ModuleType) -> None:
    net = TimmBackbone("mambaout_femto")
    assert net.specs == (FeatureSpec(96, 8), FeatureSpec(192, 16), FeatureSpec(288, 32))
    x = torch.randn(1, 3, 64, 96)
    for got, raw in zip(net.eval()(x), net.body(x), strict=True):
        assert torch.equal(got.permute(0, 2, 3, 1), raw)


def test_networks_of_one_size_take_it_as_an_argument(timm: ModuleType) -> None:
    net = TimmBackbone("swin_tiny_patch4_window7_224", img_size=(64, 96))
    assert [(spec.channels, spec.stride) for spec in net.specs] == [(192, 8), (384, 16), (768, 32)]


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # what `import` sees of a package that is not there
    with pytest.raises(UserError, match=r'pip install "efftasks\[timm\]"'):
        TimmBackbone("resnet18")
