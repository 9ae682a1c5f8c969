"""Which channels widths have."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch
from torch import nn

from efftasks.compression.pruning.slicing import cut
from efftasks.dynamic.widths.plans import relative_plan, width_plans

WIDTHS = (1.0, 0.75, 0.5, 0.25)


def kept(plan: dict[str, Any]) -> dict[tuple[str, str], list[int]]:
    return {(name, side): plan["kept"][i] for name, sides in plan["axes"].items() for side, i in sides.items()}


def test_widths_have_the_first_channels_in_nested_numbers(dense: Callable[..., Any]) -> None:
    model = dense("fpnlite")
    plans = [kept(plan) for plan in width_plans(model, (64, 64), WIDTHS, False, 4)]
    assert plans[0] == {}
    lateral = {width: len(plan[("decode_head.laterals.0.conv", "out")]) for width, plan in zip(WIDTHS[1:], plans[1:])}
    assert lateral == {0.75: 72, 0.5: 48, 0.25: 24}  # of 96
    for wide, narrow in pairwise(plans[1:]):
        assert set(wide) <= set(narrow) and all(set(narrow[axis]) <= set(wide[axis]) for axis in wide)
    for (name, _), indices in plans[2].items():
        assert indices == list(range(len(indices))), name
        assert len(indices) % 4 == 0


def test_maps_between_backbone_and_heads_are_narrower_too(dense: Callable[..., Any]) -> None:
    model = dense("fpnlite")
    channels = [spec.channels for spec in model.feature_specs]
    (plan,) = width_plans(model, (64, 64), (0.5,), False, 4)
    cut(model, plan)
    assert all(new.channels < old for new, old in zip(model.feature_specs, channels))
    with torch.no_grad():
        stages = model.eval().stages(torch.rand(1, 3, 64, 64))
    assert [x.shape[1] for x in stages.features] == [spec.channels for spec in model.feature_specs]
    assert stages.raw.shape[1] == 3
    assert model.map_readers[0](stages.features).shape[1] == 3  # the auxiliary head


def test_ranked_channels_are_those_with_large_weights() -> None:
    first_layer = nn.Conv2d(3, 8, 1)
    model = nn.Sequential(first_layer, nn.ReLU(), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        first_layer.weight[[1, 6]] *= 100
    first, ranked = (kept(width_plans(model, (8, 8), (0.25,), ranked, 1)[0]) for ranked in (False, True))
    assert first == {("0", "out"): [0, 1], ("2", "in"): [0, 1]}
    assert ranked == {("0", "out"): [1, 6], ("2", "in"): [1, 6]}


def test_a_plan_on_a_wider_network_is_that_on_the_dense_one() -> None:
    plan = {"axes": {"a": {"out": 0, "in": 1}, "b": {"norm": 2}, "c": {"in": 3}}, "kept": [[1], [0, 2], [3], [0, 1]]}
    base = {"axes": {"a": {"out": 0}, "b": {"norm": 1}, "c": {"in": 2}}, "kept": [[1, 4], [0, 3], [0, 1]]}
    assert kept(relative_plan(plan, base)) == {("a", "out"): [0], ("a", "in"): [0, 2], ("b", "norm"): [1]}


def test_cutting_in_two_steps_is_cutting_once(dense: Callable[..., Any]) -> None:
    model = dense("fpnlite")
    base, plan = width_plans(model, (64, 64), (0.75, 0.25), True, 4)
    once, twice = copy.deepcopy(model), model
    cut(once, plan)
    cut(twice, base)
    cut(twice, relative_plan(plan, base))
    expected = once.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in twice.state_dict().items())
