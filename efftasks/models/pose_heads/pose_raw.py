"""Types of the predictions and targets inside a pose detector.

Legend: B images, Q queries, C classes, P keypoints, M objects (padded to the fullest image), N channels. Poses are x, y
of the keypoints as fractions of the network input's width and height.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from efftasks.ops.keypoints import object_keypoint_similarity

__all__ = ["DenoisingPoses", "PoseOutput", "PoseRaw", "PoseTargets", "PoseTrainingOutputs"]


class PoseOutput(NamedTuple):
    """The prediction of one decoder layer."""

    logits: Tensor  # (B, Q, C)
    poses: Tensor  # (B, Q, P, 2)


class DenoisingPoses(NamedTuple):
    """D queries made from noised objects, which stand before the Q others."""

    content: Tensor  # (B, D, 1 + P, N): the token of the instance, then those of the keypoints
    poses: Tensor  # (B, D, P, 2)
    blocked: Tensor  # bool (D + Q, D + Q): True where the query of the row must not attend to that of the column
    groups: int  # D = groups * 2 * M; in each group M positives, then M negatives


class PoseTrainingOutputs(NamedTuple):
    """The outputs that only losses need."""

    layers: tuple[PoseOutput, ...]  # of every decoder layer, denoising queries first
    first: PoseOutput  # the regressed poses that the distributions refine, denoising queries first
    proposals: PoseOutput  # the scores and poses of the query selection, (B, Q, ...)
    denoising: DenoisingPoses | None


class PoseRaw(NamedTuple):
    """The raw prediction of the head: that of the last layer in use."""

    logits: Tensor  # (B, Q, C)
    poses: Tensor  # (B, Q, P, 2)
    size: Tensor  # (2,): width and height of the network input in pixels
    training: PoseTrainingOutputs | None


class PoseTargets(NamedTuple):
    """The objects of a batch that have keypoints, and the regions of the others."""

    labels: Tensor  # int64 (B, M), 0 where padded
    keypoints: Tensor  # float (B, M, P, 3): x, y as fractions, and 1 where annotated, else 0
    areas: Tensor  # float (B, M): square pixels
    valid: Tensor  # bool (B, M): an object with an annotated keypoint
    regions: Tensor  # float (B, M, 4) xyxy as fractions: of objects without keypoints and of crowds; else empty boxes
    sigmas: Tensor  # (P,)
    size: Tensor  # (2,): width and height of the network input in pixels

    def similarity(self, poses: Tensor, keypoints: Tensor, areas: Tensor) -> Tensor:
        """OKS (...) of poses (..., P, 2) with keypoints (..., P, 3) of objects with areas (...)."""
        in_pixels = torch.cat([keypoints[..., :2] * self.size, keypoints[..., 2:]], dim=-1)
        return object_keypoint_similarity(poses * self.size, in_pixels, self.sigmas, areas)
