"""Blocks of several branches: fused equals trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from efftasks.models.layers.fuse import fuse_model
from efftasks.models.layers.rep import CSPRepBlock, RepConv, RepELANBlock


def trained(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    module.train()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_()
        for _ in range(2):
            module(torch.randn(2, 8, 6, 6))
    return module.eval()


@pytest.mark.parametrize(
    "module",
    [RepConv(8), CSPRepBlock(8, 12, 2), CSPRepBlock(8, 12, 1, expansion=0.5), RepELANBlock(8, 12, 1, 0.5)],
    ids=["conv", "csp", "csp-narrow", "elan"],
)
def test_fused_equals_trained(module: nn.Module) -> None:
    module = trained(module)
    fused = fuse_model(module)
    x = torch.randn(2, 8, 10, 7)
    assert_close(fused(x), module(x), atol=1e-5, rtol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    assert sum(isinstance(part, nn.Conv2d) for part in fused.modules()) < sum(
        isinstance(part, nn.Conv2d) for part in module.modules()
    ) or isinstance(module, nn.Identity)
