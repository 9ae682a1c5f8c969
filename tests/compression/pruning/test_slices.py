"""Weights of a cut network as parts of those before: against cutting itself."""

from __future__ import annotations

import copy
from types import ModuleType

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import Tensor, nn

from efftasks.compression.pruning.groups import find_groups
from efftasks.compression.pruning.slices import parameter_slices, sliced
from efftasks.compression.pruning.slicing import cut, kept_plan

NETWORKS = ("Chain", "Residual", "Elan", "Depthwise", "Grouped", "Tokens", "Twice", "Branches")


@pytest.mark.parametrize("first", [True, False], ids=["first channels", "any channels"])
@pytest.mark.parametrize("name", NETWORKS)
def test_parts_of_weights_are_those_of_the_cut_network(networks: ModuleType, name: str, first: bool) -> None:
    model = getattr(networks, name)()
    groups = find_groups(model, (16, 16)).groups
    removed = {g.name: list(range(g.size // 2, g.size) if first else range(0, g.size, 2)) for g in groups}
    plan = kept_plan(model, groups, removed)
    small = copy.deepcopy(model)
    cut(small, plan)
    slices = parameter_slices(model, plan)
    shared = dict(model.named_parameters())
    for key, expected in small.named_parameters():
        assert torch.equal(sliced(shared[key], slices.get(key, {})), expected), key
    assert any(len(dims) == 2 for dims in slices.values()) or name in (
        "Chain",
        "Twice",
        "Branches",
        "Tokens",
        "Grouped",
    )


def test_gradients_reach_the_part_alone() -> None:
    weight = nn.Parameter(torch.rand(4, 3))
    part = sliced(weight, {0: torch.tensor([1, 3]), 1: 2})
    (2 * part).sum().backward()
    expected = torch.zeros(4, 3)
    expected[1, :2] = expected[3, :2] = 2
    assert weight.grad is not None and torch.equal(weight.grad, expected)


def test_first_channels_are_a_view() -> None:
    weight = torch.rand(4, 3)
    plan = {"axes": {"0": {"out": 0}, "1": {"in": 1}}, "kept": [[0, 1], [1, 2]]}
    slices = parameter_slices(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), plan)
    assert {name: type(dims.popitem()[1]) for name, dims in slices.items()} == {
        "0.weight": int,
        "0.bias": int,
        "1.weight": Tensor,
    }
    assert sliced(weight, {0: 2}).data_ptr() == weight.data_ptr() and torch.equal(sliced(weight, {0: 2}), weight[:2])
