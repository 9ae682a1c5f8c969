"""Networks of others as backbones: measured specs, nothing left behind by the dry run, clear refusals."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from efftasks.models.backbones.base import ProbedBackbone, build_backbone
from efftasks.models.backbones.mobilenetv4 import MobileNetV4
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec

MIT_B0 = {
    "type": "mmseg.MixVisionTransformer",
    "embed_dims": 32,
    "num_layers": [1, 1, 1, 1],
    "num_heads": [1, 2, 5, 8],
    "patch_sizes": [7, 3, 3, 3],
    "sr_ratios": [8, 4, 2, 1],
    "out_indices": (0, 1, 2, 3),
}
FOREIGN = [
    # From the networks' own papers and configs: channels, strides.
    (
        {"type": "mmdet.CSPNeXt", "deepen_factor": 0.167, "widen_factor": 0.375, "out_indices": (2, 3, 4)},
        [(96, 8), (192, 16), (384, 32)],
    ),
    ({"type": "mmdet.ResNet", "depth": 18, "out_indices": (1, 2, 3)}, [(128, 8), (256, 16), (512, 32)]),
    ({"type": "mmdet.ResNet", "depth": 18, "strides": (1, 2, 1, 1), "out_indices": (3,)}, [(512, 8)]),
    ({"type": "mmseg.MobileNetV2", "out_indices": (1, 2, 4, 6)}, [(24, 4), (32, 8), (96, 16), (320, 32)]),
    (MIT_B0, [(32, 4), (64, 8), (160, 16), (256, 32)]),
]


@pytest.fixture(params=[None, "efftasks"])
def scope(request: pytest.FixtureRequest) -> Iterator[None]:
    """With and without a default scope, as in a runner and in a script."""
    with DefaultScope.overwrite_default_scope(request.param):
        yield


class Maps(nn.Module):
    """A network whose output the test chooses; it has state of every kind that a dry run could disturb."""

    def __init__(self, *scales: float, channels: int = 3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm2d(3).eval()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.scales = scales
        self.channels = channels

    def forward(self, x: Tensor) -> object:
        self.calls.add_(1)
        torch.rand(3)
        x = self.drop(self.norm(x))
        return tuple(
            nn.functional.interpolate(x, scale_factor=scale).repeat(1, self.channels, 1, 1) for scale in self.scales
        )


class Constant(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


@pytest.mark.usefixtures("scope")
@pytest.mark.parametrize(("cfg", "specs"), FOREIGN)
def test_networks_of_mmdet_and_mmseg(cfg: dict, specs: list[tuple[int, int]]) -> None:
    before = copy.deepcopy(cfg)
    backbone = build_backbone(cfg)
    assert cfg == before
    assert isinstance(backbone, ProbedBackbone)
    assert backbone.specs == tuple(FeatureSpec(*spec) for spec in specs)
    assert backbone.divisor == specs[-1][1]
    assert all(key.startswith("body.") for key in backbone.state_dict())
    maps = backbone(torch.randn(2, 3, 96, 64))
    assert [tuple(feature.shape) for feature in maps] == [(2, c, 96 // s, 64 // s) for c, s in specs]


@pytest.mark.usefixtures("scope")
def test_native_networks_are_not_wrapped() -> None:
    cfg = {"type": "MobileNetV4", "width": 0.5, "out_strides": [8, 16]}
    before = copy.deepcopy(cfg)
    backbone = build_backbone(cfg)
    assert isinstance(backbone, MobileNetV4)
    assert cfg == before
    assert build_backbone(backbone) is backbone


def test_a_module_is_wrapped_and_its_outputs_chosen() -> None:
    net = Maps(0.25, 0.125, 0.0625, channels=2)
    assert build_backbone(net).specs == (FeatureSpec(6, 4), FeatureSpec(6, 8), FeatureSpec(6, 16))
    chosen = ProbedBackbone(net, out_indices=(0, 2))
    assert chosen.specs == (FeatureSpec(6, 4), FeatureSpec(6, 16))
    assert [feature.shape[-1] for feature in chosen(torch.zeros(2, 3, 32, 32))] == [8, 2]
    assert chosen.body is net


def test_the_dry_run_leaves_nothing_behind() -> None:
    net = Maps(0.25).train()
    net.frozen.eval()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    ProbedBackbone(net)
    assert torch.equal(torch.rand(4), expected)
    assert net.training
    assert net.drop.training
    assert not net.frozen.training
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert all(parameter.grad is None for parameter in net.parameters())


def test_flags_are_restored_where_the_dry_run_fails() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Conv2d(1, 1, 1))
    with pytest.raises(RuntimeError):
        ProbedBackbone(net)
    assert net[0].training


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (torch.zeros(1, 8, 32, 48), "got Tensor as output, expected a tuple"),
        ((), "got tuple as output"),
        ({"p3": torch.zeros(1, 8, 32, 48)}, "got dict as output"),
        ((torch.zeros(1, 8),), r"output 0 has shape \(1, 8\), expected a 4-D map"),
        ((torch.zeros(1, 8, 32, 48), None), "output 1 has NoneType"),
        ((torch.zeros(1, 8, 31, 48),), "31x48 for an input of 256x384"),
        ((torch.zeros(1, 8, 32, 96),), "expected one whole stride"),
        ((torch.zeros(1, 8, 16, 24), torch.zeros(1, 8, 32, 48)), r"strides \[16, 8\] do not ascend"),
    ],
)
def test_outputs_that_are_no_maps(output: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ProbedBackbone(Constant(output))


def test_out_indices_must_exist() -> None:
    with pytest.raises(ValueError, match=r"out_indices: got \(0, 3\)"):
        ProbedBackbone(Maps(0.25, 0.125), out_indices=(0, 3))


@pytest.mark.parametrize("wrong", ["MobileNetV4", {"variant": "conv-s"}, None])
def test_what_is_no_config(wrong: object) -> None:
    with pytest.raises(UserError, match="backbone: got"):
        build_backbone(wrong)  # type: ignore[arg-type]


def test_deferred_initialisation_runs_once_and_only_for_what_was_built_here() -> None:
    cfg = {"type": "mmdet.ResNet", "depth": 18, "out_indices": (3,)}
    backbone = build_backbone(cfg)
    assert isinstance(backbone, ProbedBackbone)
    gain = backbone.body.get_parameter("layer1.0.bn2.weight")
    assert gain.all()
    backbone.init_weights()
    assert not gain.any()  # ResNet's own rule: zero the last norm of every residual block
    nn.init.ones_(gain)
    backbone.init_weights()
    ProbedBackbone(backbone.body).init_weights()
    assert gain.all()
