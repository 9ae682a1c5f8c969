"""What flows inside a pose detector.

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
    """What one decoder layer says."""

    logits: Tensor  # (B, Q, C)
    poses: Tensor  # (B, Q, P, 2)


class DenoisingPoses(NamedTuple):
    """Queries made from noised objects, D of them, before the Q others."""

    content: Tensor  # (B, D, 1 + P, N): the token of the instance, then those of the keypoints
    poses: Tensor  # (B, D, P, 2)
    blocked: Tensor  # bool (D + Q, D + Q): True where the query of the row must not see that of the column
    groups: int  # D = groups * 2 * M; in each group M positives, then M negatives


class PoseTrainingOutputs(NamedTuple):
    """What training needs beside the answer."""

    layers: tuple[PoseOutput, ...]  # of every decoder layer, denoising queries first
    first: PoseOutput  # the plain poses that the distributions start from, denoising queries first
    proposals: PoseOutput  # what the queries were selected by, (B, Q, ...)
    denoising: DenoisingPoses | None


class PoseRaw(NamedTuple):
    """What the head says: the answer of its last layer in use."""

    logits: Tensor  # (B, Q, C)
    poses: Tensor  # (B, Q, P, 2)
    size: Tensor  # (2,): width and height of the network input in pixels
    training: PoseTrainingOutputs | None


class PoseTargets(NamedTuple):
    """The objects of a batch that have keypoints, and where there are others."""

    labels: Tensor  # int64 (B, M), 0 where padded
    keypoints: Tensor  # float (B, M, P, 3): x, y as fractions, and 1 where annotated, else 0
    areas: Tensor  # float (B, M): square pixels
    valid: Tensor  # bool (B, M): an object with an annotated keypoint
    regions: Tensor  # float (B, M, 4) xyxy as fractions: of objects without keypoints and of crowds; else empty boxes
    sigmas: Tensor  # (P,)
    size: Tensor  # (2,): width and height of the network input in pixels

    def similarity(self, poses: Tensor, keypoints: Tensor, areas: Tensor) -> Tensor:
        """OKS (...) of poses (..., P, 2) with keypoints (..., P, 3) of objects with areas (...)."""
        wanted = torch.cat([keypoints[..., :2] * self.size, keypoints[..., 2:]], dim=-1)
        return object_keypoint_similarity(poses * self.size, wanted, self.sigmas, areas)
