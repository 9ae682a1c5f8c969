"""SeaFormer's head: the fusion by hand, published sizes, shapes over two backbones, gradients, fusing, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.base import Backbone
from efftasks.models.backbones.mobilenetv4 import MobileNetV4
from efftasks.models.backbones.seaformer import VARIANTS, SeaFormer
from efftasks.models.seg_heads.seaformer_head import GatedFusion, SeaFormerHead

LOSS = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
WIDTHS = (8, 12, 16)
# The maps of strides 8, 32, 64 of an image of 97 x 65; a coarsest map of one pixel; sides that divide.
SIZES = [((13, 9), (4, 3), (2, 2)), ((3, 2), (1, 1), (1, 1)), ((16, 24), (4, 6), (2, 3))]
PUBLISHED: dict[str, dict[str, Any]] = {
    "tiny": dict(fusion_channels=(64,), channels=96),
    "small": dict(fusion_channels=(96,), channels=128),
    "base": dict(fusion_channels=(128,), channels=160),
    "large": dict(fusion_channels=(128, 160), channels=192),
}


def make(**changes: Any) -> SeaFormerHead:
    settings: dict[str, Any] = dict(in_channels=WIDTHS, channels=6, num_classes=5, fusion_channels=(10,))
    return SeaFormerHead(**{**settings, **changes}, loss_decode=LOSS)


def over(backbone: Backbone, **changes: Any) -> SeaFormerHead:
    widths = [spec.channels for spec in backbone.specs]
    return make(in_channels=widths, in_index=tuple(range(len(widths))), **changes)


def maps(sizes: Any, batch: int = 2) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, width, *size) for width, size in zip(WIDTHS, sizes, strict=True))


def counted(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def trained(net: Any) -> Any:
    """Statistics, scales and shifts as after training, kernels that keep the spread, in evaluation mode."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.5)
            part.running_var.uniform_(0.5, 2.0)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.5)
        elif isinstance(part, nn.Conv2d):
            part.weight.data.normal_(0, part.weight[0].numel() ** -0.5)
    return net.eval()


@pytest.mark.parametrize("sizes", SIZES)
def test_logits_have_the_size_of_the_finest_map(sizes: Any) -> None:
    with torch.no_grad():
        assert make().eval()(maps(sizes)).shape == (2, 5, *sizes[0])


def test_maps_are_chosen_by_index() -> None:
    fine, middle, coarse = maps(SIZES[0])
    with torch.no_grad():
        three = make(in_index=(0, 2, 3)).eval()
        assert three((fine, torch.randn(2, 3, 7, 5), middle, coarse)).shape == (2, 5, 13, 9)
        two = make(in_channels=WIDTHS[::2], in_index=(0, 2), fusion_channels=()).eval()
        assert two((fine, middle, coarse)).shape == (2, 5, 13, 9)


@pytest.mark.parametrize(("variant", "millions"), [("tiny", 1.7), ("small", 4.0), ("base", 8.6), ("large", 14.0)])
def test_size_is_as_published(variant: str, millions: float) -> None:
    # Of network and head for the 150 classes of ADE20K: the paper's table of results on it.
    with torch.device("meta"):
        net = SeaFormer(variant)
        head = over(net, num_classes=150, **PUBLISHED[variant])
    assert round((counted(net) + counted(head)) / 1e6, 1) == millions


@pytest.mark.parametrize("variant", VARIANTS)
def test_takes_the_maps_of_its_network(variant: str) -> None:
    with torch.device("meta"):
        net = SeaFormer(variant).eval()
        assert over(net, **PUBLISHED[variant]).eval()(net(torch.zeros(2, 3, 101, 67))).shape == (2, 5, 13, 9)


def test_takes_the_maps_of_another_network() -> None:
    net = MobileNetV4("conv-s", width=0.5).eval()
    assert [spec.stride for spec in net.specs] == [8, 16, 32]
    head = over(net).eval()
    with torch.no_grad():
        assert head(net(torch.rand(1, 3, 101, 67))).shape == (1, 5, 13, 9)
    head.train()(net.train()(torch.rand(2, 3, 101, 67))).square().mean().backward()
    for name, parameter in [*head.named_parameters(), *net.named_parameters()]:
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name


def stretched(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) -> (H, W): linear between the centres of pixels, constant beyond the outermost."""
    places = [(np.arange(many) + 0.5) * few / many - 0.5 for many, few in zip(size, values.shape)]
    rows = np.stack([np.interp(places[0], np.arange(values.shape[0]), column) for column in values.T], 1)
    return np.stack([np.interp(places[1], np.arange(values.shape[1]), row) for row in rows])


@pytest.mark.parametrize("sizes", SIZES)
def test_a_fusion_by_formula(sizes: Any) -> None:
    fusion = trained(GatedFusion(2, 3, 4)).double()
    fine = torch.randn(1, 2, *sizes[0], dtype=torch.float64)
    coarse = 4 * torch.randn(1, 3, *sizes[1], dtype=torch.float64)  # also beyond where the gate ends
    with torch.no_grad():
        actual = fusion(fine, coarse)[0].numpy()
        mine, scores = fusion.fine(fine)[0].numpy(), fusion.gate(coarse)[0].numpy()
    for c in range(4):
        gate = np.clip((scores[c] + 3) / 6, 0, 1)
        np.testing.assert_allclose(actual[c], mine[c] * stretched(gate, sizes[0]), rtol=1e-9, atol=1e-9)


def test_a_gate_opens_and_shuts() -> None:
    fusion = GatedFusion(2, 3, 4).eval()
    fine, coarse = torch.randn(1, 2, 8, 6), torch.randn(1, 3, 2, 2)
    nn.init.zeros_(fusion.gate.norm.weight)
    with torch.no_grad():
        for shift, share in ((-3.0, 0.0), (0.0, 0.5), (3.0, 1.0), (9.0, 1.0)):
            nn.init.constant_(fusion.gate.norm.bias, shift)
            torch.testing.assert_close(fusion(fine, coarse), share * fusion.fine(fine))


def test_parameters_by_hand() -> None:
    # Convolutions without bias and their norms; the last 1x1 is depthwise; the classifier has a bias.
    first = 8 * 10 + 20 + 12 * 10 + 20
    last = 10 * 6 + 12 + 16 * 6 + 12
    assert counted(make()) == first + last + (6 + 12) + (6 * 5 + 5)


def test_every_parameter_gets_a_gradient() -> None:
    head = make().train()
    head(maps(SIZES[0])).square().mean().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


def test_fused_equals_unfused() -> None:
    head = trained(make()).double()
    fused = inference_model(head)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    features = tuple(x.double() for x in maps(SIZES[0]))
    with torch.no_grad():
        expected = head(features)
        assert expected.std() > 0.01  # or anything would be equal
        torch.testing.assert_close(fused(features), expected, rtol=1e-9, atol=1e-9)


class Exported(nn.Module):
    """Network and head, for the exporter."""

    def __init__(self, backbone: Backbone, head: SeaFormerHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


@pytest.mark.parametrize("size", [(97, 65), (64, 128)])
def test_exported_over_its_network_it_is_the_same(size: tuple[int, int], tmp_path: Path) -> None:
    backbone = SeaFormer(width=0.25, depth=0.5)
    net = inference_model(trained(Exported(backbone, over(backbone))))
    path = str(tmp_path / "net.onnx")
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        sample = torch.randn(2, 3, *size)
        torch.onnx.export(net, (sample,), path, dynamo=True, opset_version=18, dynamic_shapes=(batch,), verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for count in (1, 2, 3):
            x = torch.randn(count, 3, *size)
            (outputs,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
            torch.testing.assert_close(torch.tensor(outputs), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(fusion_channels=()), "fusion_channels: got 0 numbers, expected 1: one for each fusion but the last"),
        (dict(fusion_channels=(8, 8)), "fusion_channels: got 2 numbers, expected 1"),
        (dict(in_channels=(8,), in_index=(0,)), r"in_index: got \(0,\), allowed the indices of two or more maps"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
