"""The transform: what it decides, that its plan rebuilds the model, and that the rest of the house can use it."""

from __future__ import annotations

import copy
import json
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from efftasks.compression.folding import fold_model, inference_model
from efftasks.compression.low_rank import LowRank
from efftasks.compression.quantization.convert import converted
from efftasks.compression.quantization.part import QuantizedPart, quantized_parts
from efftasks.compression.quantization.quantize_aware import QuantizeAware
from efftasks.compression.transform import DecideContext
from efftasks.engine.cpu import crashes_channels_last
from efftasks.models.backbones.hgnetv2 import HGNetV2
from efftasks.structures.errors import UserError

BACKBONES = ("fpnlite", "simcc")  # declare none
FAMILIES = (
    *("o2o", "o2o_masks", "o2o_keypoints", "o2o_all", "dfine", "dfine_masks", "deim", "deimv2", "deimv2_lite"),
    *("rtdetrv2", "sparseinst", "detrpose", *BACKBONES),
)
IMAGES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def test_the_plan_is_plain_data(toys: ModuleType) -> None:
    plan = QuantizeAware(float_layers=["maps.down.*"], weight_bits=8).decide(
        toys.seeded(toys.Toy), DecideContext(has_weights=True)
    )
    assert plan == json.loads(json.dumps(plan))
    assert plan["parts"] == {"maps": ["down.conv"], "fusion": [], "tower": ["out"]}
    assert (plan["weight_bits"], plan["linear"]) == (8, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(parts=["head"]), "QuantizeAware.parts: got 'head', the model has no such module"),
        (dict(float_layers=["maps.stem.conv", "maps.steam.*"]), "QuantizeAware.float_layers: got 'maps.steam.*'"),
    ],
)
def test_names_of_nothing_are_refused(toys: ModuleType, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("*", r"\*")):
        QuantizeAware(**arguments).decide(toys.seeded(toys.Toy), DecideContext(has_weights=True))


def test_a_model_without_parts_is_refused(toys: ModuleType) -> None:
    with pytest.raises(UserError, match="Maps declares no part that can be quantized; name some in `parts`"):
        QuantizeAware().decide(toys.seeded(toys.Maps), DecideContext(has_weights=True))


@pytest.mark.parametrize(
    "arguments", [dict(weight_bits=4), dict(parts="maps"), dict(float_layers="x"), dict(momentum=0)]
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"QuantizeAware.{next(iter(arguments))}: got"):
        QuantizeAware(**arguments)


def test_a_part_that_cannot_be_captured_is_named(toys: ModuleType) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    model = toys.One(nn.Conv2d(3, 2, 1))
    model.part.append(Odd())
    with pytest.raises(UserError, match=r"'part' \(Sequential\) cannot be captured .* leave it out of `parts`"):
        toys.quantized(model)


def test_a_part_that_is_not_called_is_named(toys: ModuleType) -> None:
    model = toys.seeded(toys.Toy)
    model.teacher = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match="'teacher' is not called for predictions; leave it out"):
        toys.quantized(model, parts=["maps", "teacher"])


def test_what_comes_after_the_parts_may_need_a_size_of_its_own(toys: ModuleType) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x.flatten(1), torch.ones(1, 2 * 8 * 12))

    model = toys.seeded(toys.Toy)
    model.tower = nn.Sequential(model.tower, Fixed())
    result = toys.quantized(model, parts=["maps", "fusion"]).eval()
    with torch.no_grad():
        assert torch.equal(result(IMAGES), fold_model(model)(IMAGES))


def test_before_it_is_switched_on_it_is_the_folded_model(toys: ModuleType) -> None:
    model = toys.seeded(toys.Toy).eval()
    result = toys.quantized(model)
    assert isinstance(result.maps, QuantizedPart) and not result.training
    with torch.no_grad():
        assert torch.equal(result(IMAGES), fold_model(model)(IMAGES))
        torch.testing.assert_close(result(IMAGES), model(IMAGES), atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in result.modules())
    assert (result.maps.specs, result.maps.divisor) == (toys.Maps.specs, 4)


def test_the_plan_rebuilds_it_from_other_weights_bit_by_bit(toys: ModuleType) -> None:
    model = toys.seeded(toys.Toy)
    step = QuantizeAware()
    plan = step.decide(model, DecideContext(has_weights=True))
    trained = toys.calibrated(model, IMAGES)
    rebuilt = QuantizeAware.apply(toys.seeded(toys.Toy, seed=5), json.loads(json.dumps(plan)))
    rebuilt.load_state_dict(trained.state_dict())
    with torch.no_grad():
        for images in (IMAGES, torch.rand(1, 3, 8, 8)):
            assert torch.equal(rebuilt.eval()(images), trained(images))
            assert torch.equal(converted(rebuilt)(images), trained(images))
            assert torch.equal(copy.deepcopy(trained)(images), trained(images))
            assert torch.equal(inference_model(trained)(images), trained(images))


def test_a_plan_of_layers_that_folding_no_longer_makes_is_refused(toys: ModuleType) -> None:
    plan = QuantizeAware().decide(toys.seeded(toys.Toy), DecideContext(has_weights=True))
    other = toys.seeded(toys.Toy)
    other.tower.hidden.fold = lambda: nn.Conv2d(16, 8, 3, padding=1)
    with pytest.raises(UserError, match="folded to other layers; load it with the efftasks"):
        QuantizeAware.apply(other, plan)


class Clamped(nn.Module):
    """HGNetV2 folds a learnable affine to a clamp, whose bounds are numbers in the graph."""

    divisor = 32
    integer_parts = ("backbone",)
    float_layers = ()

    def __init__(self) -> None:
        super().__init__()
        self.backbone = HGNetV2("atto", out_strides=(16,))
        for name, parameter in self.named_parameters():
            if name.endswith("lab.bias"):
                parameter.data.uniform_(-0.3, 0.3)

    def infer(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.backbone(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.infer(images)[0]


def test_bounds_that_folding_made_of_weights_are_in_the_plan(toys: ModuleType) -> None:
    model, images = toys.seeded(Clamped).eval(), torch.rand(1, 3, 64, 64)
    step = QuantizeAware()
    plan = step.decide(model, DecideContext(has_weights=True))
    assert len(plan["bounds"]) > 5 and any(low not in (None, 0.0) for low, _ in plan["bounds"].values())
    result = step.apply(model, plan)
    rebuilt = QuantizeAware.apply(toys.seeded(Clamped, seed=3).eval(), plan)
    rebuilt.load_state_dict(result.state_dict())
    with torch.no_grad():
        assert torch.equal(result(images), rebuilt(images))
        torch.testing.assert_close(result(images), model(images), atol=1e-4, rtol=1e-4)


def test_it_follows_low_rank(toys: ModuleType) -> None:
    model = toys.seeded(toys.Toy)
    low = LowRank(["fusion.*", "tower.*"], ratio=0.5)
    model = low.apply(model, low.decide(model, DecideContext(has_weights=True)))
    result = toys.calibrated(model, IMAGES)
    assert any("merge.conv.reduce" in name for name in result.state_dict())
    with torch.no_grad():
        assert torch.equal(converted(result)(IMAGES), result(IMAGES))


def test_it_trains_in_float32_under_autocast(toys: ModuleType) -> None:
    model = toys.calibrated(toys.seeded(toys.Toy), IMAGES).train()
    plain = model(IMAGES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.maps(IMAGES.bfloat16())
        assert all(x.dtype == torch.float32 for x in mixed)
        assert torch.equal(model(IMAGES), plain)
    model(IMAGES).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_switching_modes_measures_nothing_and_rounds_as_before(toys: ModuleType) -> None:
    model = toys.calibrated(toys.seeded(toys.Toy), IMAGES)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    toys.set_phase(model, observe=True, quantize=True)
    model.eval()(IMAGES * 3)
    ranges = {key: value for key, value in model.state_dict().items() if key.endswith(("_val", "scale", "zero_point"))}
    assert ranges and all(torch.equal(value, state[key]) for key, value in ranges.items())
    model.train()(IMAGES * 3)
    assert any(not torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_what_a_graph_makes_itself_follows_the_model(toys: ModuleType) -> None:
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) + torch.arange(x.shape[3], device=x.device)

    model = toys.One(nn.Conv2d(3, 3, 1))
    model.part.append(Places())
    result = toys.quantized(model)
    toys.set_phase(result, observe=False, quantize=False)
    devices = {str(node.kwargs["device"]) for node in result.part.graph.graph.nodes if "device" in node.kwargs}
    assert devices == {"cpu"}
    result.to("meta")
    devices = {str(node.kwargs["device"]) for node in result.part.graph.graph.nodes if "device" in node.kwargs}
    assert devices == {"meta"}


@pytest.mark.parametrize(("channels", "crashes"), [(8, True), (16, False)])
def test_layers_that_crash_in_channels_last_are_seen_in_graphs(toys: ModuleType, channels: int, crashes: bool) -> None:
    model = toys.One(nn.Conv2d(3, channels, 1))
    model.part.append(nn.Conv2d(channels, 24, 1, stride=2))
    result = toys.quantized(model)
    assert crashes_channels_last(result) is crashes
    assert crashes_channels_last(converted(result)) is crashes


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_that_declares_parts_trains_and_converts(
    name: str, toys: ModuleType, families: ModuleType
) -> None:
    model, images = families.build_family(name).eval(), families.images(name)
    families.randomize_norms(model)
    result = toys.quantized(model, parts=None if name not in BACKBONES else ["backbone"])
    folded: Any = fold_model(model)
    with torch.no_grad():
        for own, expected in zip(result.infer(images), folded.infer(images), strict=True):
            assert own is None or torch.equal(own, expected)
    toys.set_phase(result, observe=True, quantize=False)
    families.total_loss(name, result).backward()
    toys.set_phase(result, observe=False, quantize=True)
    loss = families.total_loss(name, result)
    loss.backward()
    assert bool(loss.isfinite()) and all(p.grad is not None for p in result.parameters() if p.requires_grad)
    fused: Any = inference_model(result)
    final: Any = converted(fused)
    with torch.no_grad():
        for own, expected in zip(final.infer(images), fused.infer(images), strict=True):
            assert own is None or torch.equal(own, expected)


def test_a_part_without_integers_stays_in_float(toys: ModuleType) -> None:
    model = toys.quantized(toys.seeded(toys.Toy), parts=["tower"], float_layers=["tower.*"])
    toys.set_phase(model, observe=False, quantize=True)
    assert not model.tower.quantizes
    with torch.no_grad():
        assert torch.equal(converted(model.eval())(IMAGES), model(IMAGES))


def test_parts_are_named(toys: ModuleType) -> None:
    assert list(quantized_parts(toys.quantized(toys.seeded(toys.Toy)))) == ["maps", "fusion", "tower"]
    assert list(quantized_parts(toys.quantized(toys.seeded(toys.Toy), parts=["tower"]))) == ["tower"]
