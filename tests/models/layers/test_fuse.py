"""Walking a model and fusing what can be fused."""

from __future__ import annotations

import copy

import torch
from torch import nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.layers.fuse import fuse_model
from efftasks.structures.protocols import Fusable


class TwoBranches(nn.Module):
    """Like a head that drops its training branch and stays of the same class."""

    def __init__(self) -> None:
        super().__init__()
        self.main = ConvNormAct(4, 4)
        self.extra: nn.Module | None = ConvNormAct(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x)

    def fuse(self) -> nn.Module:
        fused = copy.deepcopy(self)
        fused.extra = None
        return fused


class ChildNamedFuse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fuse(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shared = ConvNormAct(4, 4)
        self.blocks = nn.ModuleList([ConvNormAct(3, 4, stride=2), shared])
        self.again = shared
        self.twice = nn.Sequential(shared, nn.Dropout(0.5), shared)
        self.head = TwoBranches()
        self.foreign = ChildNamedFuse()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.foreign(self.head(self.twice(self.again(x))))


def trained() -> Net:
    torch.manual_seed(0)
    net = Net().train()
    for _ in range(3):
        net(torch.randn(4, 3, 16, 16))
    return net


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def test_equal_outputs_without_norms_and_extra_branch() -> None:
    net = trained()
    fused = fuse_model(net)
    x = torch.randn(2, 3, 20, 12)
    torch.testing.assert_close(fused(x), copy.deepcopy(net).eval()(x), rtol=1e-5, atol=1e-5)
    assert norms(fused) == 0
    assert not any("extra" in name for name, _ in fused.named_modules())
    assert not any(part.training for part in fused.modules())


def test_the_model_itself_is_untouched() -> None:
    net = trained()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fused = fuse_model(net)
    assert net.training
    assert norms(net) == 4
    assert {key: bool(torch.equal(value, before[key])) for key, value in net.state_dict().items()} == dict.fromkeys(
        before, True
    )
    own = {value.data_ptr() for value in net.state_dict().values()}
    assert not own & {value.data_ptr() for value in fused.state_dict().values()}


def test_shared_parts_stay_shared() -> None:
    fused = fuse_model(trained())
    names = ("again", "blocks.1", "twice.0", "twice.2")
    assert len({id(fused.get_submodule(name)) for name in names}) == 1


def test_idempotent() -> None:
    once = fuse_model(trained())
    twice = fuse_model(once)
    assert [name for name, _ in once.named_modules()] == [name for name, _ in twice.named_modules()]
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(once(x), twice(x))


def test_a_single_block() -> None:
    block = ConvNormAct(3, 4)
    assert isinstance(block, Fusable)
    assert not isinstance(nn.Conv2d(3, 4, 1), Fusable)
    assert norms(fuse_model(block)) == 0
