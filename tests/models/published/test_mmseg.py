"""Segmentors of mmseg's parts: its checkpoints give its outputs, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from efftasks.apis import load
from efftasks.apis.converting import read_published, write_published
from efftasks.structures.errors import UserError

CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs"
PAIRS = {
    "fastscnn-base_fastscnn_8xb4-1721e_cityscapes-2048": "fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py",
    "bisenetv2-base_bisenetv2_4xb4-860e_cityscapes-2048": "bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py",
    "stdc-1_stdc1_4xb12-1291e_cityscapes-2048": "stdc/stdc1_in1k-pre_4xb12-80k_cityscapes-512x1024.py",
    "ddrnet-slim_ddrnet23_2xb6-484e_cityscapes-2048": "ddrnet/"
    "ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py",
    "pidnet-s_pidnet_2xb6-484e_cityscapes-2048": "pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py",
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(PAIRS)[1:]]


def theirs(name: str) -> Any:
    """mmseg's model of its config, without weights from the network, and with averages that are not 0 and 1."""
    cfg = Config.fromfile(CONFIGS / PAIRS[name]).model
    cfg.pretrained = None
    for part in (cfg.backbone, cfg.backbone.get("backbone_cfg", {})):
        part.pop("init_cfg", None)
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(cfg).eval()
    for key, value in model.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.0)
    return model


@pytest.mark.parametrize("name", [next(iter(PAIRS)), *SLOW])
def test_same_scores(name: str, tmp_path: Path) -> None:
    reference = theirs(name)
    meta = dict(CLASSES=["road"], PALETTE=[[0, 0, 0]])
    torch.save(dict(state_dict=reference.state_dict(), meta=meta), tmp_path / "theirs.pth")
    published = read_published("mmseg", tmp_path / "theirs.pth", name)
    write_published(published, tmp_path / "ours.pth")

    model = load(name, tmp_path / "ours.pth")
    assert model.dataset_meta["classes"][:3] == ["road", "sidewalk", "building"]
    images = torch.randn(1, 3, 128, 256)
    with torch.no_grad():
        expected, scores = reference._forward(images), model(images, mode="tensor")
    assert torch.equal(scores, expected[0] if isinstance(expected, (list, tuple)) else expected)


def test_the_config_is_found_and_classes_must_fit(tmp_path: Path) -> None:
    tensors = theirs("fastscnn-base_fastscnn_8xb4-1721e_cityscapes-2048").state_dict()
    source = tmp_path / "theirs.pth"
    torch.save(dict(state_dict=tensors), source)
    assert read_published("mmseg", source).config == "fastscnn-base_fastscnn_8xb4-1721e_cityscapes-2048"
    with pytest.raises(UserError, match="label maps have no category ids"):
        read_published("mmseg", source, categories="train.json")
    with pytest.raises(UserError, match="has no decode_head, expected the config of a segmentor"):
        read_published("mmseg", source, config="dfine-n_hgnetv2-b0_8xb16-160e_coco-640")
    for key, tensor in tensors.items():
        if "conv_seg" in key:
            tensors[key] = tensor[:7]
    torch.save(dict(state_dict=tensors), source)
    with pytest.raises(UserError, match=r"it has 7 classes, and fastscnn-base.* names 19"):
        read_published("mmseg", source, config="fastscnn-base_fastscnn_8xb4-1721e_cityscapes-2048")
