"""Which units of groups are removed for a ratio: the least important ones, in numbers that runtimes like.

Sources: isomorphic pruning (Fang et al., arXiv 2407.04616) for the ranking within groups of equal structure.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from efftasks.compression.pruning.groups import ChannelGroup
from efftasks.compression.pruning.importance import Scores

__all__ = ["SCHEMES", "removed_units"]

SCHEMES = ("uniform", "global", "isomorphic")
LEAST = 0.1  # of the units of a group stay: a layer without channels cuts a network in two


def removed_units(
    model: nn.Module, groups: Sequence[ChannelGroup], scores: Scores, scheme: str, ratio: float, round_to: int
) -> dict[str, list[int]]:
    """The units that are removed of each group.

    Args:
        model: has the layers of the groups.
        groups: that may lose channels.
        scores: of their units.
        scheme: ``uniform``: the ratio of every group; ``global``: of all units together, ranked by their scores;
            ``isomorphic``: the same among groups with the same kinds of layers.
        ratio: share of units, in [0, 1]. A group keeps at least a tenth of its own.
        round_to: channels that are left are a multiple of this; a group that has no more is left alone.

    Returns:
        Name of a group -> ascending numbers of units; groups that lose none are left out.
    """
    removed = {}
    for ranked in _together(model, groups, scheme):
        bound = _bound(ranked, scores, ratio)
        for group in ranked:
            wish = group.size * (1 - ratio) if scheme == "uniform" else int((scores[group.name] > bound).sum())
            kept = _rounded(wish, group, round_to)
            if kept < group.size:
                order = torch.argsort(scores[group.name], descending=True, stable=True)
                removed[group.name] = sorted(order[kept:].tolist())
    return removed


def _together(model: nn.Module, groups: Sequence[ChannelGroup], scheme: str) -> Iterable[list[ChannelGroup]]:
    """Groups that are ranked together."""
    if scheme != "isomorphic":
        return [list(groups)]
    layers = dict(model.named_modules())
    kinds: dict[frozenset, list[ChannelGroup]] = defaultdict(list)
    for group in groups:
        kinds[frozenset(_kind(layers, group).items())].append(group)
    return kinds.values()


def _kind(layers: Mapping[str, nn.Module], group: ChannelGroup) -> Counter:
    """How many layers of which type, kernel and side a group has."""
    kinds: Counter = Counter()
    for member in group.members:
        layer = layers.get(member.axis.layer)
        shape = (layer.kernel_size, layer.groups > 1) if isinstance(layer, nn.Conv2d) else ()
        kinds[(type(layer).__name__, shape, member.axis.side)] += 1
    return kinds


def _bound(groups: Sequence[ChannelGroup], scores: Scores, ratio: float) -> float:
    """The score up to which units are removed."""
    ranked = torch.cat([scores[group.name] for group in groups]).sort().values
    count = int(ratio * len(ranked))
    return float(ranked[count - 1]) if count else -math.inf


def _rounded(units: float, group: ChannelGroup, round_to: int) -> int:
    """The number of units nearest to a wish: all of them, or a multiple."""
    step = group.step(round_to)
    least = math.ceil(max(LEAST * group.size, 1) / step) * step
    kept = min(max(math.floor(units / step + 0.5) * step, least), group.size)
    return group.size if group.size - units < abs(units - kept) else kept
