"""The head as the authors' code was set up when it was recorded, and their inputs; see tests/fixtures/README.md."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

import efftasks.models.assigners.pose_matcher
import efftasks.models.losses.pose_criterion
import efftasks.models.pose_heads.detrpose_denoising
import efftasks.models.pose_heads.detrpose_selection  # noqa: F401
from efftasks.models.necks.hybrid_encoder import HybridEncoder
from efftasks.models.pose_heads.detrpose_head import DETRPoseHead
from efftasks.models.pose_heads.pose_raw import DenoisingPoses
from efftasks.models.published.rules import Layout, apply_rules, convert
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import PaddedTargets

ROOT = Path(__file__).resolve().parents[3]
SIGMAS = tuple(x / 1000 for x in (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89))  # COCO's
TWO = (0.05, 0.08)
SPECS = (FeatureSpec(128, 16), FeatureSpec(128, 32))
POINTS, CLASSES, QUERIES, GROUPS, MOST = 17, 2, 20, 2, 3
DENOISING = 2 * MOST * GROUPS
LABELS = ((1, 0, 1), (0,))

NAMES = Layout(
    rules=[
        (r"^enc_output\.", "selection.project.linear."),
        (r"^enc_output_norm\.", "selection.project.norm."),
        (r"^enc_out_class_embed\.", "selection.score_head."),
        (r"^enc_pose_embed\.", "selection.pose_head."),
        (r"^tgt_embed\.weight", "selection.query_tokens"),
        (r"^keypoint_embedding\.weight", "selection.keypoint_tokens"),
        (r"^instance_embedding\.weight", "selection.instance_token"),
        (r"^pose_enc\.weight", "denoising.keypoint_tokens"),
        (r"^class_embed\.", "decoder.score_heads."),
        (r"^pose_embed\.", "decoder.pose_heads."),
        (r"^pre_pose_embed\.", "decoder.first_pose_head."),
        (r"^lqe_embed\.(\d+)\.reg_conf\.", r"decoder.quality.\1.head."),
        (r"^decoder\.half_pose_ref_point_head\.", "decoder.position_head."),
        (r"\.within_attn\.", ".within."),
        (r"\.across_attn\.", ".across."),
        (r"\.within_norm\.", ".add1.norm."),
        (r"\.across_norm\.", ".add2.norm."),
        (r"\.gateway\.", ".gate."),
        (r"^(decoder\.layers\.\d+)\.linear(\d)\.", r"\1.ffn.linear\2."),
        (r"^(decoder\.layers\.\d+)\.norm2\.", r"\1.add3.norm."),
    ],
    recomputed=[r"^label_enc\."],  # theirs has 81 rows whatever the classes
)


def record() -> dict[str, Any]:
    with gzip.open(ROOT / "tests" / "fixtures" / "detrpose.json.gz", "rt") as file:
        return json.load(file)


def head_config(**changes: Any) -> Config:
    """The head of the base config with ``changes`` (names joined by ``__``)."""
    config = Config(dict(head=Config.fromfile(ROOT / "configs" / "_base_" / "models" / "detrpose.py").model.head))
    merged = {"sigmas": SIGMAS, "num_classes": CLASSES, "selection__num_queries": QUERIES, **changes}
    config.merge_from_dict({f"head.{name.replace('__', '.')}": value for name, value in merged.items()})
    return config.head


def build(**changes: Any) -> DETRPoseHead:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("efftasks"):
        return MODELS.build(dict(head_config(**changes), in_specs=SPECS))


def small(**changes: Any) -> DETRPoseHead:
    """A head of two keypoints whose heads of poses do not begin at zero, which would hide mistakes."""
    head = build(**{"sigmas": TWO, **changes})
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name.endswith("weight") and not bool(parameter.any()):
                parameter.normal_(std=0.05)
    return head


def encoder() -> HybridEncoder:
    """The neck of the base config, behind HGNetV2-B0."""
    config = Config.fromfile(ROOT / "configs" / "_base_" / "models" / "detrpose.py").model.neck
    config.pop("type")
    return HybridEncoder((FeatureSpec(512, 16), FeatureSpec(1024, 32)), **config)


def as_authors(authors: ModuleType) -> DETRPoseHead:
    """The head with the parameters that were recorded."""
    head = build()
    shapes = record()["tensors"]
    theirs = {
        name: torch.from_numpy(np.asarray(authors.fill(name, tuple(shape)), dtype=np.float32))
        for name, shape in shapes.items()
    }
    conversion = convert(theirs, head.state_dict(), NAMES)
    assert not conversion.unknown and not conversion.mismatched and conversion.missing == ["denoising.label_tokens"], (
        conversion.listing()
    )
    head.load_state_dict({**head.state_dict(), **conversion.state})
    return head


def own_name(name: str) -> str:
    """What a parameter of the authors is called here."""
    return apply_rules(name, NAMES.rules)


def features(height: int, width: int, seed: int) -> list[Tensor]:
    random = np.random.default_rng(seed)
    sides = [(height // stride, width // stride) for stride in (16, 32)]
    return [torch.from_numpy(random.standard_normal((2, 128, *side), dtype=np.float32)) for side in sides]


def training_inputs() -> tuple[DenoisingPoses, PaddedTargets]:
    """Denoising queries and objects, for features of 128 x 128 pixels."""
    random = np.random.default_rng(1)
    poses = random.uniform(0.1, 0.9, (2, DENOISING, POINTS, 2)).astype(np.float32)
    content = random.standard_normal((2, DENOISING, 1 + POINTS, 128)).astype(np.float32)
    centers = random.uniform(0.3, 0.7, (2, MOST, 1, 2))
    points = (centers + random.uniform(-0.2, 0.2, (2, MOST, POINTS, 2))).astype(np.float32)
    visible = (random.uniform(size=(2, MOST, POINTS)) < 0.7).astype(np.float32)
    areas = random.uniform(6000, 14000, (2, MOST)).astype(np.float32)
    valid = torch.tensor([[i < len(row) for i in range(MOST)] for row in LABELS])
    keypoints = torch.from_numpy(np.concatenate([points * 128, 2 * visible[..., None]], axis=-1))
    targets = PaddedTargets(
        labels=torch.tensor([[*row, *[0] * (MOST - len(row))] for row in LABELS]),
        boxes=torch.zeros(2, MOST, 4),
        valid=valid,
        ignored=torch.zeros_like(valid),
        keypoints=keypoints * valid[..., None, None],
        areas=torch.from_numpy(areas) * valid,
    )
    group = torch.arange(DENOISING + QUERIES) // (2 * MOST)
    group[DENOISING:] = GROUPS
    sees = (group[:, None] == group) | ((group == GROUPS) & (group[:, None] < GROUPS))
    return DenoisingPoses(torch.from_numpy(content), torch.from_numpy(poses), ~sees, GROUPS), targets
