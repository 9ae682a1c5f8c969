"""Scores of channels: by hand, against torch-pruning, and against the true change of a loss."""

from __future__ import annotations

import copy
from types import ModuleType

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from efftasks.compression.pruning.groups import ChannelGroup, find_groups
from efftasks.compression.pruning.importance import bn_scale, first_ones, magnitude, taylor
from efftasks.compression.pruning.slicing import mask

SIZE = (8, 8)


def two_channels(networks: ModuleType) -> tuple[nn.Module, list[ChannelGroup]]:
    """first: (2, 3, 3, 3) of ones and twos; norm: 3 and -1; last: (2, 2, 1, 1) with columns (1, 0) and (2, 2)."""
    model = networks.Chain(2)
    with torch.no_grad():
        model.first.weight[0], model.first.weight[1] = 1.0, 2.0
        model.norm.weight.copy_(torch.tensor([3.0, -1.0]))
        model.last.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 2.0]])[:, :, None, None])
    return model, find_groups(model, SIZE).groups


def test_magnitude_by_hand(networks: ModuleType) -> None:
    model, groups = two_channels(networks)
    # 27 weights of 1, a scale of 3, a weight of 1: 27 + 9 + 1; 27 of 2, a scale of -1, two of 2: 108 + 1 + 8.
    assert_close(magnitude(model, groups)["first"], torch.tensor([37.0, 117.0], dtype=torch.float64) / 77)


def test_scales_by_hand(networks: ModuleType) -> None:
    model, groups = two_channels(networks)
    assert_close(bn_scale(model, groups)["first"], torch.tensor([1.5, 0.5], dtype=torch.float64))
    plain = networks.Residual()  # without norms
    groups = find_groups(plain, SIZE).groups
    for name, scores in bn_scale(plain, groups).items():
        assert_close(scores, magnitude(plain, groups)[name])


@pytest.mark.parametrize("name", ["Chain", "Residual"])
def test_magnitude_is_that_of_torch_pruning(networks: ModuleType, name: str) -> None:
    pruning = pytest.importorskip("torch_pruning")
    model = getattr(networks, name)()
    graph = pruning.DependencyGraph().build_dependency(model, torch.rand(1, 3, *SIZE))
    groups = find_groups(model, SIZE).groups
    for group in groups:
        layer = model.get_submodule(group.name)
        reference = graph.get_pruning_group(layer, pruning.prune_conv_out_channels, list(range(layer.out_channels)))
        expected = pruning.importance.GroupMagnitudeImportance(p=2)(reference)
        assert_close(magnitude(model, groups)[group.name].float(), expected, atol=1e-5, rtol=1e-5)


def test_taylor_is_the_change_of_a_linear_loss(networks: ModuleType) -> None:
    """Of a loss that is linear in the weights that read a channel, first order is exact."""
    model = networks.Elan().eval()
    groups = find_groups(model, SIZE).groups
    with torch.no_grad():
        model.last.weight.fill_(1.0)  # the sum of outputs is linear in merge
    batches = [torch.rand(2, 3, *SIZE) for _ in range(3)]
    scores = taylor(model, groups, (model(images).sum() for images in batches))
    assert all(p.grad is None for p in model.parameters())
    (group,) = [group for group in groups if group.name == "pair"]
    for unit in range(group.size):
        masked = copy.deepcopy(model)
        mask(masked, [group], {"pair": [unit]})
        with torch.no_grad():
            changes = torch.stack([(masked(images) - model(images)).double().sum() for images in batches])
        assert_close(scores["pair"][unit], changes.square().mean(), atol=1e-6, rtol=1e-3)


def test_taylor_scores_frozen_layers_as_others(networks: ModuleType) -> None:
    model = networks.Residual().eval()
    groups = find_groups(model, SIZE).groups
    batches = [torch.rand(2, 3, *SIZE) for _ in range(2)]

    def scores() -> dict[str, torch.Tensor]:
        return dict(taylor(model, groups, (model(images).square().mean() for images in batches)))

    expected = scores()
    model.outer.requires_grad_(False)
    frozen = scores()
    assert frozen.keys() == expected.keys() and all(values.sum() > 0 for values in frozen.values())
    for name, values in frozen.items():
        assert_close(values, expected[name])
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        name for name, _ in model.named_parameters() if name.startswith("outer.")
    }
    assert all(p.grad is None for p in model.parameters())


def test_taylor_removes_what_the_loss_does_not_need(networks: ModuleType) -> None:
    model = networks.Residual()
    with torch.no_grad():
        model.outer.weight[:, 5:9] = 0
    groups = find_groups(model, SIZE).groups
    scores = taylor(model, groups, (model(torch.rand(1, 3, *SIZE)).square().mean() for _ in range(2)))
    assert scores["inner"].argsort()[:4].sort().values.tolist() == [5, 6, 7, 8]


def test_without_weights_the_first_channels_stay(networks: ModuleType) -> None:
    scores = first_ones(find_groups(networks.Elan(), SIZE).groups)
    assert all((values.diff() < 0).all() for values in scores.values())
