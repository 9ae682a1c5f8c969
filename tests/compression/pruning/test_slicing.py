"""Cutting layers: by hand, and plans that do not fit."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import nn

from efftasks.compression.pruning.checking import failing_groups, is_exact
from efftasks.compression.pruning.groups import find_groups, outputs_of
from efftasks.compression.pruning.record import tensors_of
from efftasks.compression.pruning.slicing import cut, kept_plan, mask
from efftasks.models.layers.rep import HalvesConv
from efftasks.structures.errors import UserError

NETWORKS = ("Chain", "Residual", "Elan", "Depthwise", "Grouped", "Tokens", "Twice", "Branches", "Strange")


def test_a_layer_keeps_the_weights_of_its_channels(networks: ModuleType) -> None:
    model = networks.Chain(4)
    model.norm.running_mean = torch.tensor([1.0, 2.0, 3.0, 4.0])
    dense = copy.deepcopy(model)
    plan = {"axes": {"first": {"out": 0}, "norm": {"norm": 0}, "last": {"in": 0}}, "kept": [[0, 3]]}
    cut(model, plan)
    assert torch.equal(model.first.weight, dense.first.weight[[0, 3]])
    assert torch.equal(model.first.bias, dense.first.bias[[0, 3]])
    assert torch.equal(model.last.weight, dense.last.weight[:, [0, 3]])
    assert model.norm.running_mean.tolist() == [1.0, 4.0] and model.norm.num_features == 2
    assert (model.first.out_channels, model.last.in_channels) == (2, 2)


def test_grouped_and_depthwise_convolutions_lose_groups(networks: ModuleType) -> None:
    model = networks.Grouped()
    (group,) = find_groups(model, (16, 16)).groups
    cut(model, kept_plan(model, [group], {group.name: [1, 3]}))
    assert (model.grouped.groups, model.grouped.in_channels, model.grouped.out_channels) == (2, 8, 16)
    assert model.grouped.weight.shape == (16, 4, 3, 3)
    with pytest.raises(UserError, match="parts of groups of 'grouped'"):
        cut(networks.Grouped(), {"axes": {"grouped": {"in": 0}}, "kept": [[0, 1]]})


def test_frozen_stays_frozen(networks: ModuleType) -> None:
    model = networks.Chain(4)
    model.first.requires_grad_(False)
    cut(model, {"axes": {"first": {"out": 0}, "norm": {"norm": 0}, "last": {"in": 0}}, "kept": [[1]]})
    assert not model.first.weight.requires_grad and model.last.weight.requires_grad


@pytest.mark.parametrize("name", NETWORKS)
def test_a_cut_equals_reading_zeros(networks: ModuleType, name: str) -> None:
    """In float32 and through JSON, beside the check that decides."""
    model = getattr(networks, name)().eval()
    groups = find_groups(model, (16, 16)).groups
    removed = {group.name: list(range(0, group.size, 2)) for group in groups}
    plan = json.loads(json.dumps(kept_plan(model, groups, removed)))
    masked, small = copy.deepcopy(model), copy.deepcopy(model)
    mask(masked, groups, removed)
    cut(small, plan)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        for one, other in zip(
            tensors_of(outputs_of(small, images)), tensors_of(outputs_of(masked, images)), strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert is_exact(model, groups, (16, 16)) and failing_groups(model, groups, (16, 16)) == {}


def test_a_group_that_lacks_a_layer_is_found(networks: ModuleType) -> None:
    model = networks.Residual()
    groups = find_groups(model, (16, 16)).groups
    broken = [
        replace(group, members=tuple(m for m in group.members if tuple(m.axis) != ("outer", "out"))) for group in groups
    ]
    assert failing_groups(model, broken, (16, 16)).keys() == {"stem"}


@pytest.mark.parametrize(
    ("axes", "kept"),
    [
        ({"nowhere": {"out": 0}}, [[0]]),
        ({"first": {"out": 0}}, [[]]),
        ({"first": {"out": 0}}, [[0, 8]]),
        ({"first": {"out": 0}}, [[1, 0]]),
        ({"first": {"out": 0}}, [[1, 1]]),
        ({"norm": {"out": 0}}, [[0]]),
        ({"last.weight": {"dim7": 0}}, [[0]]),
    ],
)
def test_a_plan_of_another_model_is_refused(networks: ModuleType, axes: Any, kept: list[list[int]]) -> None:
    with pytest.raises(UserError, match="the plan keeps channels"):
        cut(networks.Chain(), {"axes": axes, "kept": kept})


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 1))
        self.told: list[tuple[str, str, list[int]]] = []

    def keep_channels(self, layer: str, side: str, kept: Sequence[int]) -> None:
        self.told.append((layer, side, list(kept)))


def test_who_counts_channels_is_told() -> None:
    model = nn.Sequential(Counting(), nn.Conv2d(4, 4, 1))
    cut(model, {"axes": {"0.inner.0": {"out": 0}, "1": {"in": 0}}, "kept": [[0, 2]]})
    assert model[0].told == [("inner.0", "out", [0, 2])]


def test_a_convolution_over_concatenated_maps_counts_them_again() -> None:
    halves = HalvesConv((4, 2, 6), half=4, act="relu").eval()
    model = nn.Sequential(halves)
    cut(model, {"axes": {"0.conv": {"in": 0}}, "kept": [[0, 3, 4, 6, 7, 8, 11]]})
    assert halves.in_channels == (2, 1, 4)
    maps = [torch.rand(1, width, 4, 4) for width in (2, 1, 4)]
    with torch.no_grad():
        for one, other in zip(halves(maps), halves.fold()(maps)):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
