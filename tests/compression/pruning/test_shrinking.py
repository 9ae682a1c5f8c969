"""The proximal step of the group lasso, by hand."""

from __future__ import annotations

from types import ModuleType

import efftasks.compat  # noqa: F401

# isort: split
import torch
from torch.testing import assert_close

from efftasks.compression.pruning.groups import find_groups
from efftasks.compression.pruning.shrinking import GroupShrinker


def test_norms_become_smaller_by_a_share_of_their_mean(networks: ModuleType) -> None:
    model = networks.Chain(4)
    with torch.no_grad():
        for tensor in (model.first.weight, model.first.bias, model.norm.bias):
            tensor.zero_()
        model.norm.weight.copy_(torch.tensor([3.0, 0.0, 0.25, 6.0]))
        model.last.weight.copy_(torch.tensor([[4.0, 0.0, 0.0, 8.0], [0.0, 5.0, 0.0, 0.0]])[:, :, None, None])
    bias = model.last.bias.clone()
    shrinker = GroupShrinker(model, find_groups(model, (8, 8)).groups)
    assert_close(shrinker.norms()[0], torch.tensor([5.0, 5.0, 0.25, 10.0], dtype=torch.float64))
    shrinker.shrink(0.1)  # of the mean 5.0625
    cut = 0.50625
    assert_close(shrinker.norms()[0], torch.tensor([5.0 - cut, 5.0 - cut, 0.0, 10.0 - cut], dtype=torch.float64))
    assert_close(
        model.norm.weight, torch.tensor([3.0, 0.0, 0.0, 6.0]) * (1 - cut / torch.tensor([5.0, 5.0, 1.0, 10.0]))
    )
    assert torch.equal(model.last.bias, bias)


def test_frozen_weights_neither_count_nor_change(networks: ModuleType) -> None:
    model = networks.Depthwise()
    model.scale.requires_grad_(False)
    before = model.scale.clone()
    groups = [group for group in find_groups(model, (8, 8)).groups if group.name == "project"]
    shrinker = GroupShrinker(model, groups)
    expected = model.project.weight.flatten(1).square().sum(1) + model.last.weight.flatten(2).square().sum((0, 2))
    expected = expected + model.project.bias.square()
    assert_close(shrinker.norms()[0].float(), expected.detach().sqrt())
    shrinker.shrink(0.5)
    assert torch.equal(model.scale, before)
