"""Masks of a dense head: a few prototype masks an image, mixed for each object by its own coefficients.

Sources: YOLACT (arXiv 1904.02689, section 3) for prototypes, coefficients and the loss inside the box; CondInst
(arXiv 2003.05664, section 3.3) for Dice; BlendMask (arXiv 2001.00309, section 3.1) for a semantic loss that only
training has. Prototypes come from all levels, so that large objects find theirs.

Legend: as ``det_heads/o2o_parts.py``; R prototypes; h, w sides of the input over 4.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.det_heads.o2o_parts import Pairs
from efftasks.models.layers.conv import ConvNormAct
from efftasks.ops.masks import box_window, mask_iou
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import MASK_STRIDE, MASKS_MEANING, PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["CoefficientBranch", "PrototypeMasks", "PrototypeNet", "Prototypes"]


class Prototypes(NamedTuple):
    """What the masks of an image are mixed from."""

    masks: Tensor  # (B, R, h, w)
    merged: Tensor  # (B, channels, H / 8, W / 8): what they were made from


class PrototypeNet(nn.Module):
    """All maps, brought to the finest and summed, then twice its size.

    Args:
        in_specs: maps, finest first; the finest has stride 8.
        channels: width.
        num_prototypes: R.
    """

    def __init__(self, in_specs: Sequence[FeatureSpec], channels: int, num_prototypes: int) -> None:
        super().__init__()
        if in_specs[0].stride != 2 * MASK_STRIDE:
            raise ValueError(f"in_specs: got a finest stride of {in_specs[0].stride}, expected {2 * MASK_STRIDE}")
        self.laterals = nn.ModuleList(ConvNormAct(spec.channels, channels, 1, act=None) for spec in in_specs)
        self.mix = ConvNormAct(channels, channels, 3)
        self.smooth = nn.Sequential(
            ConvNormAct(channels, channels, 5, groups=channels), ConvNormAct(channels, channels, 1)
        )
        self.out = nn.Conv2d(channels, num_prototypes, 1)

    def forward(self, features: Sequence[Tensor]) -> Prototypes:
        """Maps -> prototypes."""
        first, *others = (lateral(x) for lateral, x in zip(self.laterals, features))
        for x in others:
            first = first + F.interpolate(x, first.shape[2:], mode="nearest")
        merged = self.mix(F.relu(first))
        return Prototypes(self.out(self.smooth(F.interpolate(merged, scale_factor=2.0, mode="nearest"))), merged)


class CoefficientBranch(nn.Module):
    """For each map two depthwise separable convolutions and a 1x1: the coefficients of every point.

    Args:
        in_specs: the maps.
        channels: width.
        num_prototypes: R.
    """

    def __init__(self, in_specs: Sequence[FeatureSpec], channels: int, num_prototypes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(spec.channels, spec.channels, 3, groups=spec.channels),
                ConvNormAct(spec.channels, channels, 1),
                ConvNormAct(channels, channels, 3, groups=channels),
                ConvNormAct(channels, channels, 1),
                nn.Conv2d(channels, num_prototypes, 1),
            )
            for spec in in_specs
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) -> (B, R, A)."""
        return torch.cat([level(x).flatten(2) for level, x in zip(self.levels, features)], 2)


@MODELS.register_module()
class PrototypeMasks(nn.Module):
    """Coefficients for each point, and the prototypes they mix.

    Args:
        in_specs: maps, finest first; given by the head.
        num_classes: of the semantic branch; given by the head.
        losses: name -> loss ``(logits (N, h, w), targets (N, h, w), window bool (N, h, w)) -> (N,)``.
        num_prototypes: R.
        channels: width of the prototype network.
        branch_channels: width of the convolutions that give the coefficients.
        semantic_weight: of the semantic branch's loss; 0 for no such branch.
        max_pairs: the loss takes so many pairs of a batch at most, drawn at random: a mask a pair takes memory.
    """

    ranks = True  # masks are found as soon as boxes are

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        num_classes: int,
        losses: dict[str, dict],
        num_prototypes: int = 32,
        channels: int = 48,
        branch_channels: int = 32,
        semantic_weight: float = 1.0,
        max_pairs: int = 800,
    ) -> None:
        super().__init__()
        self.in_specs = tuple(in_specs)
        self.num_prototypes, self.branch_channels = num_prototypes, branch_channels
        self.semantic_weight, self.max_pairs = semantic_weight, max_pairs
        self.prototypes = PrototypeNet(in_specs, channels, num_prototypes)
        self.mask_losses = nn.ModuleDict({name: MODELS.build(loss) for name, loss in losses.items()})
        self.semantic: nn.Module | None = nn.Conv2d(channels, num_classes, 1) if semantic_weight else None

    def new_branch(self) -> nn.Module:
        """A module that gives the coefficients (B, R, A)."""
        return CoefficientBranch(self.in_specs, self.branch_channels, self.num_prototypes)

    def shared(self, features: Sequence[Tensor]) -> Prototypes:
        """Maps -> prototypes."""
        return self.prototypes(features)

    def overlap(self, values: Tensor, shared: Prototypes, pairs: Pairs, targets: PaddedTargets) -> Tensor:
        """Mask IoU of coefficients (N, R) inside the objects' boxes, at half the size; NaN for objects without one."""
        if targets.masks is None or not len(values):
            return values.new_full((len(values),), torch.nan)
        small = F.avg_pool2d(shared.masks, 2)
        wanted = F.avg_pool2d(targets.masks.float() / 255, 2)
        window = box_window(targets.boxes, (wanted.shape[2], wanted.shape[3]), 2 * MASK_STRIDE, margin=MASK_STRIDE)
        found = []
        # One image after the other: all masks at once would take memory.
        parts = (pairs.per_image(x, len(small)) for x in (values, pairs.target))
        for image, (coefficients, target) in enumerate(zip(*parts)):
            masks = _mixed(coefficients, small[image]).sigmoid() * window[image, target]
            found.append(mask_iou(masks, wanted[image, target]))
        return torch.where(_annotated(targets)[pairs.image, pairs.target], torch.cat(found), torch.nan)

    def losses(
        self, values: Tensor, shared: Prototypes, pairs: Pairs, targets: PaddedTargets, weights: Tensor, total: Tensor
    ) -> dict[str, Tensor]:
        """Losses of the masks of coefficients (N, R) inside the boxes of their objects."""
        nothing = values.sum() * 0 + shared.masks.sum() * 0  # every process has gradients for the same parameters
        if targets.masks is None or not len(values):
            return {f"mask_{name}": nothing for name in self.mask_losses}
        rows = _annotated(targets)[pairs.image, pairs.target].nonzero()[:, 0]
        known = max(1, len(rows))
        if len(rows) > self.max_pairs:
            rows = rows[torch.randperm(len(rows), device=rows.device)[: self.max_pairs]].sort().values
        chosen = pairs.chosen(rows)
        wanted = chosen.of(targets.masks).float() / 255
        window = box_window(
            chosen.of(targets.boxes), (wanted.shape[1], wanted.shape[2]), MASK_STRIDE, margin=MASK_STRIDE / 2
        )
        parts = chosen.per_image(values[rows], len(shared.masks))
        logits = torch.cat([_mixed(part, prototypes) for part, prototypes in zip(parts, shared.masks)])
        scale = total * len(rows) / known  # the pairs left out would have added as much each
        return {
            f"mask_{name}": (loss(logits, wanted, window) * weights[rows]).sum() / scale.clamp(min=1e-6) + nothing
            for name, loss in self.mask_losses.items()
        }

    def common_losses(self, shared: Prototypes, targets: PaddedTargets) -> dict[str, Tensor]:
        """Which cells belong to which class, by binary cross-entropy.

        Boxes of crowds and of objects without a mask do not count.
        """
        if self.semantic is None:
            return {}
        logits = self.semantic(shared.merged).float()
        if targets.masks is None or not targets.masks.shape[1]:
            return {"loss_semantic": logits.sum() * 0}
        masks = F.avg_pool2d(targets.masks.float() / 255, 2)  # (B, M, H / 8, W / 8)
        known = _annotated(targets) & ~targets.ignored
        boxes = box_window(targets.boxes, (masks.shape[2], masks.shape[3]), 2 * MASK_STRIDE)
        unknown = (boxes & (targets.valid & ~known)[..., None, None]).any(1, keepdim=True)
        wanted = torch.zeros_like(logits)
        image = torch.arange(len(logits), device=logits.device)
        for i in range(masks.shape[1]):  # of two objects of one class in a cell the larger share counts
            label = targets.labels[:, i]
            wanted[image, label] = torch.maximum(wanted[image, label], masks[:, i] * known[:, i, None, None])
        counted = (~unknown).float()
        loss = F.binary_cross_entropy_with_logits(logits, wanted, weight=counted.expand_as(logits), reduction="sum")
        # A cell is one thing to get right, whatever the number of classes.
        return {"loss_semantic": self.semantic_weight * loss / counted.sum().clamp(min=1)}

    def decode(self, values: Tensor, shared: Prototypes, points: Tensor, strides: Tensor) -> Tensor:
        """Mask logits (B, K, h, w) of the K kept coefficients. Their boxes are cut where pixels are, not cells."""
        prototypes = shared.masks.float()
        return torch.matmul(values.float(), prototypes.flatten(2)).unflatten(2, prototypes.shape[2:])

    def output(self, height: int, width: int, count: int) -> OutputSpec:
        """The masks."""
        shape = ("N", count, height // MASK_STRIDE, width // MASK_STRIDE)
        return OutputSpec("masks", shape, "float32", MASKS_MEANING)

    def strip(self) -> PrototypeMasks:
        """A copy without what only training has."""
        stripped = copy.deepcopy(self)
        stripped.semantic = None
        stripped.mask_losses = nn.ModuleDict()
        return stripped


def _mixed(values: Tensor, prototypes: Tensor) -> Tensor:
    """Coefficients (N, R) and prototypes (R, h, w) of one image -> logits (N, h, w)."""
    return (values.float() @ prototypes.float().flatten(1)).unflatten(1, prototypes.shape[1:])


def _annotated(targets: PaddedTargets) -> Tensor:
    """Which objects have a mask: bool (B, M)."""
    assert targets.masks is not None
    return (targets.masks != 0).flatten(2).any(2)
