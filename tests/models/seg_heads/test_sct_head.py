"""SCTHead: the layers one by one, fusing, losses, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import onnxruntime
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn import functional

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.sctnet import SCTNet
from efftasks.models.seg_heads.sct_head import SCTHead


def head(**changes: Any) -> SCTHead:
    torch.manual_seed(0)
    default = dict(
        in_channels=[16], channels=8, num_classes=5, in_index=[0], loss_decode=dict(type="mmseg.CrossEntropyLoss")
    )
    return SCTHead(**{**default, **changes})


def randomise(net: nn.Module) -> None:
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 1.5)
        for parameter in net.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape))


def test_layers_one_by_one() -> None:
    net = head().eval()
    randomise(net)
    x = torch.randn(2, 16, 6, 9)

    def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        values = layer.state_dict()
        mean, var, weight, bias = (
            values[key][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    with torch.no_grad():
        inner = functional.conv2d(norm(x, net.norm.norm), net.conv.conv.weight, net.conv.conv.bias, padding=1)
        expected = functional.conv2d(norm(inner, net.conv.norm), net.conv_seg.weight, net.conv_seg.bias)
        torch.testing.assert_close(net((x,)), expected, rtol=1e-5, atol=1e-5)


def test_it_takes_the_map_that_is_chosen() -> None:
    maps = (torch.randn(1, 4, 8, 8), torch.randn(1, 16, 8, 8), torch.randn(1, 24, 4, 4))
    for index in (1, -2):
        assert head(in_index=[index]).eval()(maps).shape == (1, 5, 8, 8)
    with pytest.raises(ValueError, match=r"SCTHead.in_index: got \(0, 1\), allowed the index of one map"):
        head(in_channels=[4, 16], in_index=[0, 1])


def test_fused_equals_unfused() -> None:
    net = head().double().eval()
    randomise(net)
    fused = inference_model(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    x = torch.randn(2, 16, 6, 9, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fused((x,)), net((x,)), rtol=1e-9, atol=1e-9)


def test_its_loss_reaches_every_parameter() -> None:
    net = head().train()
    label = torch.randint(0, 5, (1, 24, 36))
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    x = torch.randn(2, 16, 6, 9)
    losses = net.loss((x,), [sample, sample], None)
    logits = functional.interpolate(net((x,)), (24, 36), mode="bilinear", align_corners=False)
    expected = functional.cross_entropy(logits, label.expand(2, -1, -1))
    assert losses["loss_ce"].item() == pytest.approx(expected.item(), rel=1e-5)
    losses["loss_ce"].backward()
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []


class OnOneMap(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x,))


def test_exported_it_is_the_same(tmp_path: Path) -> None:
    net = head().eval()
    randomise(net)
    alone = OnOneMap(inference_model(net))
    x = torch.randn(2, 16, 6, 9)
    torch.onnx.export(
        alone,
        (x,),
        str(tmp_path / "net.onnx"),
        dynamo=True,
        opset_version=18,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        for maps in (x, torch.randn(3, 16, 6, 9)):
            (outputs,) = session.run(None, {session.get_inputs()[0].name: maps.numpy()})
            torch.testing.assert_close(torch.tensor(outputs), alone(maps), rtol=1e-5, atol=1e-5)


def test_maps_of_its_backbone_fit() -> None:
    backbone = SCTNet("s", width=0.25, detail=True).eval()
    maps = backbone(torch.randn(1, 3, 64, 96))
    for index in (0, 1):  # the auxiliary head, the decode head
        channels = backbone.specs[index].channels
        assert head(in_channels=[channels], channels=channels, in_index=[index]).eval()(maps).shape == (1, 5, 8, 12)
