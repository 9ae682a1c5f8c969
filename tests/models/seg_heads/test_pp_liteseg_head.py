"""PP-LiteSeg's head: its parts by hand, shapes, parameters, gradients, fusing, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import onnxruntime
import pytest
import torch
from mmseg.models.backbones import STDCNet
from torch import Tensor, nn

from efftasks.compression.folding import inference_model
from efftasks.models.seg_heads.pp_liteseg_head import (
    Attention,
    AttentionFusion,
    ChannelAttention,
    PPLiteSegHead,
    SimplePyramidPool,
    SpatialAttention,
)

WIDTHS = (8, 12, 16)
LOSS = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)


def make(**changes: Any) -> PPLiteSegHead:
    settings: dict[str, Any] = dict(in_channels=WIDTHS, in_index=(0, 1, 2), channels=6, num_classes=5)
    settings["decoder_channels"] = (4, 6, 8)
    return PPLiteSegHead(**{**settings, **changes}, loss_decode=LOSS)


def maps(*sizes: tuple[int, int], batch: int = 2) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, width, *size, generator=generator) for width, size in zip(WIDTHS, sizes))


def trained(net: nn.Module) -> nn.Module:
    """Statistics, scales and shifts as after training, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.5, generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.5, generator=generator)
    return net.eval()


def plain(net: nn.Module) -> nn.Module:
    """All kernels zero and all norms the identity, in evaluation mode."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0.0
        elif isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.weight)
    return net.eval()


def pass_on(conv: nn.Module) -> None:
    """Let a 1x1 or 3x3 convolution give what it gets."""
    assert isinstance(conv, nn.Conv2d)
    middle = conv.kernel_size[0] // 2
    for i in range(conv.out_channels):
        conv.weight.data[i, i, middle, middle] = 1.0


# The maps of an image of 97 x 65, one whose coarsest map is a pixel, and one with sides that divide by nothing.
SIZES = [((13, 9), (7, 5), (4, 3)), ((3, 2), (2, 1), (1, 1)), ((32, 48), (16, 24), (8, 12)), ((5, 11), (5, 3), (3, 2))]


@pytest.mark.parametrize("attention", ["spatial", "channel"])
@pytest.mark.parametrize("sizes", SIZES)
def test_logits_have_the_size_of_the_finest_map(attention: Attention, sizes: Any) -> None:
    head = make(attention=attention).eval()
    with torch.no_grad():
        assert head(maps(*sizes)).shape == (2, 5, *sizes[0])


def test_maps_are_chosen_by_index() -> None:
    head = make(in_index=(1, 2, 3)).eval()
    fine, middle, coarse = maps((8, 8), (4, 4), (2, 2))
    with torch.no_grad():
        assert head((torch.randn(2, 3, 16, 16), fine, middle, coarse)).shape == (2, 5, 8, 8)
        two = make(in_channels=WIDTHS[1:], in_index=(0, 1), decoder_channels=(6, 8)).eval()
        assert two((middle, coarse)).shape == (2, 5, 4, 4)


@pytest.mark.parametrize("variant", ["STDCNet1", "STDCNet2"])
def test_takes_the_maps_of_the_papers_encoders(variant: str) -> None:
    encoder = STDCNet(
        variant, 3, (32, 64, 256, 512, 1024), "cat", norm_cfg=dict(type="BN"), act_cfg=dict(type="ReLU")
    ).eval()
    head = make(in_channels=(256, 512, 1024), decoder_channels=(32, 64, 128)).eval()
    with torch.no_grad():
        assert head(encoder(torch.randn(1, 3, 64, 96))).shape == (1, 5, 8, 12)


def counted(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def block(wide: int, out: int, side: int) -> int:
    """Parameters of a convolution without bias and its norm."""
    return wide * out * side * side + 2 * out


@pytest.mark.parametrize(("decoder", "channels"), [((32, 64, 128), 32), ((64, 96, 128), 64)])
def test_parameters_of_the_published_sizes(decoder: tuple[int, int, int], channels: int) -> None:
    fine, middle, coarse = decoder
    expected = 3 * block(1024, coarse, 1) + block(coarse, coarse, 3)  # context
    expected += block(1024, coarse, 3) + block(coarse, coarse, 3)  # fusions, each with its 3x3 for the map ...
    expected += block(512, coarse, 3) + block(coarse, middle, 3)
    expected += block(256, middle, 3) + block(middle, fine, 3)
    expected += 3 * (block(4, 2, 3) + block(2, 1, 3))  # ... and its attention
    expected += block(fine, channels, 3) + channels * 19 + 19
    head = make(in_channels=(256, 512, 1024), num_classes=19, decoder_channels=decoder, channels=channels)
    assert counted(head) == expected
    other = make(
        in_channels=(256, 512, 1024), num_classes=19, decoder_channels=decoder, channels=channels, attention="channel"
    )
    squeezed = sum(block(4 * width, width // 2, 1) + block(width // 2, width, 1) for width in (middle, coarse, coarse))
    assert counted(other) == expected - 3 * (block(4, 2, 3) + block(2, 1, 3)) + squeezed


@pytest.mark.parametrize("attention", ["spatial", "channel"])
def test_every_parameter_gets_a_gradient(attention: Attention) -> None:
    head = make(attention=attention).train()
    head(maps(*SIZES[0])).square().mean().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("attention", ["spatial", "channel"])
def test_fused_equals_unfused(attention: Attention) -> None:
    head = trained(make(attention=attention)).double()
    fused = inference_model(head)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    features = tuple(x.double() for x in maps(*SIZES[0]))
    with torch.no_grad():
        torch.testing.assert_close(fused(features), head(features), rtol=1e-9, atol=1e-9)


class Exported(nn.Module):
    """One input for the exporter: the coarser maps are parts of the finest."""

    def __init__(self, head: nn.Module, sizes: Any) -> None:
        super().__init__()
        self.head = head
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        features = [x[:, :width, :height, :wide] for width, (height, wide) in zip(WIDTHS, self.sizes)]
        return self.head(tuple(features))


@pytest.mark.parametrize(
    ("attention", "sizes"),
    [("spatial", SIZES[0]), ("spatial", SIZES[1]), ("spatial", SIZES[2]), ("channel", SIZES[0])],
)
def test_exported_it_is_the_same(attention: Attention, sizes: Any, tmp_path: Path) -> None:
    net = Exported(inference_model(trained(make(attention=attention))), sizes).eval()
    x = torch.randn(2, max(WIDTHS), *sizes[0])
    path = str(tmp_path / "head.onnx")
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        torch.onnx.export(net, (x,), path, dynamo=True, opset_version=18, dynamic_shapes=(batch,), verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for count in (1, 2, 3):
            x = torch.randn(count, max(WIDTHS), *sizes[0])
            (outputs,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
            torch.testing.assert_close(torch.tensor(outputs), net(x), rtol=1e-5, atol=1e-5)


def test_spatial_attention_by_hand() -> None:
    attention = SpatialAttention()
    plain(attention)
    # The statistics are mean and maximum of the coarse map, then of the fine one; take the first less the last.
    attention.mix.conv.weight.data[0, 0, 1, 1] = 1.0
    attention.mix.conv.weight.data[1, 3, 1, 1] = 1.0
    attention.score.conv.weight.data[0, :, 1, 1] = torch.tensor([1.0, -1.0])
    coarse = torch.tensor([[[[1.0, 3.0]], [[3.0, -3.0]]]])  # means over the channels: 2, 0
    fine = torch.tensor([[[[0.5, 1.0]], [[2.0, 0.0]]]])  # maxima: 2, 1
    expected = torch.tensor([[[[0.5, 0.2689414]]]])  # the logistic function of 0 and -1
    torch.testing.assert_close(attention(coarse, fine), expected)


def test_channel_attention_by_hand() -> None:
    attention = ChannelAttention(2)
    plain(attention)
    # Two channels each: means and maxima of the coarse map, then of the fine one; take the first and the last.
    attention.mix.conv.weight.data[0, :, 0, 0] = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 1])
    attention.score.conv.weight.data[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
    coarse = torch.tensor([[[[1.0, 3.0]], [[7.0, 7.0]]]])  # mean of the first channel: 2
    fine = torch.tensor([[[[7.0, 7.0]], [[-1.0, 1.0]]]])  # maximum of the second: 1
    expected = torch.tensor([0.9525741, 0.0474259]).view(1, 2, 1, 1)  # of 3 and -3
    torch.testing.assert_close(attention(coarse, fine), expected)


@pytest.mark.parametrize("attention", ["spatial", "channel"])
def test_a_fusion_is_an_average_with_the_attentions_weights(attention: Attention) -> None:
    fusion = AttentionFusion(2, 2, 2, attention)
    plain(fusion)
    pass_on(fusion.lateral.conv)
    pass_on(fusion.merge.conv)
    fine = torch.rand(1, 2, 2, 4)
    coarse = torch.tensor([[[[4.0, 8.0]], [[2.0, 2.0]]]])
    # Enlarged to twice the size the first row is 4, 5, 7, 8: centres of pixels lie at quarters.
    enlarged = torch.tensor([[4.0, 5.0, 7.0, 8.0], [2.0] * 4]).view(1, 2, 1, 4).expand(1, 2, 2, 4)
    torch.testing.assert_close(fusion(fine, coarse), (enlarged + fine) / 2)  # zero kernels: a weight of one half
    fusion.attention.score.norm.bias.data.fill_(1.0)
    torch.testing.assert_close(fusion(fine, coarse), 0.7310586 * enlarged + 0.2689414 * fine)


def averages(values: np.ndarray, parts: int) -> np.ndarray:
    """Averages over parts of both axes that begin at floor(i n / parts) and end at ceil((i + 1) n / parts)."""
    cuts = [[(i * n // parts, -(-(i + 1) * n // parts)) for i in range(parts)] for n in values.shape]
    return np.array([[values[a:b, c:d].mean() for c, d in cuts[1]] for a, b in cuts[0]])


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Linear between the centres of pixels, constant beyond the outermost."""

    def weights(many: int, few: int) -> np.ndarray:
        at = np.clip((np.arange(many) + 0.5) * few / many - 0.5, 0, few - 1)
        return np.clip(1 - np.abs(at[:, None] - np.arange(few)), 0, None)

    return weights(size[0], values.shape[0]) @ values @ weights(size[1], values.shape[1]).T


@pytest.mark.parametrize("size", [(8, 4), (5, 3), (1, 2)])
def test_pyramid_pool_by_formula(size: tuple[int, int]) -> None:
    pool = SimplePyramidPool(1, 1)
    plain(pool)
    for conv in pool.modules():
        if isinstance(conv, nn.Conv2d):
            pass_on(conv)
    values = np.random.default_rng(0).random(size)
    expected = sum(enlarged(averages(values, parts), size) for parts in (1, 2, 4))
    actual = pool(torch.tensor(values, dtype=torch.float32)[None, None])
    np.testing.assert_allclose(actual[0, 0].detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(attention="both"), r"attention: got 'both', allowed \('spatial', 'channel'\)"),
        (dict(decoder_channels=(4, 6)), "decoder_channels: got 2 numbers, expected 3"),
        (dict(bins=()), r"bins: got \(\), allowed"),
        (dict(bins=(0, 1)), r"bins: got \(0, 1\), allowed"),
        (dict(act="tanh"), "act: got 'tanh'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
