"""Denoising of poses: queries made from noised keypoints, to be matched with their objects.

Source: DETRPose (arXiv 2506.13027): each keypoint moves in a random direction, to a similarity to the true one (its
term of the OKS) drawn uniformly from 0.5 to 1 for positives and from 0.1 to 0.5 for negatives. The groups and the
attention mask are those of DN-DETR (arXiv 2203.01305) and DINO (arXiv 2203.03605).

The authors' code draws the logarithm of the similarity uniformly, and its directions are not unit vectors: they are
normalized across keypoints and with the exponent -1, which moves most keypoints far off. Here it is as in the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from efftasks.models.det_heads.denoising import blocked_pairs
from efftasks.models.pose_heads.pose_raw import DenoisingPoses, PoseTargets
from efftasks.registry import MODELS

__all__ = ["PoseDenoising"]

# Similarities between which positives and negatives are drawn.
_POSITIVE = (0.5, 1.0)
_NEGATIVE = (0.1, 0.5)


@MODELS.register_module()
class PoseDenoising(nn.Module):
    """Makes denoising queries from the objects of a batch.

    Args:
        num_classes: C.
        num_keypoints: P.
        channels: of a token.
        num_queries: approximate number of positives of an image; it sets the number of groups.
        label_noise: the probability that a label is replaced by a random one is half of this.
    """

    def __init__(
        self,
        num_classes: int,
        num_keypoints: int,
        channels: int,
        num_queries: int = 20,
        label_noise: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_queries, self.label_noise = num_classes, num_queries, label_noise
        self.label_tokens = nn.Parameter(torch.empty(num_classes, channels))
        self.keypoint_tokens = nn.Parameter(torch.empty(num_keypoints, channels))
        for tokens in (self.label_tokens, self.keypoint_tokens):
            nn.init.xavier_uniform_(tokens)

    def forward(self, targets: PoseTargets, num_others: int) -> DenoisingPoses:
        """Noised queries of a batch; none at all (D = 0) where no image has an object.

        Args:
            targets: the objects.
            num_others: Q, the number of other queries.
        """
        max_objects = targets.labels.shape[1]
        groups = max(1, self.num_queries // max_objects) if max_objects else 0
        labels, areas, valid = (x.repeat(1, 2 * groups) for x in (targets.labels, targets.areas, targets.valid))
        keypoints = targets.keypoints.repeat(1, 2 * groups, 1, 1)
        flips = torch.rand(labels.shape, device=labels.device) < self.label_noise / 2
        random_labels = torch.randint(0, self.num_classes, labels.shape, device=labels.device)
        instance = self.label_tokens[torch.where(flips, random_labels, labels)][:, :, None]
        tokens = torch.cat([instance, self.keypoint_tokens.expand(*labels.shape, -1, -1)], dim=2)
        negative = (torch.arange(2, device=labels.device).repeat_interleave(max_objects).repeat(groups) > 0)[:, None]
        poses = _complete(keypoints) + self._moves(keypoints, areas, negative, targets)
        return DenoisingPoses(
            content=tokens * valid[..., None, None],
            poses=torch.where(valid[..., None, None], poses.clamp(0, 1), 0.5),
            blocked=blocked_pairs(max_objects, groups, num_others, labels.device),
            groups=groups,
        )

    @staticmethod
    def _moves(keypoints: Tensor, areas: Tensor, negative: Tensor, targets: PoseTargets) -> Tensor:
        """Offsets of keypoints (B, D, P, 3), as fractions of the image; 0 where they are not annotated."""
        amount = torch.rand(keypoints.shape[:-1], device=keypoints.device)
        low, high = (torch.where(negative, n, p) for n, p in zip(_NEGATIVE, _POSITIVE))
        exponent = -(low + amount * (high - low)).log()
        # The inverse of ops.keypoints.squared_errors.
        distance = (exponent * 2 * areas[..., None] * (2 * targets.sigmas).square()).sqrt() * keypoints[..., 2]
        angle = torch.rand(amount.shape, device=amount.device) * 2 * math.pi
        return torch.stack([angle.cos(), angle.sin()], dim=-1) * distance[..., None] / targets.size


def _complete(keypoints: Tensor) -> Tensor:
    """Poses (..., P, 2) of keypoints (..., P, 3); those not annotated are set to the mean of the others."""
    annotated = keypoints[..., 2:]
    mean = (keypoints[..., :2] * annotated).sum(-2, keepdim=True) / annotated.sum(-2, keepdim=True).clamp(min=1)
    return torch.where(annotated > 0, keypoints[..., :2], mean)
