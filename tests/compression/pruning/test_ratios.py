"""Which units go, by hand."""

from __future__ import annotations

from types import ModuleType

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import nn

from efftasks.compression.pruning.groups import ChannelGroup, Member, find_groups
from efftasks.compression.pruning.ratios import removed_units
from efftasks.compression.pruning.record import Axis


def group(name: str, size: int, width: int = 1) -> ChannelGroup:
    channels = tuple(tuple(range(unit * width, (unit + 1) * width)) for unit in range(size))
    return ChannelGroup(name, (Member(Axis(name, "out"), channels),), size)


def net(**widths: int) -> nn.Module:
    return nn.ModuleDict({name: nn.Conv2d(3, width, 1) for name, width in widths.items()})


def up(count: int, factor: float = 1.0) -> torch.Tensor:
    return torch.arange(1, count + 1, dtype=torch.float64) * factor


def test_uniform_takes_the_share_of_each() -> None:
    groups, scores = [group("a", 10), group("b", 20)], {"a": up(10), "b": up(20).flip(0)}
    removed = removed_units(net(a=10, b=20), groups, scores, "uniform", 0.3, round_to=1)
    assert removed == {"a": [0, 1, 2], "b": [14, 15, 16, 17, 18, 19]}


def test_global_ranks_all_together() -> None:
    groups, scores = [group("a", 10), group("b", 10)], {"a": up(10), "b": up(10, 100.0)}
    # Half of 20: all of a, of which a tenth stays.
    assert removed_units(net(a=10, b=10), groups, scores, "global", 0.5, 1) == {"a": list(range(9))}
    assert removed_units(net(a=10, b=10), groups, scores, "global", 0.6, 1) == {"a": list(range(9)), "b": [0, 1]}


def test_isomorphic_ranks_equal_kinds_of_layers() -> None:
    model = nn.ModuleDict(dict(a=nn.Conv2d(3, 10, 1), b=nn.Conv2d(3, 10, 1), c=nn.Conv2d(3, 10, 3)))
    groups, scores = [group(name, 10) for name in "abc"], {"a": up(10), "b": up(10, 100.0), "c": up(10, 0.001)}
    # a and b: half of 20 are those of a; c alone loses half of its own.
    expected = {"a": list(range(9)), "c": [0, 1, 2, 3, 4]}
    assert removed_units(model, groups, scores, "isomorphic", 0.5, 1) == expected


@pytest.mark.parametrize(
    ("size", "ratio", "kept"),
    [
        (32, 0.3, 24),
        (32, 0.4, 16),
        (32, 0.99, 8),
        (8, 0.9, 8),
        (20, 0.5, 8),
        (20, 0.05, 20),
        (6, 0.5, 6),
        (100, 0.99, 16),
    ],
)
def test_channels_that_are_left_are_multiples(size: int, ratio: float, kept: int) -> None:
    """Or all of them; at least a tenth: of 100 that is 10, and with multiples of 8 it is 16."""
    removed = removed_units(net(a=size), [group("a", size)], {"a": up(size)}, "uniform", ratio, round_to=8)
    assert size - len(removed.get("a", [])) == kept


def test_units_of_several_channels_count_all_of_them() -> None:
    removed = removed_units(net(a=64), [group("a", 16, width=4)], {"a": up(16)}, "uniform", 0.3, round_to=8)
    assert len(removed["a"]) == 4  # 16 * 0.7 = 11.2 units, a multiple of two: 12 units of 4 are 48 channels


def test_ties_keep_the_first(networks: ModuleType) -> None:
    model = networks.Chain()
    (found,) = find_groups(model, (8, 8)).groups
    assert removed_units(model, [found], {"first": torch.ones(8)}, "uniform", 0.5, 4) == {"first": [4, 5, 6, 7]}
