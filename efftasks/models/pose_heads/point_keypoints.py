"""Keypoints of a dense head: every point regresses the keypoints of its object, and the visibility of each.

Sources: YOLO-Pose (arXiv 2204.06806, section 3.3) for offsets from the point and OKS as a loss; residual log-likelihood
(arXiv 2107.11291) and heatmaps (``keypoint_heatmaps.py``) as auxiliary losses of training.

Legend: as ``det_heads/o2o_parts.py``; P keypoints.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.det_heads.o2o_parts import Pairs
from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.losses.residual_log_likelihood import ResidualLogLikelihood
from efftasks.models.pose_heads.keypoint_heatmaps import KeypointHeatmaps
from efftasks.ops.keypoints import object_keypoint_similarity, squared_errors
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import KEYPOINTS_MEANING, PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["KeypointBranch", "PointKeypoints"]

# Offsets are predicted in units of two strides: they are about one for objects of the usual size of their level.
_OFFSET_UNIT = 2.0


class KeypointBranch(nn.Module):
    """x, y and visibility of P keypoints, and in training the scales of their error distributions.

    One of the 3x3 convolutions is dense: with depthwise ones alone, keypoints away from the point were learned later.

    Args:
        in_specs: the maps.
        channels: width.
        num_keypoints: P.
        spread: predict scales too, two for each keypoint.
    """

    def __init__(self, in_specs: Sequence[FeatureSpec], channels: int, num_keypoints: int, spread: bool) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(spec.channels, channels, 1),
                ConvNormAct(channels, channels, 3),
                ConvNormAct(channels, channels, 3, groups=channels),
                ConvNormAct(channels, channels, 1),
            )
            for spec in in_specs
        )
        self.values = _last(in_specs, channels, 3 * num_keypoints)
        self.spreads: nn.ModuleList | None = _last(in_specs, channels, 2 * num_keypoints) if spread else None

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) -> (B, 3 P or 5 P, A): x of all keypoints, y, visibility, then the scales."""
        maps = [tower(x) for tower, x in zip(self.towers, features)]
        values = _concatenated(self.values, maps)
        if self.spreads is None or not self.training:
            return values
        return torch.cat([values, _concatenated(self.spreads, maps)], 1)

    def strip(self) -> KeypointBranch:
        """A copy without the scales."""
        stripped = copy.deepcopy(self)
        stripped.spreads = None
        return stripped


def _last(in_specs: Sequence[FeatureSpec], channels: int, outputs: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(channels, outputs, 1) for _ in in_specs)


def _concatenated(last: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """The last convolutions of all maps (B, channels, H_i, W_i) -> (B, outputs, A)."""
    return torch.cat([conv(x).flatten(2) for conv, x in zip(last, maps)], 2)


@MODELS.register_module()
class PointKeypoints(nn.Module):
    """Keypoints for each point.

    Args:
        in_specs: maps, finest first; given by the head.
        num_classes: given by the head; all classes have the same keypoints.
        sigmas: of each keypoint, as COCO has them; P is their number. In a config None stands for the data's.
        branch_channels: width of the convolutions.
        oks_weight: of 1 - OKS.
        l1_weight: of the L1 distance over the square root of the object's area; its gradient does not vanish as that of
            OKS does.
        visibility_weight: of the cross-entropy of whether a keypoint is annotated.
        likelihood_weight: of the residual log-likelihood; 0 for none.
        heatmap_weight: of auxiliary heatmaps on the finest map; 0 for none.
        affects_score: whether the classification target includes OKS. False is better beside other tasks: a score
            trained on inaccurate keypoints ranks boxes and masks worse.
    """

    renamed_arguments: ClassVar[dict[str, str]] = {"ranks": "affects_score"}

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        num_classes: int,
        sigmas: Sequence[float],
        branch_channels: int = 48,
        oks_weight: float = 2.0,
        l1_weight: float = 10.0,
        visibility_weight: float = 1.0,
        likelihood_weight: float = 0.1,
        heatmap_weight: float = 1.0,
        affects_score: bool = True,
    ) -> None:
        super().__init__()
        if not sigmas:
            raise ValueError(f"sigmas: got {sigmas!r}, expected one for each keypoint; data without keypoints has none")
        self.in_specs, self.branch_channels, self.affects_score = tuple(in_specs), branch_channels, affects_score
        self.num_keypoints = len(sigmas)
        self.oks_weight, self.l1_weight, self.visibility_weight = oks_weight, l1_weight, visibility_weight
        self.likelihood: ResidualLogLikelihood | None = (
            ResidualLogLikelihood(likelihood_weight) if likelihood_weight else None
        )
        self.heatmaps: KeypointHeatmaps | None = (
            KeypointHeatmaps(in_specs[0], len(sigmas), heatmap_weight) if heatmap_weight else None
        )
        self.sigmas: Tensor
        self.register_buffer("sigmas", torch.tensor(sigmas, dtype=torch.float32), persistent=False)

    def new_branch(self) -> nn.Module:
        """A new branch, (B, C_i, H_i, W_i) of each level -> (B, n, A)."""
        return KeypointBranch(self.in_specs, self.branch_channels, self.num_keypoints, self.likelihood is not None)

    def shared(self, features: Sequence[Tensor]) -> Tensor | None:
        """Heatmaps (B, P, h, w) in training, else None."""
        return self.heatmaps(features[0]) if self.heatmaps is not None and self.training else None

    def overlap(self, values: Tensor, shared: Tensor | None, pairs: Pairs, targets: PaddedTargets) -> Tensor:
        """OKS of predictions (N, n); NaN for objects without an annotated keypoint."""
        if targets.keypoints is None or targets.areas is None:
            return values.new_full((len(values),), torch.nan)
        keypoints = pairs.gather(targets.keypoints)
        points = self._points(values, pairs.points, pairs.strides)
        similarity = object_keypoint_similarity(points, keypoints, self.sigmas, pairs.gather(targets.areas))
        return torch.where((keypoints[..., 2] > 0).any(-1), similarity, torch.nan)

    def losses(
        self,
        values: Tensor,
        shared: Tensor | None,
        pairs: Pairs,
        targets: PaddedTargets,
        weights: Tensor,
        total: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of predictions (N, n) against annotated keypoints, averaged over those of an object."""
        values = values.float()
        zero = values.sum() * 0  # every process has gradients for the same parameters
        if targets.keypoints is None or targets.areas is None:
            keypoints, areas = values.new_zeros(len(values), self.num_keypoints, 3), values.new_ones(len(values))
        else:
            keypoints, areas = pairs.gather(targets.keypoints), pairs.gather(targets.areas)
        annotated = (keypoints[..., 2] > 0).float()
        # A mean over annotated keypoints; 0 for objects without any.
        share = annotated / annotated.sum(-1, keepdim=True).clamp(min=1) * weights[:, None] / total
        points = self._points(values, pairs.points, pairs.strides)
        unit = areas.clamp(min=1.0).sqrt()[:, None, None]
        residual = (points - keypoints[..., :2]) / unit
        similarity = torch.exp(-squared_errors(points, keypoints, self.sigmas, areas))
        visibility_weights = annotated.any(-1, keepdim=True) * weights[:, None] / total / self.num_keypoints
        logits = values[:, 2 * self.num_keypoints : 3 * self.num_keypoints]
        visibility_loss = F.binary_cross_entropy_with_logits(logits, annotated, reduction="none")
        losses = {
            "oks": self.oks_weight * ((1 - similarity) * share).sum() + zero,
            "kpt_l1": self.l1_weight * (residual.abs().sum(-1) * share).sum() + zero,
            "kpt_visible": self.visibility_weight * (visibility_loss * visibility_weights).sum() + zero,
        }
        if self.likelihood is not None:
            spreads = values[:, 3 * self.num_keypoints :].unflatten(1, (2, -1)).transpose(1, 2)
            losses["kpt_rle"] = self.likelihood(residual, spreads, share) + zero
        return losses

    def common_losses(self, shared: Tensor | None, targets: PaddedTargets) -> dict[str, Tensor]:
        """The loss of the heatmaps."""
        if self.heatmaps is None or shared is None:
            return {}
        return {"loss_heatmap": self.heatmaps.loss(shared, targets, self.sigmas)}

    def decode(self, values: Tensor, shared: Tensor | None, points: Tensor, strides: Tensor) -> Tensor:
        """Keypoints (B, K, P, 3): x, y in pixels of the network input, and the probability of being annotated."""
        values = values.float()
        visible = values[..., 2 * self.num_keypoints : 3 * self.num_keypoints].sigmoid()
        return torch.cat([self._points(values, points, strides), visible[..., None]], -1)

    def _points(self, values: Tensor, points: Tensor, strides: Tensor) -> Tensor:
        """x, y (..., P, 2) in pixels from predictions (..., n) at points (..., 2) with strides (..., 1)."""
        x, y = values[..., : self.num_keypoints], values[..., self.num_keypoints : 2 * self.num_keypoints]
        offsets = torch.stack([x, y], -1).float() * (_OFFSET_UNIT * strides)[..., None]
        return points[..., None, :] + offsets

    def output(self, height: int, width: int, count: int) -> OutputSpec:
        """The output of :meth:`decode` for ``count`` detections."""
        return OutputSpec("keypoints", ("N", count, self.num_keypoints, 3), "float32", KEYPOINTS_MEANING)

    def candidates(self, values: Tensor, shared: Tensor | None, points: Tensor, strides: Tensor) -> tuple[Tensor, ...]:
        """Keypoints (B, A, P, 3) of all points."""
        return (self.decode(values, shared, points, strides),)

    def candidate_outputs(self, height: int, width: int, count: int) -> tuple[OutputSpec, ...]:
        """The output of :meth:`candidates` for ``count`` points."""
        return (self.output(height, width, count),)

    def strip(self) -> PointKeypoints:
        """A copy without the modules of auxiliary losses."""
        stripped = copy.deepcopy(self)
        stripped.likelihood = stripped.heatmaps = None
        return stripped
