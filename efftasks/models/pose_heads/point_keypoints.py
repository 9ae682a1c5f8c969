"""Keypoints of a dense head: every point says where the keypoints of its object are, and how sure it is of each.

Sources: YOLO-Pose (arXiv 2204.06806, section 3.3) for offsets from the point and OKS as a loss; residual log-likelihood
(arXiv 2107.11291) as a loss that only training has; heatmaps, likewise (``keypoint_heatmaps.py``).

Legend: as ``det_heads/o2o_parts.py``; P keypoints.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

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

# Offsets are said in units of two strides: an object of the size that its level is for has them near one.
_REACH = 2.0


class KeypointBranch(nn.Module):
    """x, y and visibility of P keypoints, and in training their spreads.

    One convolution mixes channels and places at once: a keypoint is found beside the point that speaks of it, and in
    another direction for every object. Depthwise ones alone learned that later.

    Args:
        in_specs: the maps.
        channels: width.
        num_keypoints: P.
        spread: two numbers more for each keypoint.
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
        """Maps (B, C_i, H_i, W_i) -> (B, 3 P or 5 P, A): x of all, y of all, visibility of all, then the spreads."""
        maps = [tower(x) for tower, x in zip(self.towers, features)]
        values = _numbers(self.values, maps)
        if self.spreads is None or not self.training:
            return values
        return torch.cat([values, _numbers(self.spreads, maps)], 1)

    def strip(self) -> KeypointBranch:
        """A copy without spreads."""
        stripped = copy.deepcopy(self)
        stripped.spreads = None
        return stripped


def _last(in_specs: Sequence[FeatureSpec], channels: int, outputs: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(channels, outputs, 1) for _ in in_specs)


def _numbers(last: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
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
        l1_weight: of the distance in square roots of the object's area: it has a gradient where OKS has none any more.
        visibility_weight: of the cross-entropy of "is annotated".
        likelihood_weight: of the residual log-likelihood; 0 for none.
        heatmap_weight: of heatmaps on the finest map, which teach the maps what keypoints look like; 0 for none.
        ranks: whether scores are to tell of OKS, too. Beside other tasks they had better not: as long as keypoints are
            found badly, they would bring the order of all boxes and masks in disarray.
    """

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
        ranks: bool = True,
    ) -> None:
        super().__init__()
        if not sigmas:
            raise ValueError(f"sigmas: got {sigmas!r}, expected one for each keypoint; data without keypoints has none")
        self.in_specs, self.branch_channels, self.ranks = tuple(in_specs), branch_channels, ranks
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
        """A module that gives the numbers of each point."""
        return KeypointBranch(self.in_specs, self.branch_channels, self.num_keypoints, self.likelihood is not None)

    def shared(self, features: Sequence[Tensor]) -> Tensor | None:
        """Heatmaps (B, P, h, w) in training; points share nothing else."""
        return self.heatmaps(features[0]) if self.heatmaps is not None and self.training else None

    def overlap(self, values: Tensor, shared: Tensor | None, pairs: Pairs, targets: PaddedTargets) -> Tensor:
        """OKS of predictions (N, n); NaN for objects without an annotated keypoint."""
        if targets.keypoints is None or targets.areas is None:
            return values.new_full((len(values),), torch.nan)
        wanted = pairs.of(targets.keypoints)
        found = self._points(values, pairs.points, pairs.strides)
        similarity = object_keypoint_similarity(found, wanted, self.sigmas, pairs.of(targets.areas))
        return torch.where((wanted[..., 2] > 0).any(-1), similarity, torch.nan)

    def losses(
        self,
        values: Tensor,
        shared: Tensor | None,
        pairs: Pairs,
        targets: PaddedTargets,
        weights: Tensor,
        total: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of predictions (N, n) against the annotated keypoints; a mean over those of an object."""
        values = values.float()
        nothing = values.sum() * 0  # every process has gradients for the same parameters
        if targets.keypoints is None or targets.areas is None:
            wanted, areas = values.new_zeros(len(values), self.num_keypoints, 3), values.new_ones(len(values))
        else:
            wanted, areas = pairs.of(targets.keypoints), pairs.of(targets.areas)
        seen = (wanted[..., 2] > 0).float()
        # A mean over annotated keypoints; 0 for objects without any.
        share = seen / seen.sum(-1, keepdim=True).clamp(min=1) * weights[:, None] / total
        points = self._points(values, pairs.points, pairs.strides)
        unit = areas.clamp(min=1.0).sqrt()[:, None, None]
        residual = (points - wanted[..., :2]) / unit
        similarity = torch.exp(-squared_errors(points, wanted, self.sigmas, areas))
        asked = seen.any(-1, keepdim=True) * weights[:, None] / total / self.num_keypoints
        logits = values[:, 2 * self.num_keypoints : 3 * self.num_keypoints]
        visible = F.binary_cross_entropy_with_logits(logits, seen, reduction="none")
        losses = {
            "oks": self.oks_weight * ((1 - similarity) * share).sum() + nothing,
            "kpt_l1": self.l1_weight * (residual.abs().sum(-1) * share).sum() + nothing,
            "kpt_visible": self.visibility_weight * (visible * asked).sum() + nothing,
        }
        if self.likelihood is not None:
            spreads = values[:, 3 * self.num_keypoints :].unflatten(1, (2, -1)).transpose(1, 2)
            losses["kpt_rle"] = self.likelihood(residual, spreads, share) + nothing
        return losses

    def common_losses(self, shared: Tensor | None, targets: PaddedTargets) -> dict[str, Tensor]:
        """That of the heatmaps."""
        if self.heatmaps is None or shared is None:
            return {}
        return {"loss_heatmap": self.heatmaps.loss(shared, targets, self.sigmas)}

    def decode(self, values: Tensor, shared: Tensor | None, points: Tensor, strides: Tensor) -> Tensor:
        """Keypoints (B, K, P, 3): x, y in pixels of the network input, and the probability of being annotated."""
        values = values.float()
        visible = values[..., 2 * self.num_keypoints : 3 * self.num_keypoints].sigmoid()
        return torch.cat([self._points(values, points, strides), visible[..., None]], -1)

    def _points(self, values: Tensor, points: Tensor, strides: Tensor) -> Tensor:
        """x, y (..., P, 2) in pixels of numbers (..., n) at points (..., 2) with strides (..., 1)."""
        x, y = values[..., : self.num_keypoints], values[..., self.num_keypoints : 2 * self.num_keypoints]
        offsets = torch.stack([x, y], -1).float() * (_REACH * strides)[..., None]
        return points[..., None, :] + offsets

    def output(self, height: int, width: int, count: int) -> OutputSpec:
        """The keypoints."""
        return OutputSpec("keypoints", ("N", count, self.num_keypoints, 3), "float32", KEYPOINTS_MEANING)

    def strip(self) -> PointKeypoints:
        """A copy without what only training has."""
        stripped = copy.deepcopy(self)
        stripped.likelihood = stripped.heatmaps = None
        return stripped
