"""What backbones and necks declare is what they give: as built, and after their layers were cut."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import nn

from efftasks.compression.folding import inference_model
from efftasks.models.backbones import base
from efftasks.models.backbones.base import PROBE_SIZE, Backbone, build_backbone, specs_of
from efftasks.models.backbones.hgnetv2 import HGNetV2
from efftasks.models.backbones.mobilenetv4 import MobileNetV4
from efftasks.models.necks.base import Neck
from efftasks.models.necks.hybrid_encoder import HybridEncoder
from efftasks.models.necks.instance_context_encoder import InstanceContextEncoder
from efftasks.models.necks.light_pan import LightPAN
from efftasks.models.necks.lite_encoder import LiteEncoder
from efftasks.structures.features import FeatureSpec

SPECS = (FeatureSpec(24, 8), FeatureSpec(32, 16), FeatureSpec(40, 32))
NECKS: dict[str, Neck] = {
    "light_pan": LightPAN(SPECS, (16, 24, 32)),
    "light_pan of one": LightPAN(SPECS[-1:], (16,)),
    "hybrid, cat": HybridEncoder(SPECS, channels=32, ffn_channels=48, num_heads=4, depth=1),
    "hybrid, csp": HybridEncoder(SPECS, channels=32, ffn_channels=48, num_heads=4, depth=1, block="csp", expansion=0.5),
    "hybrid of one": HybridEncoder(SPECS[-1:], channels=32, ffn_channels=48, num_heads=4, depth=1),
    "context": InstanceContextEncoder(SPECS, channels=16),
    "lite": LiteEncoder(SPECS[1:2], channels=16),
}


def cut(conv: nn.Conv2d, norm: nn.BatchNorm2d, channels: int) -> None:
    """Leave the first channels of a convolution and its norm."""
    conv.weight = nn.Parameter(conv.weight.detach()[:channels])
    conv.out_channels = channels
    for name in ("weight", "bias", "running_mean", "running_var"):
        old = getattr(norm, name).detach()[:channels]
        setattr(norm, name, nn.Parameter(old) if name in ("weight", "bias") else old)
    norm.num_features = channels


def measured(net: Backbone) -> tuple[FeatureSpec, ...]:
    with torch.no_grad():
        return specs_of("net", net.eval()(torch.zeros(1, 3, *PROBE_SIZE)))


def test_a_backbone_whose_last_layers_were_cut_says_so() -> None:
    net = MobileNetV4("conv-s", out_strides=(8, 16, 32), width=0.5, depth=0.1)  # no residual at the end
    stated = net.specs
    assert stated == measured(net)
    (name, _) = [(key, part) for key, part in net.named_modules() if isinstance(part, nn.BatchNorm2d)][-1]
    block = net.get_submodule(name.rpartition(".")[0])
    left = stated[-1].channels - 5
    cut(block.conv, block.norm, left)  # type: ignore[arg-type]
    assert net.specs == measured(net) == (*stated[:-1], FeatureSpec(left, 32))
    assert net.divisor == 32


def test_a_concatenating_backbone_too() -> None:
    net = HGNetV2("b0", out_strides=(16, 32), depth=0.34)
    last: Any = net.stages[-1].blocks[-1].aggregation[1]  # type: ignore[union-attr, index]
    cut(last.conv, last.norm, 100)
    assert net.specs == measured(net) and net.specs[-1] == FeatureSpec(100, 32)


def test_any_network_that_is_wrapped_too() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 12, 3, 2, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = self.a(x)
            return x, self.b(x)

    net = build_backbone(Plain())
    assert net.specs == (FeatureSpec(8, 4), FeatureSpec(12, 8))
    net.body.b = nn.Conv2d(8, 5, 3, 2, 1)  # type: ignore[union-attr]
    assert net.specs == (FeatureSpec(8, 4), FeatureSpec(5, 8))


def test_one_that_states_its_specs_first_is_true_as_well() -> None:
    """As a constructor of others may: no parameter is there yet."""

    class Early(Backbone):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.specs = (FeatureSpec(channels, 2),)
            self.conv = nn.Conv2d(3, 8, 3, 2, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (self.conv(x),)

    assert Early(8).specs == Early(9).specs == (FeatureSpec(8, 2),)


def test_nothing_runs_where_nothing_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    net = MobileNetV4("conv-s", width=0.25)

    def refuse(*_: Any) -> None:
        raise AssertionError("a dry run")

    monkeypatch.setattr(base, "probe", refuse)
    assert len(net.specs) == 3 and net.divisor == 32
    net.train().double().requires_grad_(False)
    assert len(net.specs) == 3


@pytest.mark.parametrize("name", sorted(NECKS))
def test_a_neck_reads_the_channels_of_its_layers(name: str) -> None:
    neck = NECKS[name].eval()
    strides = [spec.stride for spec in neck.specs]
    inputs = SPECS[1:2] if name == "lite" else SPECS[-1:] if "one" in name else SPECS

    def channels(module: Any) -> list[int]:
        maps = module([torch.rand(1, spec.channels, 64 // spec.stride, 64 // spec.stride) for spec in inputs])
        return [m.shape[1] for m in maps]

    before = channels(neck)
    assert [spec.channels for spec in neck.specs] == before
    folded: Any = inference_model(neck)
    assert folded.specs == neck.specs
    if name.startswith("hybrid"):  # its maps meet again: not cut one by one
        return
    last: Any = [part for part in neck.last_parts()[-1].modules() if hasattr(part, "norm")][-1]
    cut(last.conv, last.norm, before[-1] - 3)
    assert [spec.channels for spec in neck.specs] == channels(neck) == [*before[:-1], before[-1] - 3]
    assert [spec.stride for spec in neck.specs] == strides


@pytest.mark.parametrize(
    "name", ["o2o", "dfine_masks", "deimv2_lite", "sparseinst", "simcc", "sctnet_s", "seaformer_s"]
)
def test_families_declare_what_they_give(name: str, families: ModuleType) -> None:
    model, images = families.build_family(name).eval(), families.images(name, 1)
    images = torch.nn.functional.pad(images, (0, 32, 0, 32))  # 128 px
    with torch.no_grad():
        maps = model.backbone(images)
        assert [tuple(m.shape[1:2]) + (128 // m.shape[2],) for m in maps] == [
            tuple(spec) for spec in model.backbone.specs
        ]
        if getattr(model, "neck", None) is not None:
            maps = model.neck(maps)
            assert [(m.shape[1], 128 // m.shape[2]) for m in maps] == [tuple(spec) for spec in model.neck.specs]


def test_every_neck_is_here() -> None:
    files = {path.stem for path in Path(base.__file__).parents[1].joinpath("necks").glob("*.py")} - {"__init__", "base"}
    assert files == {type(neck).__module__.rpartition(".")[2] for neck in NECKS.values()}
