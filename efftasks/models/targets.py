"""From the samples of a batch to padded tensors, the targets of the losses of all heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes
from mmengine.structures import InstanceData
from torch import Tensor

from efftasks.structures.instances import PaddedTargets

__all__ = ["IGNORED_LABEL", "pad_targets", "plain_boxes"]

IGNORED_LABEL = 255  # of semantic label maps


def pad_targets(data_samples: Sequence[DetDataSample], device: torch.device) -> PaddedTargets:
    """Objects and crowd regions of a batch as padded tensors; a batch without any has M = 0.

    Args:
        data_samples: ``gt_instances`` and ``ignored_instances`` with bboxes, labels and, for masks and pose, masks,
            keypoints and area_shares, as packed by ``PackObjects``; all samples have the same fields.
        device: of the result.
    """
    groups = [_groups(sample) for sample in data_samples]
    counts = [[len(group) for group in pair] for pair in groups]
    max_objects = max(sum(pair) for pair in counts)

    def padded(rows: Sequence[Tensor], *shape: int, dtype: torch.dtype) -> Tensor:
        """(B, M, *shape) from one (n, *shape) for each image."""
        batch = torch.zeros(len(rows), max_objects, *shape, dtype=dtype)
        for image, row in enumerate(rows):
            batch[image, : len(row)] = row
        return batch.to(device)

    def gathered(name: str) -> list[Tensor]:
        return [torch.cat([plain_boxes(group[name]).cpu() for group in pair]) for pair in groups]

    boxes = padded([rows.reshape(-1, 4) for rows in gathered("bboxes")], 4, dtype=torch.float32)
    ones, zeros = torch.ones, torch.zeros
    targets = PaddedTargets(
        labels=padded(gathered("labels"), dtype=torch.long),
        boxes=boxes,
        valid=padded([ones(sum(pair), dtype=torch.bool) for pair in counts], dtype=torch.bool),
        ignored=padded([torch.cat([zeros(objects), ones(crowds)]) for objects, crowds in counts], dtype=torch.bool),
    )
    first = groups[0][0]
    if "masks" in first:
        targets = targets._replace(masks=padded(gathered("masks"), *first.masks.shape[1:], dtype=torch.uint8))
    if "keypoints" in first:
        points = padded(gathered("keypoints"), *first.keypoints.shape[1:], dtype=torch.float32)
        shares = padded(gathered("area_shares"), dtype=torch.float32)
        sides = boxes[..., 2:] - boxes[..., :2]
        targets = targets._replace(keypoints=points, areas=shares * sides.prod(-1))
    return targets


def _groups(sample: DetDataSample) -> tuple[InstanceData, InstanceData]:
    """Objects and crowd regions of an image."""
    objects = sample.gt_instances
    return objects, sample.ignored_instances if "ignored_instances" in sample else objects[:0]


def plain_boxes(boxes: Tensor | BaseBoxes) -> Tensor:
    """Boxes (n, 4) as a tensor, without the wrapper of mmdet's transforms."""
    return boxes.tensor if isinstance(boxes, BaseBoxes) else boxes
