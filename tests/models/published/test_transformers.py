"""The same outputs as transformers' ports of the same models, with their weights converted, on real images where given.

transformers' DEIMv2 is not the authors' function: it has a linear layer and a layer norm before the selection, ReLU in
the heads, and positions that move with the boxes. It is compared with a model here that is set up likewise.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from efftasks.models.published import huggingface
from efftasks.models.published.rules import convert
from efftasks.registry import MODELS

pytest.importorskip("transformers")

from transformers.models.d_fine.configuration_d_fine import DFineConfig
from transformers.models.d_fine.modeling_d_fine import DFineForObjectDetection
from transformers.models.deimv2.configuration_deimv2 import Deimv2Config
from transformers.models.deimv2.modeling_deimv2 import Deimv2ForObjectDetection
from transformers.models.hgnet_v2.configuration_hgnet_v2 import HGNetV2Config
from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig
from transformers.models.rt_detr_v2.configuration_rt_detr_v2 import RTDetrV2Config
from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import RTDetrV2ForObjectDetection

BASES = Path(__file__).resolve().parents[3] / "configs" / "_base_" / "models"
SIDE = 256
QUERIES = 40
B0: dict[str, Any] = dict(
    stem_channels=[3, 16, 16],
    stage_in_channels=[16, 64, 256, 512],
    stage_mid_channels=[16, 32, 64, 128],
    stage_out_channels=[64, 256, 512, 1024],
    stage_num_blocks=[1, 1, 2, 1],
    stage_downsample=[False, True, True, True],
    stage_light_block=[False, False, True, True],
    stage_kernel_size=[3, 3, 5, 5],
    stage_numb_of_layers=[3, 3, 3, 3],
    hidden_sizes=[64, 256, 512, 1024],
    depths=[3, 3, 3, 3],
    use_learnable_affine_block=True,
)


def theirs(family: str) -> torch.nn.Module:
    common: dict[str, Any] = dict(num_labels=80, num_queries=QUERIES)
    if family == "dfine":
        backbone = HGNetV2Config(**B0, out_indices=[2, 3, 4])
        channels = [256, 512, 1024]
        return DFineForObjectDetection(
            DFineConfig(backbone_config=backbone, encoder_in_channels=channels, decoder_n_points=[3, 6, 3], **common)
        )
    if family == "rtdetrv2":
        resnet = RTDetrResNetConfig(
            layer_type="basic",
            depths=[2, 2, 2, 2],
            hidden_sizes=[64, 128, 256, 512],
            embedding_size=64,
            out_features=["stage2", "stage3", "stage4"],
        )
        channels = [128, 256, 512]
        return RTDetrV2ForObjectDetection(
            RTDetrV2Config(
                backbone_config=resnet,
                encoder_in_channels=channels,
                decoder_layers=3,
                hidden_expansion=0.5,
                **common,
            )
        )
    return Deimv2ForObjectDetection(
        Deimv2Config(
            backbone_config=HGNetV2Config(**B0, out_indices=[3, 4]),
            encoder_in_channels=[512, 1024],
            feat_strides=[16, 32],
            encoder_hidden_dim=128,
            encode_proj_layers=[1],
            encoder_ffn_dim=512,
            hidden_expansion=0.34,
            depth_mult=0.5,
            d_model=128,
            decoder_in_channels=[128, 128],
            num_feature_levels=2,
            decoder_n_points=[6, 6],
            decoder_layers=3,
            decoder_ffn_dim=512,
            **common,
        )
    )


def randomise(model: torch.nn.Module) -> None:
    """Weights that keep activations in scale and queries well apart."""
    generator = torch.Generator().manual_seed(0)
    fixed = ("up", "reg_scale", "points_scale", "num_batches_tracked")
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or name.endswith(fixed):
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.7 + 0.3 * noise.abs())
            elif value.dim() == 1:
                norm = name.endswith(("norm.weight", "normalization.weight", "lab.scale", ".1.weight"))
                value.copy_(1 + 0.1 * noise if norm else 0.1 * noise)
            else:
                gain = 5.0 if "score" in name or "class_embed" in name else 1.0
                gain = 0.1 if "sampling_offsets" in name else gain
                value.copy_(gain * noise / value[0].numel() ** 0.5)


def ours(family: str) -> Any:
    cfg = Config.fromfile(BASES / f"{family}.py")
    cfg.model.head.num_classes = 80
    cfg.model.head.selection.num_queries = QUERIES
    if family == "deimv2":
        cfg.model.head.selection.update(project=True, act="relu")
        cfg.model.head.decoder.update(act="relu", moving_position=True)
    with DefaultScope.overwrite_default_scope("efftasks"):
        return MODELS.build(cfg.model).eval()


def images() -> torch.Tensor:
    folder = Path(os.environ.get("EFFTASKS_TEST_DATA", ""), "coco_mini", "images")
    paths = sorted(folder.glob("*.jpg"))[:2]
    random = np.random.default_rng(0)
    pictures = [cv2.imread(str(path)) for path in paths] or [
        random.integers(0, 255, (60, 80, 3), dtype=np.uint8) for _ in range(2)
    ]
    arrays = [cv2.resize(picture, (SIDE, SIDE))[..., ::-1].copy() for picture in pictures]
    return torch.stack([torch.from_numpy(array).permute(2, 0, 1) for array in arrays]).float() / 255


@pytest.mark.parametrize("family", ["dfine", "deimv2", "rtdetrv2"])
def test_same_outputs(family: str) -> None:
    reference, model = theirs(family).eval(), ours(family)
    randomise(reference)
    conversion = convert(reference.state_dict(), model.state_dict(), getattr(huggingface, family.upper()))
    assert conversion.complete, conversion.summary()
    model.load_state_dict(conversion.state)
    inputs = images()
    with torch.no_grad():
        expected = reference(pixel_values=inputs)
        outputs = model(inputs, mode="tensor")
    assert float(expected.logits.std(1).mean()) > 0.05, "degenerate: all queries predict the same"
    # Where two cells score alike to the last digits, their queries may come in another order: rows are paired.
    theirs_rows = torch.cat([expected.logits, expected.pred_boxes], dim=-1)
    own_rows = torch.cat([outputs.logits, outputs.boxes], dim=-1)
    nearest = torch.cdist(theirs_rows, own_rows).argmin(-1, keepdim=True)
    assert all(len(set(row.flatten().tolist())) == QUERIES for row in nearest), "every query has its own partner"
    paired = own_rows.gather(1, nearest.expand_as(own_rows))
    torch.testing.assert_close(paired, theirs_rows, atol=1e-4, rtol=0)


def test_names_of_older_versions_are_understood() -> None:
    model = ours("rtdetrv2")
    tensors = theirs("rtdetrv2").state_dict()

    def old(name: str) -> str:
        name = name.replace("encoder.aifi.0.", "encoder.encoder.0.").replace(
            ".self_attn.o_proj.", ".self_attn.out_proj."
        )
        return name.replace(".mlp.fc1.", ".fc1.").replace(".mlp.fc2.", ".fc2.")

    renamed = {old(name): value for name, value in tensors.items()}
    assert set(renamed) != set(tensors)
    assert convert(renamed, model.state_dict(), huggingface.RTDETRV2).complete
