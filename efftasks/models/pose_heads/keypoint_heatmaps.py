"""Heatmaps of the keypoints of all objects on the finest map: an auxiliary task of training.

A dense head regresses keypoints from another place of the map, which is learned late. Heatmaps are learned early, and
the features that they need help the regression.

Source: CenterNet (arXiv 1904.07850, its human pose estimation) for heatmaps beside offsets, and their focal loss.

Legend: B images, M objects (padded), P keypoints; h, w sides of the map.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from efftasks.ops.masks import box_window
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import PaddedTargets

__all__ = ["KeypointHeatmaps", "keypoint_heatmaps"]

_PRIOR = 0.1  # probability of every cell at the start


class KeypointHeatmaps(nn.Module):
    """A 1x1 convolution, and its loss.

    Args:
        in_spec: the map.
        num_keypoints: P.
        weight: of the loss.
    """

    def __init__(self, in_spec: FeatureSpec, num_keypoints: int, weight: float) -> None:
        super().__init__()
        self.stride = in_spec.stride
        self.out = nn.Conv2d(in_spec.channels, num_keypoints, 1)
        assert self.out.bias is not None
        nn.init.constant_(self.out.bias, math.log(_PRIOR / (1 - _PRIOR)))
        self.focal_loss = MODELS.build(dict(type="mmdet.GaussianFocalLoss", loss_weight=weight))

    def forward(self, feature: Tensor) -> Tensor:
        """Map (B, C, h, w) -> logits (B, P, h, w)."""
        return self.out(feature)

    def loss(self, logits: Tensor, targets: PaddedTargets, sigmas: Tensor) -> Tensor:
        """The focal loss of logits (B, P, h, w), a mean over annotated keypoints."""
        if targets.keypoints is None or targets.areas is None:
            return logits.float().sum() * 0
        heatmaps, counted = keypoint_heatmaps(targets, sigmas, (logits.shape[2], logits.shape[3]), self.stride)
        return self.focal_loss(
            logits.float().sigmoid(), heatmaps, weight=counted.float(), avg_factor=(heatmaps == 1).sum().clamp(min=1)
        )


def keypoint_heatmaps(
    targets: PaddedTargets, sigmas: Tensor, size: tuple[int, int], stride: int
) -> tuple[Tensor, Tensor]:
    """Target heatmaps.

    Args:
        targets: objects with keypoints and areas.
        sigmas: (P,) of the keypoints, as COCO has them.
        size: (h, w) in cells.
        stride: pixels of a cell's side.

    Returns:
        Heatmaps (B, P, h, w): a Gaussian of the keypoint's OKS, at least half a cell wide, that is 1 at the cell of an
        annotated keypoint. Cells that count, bool (B, P, h, w): boxes of objects whose keypoint is not annotated are
        masked out of the loss.
    """
    assert targets.keypoints is not None and targets.areas is not None
    annotated = (targets.keypoints[..., 2] > 0) & (targets.valid & ~targets.ignored)[..., None]  # (B, M, P)
    spread = (2 * sigmas * targets.areas.clamp(min=0).sqrt()[..., None] / stride).clamp(min=0.5)
    cells = (targets.keypoints[..., :2] / stride).floor()
    window = box_window(targets.boxes, size, stride)
    rows, columns = (torch.arange(n, device=cells.device, dtype=cells.dtype) for n in size)
    batch, objects, points = annotated.shape
    heatmaps = cells.new_zeros(batch, points, *size)
    counted = torch.ones_like(heatmaps, dtype=torch.bool)
    for i in range(objects):  # one object at a time, to save memory
        across, down = (
            torch.exp(-((axis - cells[:, i, :, k, None]) ** 2) / (2 * spread[:, i, :, None] ** 2))
            for k, axis in enumerate((columns, rows))
        )
        gaussian = down[..., :, None] * across[..., None, :]
        heatmaps = torch.maximum(heatmaps, gaussian * annotated[:, i, :, None, None])
        unannotated = targets.valid[:, i, None] & ~annotated[:, i]
        counted &= ~(unannotated[..., None, None] & window[:, i, None])
    return heatmaps, counted | (heatmaps == 1)
