"""Local weights: what matches is loaded, what does not is logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from efftasks.models.backbones.base import Backbone, ProbedBackbone, build_backbone, load_weights
from efftasks.models.backbones.hgnetv2 import HGNetV2
from efftasks.models.backbones.mobilenetv4 import MobileNetV4


def shifted(net: nn.Module) -> dict[str, Tensor]:
    """The state of ``net``, every tensor unlike a fresh one."""
    return {key: value + 1 for key, value in net.state_dict().items()}


def same(net: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger=logger.name)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("prefix", ["", "backbone.", "body."])
@pytest.mark.parametrize("kind", [HGNetV2, MobileNetV4])
def test_own_checkpoints(kind: type[Backbone], prefix: str, tmp_path: Path) -> None:
    state = shifted(kind())
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "w.pth")
    assert same(kind(weights=tmp_path / "w.pth"), state)


def test_a_detector_checkpoint_gives_its_backbone_only(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    state = shifted(HGNetV2())
    whole = {"backbone." + key: value for key, value in state.items()} | {"neck.conv.weight": torch.zeros(3)}
    torch.save({"state_dict": whole, "meta": {}}, tmp_path / "w.pth")
    assert same(HGNetV2(weights=tmp_path / "w.pth"), state)
    assert "weights of HGNetV2" in log.text


def foreign_hgnet(net: HGNetV2) -> dict[str, Tensor]:
    """A state dict with the names of D-FINE's and timm's files, written out here independently of the loader."""
    state = {key.replace("norm", "bn"): value for key, value in shifted(net).items()}
    assert {
        "stem.stem2a.bn.weight",
        "stages.1.downsample.bn.bias",
        "stages.2.blocks.1.layers.0.conv1.bn.weight",
    } <= set(state)
    assert {"stem.stem1.lab.scale", "stages.3.blocks.0.aggregation.1.conv.weight"} <= set(state)
    return state | {"head.fc.weight": torch.zeros(1000, 2048), "head.last_conv.0.weight": torch.zeros(2048, 1024, 1, 1)}


def test_published_names_of_hgnetv2(tmp_path: Path) -> None:
    source = HGNetV2("b0")
    torch.save(foreign_hgnet(source), tmp_path / "w.pth")
    assert same(HGNetV2("b0", weights=tmp_path / "w.pth"), shifted(source))


def test_what_did_not_match_is_said(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    state = HGNetV2("b0").state_dict()
    state["stem.stem1.conv.weight"] = torch.zeros(16, 1, 3, 3)
    del state["stem.stem2a.conv.weight"]
    state["surplus.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    net = HGNetV2("b0")
    report = load_weights(net, tmp_path / "w.pth")
    assert "stem.stem2a.conv.weight" in report.missing
    assert "surplus.weight" in report.unexpected
    assert any("stem.stem1.conv.weight" in str(entry) for entry in report.mismatched)
    for name in ("stem.stem1.conv.weight", "stem.stem2a.conv.weight", "surplus.weight"):
        assert name in log.text


def test_another_network(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: no tensor fits HGNetV2.*0\.weight.*stem\.stem1"):
        HGNetV2(weights=tmp_path / "other.pth")


@pytest.mark.parametrize("prefix", ["", "backbone.", "backbone.body.", "body."])
def test_wrapped_networks(prefix: str, tmp_path: Path) -> None:
    cfg = {"type": "mmdet.ResNet", "depth": 18, "out_indices": (1, 2, 3)}
    state = shifted(ProbedBackbone(cfg).body)
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "w.pth")
    wrapped = build_backbone({"type": "ProbedBackbone", "backbone": cfg, "weights": str(tmp_path / "w.pth")})
    assert isinstance(wrapped, ProbedBackbone)
    assert same(wrapped.body, state)
    wrapped.init_weights()  # a runner calls it: what was loaded stays
    assert same(wrapped.body, state)
