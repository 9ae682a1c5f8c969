"""Low-rank layers against the singular value decomposition and its theorem, and in every family of networks."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn
from torch.testing import assert_close

from efftasks.compression.folding import fold_model, inference_model
from efftasks.compression.low_rank import LowRank, energy_rank, low_rank_factors
from efftasks.compression.transform import DecideContext, called_modules
from efftasks.models.backbones.timm_backbone import TimmBackbone
from efftasks.models.layers.conv import ConvNormAct
from efftasks.structures.errors import UserError

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "_base_" / "models").glob("*.py"))
SLOW = ("lraspp", "o2o", "o2o_masks", "o2o_keypoints", "dfine")  # as tests/models/test_fold_and_strip.py has it


def flat(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    children = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, (list, tuple)) else ()
    return [tensor for child in children for tensor in flat(child)]


@pytest.mark.parametrize("shape", [(7, 5), (4, 9), (6, 6)])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_the_error_is_that_of_eckart_and_young(shape: tuple[int, int], rank: int) -> None:
    weight = torch.randn(*shape, dtype=torch.float64)
    left, right = low_rank_factors(weight, rank)
    assert left.shape == (shape[0], rank) and right.shape == (rank, shape[1])
    left_out = torch.linalg.svdvals(weight)[rank:]
    assert_close((weight - left @ right).square().sum(), left_out.square().sum(), atol=1e-12, rtol=1e-9)


def test_energy_counts_squares_of_singular_values() -> None:
    weight = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0]))  # squares 9, 4, 1: shares 9/14, 13/14, 1
    assert [energy_rank(weight, share) for share in (0.5, 0.64, 0.65, 0.92, 0.93, 1.0)] == [1, 1, 2, 2, 3, 3]


class Net(nn.Module):
    """A pointwise layer of each kind, a strided one, one that is used twice, and others that are to be left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvNormAct(3, 16, 3)
        self.wide = ConvNormAct(16, 24, 1, act="silu")
        self.strided = nn.Conv2d(24, 16, 1, stride=2)
        self.depthwise = ConvNormAct(16, 16, 1, groups=16)
        self.again = self.mixed = nn.Conv2d(16, 16, 1)
        self.last = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.strided(self.wide(self.first(x))))
        return self.last(self.again(self.mixed(x)).mean((2, 3)))


def trained_net() -> Net:
    net = Net().train()
    for _ in range(3):
        net(torch.randn(4, 3, 16, 16))
    return net.eval()


POINTWISE = {"wide.conv": 16, "strided": 16, "again": 16, "last": 10}  # name: full rank


def test_full_rank_is_the_layer_itself() -> None:
    net, x = trained_net(), torch.randn(2, 3, 16, 16)
    want = net(x)
    assert set(POINTWISE) <= {name for name, _ in called_modules(net)}
    got = LowRank.apply(net, dict(ranks=POINTWISE))
    assert_close(got(x), want, atol=1e-5, rtol=1e-5)
    assert isinstance(net.wide.conv, nn.Sequential) and net.again is net.mixed
    assert_close(fold_model(got)(x), want, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fold_model(got).modules())


def test_ranks_come_from_shapes_without_weights_and_from_energy_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    logger = SimpleNamespace(warning=lines.append)
    monkeypatch.setattr(MMLogger, "get_current_instance", lambda: logger)
    net = trained_net()
    net.last.weight.data = torch.ones(10, 16)  # rank 1
    step = LowRank(layers=["*"], ratio=0.5, energy=0.999)
    plan = step.decide(net, DecideContext(has_weights=False))
    # Half of 16 * 24 weights are rank 192 / 40 = 4.8; of 16 * 16, 128 / 32 = 4; of 16 * 10, 80 / 26 = 3.07.
    assert plan == {"ranks": {"wide.conv": 4, "strided": 4, "again": 4, "last": 3}}
    assert len(lines) == 1 and "ratio=0.5 decides and not energy=0.999" in lines[0]
    assert json.loads(json.dumps(plan)) == plan
    decided = step.decide(net, DecideContext(has_weights=True))["ranks"]
    assert decided["last"] == 1
    # Random matrices need nearly all ranks for that share, and two layers would be larger than one.
    assert "again" not in decided
    assert LowRank(layers=["last"], ratio=0.5).decide(net, DecideContext(has_weights=True)) == {"ranks": {"last": 3}}


def test_a_plan_replays_to_the_same_layers_without_the_weights() -> None:
    plan = LowRank(layers=["*"], energy=0.7).decide(trained_net(), DecideContext(has_weights=True))
    one, other = (LowRank.apply(net, plan) for net in (trained_net(), Net()))
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (one, other)]
    assert shapes[0] == shapes[1]
    assert sum(p.numel() for p in one.parameters()) < sum(p.numel() for p in Net().parameters())


def test_frozen_layers_stay_frozen() -> None:
    net = trained_net()
    net.strided.requires_grad_(False)
    LowRank.apply(net, dict(ranks={"strided": 4, "last": 3}))
    assert not any(p.requires_grad for p in net.strided.parameters())
    assert all(p.requires_grad for p in net.last.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(layers="last"), "layers: got 'last'"),
        (dict(layers=[]), "layers: got"),
        (dict(layers=["*"], ratio=1.0), "ratio: got 1.0"),
        (dict(layers=["*"], energy=0.0), "energy: got 0.0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LowRank(**arguments)


def test_a_pattern_that_matches_nothing_and_a_plan_of_another_model_are_refused() -> None:
    with pytest.raises(UserError, match=r"got 'backbone\.x', which names no linear layer or 1x1 convolution"):
        LowRank(layers=["last", "backbone.x"]).decide(Net(), DecideContext(has_weights=False))
    for ranks in ({"nowhere": 1}, {"first.conv": 1}, {"last": 11}, {"last": 0}):
        with pytest.raises(UserError, match="which the model has no layer for"):
            LowRank.apply(Net(), dict(ranks=ranks))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NAMES])
def test_every_family_works_with_every_layer_replaced(name: str, families: ModuleType) -> None:
    """At full rank, so that nothing else is changed: forward, folding, losses and gradients."""
    model = families.build_family(name)
    families.randomize_norms(model)
    images = families.images(name)
    with torch.no_grad():
        want = flat(model.eval()(images, mode="tensor"))
    layers: dict[str, Any] = {k: part for k, part in called_modules(model) if type(part) in (nn.Linear, nn.Conv2d)}
    ranks = {
        key: min(part.weight.shape[:2])
        for key, part in layers.items()
        if isinstance(part, nn.Linear) or (part.kernel_size == (1, 1) and part.groups == 1 and part.padding == (0, 0))
    }
    compressed: Any = LowRank.apply(model, dict(ranks=ranks))
    assert ranks and all(isinstance(compressed.get_submodule(key), nn.Sequential) for key in ranks)
    with torch.no_grad():
        for model in (compressed, inference_model(compressed)):
            for tensor, wanted in zip(flat(model(images, mode="tensor")), want, strict=True):
                assert (tensor - wanted).norm() <= 1e-2 * wanted.norm()
    dense = families.build_family(name)
    families.total_loss(name, dense).backward()
    families.total_loss(name, compressed).backward()
    learned = [key for key in ranks if dense.get_submodule(key).weight.grad is not None]
    assert learned
    assert all(p.grad is not None for key in learned for p in compressed.get_submodule(key).parameters())


def test_blocks_that_timm_reparametrizes_are_left_alone() -> None:
    pytest.importorskip("timm")
    backbone = TimmBackbone("repvit_m0_9", weights=None).eval()
    transform = LowRank(["*"], ratio=0.3)
    plan = transform.decide(backbone, DecideContext(has_weights=False))
    assert plan["ranks"]
    smaller = transform.apply(backbone, plan)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = smaller(images), inference_model(smaller)(images)
    for a, b in zip(expected, found):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
