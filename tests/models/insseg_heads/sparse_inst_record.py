"""The authors' outputs for SparseInst with weights made by name, and those weights in our modules.

``tests/fixtures/sparse_inst.json`` was recorded from hustvl/SparseInst (a899015): its encoder, its decoder with Group-
IAM, its matcher, its criterion and its rescoring of scores by masks, with PyTorch 2.13 in float32. Weights are those of
``fill`` in ``tests/models/published/authors.py``, some times a recorded gain, so that instances differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import PaddedTargets

RECORD: dict[str, Any] = json.loads((Path(__file__).parents[2] / "fixtures" / "sparse_inst.json").read_text())
SPECS = (FeatureSpec(8, 8), FeatureSpec(12, 16), FeatureSpec(16, 32))
HEIGHT, WIDTH = 160, 192
RECTANGLES = [[(2, 3, 20, 17), (14, 10, 40, 30), (30, 4, 46, 16)], [(5, 5, 40, 35)]]  # xyxy in cells of 4 pixels
LABELS = [[1, 3, 0], [2, 0, 0]]
NECK = {
    "fpn_laterals.0": "laterals.2",  # the authors count from the coarsest
    "fpn_laterals.1": "laterals.1",
    "fpn_laterals.2": "laterals.0",
    "fpn_outputs.0": "outputs.2",
    "fpn_outputs.1": "outputs.1",
    "fpn_outputs.2": "outputs.0",
    "ppm.bottleneck": "context.merge",
    "fusion": "fusion",
    **{f"ppm.stages.{i}.1": f"context.branches.{i}" for i in range(4)},
}
HEAD = {
    **{f"inst_branch.inst_convs.{2 * i}": f"instances.convs.{i}" for i in range(3)},  # every other is an activation
    **{f"mask_branch.mask_convs.{2 * i}": f"mask_map.convs.{i}" for i in range(3)},
    "inst_branch.iam_conv": "instances.activation",
    "inst_branch.fc": "instances.mix",
    "inst_branch.cls_score": "instances.classes",
    "inst_branch.objectness": "instances.objectness",
    "inst_branch.mask_kernel": "instances.kernels",
    "mask_branch.projection": "mask_map.projection",
}


def features() -> list[Tensor]:
    random = np.random.default_rng(0)
    shapes = [(2, channels, HEIGHT // stride, WIDTH // stride) for channels, stride in SPECS]
    return [torch.from_numpy(random.standard_normal(shape).astype(np.float32)) for shape in shapes]


def targets() -> PaddedTargets:
    masks = torch.zeros(2, 3, HEIGHT // 4, WIDTH // 4, dtype=torch.uint8)
    boxes = torch.zeros(2, 3, 4)
    for i, rectangles in enumerate(RECTANGLES):
        for j, (left, top, right, bottom) in enumerate(rectangles):
            masks[i, j, top:bottom, left:right] = 255
            boxes[i, j] = 4.0 * torch.tensor([left, top, right, bottom])
    valid = torch.tensor([[True, True, True], [True, False, False]])
    return PaddedTargets(torch.tensor(LABELS), boxes, valid, torch.zeros_like(valid), masks)


def take_weights(module: nn.Module, prefix: str, names: dict[str, str], fill: Any) -> nn.Module:
    """The authors' weights in ours, where a norm that does nothing has the bias; in evaluation mode."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0.0
    ours = dict(module.named_parameters())
    taken = set()
    for name, shape in RECORD["tensors"].items():
        if not name.startswith(prefix):
            continue
        owner, kind = name.removeprefix(prefix).rsplit(".", 1)
        target = f"{names[owner]}.{kind}"
        if target not in ours:
            target = names[owner] + (".conv.weight" if kind == "weight" else ".norm.bias")
        value = torch.from_numpy(np.asarray(fill(name, tuple(shape)), dtype=np.float32)) * RECORD["gains"].get(name, 1)
        assert ours[target].shape == value.shape, name
        ours[target].data.copy_(value)
        taken.add(target)
    assert all(name.endswith("norm.weight") for name in set(ours) - taken)
    return module.eval()
