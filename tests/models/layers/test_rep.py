"""Blocks of several branches: fused equals trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from efftasks.compression.folding import inference_model
from efftasks.models.layers.csp import ELANBlock
from efftasks.models.layers.rep import CSPRepBlock, HalvesConv, RepConv, RepELANBlock


def maps(size: tuple[int, int], upsample: bool) -> list[torch.Tensor]:
    height, width = size
    first = (height // 2, width // 2) if upsample else size
    return [torch.randn(2, 8, *first), torch.randn(2, 4, height, width)]


def trained(module: nn.Module, *batches) -> nn.Module:
    torch.manual_seed(0)
    module.train()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_()
        for batch in batches:
            module(batch)
    return module.eval()


def check(module: nn.Module, x) -> None:
    fused = inference_model(module)
    assert_close(fused(x), module(x), atol=1e-5, rtol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())


def test_a_fused_rep_conv_is_one_convolution() -> None:
    module = trained(RepConv(8), torch.randn(2, 8, 6, 6))
    check(module, torch.randn(2, 8, 10, 7))
    assert sum(isinstance(part, nn.Conv2d) for part in inference_model(module).modules()) == 1


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ELANBlock, dict(depth=2)),
        (CSPRepBlock, dict(depth=2)),
        (CSPRepBlock, dict(depth=1, expansion=0.5)),
        (RepELANBlock, dict(depth=1, expansion=0.5)),
    ],
    ids=["elan", "csp", "csp-narrow", "rep-elan"],
)
def test_fused_equals_trained(kind, options: dict, upsample: bool) -> None:
    block = kind((8, 4), 12, upsample=0 if upsample else None, **options)
    module = trained(block, maps((6, 6), upsample), maps((6, 6), upsample))
    check(module, maps((10, 8), upsample))


@pytest.mark.parametrize("place", [0, 1])
def test_several_maps_are_one_after_the_other_the_smaller_upsampled_to_the_nearest(place: int) -> None:
    torch.manual_seed(0)

    def ordered(coarse, fine):
        return (coarse, fine) if place == 0 else (fine, coarse)

    several = trained(HalvesConv(ordered(8, 4), 6, "silu", upsample=place), ordered(*maps((6, 6), True)))
    one = HalvesConv((12,), 6, "silu")
    one.load_state_dict(several.state_dict())
    coarse, fine = maps((4, 6), True)
    joined = torch.cat(ordered(coarse.repeat_interleave(2, 2).repeat_interleave(2, 3), fine), dim=1)
    for folded in (several, inference_model(several)):
        for a, b in zip(folded(ordered(coarse, fine)), one.eval()((joined,))):
            assert_close(a, b)
