"""Rates by patterns of names."""

from __future__ import annotations

import pytest
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from efftasks.engine.param_groups import PatternConstructor

OPTIMIZER = dict(optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.1))


def model() -> nn.Module:
    made = nn.ModuleDict(dict(backbone=nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), head=nn.Linear(4, 2)))
    made["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    return made


def test_the_first_pattern_that_fits_counts() -> None:
    patterns = {
        r"^backbone\.1": dict(lr=1e-4, weight_decay=0.0),
        r"^backbone\.": dict(lr=1e-4),
        "bias": dict(weight_decay=0.0),
    }
    net = model()
    wrapper = PatternConstructor(OPTIMIZER, dict(patterns=patterns))(net)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }
    rates = {name: found.get(id(parameter)) for name, parameter in net.named_parameters()}
    assert rates == {
        "backbone.0.weight": (1e-4, 0.1),
        "backbone.0.bias": (1e-4, 0.1),
        "backbone.1.weight": (1e-4, 0.0),
        "backbone.1.bias": (1e-4, 0.0),
        "head.weight": (1e-3, 0.1),
        "head.bias": (1e-3, 0.0),
        "frozen.weight": None,
        "frozen.bias": None,
    }


def test_names_are_those_of_the_model_inside_a_wrapper() -> None:
    class Wrapper(nn.Module):  # as MMDistributedDataParallel, which needs a process group
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    MODEL_WRAPPERS.register_module(name="ParamGroupsTestWrapper", module=Wrapper, force=True)
    patterns = {r"^backbone\.": dict(lr=1e-4)}
    wrapper = PatternConstructor(OPTIMIZER, dict(patterns=patterns))(Wrapper(model()))
    assert [(group["lr"], len(group["params"])) for group in wrapper.optimizer.param_groups] == [(1e-3, 2), (1e-4, 4)]


@pytest.mark.parametrize(
    ("paramwise", "message"),
    [
        (dict(patterns={"neck": dict(lr=1.0)}), "'neck', no parameter's name fits it"),
        (dict(patterns={"head": dict(momentum=1.0)}), "got momentum, allowed are lr and weight_decay"),
        (dict(patterns={"head": dict(lr=1.0)}, no_decay="norm"), "got patterns, no_decay, allowed are patterns, or"),
        (dict(custom_keys={}), "got custom_keys, allowed are patterns, or"),
    ],
)
def test_mistakes_are_named(paramwise: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatternConstructor(OPTIMIZER, paramwise)(model())


def settings(paramwise: dict) -> dict[str, tuple[float, float]]:
    net = model()
    groups = PatternConstructor(OPTIMIZER, paramwise)(net).optimizer.param_groups
    found = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    return {name: found[id(parameter)] for name, parameter in net.named_parameters() if id(parameter) in found}


def test_a_factor_for_the_backbone_and_what_does_not_decay() -> None:
    assert settings(dict(backbone_lr_mult=0.01, no_decay="bias")) == {
        "backbone.0.weight": (1e-5, 0.1),
        "backbone.0.bias": (1e-5, 0.1),  # in the backbone norms alone do not decay, and none is called so here
        "backbone.1.weight": (1e-5, 0.1),
        "backbone.1.bias": (1e-5, 0.1),
        "head.weight": (1e-3, 0.1),
        "head.bias": (1e-3, 0.0),
    }
    assert settings(dict(backbone_lr_mult=1.0, no_decay="bias"))["backbone.0.bias"] == (1e-3, 0.0)
    assert settings(dict(backbone_lr_mult=None, no_decay=None)) == settings({})


def test_norms_of_a_backbone_with_a_rate_of_its_own_do_not_decay() -> None:
    net = nn.ModuleDict(dict(backbone=nn.ModuleDict(dict(norm=nn.BatchNorm2d(4), conv=nn.Conv2d(4, 4, 1)))))
    groups = PatternConstructor(OPTIMIZER, dict(backbone_lr_mult=0.5))(net).optimizer.param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(5e-4, 0.0), (5e-4, 0.1)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(no_decay="nrom"), r"paramwise_cfg\.no_decay: got 'nrom', no parameter's name fits it"),
        (
            dict(backbone_lr_mult=0.5, no_decay="bias"),
            r"paramwise_cfg\.backbone_lr_mult: .* no parameter's name fits it",
        ),
    ],
)
def test_a_setting_without_effect_is_named(settings: dict, message: str) -> None:
    net = nn.ModuleDict(dict(head=nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=message):
        PatternConstructor(OPTIMIZER, settings)(net)
