"""The block, and its fold into one convolution, against a direct computation."""

import math

import pytest
import torch
from torch import nn

from efftasks.models.layers.conv import ConvNormAct, build_activation, fold_norm


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Statistics and affine parameters as after training; a fresh batch norm is nearly the identity."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.5, generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.5, generator=generator)


@pytest.mark.parametrize(("bias", "affine", "groups"), [(False, True, 1), (True, True, 2), (True, False, 4)])
def test_fold_norm_equals_the_formula(bias: bool, affine: bool, groups: int) -> None:
    conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=bias)
    norm = nn.BatchNorm2d(8, affine=affine, eps=1e-3)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(2, 4, 9, 7)
    y = conv(x)
    expected = (y - norm.running_mean.view(1, -1, 1, 1)) / torch.sqrt(norm.running_var.view(1, -1, 1, 1) + 1e-3)
    folded = fold_norm(conv, norm, scale=-1.5, shift=0.25)
    torch.testing.assert_close(folded(x), -1.5 * expected + 0.25, rtol=1e-5, atol=1e-5)


def test_fold_norm_needs_running_statistics() -> None:
    with pytest.raises(ValueError, match="running statistics"):
        fold_norm(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))


@pytest.mark.parametrize("act", ["relu", "relu6", "hardswish", None])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (1, 1, 1), (5, 2, 8), (3, 2, 2)])
def test_fuse_equals_unfused(act: str | None, kernel: int, stride: int, groups: int) -> None:
    block = ConvNormAct(8, 16, kernel, stride, groups, act).eval()
    randomise(block)
    before = {key: value.clone() for key, value in block.state_dict().items()}
    fused = block.fold()
    x = torch.randn(2, 8, 12, 10)
    torch.testing.assert_close(fused(x), block(x), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    assert not fused.training
    for key, value in block.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_same_padding(kernel: int) -> None:
    assert ConvNormAct(3, 4, kernel)(torch.zeros(2, 3, 10, 14)).shape == (2, 4, 10, 14)
    assert ConvNormAct(3, 4, kernel, stride=2)(torch.zeros(2, 3, 10, 14)).shape == (2, 4, 5, 7)


def test_initial_weights_keep_the_gradient_scale() -> None:
    torch.manual_seed(0)
    dense, depthwise = ConvNormAct(64, 64, 3), ConvNormAct(256, 256, 5, groups=256)
    assert dense.conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)
    assert depthwise.conv.weight.std().item() == pytest.approx(math.sqrt(2 / 25), rel=0.03)


def test_unknown_activation() -> None:
    with pytest.raises(ValueError, match=r"'mish'.*relu6"):
        build_activation("mish")
