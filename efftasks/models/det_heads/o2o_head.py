"""NMS-free dense head, trained with dual assignment; only the one-to-one branch is used at inference.

Sources: YOLOv10 (arXiv 2405.14458, section 3.1) for the two branches and the consistent metric, TOOD (arXiv
2108.07755) for the metric and soft targets, YOLOX (arXiv 2107.08430, section 2.2) for the decoupled head.

Legend: B images, A points of all levels, C classes, K detections.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from efftasks.models.assigners.task_aligned import Overlap
from efftasks.models.det_heads.o2o_parts import ObjectPart, Pairs
from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.layers.prediction import outputs_of
from efftasks.ops.boxes import decode_distances, encode_distances
from efftasks.ops.topk import top_pairs
from efftasks.registry import MODELS, TASK_UTILS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import DetectionTensors, PaddedTargets
from efftasks.structures.spec import OutputSpec

__all__ = ["BranchRaw", "O2OHead", "O2ORaw"]

PARTS = ("masks", "keypoints")  # in the order of the outputs


class BranchRaw(NamedTuple):
    """The prediction of one branch at every point."""

    logits: Tensor  # (B, A, C)
    distances: Tensor  # (B, A, 4): left, top, right, bottom, in strides of the point's level
    parts: dict[str, Tensor]  # name of a part -> (B, A, n)


class O2ORaw(NamedTuple):
    """The raw prediction of the head; ``one_to_many`` is None at inference."""

    one_to_one: BranchRaw
    one_to_many: BranchRaw | None
    points: Tensor  # (A, 2) xy in pixels of the network input
    strides: Tensor  # (A, 1) pixels
    shared: dict[str, Any]  # name of a part -> what is computed once for all its points


class DecoupledBranch(nn.Module):
    """Per level: two convolutions and a 1x1 for the class, the same for the four distances; and the branches of parts.

    Args:
        in_specs: the feature maps.
        num_classes: C.
        box_channels: width of the box convolutions.
        class_channels: width of the class convolutions (depthwise 3x3, then 1x1).
        parts: name -> :class:`~efftasks.models.det_heads.o2o_parts.ObjectPart`.
    """

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        num_classes: int,
        box_channels: int,
        class_channels: int,
        parts: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: part.new_branch() for name, part in parts.items()})
        self.boxes = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(spec.channels, box_channels, 3),
                ConvNormAct(box_channels, box_channels, 3),
                nn.Conv2d(box_channels, 4, 1),
            )
            for spec in in_specs
        )
        self.classes = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(spec.channels, spec.channels, 3, groups=spec.channels),
                ConvNormAct(spec.channels, class_channels, 1),
                ConvNormAct(class_channels, class_channels, 3, groups=class_channels),
                ConvNormAct(class_channels, class_channels, 1),
                nn.Conv2d(class_channels, num_classes, 1),
            )
            for spec in in_specs
        )

    def class_rows(self) -> dict[str, str]:
        """See :class:`~efftasks.structures.protocols.HasClassRows`: the last layer of each level's classes."""
        names = [
            name for level, branch in self.classes.named_children() for name in outputs_of(branch, f"classes.{level}")
        ]
        return dict.fromkeys(names, "classes")

    def init_biases(self, strides: Sequence[int], prior_objects: float, image_side: int, start_side: float) -> None:
        """Start with the prior of the focal loss and with boxes of ``2 * start_side`` strides."""
        boxes: Any
        classes: Any
        for boxes, classes, stride in zip(self.boxes, self.classes, strides):
            nn.init.constant_(boxes[-1].bias, start_side)
            num_classes = classes[-1].out_channels
            prior = prior_objects / num_classes / (image_side / stride) ** 2
            nn.init.constant_(classes[-1].bias, math.log(prior / (1 - prior)))

    def forward(self, features: Sequence[Tensor]) -> BranchRaw:
        """Features (B, C_i, H_i, W_i) of all levels -> raw prediction of all points."""
        logits = [head(x).flatten(2) for head, x in zip(self.classes, features)]
        distances = [head(x).flatten(2) for head, x in zip(self.boxes, features)]
        parts = {name: part(features).transpose(1, 2) for name, part in self.parts.items()}
        return BranchRaw(torch.cat(logits, 2).transpose(1, 2), torch.cat(distances, 2).transpose(1, 2), parts)


def level_points(features: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Cell centers (A, 2) xy in pixels and strides (A, 1) of all levels, rows first."""
    points, sizes = [], []
    for feature, stride in zip(features, strides):
        height, width = feature.shape[-2:]
        y = (torch.arange(height, device=feature.device, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(width, device=feature.device, dtype=torch.float32) + 0.5) * stride
        grid = torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], dim=-1).reshape(-1, 2)
        points.append(grid)
        sizes.append(torch.full_like(grid[:, :1], float(stride)))
    return torch.cat(points), torch.cat(sizes)


class PartOverlaps:
    """The overlaps of parts (masks, keypoints) with objects, for the assigner.

    Args:
        branch: the prediction of one branch.
        raw: the prediction that it is a part of.
        parts: name -> part.
        targets: the objects.
    """

    def __init__(self, branch: BranchRaw, raw: O2ORaw, parts: Mapping[str, Any], targets: PaddedTargets) -> None:
        self.branch, self.raw, self.parts, self.targets = branch, raw, parts, targets

    def __call__(self, image: Tensor, target: Tensor, point: Tensor) -> list[Overlap]:
        """Indices (N,) of images, objects and points -> one overlap for each part."""
        pairs = Pairs(image, target, self.raw.points[point], self.raw.strides[point])
        return [
            Overlap(
                part.overlap(self.branch.parts[name][image, point], self.raw.shared[name], pairs, self.targets),
                part.affects_score,
            )
            for name, part in self.parts.items()
        ]


def _gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """The rows (B, K, n) of (B, A, n) at indices (B, K).

    They are gathered in the layout of the maps (B, n, A), so that only K of the A rows are transposed.
    """
    columns = values.transpose(1, 2)
    return columns.gather(2, index[:, None].expand(-1, columns.shape[1], -1)).transpose(1, 2)


@MODELS.register_module()
class O2OHead(nn.Module):
    """One-to-one head with a one-to-many branch that is used in training only.

    Args:
        in_specs: the feature maps, finest first; given by the detector.
        num_classes: C.
        assigner: the one-to-one assigner, a module or its config.
        one_to_many_assigner: the same for the one-to-many branch.
        loss_class: classification loss ``(logits, targets) -> scalar``.
        losses_box: losses ``(predictions, targets, weights) -> scalar``: ``iou`` on boxes in pixels, ``l1`` on
            distances in strides.
        max_detections: K, at most.
        one_to_many_weight: weight of the one-to-many branch at the start and at the end of training, linear between;
            the one-to-one branch has one minus this.
        class_channels: width of the class convolutions; None takes the channels of the finest map.
        parts: further predictions of an object: name of the output (``masks``, ``keypoints``) -> config of an
            :class:`~efftasks.models.det_heads.o2o_parts.ObjectPart` without ``in_specs`` and ``num_classes``. Their
            overlaps enter the assigner's metric with a weight that grows from 0 to that of box IoU during training.
    """

    renamed_arguments: ClassVar[dict[str, str]] = {
        "helper_assigner": "one_to_many_assigner",
        "helper_weight": "one_to_many_weight",
    }
    candidate_decoder = "top-pairs"
    float_layers = ("one_to_one.boxes.*.2", "one_to_one.classes.*.4")  # predictions, of any range

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        num_classes: int,
        assigner: dict,
        one_to_many_assigner: dict,
        loss_class: dict,
        losses_box: dict,
        max_detections: int = 300,
        one_to_many_weight: tuple[float, float] = (0.8, 0.1),
        class_channels: int | None = None,
        parts: Mapping[str, dict] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes: got {num_classes!r}, allowed are integers from 1")
        self.num_classes = num_classes
        self.max_detections = max_detections
        self.strides = tuple(spec.stride for spec in in_specs)
        self.assigner = TASK_UTILS.build(assigner)
        self.one_to_many_assigner = TASK_UTILS.build(one_to_many_assigner)
        self.loss_class = MODELS.build(loss_class)
        self.losses_box = nn.ModuleDict({name: MODELS.build(cfg) for name, cfg in losses_box.items()})
        self.one_to_many_weight = one_to_many_weight
        self.progress = 0.0

        if not set(parts or {}) <= set(PARTS):
            raise ValueError(f"parts: got {', '.join(parts or {})}, allowed are {', '.join(PARTS)}")
        common = dict(in_specs=in_specs, num_classes=num_classes)
        self.parts = nn.ModuleDict({name: MODELS.build({**part, **common}) for name, part in (parts or {}).items()})
        finest = in_specs[0].channels
        branch = DecoupledBranch(
            in_specs, num_classes, max(16, finest // 4), class_channels or finest, dict(self.parts.items())
        )
        branch.init_biases(self.strides, prior_objects=5, image_side=640, start_side=2.0)
        self.one_to_many: DecoupledBranch | None = branch
        self.one_to_one = copy.deepcopy(branch)

    @property
    def integer_parts(self) -> tuple[str, ...]:
        """The layers of boxes and classes of the one-to-one branch; the other branch is not exported."""
        return tuple(f"one_to_one.{kind}.{i}" for kind in ("boxes", "classes") for i in range(len(self.strides)))

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1]."""
        self.progress = min(max(fraction, 0.0), 1.0)

    def forward(self, features: Sequence[Tensor]) -> O2ORaw:
        """Features (B, C_i, H_i, W_i), finest first -> raw prediction.

        The one-to-one branch gets detached features: only the one-to-many branch trains backbone and neck.
        """
        points, strides = level_points(features, self.strides)
        shared = {name: self._part(name).shared(features) for name in self.parts}
        if self.one_to_many is None:
            return O2ORaw(self.one_to_one(features), None, points, strides, shared)
        one_to_many = self.one_to_many(features) if self.training else None
        detached = [x.detach() for x in features] if self.training else features
        return O2ORaw(self.one_to_one(detached), one_to_many, points, strides, shared)

    def _part(self, name: str) -> ObjectPart:
        part: Any = self.parts[name]
        return part

    def count_detections(self, height: int, width: int) -> int:
        """K for an input of this size in pixels."""
        return min(self.max_detections, sum((height // stride) * (width // stride) for stride in self.strides))

    def part_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The outputs of :meth:`decode` beside boxes, scores and labels, for an input of this size in pixels."""
        count = self.count_detections(height, width)
        return tuple(self._part(name).output(height, width, count) for name in PARTS if name in self.parts)

    def decode(self, raw: O2ORaw) -> DetectionTensors:
        """Raw prediction -> the K best detections of the one-to-one branch. Pure tensors, the same when exported."""
        count = min(self.max_detections, raw.points.shape[0])
        logits, labels, index = top_pairs(raw.one_to_one.logits.float(), count)
        points, strides = raw.points[index], raw.strides[index]
        boxes = decode_distances(points, _gather_rows(raw.one_to_one.distances.float(), index) * strides)
        parts = {
            name: self._part(name).decode(_gather_rows(values, index), raw.shared[name], points, strides)
            for name, values in raw.one_to_one.parts.items()
        }
        return DetectionTensors(boxes, logits.sigmoid(), labels, **parts)

    def candidates(self, raw: O2ORaw) -> tuple[Tensor, ...]:
        """Raw prediction -> what :meth:`decode` selects from: boxes (B, A, 4), scores (B, A, C), tensors of parts."""
        branch = raw.one_to_one
        boxes = decode_distances(raw.points, branch.distances.float() * raw.strides)
        parts = (
            self._part(name).candidates(branch.parts[name], raw.shared[name], raw.points, raw.strides)
            for name in PARTS
            if name in self.parts
        )
        return (boxes, branch.logits.float().sigmoid(), *(tensor for tensors in parts for tensor in tensors))

    def candidate_outputs(self, height: int, width: int) -> tuple[OutputSpec, ...]:
        """The tensors of :meth:`candidates` for an input of this size in pixels."""
        count = sum((height // stride) * (width // stride) for stride in self.strides)
        parts = (self._part(name).candidate_outputs(height, width, count) for name in PARTS if name in self.parts)
        return (
            OutputSpec("boxes", ("N", count, 4), "float32", "xyxy of every point, pixels of the network input"),
            OutputSpec("scores", ("N", count, self.num_classes), "float32", "probability in [0, 1] of every class"),
            *(output for outputs in parts for output in outputs),
        )

    def loss(self, features: Sequence[Tensor], targets: PaddedTargets) -> dict[str, Tensor]:
        """Losses of features (B, C_i, H_i, W_i) against the objects."""
        return self.raw_and_loss(features, targets)[1]

    def raw_and_loss(self, features: Sequence[Tensor], targets: PaddedTargets) -> tuple[O2ORaw, dict[str, Tensor]]:
        """The raw prediction of features, and its losses against the objects."""
        raw = self(features)
        return raw, self.loss_by_feat(raw, targets)

    def loss_by_feat(self, raw: O2ORaw, targets: PaddedTargets) -> dict[str, Tensor]:
        """Losses of both branches, weighted by training progress."""
        assert raw.one_to_many is not None, "losses need the one-to-many branch, which a stripped head has not"
        start, end = self.one_to_many_weight
        weight = start + (end - start) * self.progress
        losses = {}
        branches = (
            ("o2m", raw.one_to_many, self.one_to_many_assigner, weight),
            ("o2o", raw.one_to_one, self.assigner, 1 - weight),
        )
        for name, branch, assigner, branch_weight in branches:
            for key, value in self._branch_losses(branch, raw, assigner, targets).items():
                losses[f"loss_{key}_{name}"] = value * branch_weight
        for name, shared in raw.shared.items():
            losses.update(self._part(name).common_losses(shared, targets))
        return losses

    def image_losses(self, raw: O2ORaw, targets: PaddedTargets) -> Tensor:
        """The loss (B,) of the classes and boxes of the one-to-one branch, each image on its own."""
        losses = []
        for i in range(len(targets.labels)):
            image = slice(i, i + 1)
            branch = BranchRaw(raw.one_to_one.logits[image], raw.one_to_one.distances[image], {})
            objects = PaddedTargets._make(None if field is None else field[image] for field in targets)
            terms = self._branch_losses(branch, raw, self.assigner, objects, alone=True)
            losses.append(torch.stack(list(terms.values())).sum())
        return torch.stack(losses)

    def _branch_losses(
        self, branch: BranchRaw, raw: O2ORaw, assigner, targets: PaddedTargets, alone: bool = False
    ) -> dict[str, Tensor]:
        """Losses of one branch, over the mean sum of weights of all processes, or ``alone`` over that of this one."""
        logits, distances = branch.logits.float(), branch.distances.float()
        boxes = decode_distances(raw.points, distances * raw.strides)
        overlaps = PartOverlaps(branch, raw, dict(self.parts.items()), targets) if branch.parts else None
        assigned = assigner(logits.detach().sigmoid(), boxes.detach(), raw.points, targets, overlaps, self.progress)

        quality = assigned.quality
        class_targets = torch.zeros_like(logits)
        image, point = assigned.foreground.nonzero(as_tuple=True)
        target = assigned.target[image, point]
        weights = quality[image, point]
        class_targets[image, point, targets.labels[image, target]] = weights

        total = weights.sum()
        if not alone:
            all_reduce(total, op="mean")  # every process, with or without objects, takes part
        total = total.clamp(min=1.0)
        counted = ~assigned.ignored
        losses = {"cls": self.loss_class(logits[counted], class_targets[counted]) / total}
        target_boxes = targets.boxes[image, target]
        stride = raw.strides[point]
        arguments = {
            "iou": (boxes[image, point], target_boxes),
            "l1": (distances[image, point], encode_distances(raw.points[point], target_boxes) / stride),
        }
        for name, loss in self.losses_box.items():
            # Without objects the empty sum is 0 with a gradient: every process has gradients for every parameter.
            losses[name] = loss(*arguments[name], weights) / total
        pairs = Pairs(image, target, raw.points[point], stride)
        for name, values in branch.parts.items():
            part = self._part(name)
            losses.update(part.losses(values[image, point], raw.shared[name], pairs, targets, weights, total))
        return losses

    def strip(self) -> O2OHead:
        """A copy without the one-to-many branch."""
        stripped = copy.deepcopy(self)
        stripped.one_to_many = None
        return stripped
