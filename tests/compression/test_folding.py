"""Walking a model: folding what can be folded, stripping what can be stripped."""

from __future__ import annotations

import copy

import torch
from torch import nn

from efftasks.compression.folding import fold_model, inference_model, strip_model
from efftasks.models.layers.conv import ConvNormAct
from efftasks.structures.protocols import Foldable, Strippable


class TwoBranches(nn.Module):
    """Like a head that drops its training branch and stays of the same class."""

    def __init__(self) -> None:
        super().__init__()
        self.main = ConvNormAct(4, 4)
        self.extra: nn.Module | None = ConvNormAct(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x)

    def strip(self) -> nn.Module:
        stripped = copy.deepcopy(self)
        stripped.extra = None
        return stripped


class ChildrenNamedAsVerbs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fold = nn.Conv2d(4, 4, 1)
        self.strip = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.strip(self.fold(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shared = ConvNormAct(4, 4)
        self.blocks = nn.ModuleList([ConvNormAct(3, 4, stride=2), shared])
        self.again = shared
        self.twice = nn.Sequential(shared, nn.Dropout(0.5), shared)
        self.head = TwoBranches()
        self.foreign = ChildrenNamedAsVerbs()

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
    fused = inference_model(net)
    x = torch.randn(2, 3, 20, 12)
    torch.testing.assert_close(fused(x), copy.deepcopy(net).eval()(x), rtol=1e-5, atol=1e-5)
    assert norms(fused) == 0
    assert not any("extra" in name for name, _ in fused.named_modules())
    assert not any(part.training for part in fused.modules())


def test_the_model_itself_is_untouched() -> None:
    net = trained()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fused = inference_model(net)
    assert net.training
    assert norms(net) == 4
    assert {key: bool(torch.equal(value, before[key])) for key, value in net.state_dict().items()} == dict.fromkeys(
        before, True
    )
    own = {value.data_ptr() for value in net.state_dict().values()}
    assert not own & {value.data_ptr() for value in fused.state_dict().values()}


def test_shared_parts_stay_shared() -> None:
    fused = inference_model(trained())
    names = ("again", "blocks.1", "twice.0", "twice.2")
    assert len({id(fused.get_submodule(name)) for name in names}) == 1


def test_idempotent() -> None:
    once = inference_model(trained())
    twice = inference_model(once)
    assert [name for name, _ in once.named_modules()] == [name for name, _ in twice.named_modules()]
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(once(x), twice(x))


def test_each_verb_does_its_own_part_alone() -> None:
    net = trained()
    folded, stripped = fold_model(net), strip_model(net)
    assert norms(folded) == 0 and any("extra" in name for name, _ in folded.named_modules())
    assert norms(stripped) == 3 and not any("extra" in name for name, _ in stripped.named_modules())
    x = torch.randn(2, 3, 20, 12)
    assert torch.equal(stripped(x), net.eval()(x))


def test_what_was_frozen_stays_frozen() -> None:
    net = trained()
    net.blocks[0].requires_grad_(False)
    folded = fold_model(net)
    assert not any(p.requires_grad for p in folded.get_submodule("blocks.0").parameters())
    assert all(p.requires_grad for p in folded.get_submodule("blocks.1").parameters())


def test_a_single_block() -> None:
    block = ConvNormAct(3, 4)
    assert isinstance(block, Foldable) and not isinstance(block, Strippable)
    assert not isinstance(nn.Conv2d(3, 4, 1), Foldable)
    assert norms(fold_model(block)) == 0
