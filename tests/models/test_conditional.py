"""The step: what it decides, that a plan rebuilds the model, and what the other steps make of it."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn
from torch.testing import assert_close

from efftasks.compression.building import BuiltModel, build_model
from efftasks.compression.folding import fold_model
from efftasks.compression.low_rank import LowRank
from efftasks.compression.pruning.prune import Prune
from efftasks.compression.quantization.convert import converted
from efftasks.compression.quantization.part import quantized_parts
from efftasks.compression.transform import DecideContext
from efftasks.engine.cpu import crashes_channels_last
from efftasks.models.conditional import ConditionalConv
from efftasks.models.layers.cond_conv import CondConv2d
from efftasks.models.layers.conv import ConvNormAct
from efftasks.structures.errors import UserError

STEP = dict(type="ConditionalConv", layers=["stages.2.*.pw_proj.conv", "stages.3.0.dw_*"], experts=3)
BACKBONE = dict(type="MobileNetV4", variant="conv-s", width=0.5)
TRAINED = DecideContext(has_weights=True, image_size=(64, 64))


def built(*steps: dict[str, Any], **arguments: Any) -> BuiltModel:
    with DefaultScope.overwrite_default_scope("efftasks"):
        return build_model(BACKBONE, steps, **arguments)


def conditional(model: nn.Module) -> dict[str, CondConv2d]:
    return {name: part for name, part in model.named_modules() if isinstance(part, CondConv2d)}


def routed(model: nn.Module) -> nn.Module:
    """Gates that differ from image to image."""
    for layer in conditional(model).values():
        nn.init.normal_(layer.router)
        nn.init.normal_(layer.router_bias)
    return model


def test_a_trained_network_is_the_same_at_first_and_its_plan_rebuilds_it() -> None:
    dense, x = built().model.eval(), torch.randn(2, 3, 64, 64)
    model, plan = built(STEP, load=lambda model: model.load_state_dict(dense.state_dict()))
    assert plan is not None
    names = [f"stages.2.{i}.pw_proj.conv" for i in range(6)] + ["stages.3.0.dw_start.conv", "stages.3.0.dw_mid.conv"]
    assert sorted(conditional(model)) == sorted(names)
    assert plan.steps[0].plan == dict(layers=plan.steps[0].plan["layers"], experts=3, temperature=1.0, noise=0.1)
    for one, other in zip(model.eval()(x), dense(x), strict=True):
        assert_close(one, other, atol=1e-4, rtol=1e-4)
    routed(model)
    assert max((one - other).abs().max() for one, other in zip(model(x), dense(x))) > 1e-2
    again = built(
        plan=type(plan)(plan.dense, tuple(step._replace(plan=json.loads(json.dumps(step.plan))) for step in plan.steps))
    ).model
    again.load_state_dict(model.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(again.eval()(x), model(x), strict=True))
    assert [spec.channels for spec in again.specs] == [spec.channels for spec in dense.specs]


def test_from_scratch_experts_are_as_different_as_random_kernels() -> None:
    (layer,) = conditional(built(dict(STEP, layers=["stages.3.1.pw_exp.conv"])).model).values()
    a, b, _ = layer.weight.detach().flatten(1)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.75 and float((a - b).std() / a.std()) > 0.8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(layers="last"), "layers: got 'last'"),
        (dict(layers=[]), "layers: got []"),
        (dict(layers=["*"], experts=1), "experts: got 1"),
        (dict(layers=["*"], temperature=0.0), "temperature: got 0.0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        ConditionalConv(**arguments)


def test_a_pattern_of_nothing_and_a_plan_of_another_model_are_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), nn.Conv2d(4, 4, 1), nn.Linear(4, 4))
    assert ConditionalConv(["*"]).decide(net, TRAINED)["layers"] == ["1"]
    with pytest.raises(UserError, match="got '0', which names no convolution of the model that can be replaced"):
        ConditionalConv(["1", "0"]).decide(net, TRAINED)
    plan = ConditionalConv(["1"]).decide(net, TRAINED)
    with pytest.raises(UserError, match="the plan has '1', which the model has no convolution for"):
        ConditionalConv.apply(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), plan)


def test_pruning_leaves_it_alone_and_cuts_the_rest_and_low_rank_does_not_see_it() -> None:
    model = nn.Sequential(routed(built(STEP).model)).eval()
    before = {name: part.weight.shape for name, part in conditional(model).items()}
    small = Prune.apply(copy.deepcopy(model), Prune(ratio=0.5, round_to=4).decide(model, TRAINED))
    assert {name: part.weight.shape for name, part in conditional(small).items()} == before
    assert sum(p.numel() for p in small.parameters()) < 0.9 * sum(p.numel() for p in model.parameters())
    x = torch.rand(1, 3, 64, 64)
    assert [out.shape for out in small(x)] == [out.shape for out in model(x)]
    ranks = LowRank(["*"]).decide(model, TRAINED)["ranks"]
    assert ranks and not any(name.startswith(tuple(before)) for name in ranks)


class Maps(nn.Module):
    """A pointwise and a depthwise conditional convolution behind a plain one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 8, 3, stride=2)
        self.wide = ConvNormAct(8, 8, 1)
        self.deep = ConvNormAct(8, 8, 3, groups=8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.deep(self.wide(self.stem(images)))


def test_quantization_aware_training_leaves_it_in_float(module_at: Any) -> None:
    pytest.importorskip("torchao")
    toys: ModuleType = module_at(Path(__file__).parents[1] / "compression" / "quantization" / "toys.py")
    torch.manual_seed(0)
    model = toys.One(Maps())
    names = ["part.conv.wide.conv", "part.conv.deep.conv"]
    routed(ConditionalConv.apply(model, ConditionalConv(names).decide(model, TRAINED)))
    images = torch.rand(2, 3, 16, 24)
    float_model = fold_model(model)
    result = toys.calibrated(model, images)
    with torch.no_grad():
        for batch in (images, torch.rand(3, 3, 16, 24)):
            expected = float_model(batch)
            error = (result(batch) - expected).abs().max() / expected.abs().max()
            assert 0 < error < 0.05  # the stem has integers
            assert torch.equal(converted(result)(batch), result(batch))
    (part,) = quantized_parts(result).values()
    assert part.float_layers == () and not crashes_channels_last(result)
