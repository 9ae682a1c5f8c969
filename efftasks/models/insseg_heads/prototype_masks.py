"""Masks of a dense head: linear combinations of the prototype masks of an image, with coefficients of each object.

Sources: YOLACT (arXiv 1904.02689, section 3) for prototypes, coefficients and the loss inside the box; CondInst
(arXiv 2003.05664, section 3.3) for Dice; BlendMask (arXiv 2001.00309, section 3.1) for an auxiliary semantic
loss. Prototypes are made from all levels, for large objects.

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
from efftasks.models.layers.prediction import outputs_of
from efftasks.ops.masks import box_window, mask_iou
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import MASK_STRIDE, MASKS_MEANING, PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["CoefficientBranch", "PrototypeMasks", "PrototypeNet", "Prototypes"]


class Prototypes(NamedTuple):
    """The prototypes of an image, which its masks combine."""

    masks: Tensor  # (B, R, h, w)
    merged: Tensor  # (B, channels, H / 8, W / 8): the merged maps they were made from


class PrototypeNet(nn.Module):
    """Resizes all maps to the finest, sums them, and upsamples the sum by 2.

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
    """Predicts the coefficients of every point: for each map two depthwise separable convolutions and a 1x1.

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
    """Predicts coefficients at each point, and prototypes.

    Args:
        in_specs: maps, finest first; given by the head.
        num_classes: of the semantic branch; given by the head.
        losses: name -> loss ``(logits (N, h, w), targets (N, h, w), window bool (N, h, w)) -> (N,)``.
        num_prototypes: R.
        channels: width of the prototype network.
        branch_channels: width of the convolutions that give the coefficients.
        semantic_weight: of the semantic branch's loss; 0 for no such branch.
        max_pairs: the maximum number of pairs of a batch in the loss, drawn at random: each takes the memory of a mask.
    """

    affects_score = True  # masks are learned as early as boxes

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

    def class_rows(self) -> dict[str, str]:
        """See :class:`~efftasks.structures.protocols.HasClassRows`: the semantic branch."""
        return {} if self.semantic is None else dict.fromkeys(outputs_of(self.semantic, "semantic"), "classes")

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
        target_masks = F.avg_pool2d(targets.masks.float() / 255, 2)
        size = (target_masks.shape[2], target_masks.shape[3])
        window = box_window(targets.boxes, size, 2 * MASK_STRIDE, margin=MASK_STRIDE)
        ious = []
        # Image by image, to save memory.
        by_image = (pairs.per_image(x, len(small)) for x in (values, pairs.target))
        for image, (coefficients, target) in enumerate(zip(*by_image)):
            masks = _combined(coefficients, small[image]).sigmoid() * window[image, target]
            ious.append(mask_iou(masks, target_masks[image, target]))
        return torch.where(pairs.gather(_annotated(targets)), torch.cat(ious), torch.nan)

    def losses(
        self, values: Tensor, shared: Prototypes, pairs: Pairs, targets: PaddedTargets, weights: Tensor, total: Tensor
    ) -> dict[str, Tensor]:
        """Losses of the masks of coefficients (N, R) inside the boxes of their objects."""
        zero = values.sum() * 0 + shared.masks.sum() * 0  # every process has gradients for the same parameters
        if targets.masks is None or not len(values):
            return {f"mask_{name}": zero for name in self.mask_losses}
        rows = pairs.gather(_annotated(targets)).nonzero()[:, 0]
        num_annotated = max(1, len(rows))
        if len(rows) > self.max_pairs:
            rows = rows[torch.randperm(len(rows), device=rows.device)[: self.max_pairs]].sort().values
        sampled = pairs.select(rows)
        target_masks = sampled.gather(targets.masks).float() / 255
        size = (target_masks.shape[1], target_masks.shape[2])
        window = box_window(sampled.gather(targets.boxes), size, MASK_STRIDE, margin=MASK_STRIDE / 2)
        by_image = sampled.per_image(values[rows], len(shared.masks))
        logits = torch.cat([_combined(part, prototypes) for part, prototypes in zip(by_image, shared.masks)])
        scale = total * len(rows) / num_annotated  # as if the mean loss of a pair were that of all pairs
        return {
            f"mask_{name}": (loss(logits, target_masks, window) * weights[rows]).sum() / scale.clamp(min=1e-6) + zero
            for name, loss in self.mask_losses.items()
        }

    def common_losses(self, shared: Prototypes, targets: PaddedTargets) -> dict[str, Tensor]:
        """The auxiliary semantic loss: binary cross-entropy of each cell and class.

        Boxes of crowds and of objects without a mask are masked out of the loss.
        """
        if self.semantic is None:
            return {}
        logits = self.semantic(shared.merged).float()
        if targets.masks is None or not targets.masks.shape[1]:
            return {"loss_semantic": logits.sum() * 0}
        masks = F.avg_pool2d(targets.masks.float() / 255, 2)  # (B, M, H / 8, W / 8)
        annotated = _annotated(targets) & ~targets.ignored
        boxes = box_window(targets.boxes, (masks.shape[2], masks.shape[3]), 2 * MASK_STRIDE)
        unannotated = (boxes & (targets.valid & ~annotated)[..., None, None]).any(1, keepdim=True)
        class_masks = torch.zeros_like(logits)
        image = torch.arange(len(logits), device=logits.device)
        for i in range(masks.shape[1]):  # in a cell of two objects of one class the larger share counts
            label = targets.labels[:, i]
            shares = masks[:, i] * annotated[:, i, None, None]
            class_masks[image, label] = torch.maximum(class_masks[image, label], shares)
        counted = (~unannotated).float()
        weight = counted.expand_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits, class_masks, weight=weight, reduction="sum")
        # A mean over cells and a sum over classes.
        return {"loss_semantic": self.semantic_weight * loss / counted.sum().clamp(min=1)}

    def decode(self, values: Tensor, shared: Prototypes, points: Tensor, strides: Tensor) -> Tensor:
        """Mask logits (B, K, h, w) of the coefficients of K detections. Masks are cropped to boxes later, in pixels."""
        prototypes = shared.masks.float()
        return torch.matmul(values.float(), prototypes.flatten(2)).unflatten(2, prototypes.shape[2:])

    def output(self, height: int, width: int, count: int) -> OutputSpec:
        """The output of :meth:`decode` for ``count`` detections."""
        shape = ("N", count, height // MASK_STRIDE, width // MASK_STRIDE)
        return OutputSpec("masks", shape, "float32", MASKS_MEANING)

    def candidates(self, values: Tensor, shared: Prototypes, points: Tensor, strides: Tensor) -> tuple[Tensor, ...]:
        """Coefficients (B, A, R) of all points and prototypes (B, R, h, w): masks of all points would be gigabytes."""
        return values.float(), shared.masks.float()

    def candidate_outputs(self, height: int, width: int, count: int) -> tuple[OutputSpec, ...]:
        """The outputs of :meth:`candidates` for ``count`` points."""
        shape = ("N", self.num_prototypes, height // MASK_STRIDE, width // MASK_STRIDE)
        return (
            OutputSpec("coefficients", ("N", count, self.num_prototypes), "float32", "weights of the prototypes"),
            OutputSpec("prototypes", shape, "float32", "maps whose weighted sums are the masks"),
        )

    def strip(self) -> PrototypeMasks:
        """A copy without the semantic branch and the losses."""
        stripped = copy.deepcopy(self)
        stripped.semantic = None
        stripped.mask_losses = nn.ModuleDict()
        return stripped


def _combined(values: Tensor, prototypes: Tensor) -> Tensor:
    """Coefficients (N, R) and prototypes (R, h, w) of one image -> logits (N, h, w)."""
    return (values.float() @ prototypes.float().flatten(1)).unflatten(1, prototypes.shape[1:])


def _annotated(targets: PaddedTargets) -> Tensor:
    """Which objects have a mask: bool (B, M)."""
    assert targets.masks is not None
    return (targets.masks != 0).flatten(2).any(2)
