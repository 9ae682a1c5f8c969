"""The step of a config: what it refuses, and which models it takes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn
from torch.utils import _pytree as pytree

from efftasks.compression.building import build_model
from efftasks.compression.pruning.slicing import cut
from efftasks.compression.transform import DecideContext
from efftasks.dynamic.widths.plans import width_plans
from efftasks.dynamic.widths.slimmable import Slimmable
from efftasks.structures.errors import UserError

CONTEXT = DecideContext(image_size=(96, 96))
BY_DISTILLATION = ("o2o_masks", "o2o_keypoints", "o2o_all", "seaformer_s", "ppliteseg_t", "pidnet_s", "ddrnet23_slim")
BY_ANNOTATIONS = ("dfine", "rtdetrv2", "deimv2_lite", "sparseinst", "detrpose")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(widths=()), r"widths: got \(\), expected"),
        (dict(widths=(0.5, 1.5)), "widths: .* above 0, at most 1"),
        (dict(widths=(0.5, 0)), "widths: .* above 0, at most 1"),
        (dict(widths=(0.5, 0.5)), "widths: .* different numbers"),
        (dict(sampled=1), "sampled: got 1, allowed are integers from 2 to 4"),
        (dict(sampled=5), "sampled: got 5, allowed"),
        (dict(ground_truth="none"), "ground_truth: got 'none', allowed are 'all' and 'widest'"),
        (dict(round_to=0), "round_to: got 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Slimmable(**arguments)


def test_models_that_it_does_not_take(families: ModuleType, dense: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="got a PoseEstimator, expected a Detector or a Segmentor"):
        Slimmable().decide(families.build_family("simcc"), CONTEXT)
    with pytest.raises(UserError, match=r"got a QueryHead, .* set distillation=dict\(\)"):
        Slimmable().decide(families.build_family("deimv2_lite"), CONTEXT)
    with pytest.raises(UserError, match="ground_truth: got 'widest'"):
        Slimmable(ground_truth="widest").decide(dense("o2o"), CONTEXT)
    with pytest.raises(UserError, match="ground_truth: got 'widest'"):
        Slimmable(ground_truth="widest", distillation={}).decide(dense("fpnlite"), CONTEXT)
    with pytest.raises(UserError, match="no image_size"):
        Slimmable().decide(dense("fpnlite"), DecideContext())
    guided = dense("fpnlite")
    guided.guide = nn.Identity()
    with pytest.raises(UserError, match=r"has a guide.*remove model\.guide"):
        Slimmable().decide(guided, CONTEXT)
    leaving = dense("o2o")
    leaving.early_exit = nn.Identity()
    with pytest.raises(UserError, match="got a model with an early exit"):
        Slimmable().decide(leaving, CONTEXT)


def test_a_single_width_is_a_network_of_that_width(dense: Callable[..., Any], slimmed: Callable[..., Any]) -> None:
    expected = dense("fpnlite")
    (plan,) = width_plans(expected, (96, 96), (0.5,), False, 4)
    cut(expected, plan)
    network = slimmed("fpnlite", widths=(0.5,))
    assert network.choices() == (0.5,) and network.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in network.state_dict().items())


def test_it_is_the_last_step(families: ModuleType) -> None:
    config = Config.fromfile(families.MODEL_CONFIGS / "fpnlite.py").model
    config.decode_head.num_classes = config.auxiliary_head.num_classes = 3
    config.backbone.width = 0.25
    steps: list[dict[str, Any]] = [dict(type="Slimmable", widths=(1.0, 0.5)), dict(type="Prune", ratio=0.5)]
    message = r"Prune comes after Slimmable.* expected Slimmable as the last step"
    with DefaultScope.overwrite_default_scope("efftasks"), pytest.raises(UserError, match=message):
        build_model(config, steps, context=CONTEXT)


@pytest.mark.slow
def test_trained_weights_are_ranked(dense: Callable[..., Any]) -> None:
    model = dense("fpnlite")
    trained = DecideContext(image_size=(96, 96), has_weights=True)
    plans = [Slimmable(ranked=ranked).decide(model, trained)["plans"] for ranked in (True, False)]
    fresh = Slimmable().decide(model, CONTEXT)["plans"]
    assert plans[1] == fresh != plans[0]
    assert [len(kept) for kept in plans[0][1]["kept"]] and plans[0][0] == fresh[0] == dict(axes={}, kept=[])


@pytest.mark.slow
@pytest.mark.parametrize("family", [*BY_DISTILLATION, *BY_ANNOTATIONS])
def test_families(families: ModuleType, family: str) -> None:
    """Every family trains in several widths, each of which can be taken out."""
    model = families.build_family(family)
    model.guide = None
    task = model.task
    step = Slimmable(widths=(1.0, 0.5), distillation={} if family in BY_ANNOTATIONS else None)
    network: Any = step.apply(model, step.decide(model, CONTEXT)).train()
    losses = network(families.images(family), families.samples(family, task), mode="loss")
    assert any("guide" in name for name in losses) == (family in BY_DISTILLATION)
    network.parse_losses(losses)[0].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    images, sizes = families.images(family), []
    for width in network.eval().choices():
        network.activate(width)
        plain = network.extract()
        sizes.append(sum(parameter.numel() for parameter in plain.parameters()))
        with torch.no_grad():
            pairs = zip(*(pytree.tree_leaves(part(images)) for part in (plain, network)), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor))
            assert plain.infer(images)[0].shape[0] == len(images)
    assert sizes[1] < 0.75 * sizes[0]
