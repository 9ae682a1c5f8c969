"""The native networks: declared shapes, published sizes, gradients, fusing, export."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.base import Backbone
from efftasks.models.backbones.hgnetv2 import VARIANTS as HGNET
from efftasks.models.backbones.hgnetv2 import HGNetV2
from efftasks.models.backbones.mobilenetv4 import VARIANTS as MOBILENET
from efftasks.models.backbones.mobilenetv4 import MobileNetV4, UniversalInvertedBottleneck, round_channels
from efftasks.models.backbones.resnet_vd import ResNetVD

SMALL: dict[str, Callable[[], Backbone]] = {
    "hgnetv2-b0": lambda: HGNetV2("b0"),
    "hgnetv2-b0-plain": lambda: HGNetV2("b0", affine=False),
    "hgnetv2-atto": lambda: HGNetV2("atto", out_strides=(16,)),
    "resnet-vd-18": lambda: ResNetVD(18),
    "resnet-vd-50": lambda: ResNetVD(50, out_strides=(16,)),
    "mobilenetv4-s": lambda: MobileNetV4("conv-s"),
    "mobilenetv4-m": lambda: MobileNetV4("conv-m", final_conv=True),
}


def counted(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trained(build: Callable[[], Backbone]) -> Backbone:
    torch.manual_seed(0)
    net = build().train()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if ".lab." in name:  # both signs of the scale
                parameter.add_(torch.randn_like(parameter))
        for _ in range(2):
            net(torch.randn(2, 3, 64, 64))
    return net


def strides_of(variant: str) -> tuple[int, ...]:
    return tuple(4 * 2**i for i in range(len(HGNET[variant].stages)))


CASES: list[tuple[type[Backbone], str, tuple[int, ...]]] = [
    (HGNetV2, variant, strides_of(variant)) for variant in HGNET
]
CASES += [(MobileNetV4, variant, (4, 8, 16, 32)) for variant in MOBILENET]


@pytest.mark.parametrize(("kind", "variant", "strides"), CASES)
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_maps_are_as_declared(kind: type[Backbone], variant: str, strides: tuple[int, ...], width: float) -> None:
    for selected in (strides, strides[1:], strides[:1], strides[::2]):
        with torch.device("meta"):  # shapes only: the largest has 69 M parameters
            net = kind(variant=variant, out_strides=selected, width=width)
            maps = net(torch.zeros(2, 3, 4 * net.divisor, 3 * net.divisor))
        assert tuple(spec.stride for spec in net.specs) == selected
        assert net.divisor == selected[-1]
        assert isinstance(maps, tuple)
        for feature, spec in zip(maps, net.specs, strict=True):
            side = net.divisor // spec.stride
            assert feature.shape == (2, spec.channels, 4 * side, 3 * side)


# Parameters of timm 1.0.31's hgnetv2_* and mobilenetv4_conv_* without head, conv_head and classifier.
PUBLISHED = {
    "b0": 1850396,
    "b1": 2197004,
    "b2": 6026626,
    "b3": 10048910,
    "b4": 13553376,
    "b5": 33325760,
    "b6": 69013472,
}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_hgnetv2_has_the_published_size(variant: str) -> None:
    with torch.device("meta"):
        assert counted(HGNetV2(variant)) == PUBLISHED[variant]


@pytest.mark.parametrize(
    ("variant", "width", "parameters"),
    [("conv-s", 1.0, 1261664), ("conv-s", 0.5, 340992), ("conv-s", 0.35, 191744), ("conv-m", 1.0, 7203152)],
)
def test_mobilenetv4_has_the_published_size(variant: str, width: float, parameters: int) -> None:
    with torch.device("meta"):
        assert counted(MobileNetV4(variant, width=width, final_conv=True)) == parameters


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    net = SMALL[name]()
    sum(feature.square().mean() for feature in net(torch.randn(2, 3, 64, 64))).backward()
    missing = [key for key, parameter in net.named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", SMALL)
def test_fused_equals_unfused(name: str) -> None:
    net = trained(SMALL[name]).eval()
    fused = inference_model(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for expected, got in zip(net(x), fused(x), strict=True):
            scale = expected.abs().max().item()
            torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-5)


def test_fused_hgnetv2_is_convolutions_and_bounds_only() -> None:
    kinds = {type(part).__name__ for part in inference_model(HGNetV2("b0")).modules() if not list(part.children())}
    assert kinds == {"Conv2d", "Clamp", "ReLU", "Identity", "MaxPool2d"}


@pytest.mark.parametrize("name", ["hgnetv2-b0", "mobilenetv4-s"])
@pytest.mark.parametrize("fused", [False, True])
def test_exports_with_a_dynamic_batch(name: str, fused: bool) -> None:
    net = trained(SMALL[name]).eval()
    module = inference_model(net) if fused else net
    dynamic = {"x": {0: torch.export.Dim("batch", min=1, max=8)}}
    program = torch.export.export(module, (torch.randn(2, 3, 64, 64),), dynamic_shapes=dynamic).module()
    x = torch.randn(3, 3, 64, 64)
    for expected, got in zip(module(x), program(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_stages_behind_the_last_stride_are_not_built() -> None:
    assert counted(MobileNetV4(out_strides=(8, 16))) < 0.5 * counted(MobileNetV4())
    assert counted(HGNetV2(out_strides=(16,))) == pytest.approx(0.75e6, rel=0.02)  # DEIMv2-Pico's backbone


@pytest.mark.parametrize("strides", [(), (16, 8), (8, 8), (2, 4), (8, 64)])
@pytest.mark.parametrize("kind", [HGNetV2, MobileNetV4])
def test_wrong_strides(kind: type[Backbone], strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"out_strides: got .* allowed .*\(4, 8, 16, 32\)"):
        kind(out_strides=strides)


@pytest.mark.parametrize("kind", [HGNetV2, MobileNetV4])
def test_wrong_arguments(kind: type[Backbone]) -> None:
    with pytest.raises(ValueError, match="variant: got 'x'"):
        kind(variant="x")
    with pytest.raises(ValueError, match="width"):
        kind(width=0)


def test_final_conv_needs_stride_32() -> None:
    with pytest.raises(ValueError, match="final_conv"):
        MobileNetV4(out_strides=(8, 16), final_conv=True)


def test_a_stride_needs_a_depthwise_convolution() -> None:
    with pytest.raises(ValueError, match="stride"):
        UniversalInvertedBottleneck(8, 8, 0, 0, stride=2)


def test_round_channels_by_hand() -> None:
    # 0.35 * 32 = 11.2 rounds to 8, which is below 90 % of it; 12 is half-way and goes up.
    assert [round_channels(value) for value in (1, 8, 11.2, 12, 33.6, 100)] == [8, 8, 16, 16, 32, 104]


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_resnet_vd_maps_are_as_declared(depth: int) -> None:
    with torch.device("meta"):
        net = ResNetVD(depth, out_strides=(4, 16, 32))
        maps = net(torch.zeros(2, 3, 64, 96))
    assert [spec.stride for spec in net.specs] == [4, 16, 32]
    for feature, spec in zip(maps, net.specs, strict=True):
        assert feature.shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)
    with pytest.raises(ValueError, match="depth: got 20"):
        ResNetVD(20)


def test_frozen_parts_stay_as_they_are() -> None:
    net = HGNetV2("atto", out_strides=(16,), frozen=("stem", "norms")).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(torch.randn(2, 3, 64, 64))[0].square().mean().backward()
    optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not any(name.startswith("stem.") or ".norm." in name for name in moved)
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    with pytest.raises(ValueError, match="frozen: got 'neck'"):
        HGNetV2("atto", out_strides=(16,), frozen=("neck",))
