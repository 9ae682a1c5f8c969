"""One model of each family that ships, and a batch that it learns from: what tests of all of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from efftasks.registry import MODELS

MODEL_CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "_base_" / "models"
CLASSES, POINTS, SIDE = 3, 4, 96
SIDES = {"lraspp": 800}  # mmseg's head pools over 49 x 49 cells of stride 16


def side_of(family: str) -> int:
    """Height and width of a family's input in pixels."""
    return SIDES.get(family, SIDE)


def build_family(family: str, **changes: Any) -> Any:
    """The model of a base config, freshly initialised from a seed.

    Args:
        family: name of the file in ``configs/_base_/models``.
        changes: arguments of the model to replace.
    """
    cfg = Config.fromfile(MODEL_CONFIGS / f"{family}.py").model
    cfg.update(changes)
    _complete(cfg, (side_of(family), side_of(family)))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("efftasks"):
        return MODELS.build(cfg)


def _complete(node: Any, size: tuple[int, int]) -> None:
    """Fill what linking would: classes, keypoints, and the size that heads are made for."""
    facts = dict(num_classes=CLASSES, num_keypoints=POINTS, sigmas=(0.05,) * POINTS, input_size=size)
    if isinstance(node, dict):
        for key, value in facts.items():
            if key in node and node[key] is None:
                node[key] = value
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        _complete(child, size)


def randomize_norms(model: nn.Module) -> None:
    """Statistics and factors as after some training: folding a fresh norm would be too easy."""
    generator = torch.Generator().manual_seed(1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.copy_(torch.rand(part.running_mean.shape, generator=generator) * 0.2 - 0.1)
            part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
            part.weight.data.copy_(torch.rand(part.weight.shape, generator=generator) + 0.5)
            part.bias.data.copy_(torch.rand(part.bias.shape, generator=generator) * 0.2 - 0.1)


def images(family: str, count: int = 2) -> Tensor:
    """Preprocessed images (count, 3, side, side)."""
    side = side_of(family)
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def samples(family: str, task: str, count: int = 2) -> list[Any]:
    """The annotations of :func:`images`: two objects each with everything that any head learns, or a label map."""
    side = side_of(family)
    labels = torch.zeros(1, side, side, dtype=torch.long)
    labels[:, side // 4 : side // 2, 8:-8], labels[:, :4] = 1, 255
    edges = (labels != labels.roll(1, 1)).long()  # PIDNet learns them
    if task == "semantic segmentation":
        return [
            SegDataSample(gt_sem_seg=PixelData(data=labels), gt_edge_map=PixelData(data=edges)) for _ in range(count)
        ]
    boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0], [30.0, 20.0, 90.0, 80.0]])
    masks = torch.zeros(2, side // 4, side // 4, dtype=torch.uint8)
    masks[0, 2:12, 2:10] = masks[1, 5:20, 8:22] = 255
    places = torch.tensor([[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]])
    points = boxes[:, None, :2] + places * (boxes[:, None, 2:] - boxes[:, None, :2])
    objects = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([2, 0]),
        masks=masks,
        keypoints=torch.cat([points, torch.full((2, POINTS, 1), 2.0)], -1),
        area_shares=torch.ones(2),
    )
    top_down = task == "top-down pose"
    annotated = []
    for _ in range(count):
        sample = DetDataSample(metainfo=dict(ori_shape=(side, side), scale_factor=(1.0, 1.0), img_shape=(side, side)))
        sample.gt_instances, sample.ignored_instances = objects[:1] if top_down else objects, objects[:0]
        sample.gt_sem_seg = PixelData(data=labels)
        annotated.append(sample)
    return annotated


def total_loss(family: str, model: Any) -> Tensor:
    """The sum of all losses of one batch in training mode."""
    model.train()
    torch.manual_seed(3)  # dropout, denoising
    losses = model(images(family), samples(family, model.task), mode="loss")
    parts = [sum(value) if isinstance(value, list) else value for key, value in losses.items() if "loss" in key]
    return torch.stack([torch.as_tensor(part) for part in parts]).sum()
