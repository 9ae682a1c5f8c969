"""SCTNet: the attention by hand, the authors' names, what the fused map is, fusing, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from torch import nn

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.sctnet import DAPPM, VARIANTS, CFBlock, ConvAttention, SCTNet, renamed_key
from efftasks.models.layers.conv import NormAct
from efftasks.models.seg_heads.sct_head import SCTHead
from efftasks.structures.features import FeatureSpec

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
CONV = ("weight", "bias")


def small(**changes: Any) -> SCTNet:
    torch.manual_seed(0)
    return SCTNet(**{"width": 0.25, **changes})


def counted(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def after_training(randomised: Any) -> Any:
    """As after training; the kernels too, which start so small that nothing would depend on them."""

    def change(net: nn.Module) -> Any:
        with torch.no_grad():
            for part in net.modules():
                if isinstance(part, ConvAttention):
                    part.vertical.normal_(0, 0.2)
                    part.horizontal.normal_(0, 0.2)
        return randomised(net)

    return change


def names_of_the_authors() -> Iterator[str]:
    """Of the network in xzz777/SCTNet."""
    layers: dict[str, tuple[str, ...]] = {}
    layers["conv1.0"] = layers["conv1.3"] = CONV
    layers["conv1.1"] = layers["conv1.4"] = NORM
    for stage in (1, 2, 3):
        for block in (0, 1):
            for i in (1, 2):
                layers[f"layer{stage}.{block}.conv{i}"] = CONV
                layers[f"layer{stage}.{block}.bn{i}"] = NORM
        if stage > 1:
            layers[f"layer{stage}.0.downsample.0"] = CONV
            layers[f"layer{stage}.0.downsample.1"] = NORM
    for former in ("layer3_2", "layer4", "layer5"):
        layers[f"{former}.attn_l"] = ("kv", "kv3")
        layers[f"{former}.attn_l.norm"] = layers[f"{former}.mlp_l.norm"] = NORM
        layers[f"{former}.mlp_l.conv1"] = layers[f"{former}.mlp_l.conv2"] = CONV
    layers["convdown4.0"] = CONV
    layers["convdown4.1"] = NORM
    for part in ("scale0", "process1", "process2", "process3", "process4", "compression", "shortcut"):
        layers[f"spp.{part}.0"] = NORM
        layers[f"spp.{part}.2"] = CONV
    for i in (1, 2, 3, 4):
        layers[f"spp.scale{i}.1"] = NORM
        layers[f"spp.scale{i}.3"] = CONV
    return (f"{layer}.{name}" for layer, kinds in layers.items() for name in kinds)


def test_every_name_of_the_authors_has_its_place() -> None:
    names = list(names_of_the_authors())
    own = [renamed_key(name) for name in names]
    assert len(set(own)) == len(names) == 244
    assert set(own) == set(SCTNet("s", width=0.25).state_dict())
    assert all(renamed_key(key) == key for key in own)  # this package's own checkpoints


def test_checkpoints_of_the_authors_load(after_training: Any, tmp_path: Path) -> None:
    net = after_training(small())
    values = net.state_dict()
    theirs = {f"backbone.{name}": values[renamed_key(name)] for name in names_of_the_authors()}
    torch.save({"state_dict": {**theirs, "decode_head.conv_seg.bias": torch.zeros(19)}}, tmp_path / "w.pth")
    again = small(weights=tmp_path / "w.pth").state_dict()
    assert all(torch.equal(again[key], value) for key, value in values.items())
    torch.save(values, tmp_path / "own.pth")
    assert all(torch.equal(x, values[key]) for key, x in small(weights=tmp_path / "own.pth").state_dict().items())


@pytest.mark.parametrize(("variant", "millions"), [("s", 4.6), ("b", 17.4)])
def test_size_is_as_published(variant: str, millions: float) -> None:
    # Table 1 of the paper, for 19 classes; it cuts the second digit off.
    with torch.device("meta"):
        net = SCTNet(variant)
        width = net.specs[0].channels
        head = SCTHead((width,), width, 19, in_index=(0,), loss_decode=dict(type="mmseg.CrossEntropyLoss"))
    assert int((counted(net) + counted(head)) / 1e5) / 10 == millions


def stripes(x: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """(C, H, W) and (K, C, L) upright -> (K, H, W), zeros around."""
    margin = kernels.shape[2] // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (0, 0)))
    return sum(
        np.einsum("kc,chw->khw", kernels[:, :, i], padded[:, i : i + x.shape[1]]) for i in range(kernels.shape[2])
    )


def attended(x: np.ndarray, kernels: np.ndarray, groups: int) -> np.ndarray:
    scores = stripes(x, kernels)
    weights = np.exp(scores) / np.exp(scores).sum((1, 2), keepdims=True)
    for group in np.split(weights, groups):  # views
        group /= group.sum(0) + 1e-6
    return stripes(weights, kernels.transpose(1, 0, 2))


def test_attention_by_hand(after_training: Any) -> None:
    attention = after_training(ConvAttention(6, kernels=8, groups=4, kernel_size=3).double())
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        outputs = attention(x).numpy()
        normed = attention.norm(x).numpy()
    upright = attention.vertical.detach().numpy()[..., 0]
    lying = attention.horizontal.detach().numpy()[:, :, 0]
    for image, got in zip(normed, outputs):
        turned = attended(image.transpose(0, 2, 1), lying, 4).transpose(0, 2, 1)
        np.testing.assert_allclose(got, attended(image, upright, 4) + turned, rtol=1e-9, atol=1e-9)


def test_kernels_do_not_start_equal() -> None:
    # Equal kernels get equal gradients: zeros would stay one kernel 64 times.
    attention = ConvAttention(8)
    assert attention.vertical.shape == (64, 8, 7, 1) and attention.horizontal.shape == (64, 8, 1, 7)
    for kernels in (attention.vertical, attention.horizontal):
        assert 5e-4 < kernels.std() < 2e-3 and (kernels[0] - kernels[1]).abs().max() > 1e-4


def test_the_fused_map_is_the_detail_beside_the_context(after_training: Any) -> None:
    net = after_training(small(detail=True))
    x = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        detail, fused, _, deep = net(x)
        context = net.context(deep)
        plain = small(weights=None).eval()
        plain.load_state_dict(net.state_dict())
        without = plain(x)
    assert torch.equal(fused[:, : detail.shape[1]], detail)
    assert (detail < 0).any()  # before the activation
    # Stride 32 to 8: a pixel of the finer map lies at (i + 0.5) / 4 - 0.5 of the coarser one.
    rows = np.clip((np.arange(12) + 0.5) / 4 - 0.5, 0, 2)
    columns = np.clip((np.arange(20) + 0.5) / 4 - 0.5, 0, 4)
    for got, want in zip(fused[0, detail.shape[1] :].numpy(), context[0].numpy()):
        by_rows = np.stack([np.interp(rows, np.arange(3), column) for column in want.T], 1)
        expected = np.stack([np.interp(columns, np.arange(5), row) for row in by_rows])
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert len(without) == 3 and all(torch.equal(a, b) for a, b in zip(without, (fused, *net(x)[2:])))


def test_context_windows_by_hand() -> None:
    # One channel that every layer passes on: each refinement is a 3x3 average of ones, here its centre alone.
    net = DAPPM(1, 1, 1).eval()
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.zero_()
                part.weight[:, :, part.kernel_size[0] // 2, part.kernel_size[0] // 2] = 1
                part.bias.zero_()  # type: ignore[union-attr]
            if isinstance(part, nn.BatchNorm2d):
                part.eps = 0
    x = torch.full((1, 1, 40, 40), 2.0)
    with torch.no_grad():
        outputs = net(x)[0, 0, 20, 20]
    # Far from the border every window's mean is 2: scales 2, 2 + 2, 2 + 4, ..., summed, and the shortcut's 2.
    assert outputs.item() == pytest.approx(2 + 4 + 6 + 8 + 10 + 2)
    with torch.no_grad():
        corner = net(x)[0, 0, 0, 0]
    # Zeros outside count: 3 x 3 of 5 x 5, 5 x 5 of 9 x 9, 9 x 9 of 17 x 17. Enlarging keeps the corner's value.
    five, nine, seventeen = (2 * (i / j) ** 2 for i, j in ((3, 5), (5, 9), (9, 17)))
    scales = np.cumsum([2, five, nine, seventeen, 2])
    assert corner.item() == pytest.approx(scales.sum() + 2, rel=1e-5)


def test_fused_equals_unfused(after_training: Any) -> None:
    net = after_training(small(detail=True)).double()
    fused = inference_model(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        for expected, got in zip(net(x), fused(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("act", ["relu", None])
def test_a_norm_fuses_to_one_depthwise_convolution(randomised: Any, act: str | None) -> None:
    layer = randomised(NormAct(6, act, eps=1e-3))
    fused = layer.fold()
    x = torch.randn(2, 6, 5, 4)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), layer(x), rtol=1e-5, atol=1e-5)
    assert isinstance(fused.conv, nn.Conv2d) and counted(fused) == 12 and not fused.training


def test_every_parameter_gets_a_gradient_from_the_fused_map() -> None:
    net = small(out_strides=(8,)).train()
    net(torch.randn(2, 3, 64, 96))[0].square().mean().backward()
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("detail", [False, True])
@pytest.mark.parametrize("strides", [(8, 16, 32), (8, 32), (8,)])
def test_maps_are_as_declared(variant: str, detail: bool, strides: tuple[int, ...]) -> None:
    with torch.device("meta"):  # shapes only
        net = SCTNet(variant, strides, detail)
        maps = net(torch.zeros(2, 3, 128, 192))
    assert [spec.stride for spec in net.specs] == [8] * detail + list(strides)
    for feature, spec in zip(maps, net.specs, strict=True):
        assert feature.shape == (2, spec.channels, 128 // spec.stride, 192 // spec.stride)


def test_channels_as_published() -> None:
    with torch.device("meta"):
        assert SCTNet("s").specs == (FeatureSpec(128, 8), FeatureSpec(128, 16), FeatureSpec(256, 32))
        assert SCTNet("b", detail=True).specs == tuple(map(FeatureSpec, (128, 256, 256, 512), (8, 8, 16, 32)))


def test_an_odd_size_rounds_up() -> None:
    # Every halving gives the ceiling: 97, 49, 25, 13, 7, 4 and 65, 33, 17, 9, 5, 3.
    with torch.no_grad():
        maps = small(detail=True).eval()(torch.randn(1, 3, 97, 65))
    assert [tuple(feature.shape[2:]) for feature in maps] == [(13, 9), (13, 9), (7, 5), (4, 3)]


def test_width_depth_and_kernel_by_hand() -> None:
    with torch.device("meta"):
        # 64, 128, 256 (stride 8 to 32) by 0.55: 35.2, 70.4, 140.8 to the nearest multiple of 8; the first twice.
        assert SCTNet("s", width=0.55).specs == (FeatureSpec(2 * 32, 8), FeatureSpec(72, 16), FeatureSpec(144, 32))
        net = SCTNet("s", depth=2.0)
        parts = (net.stage4, net.stage8, net.stage16, net.former16, net.former32)
        assert [sum(1 for _ in part.children()) for part in parts] == [4, 4, 4, 2, 4]
        # 64 kernels of two directions in one block of 128 channels and two of 256.
        added = counted(SCTNet("s", kernel_size=9)) - counted(SCTNet("s"))
        assert added == (9 - 7) * 2 * 64 * (128 + 2 * 256)


def test_branches_are_left_out_in_training_alone(after_training: Any) -> None:
    block = after_training(CFBlock(8, drop_path=0.5))
    torch.manual_seed(0)
    x = torch.rand(64, 8, 4, 4)  # no ReLU to see
    with torch.no_grad():
        assert (block.eval()(x) != x).flatten(1).any(1).all()
        untouched = (block.train()(x) == x).flatten(1).all(1)
    assert 4 < untouched.sum() < 32  # one of four images, for both branches


def test_frozen_parts_get_no_gradient() -> None:
    net = small(frozen=("stem", "former16", "norms"))
    net.train()
    trained = {key.partition(".")[0] for key, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {"stage4", "stage8", "stage16", "down32", "former32", "context"}
    assert not any(part.training for part in net.modules() if isinstance(part, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "l"}, r"variant: got 'l', allowed \('s', 'b'\)"),
        ({"width": 0}, r"width: got 0, allowed"),
        ({"depth": -1.0}, r"depth: got -1\.0, allowed"),
        ({"kernel_size": 4}, r"kernel_size: got 4, allowed an odd"),
        ({"out_strides": (4, 8)}, r"out_strides: got \(4, 8\), allowed .*\(8, 16, 32\)"),
        (
            {"out_strides": (16, 32)},
            r"out_strides: got \(16, 32\), allowed a choice of \(8, 16, 32\) that begins with 8",
        ),
        ({"frozen": ("neck",)}, r"frozen: got 'neck'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCTNet(**arguments)
