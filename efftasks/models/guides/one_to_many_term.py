"""Distillation into the one-to-many branch of an ``O2OHead``.

The one-to-one branch is left alone: its scores must single out one point of each object, and a teacher's soft scores
around an object teach the opposite.

Legend: B images, A points, C classes, K detections.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from efftasks.models.det_heads.o2o_head import O2OHead, O2ORaw
from efftasks.models.det_heads.query_head import QueryHead
from efftasks.models.guides.sources import Networks
from efftasks.models.guides.terms import ClassMap, Term, head_of
from efftasks.models.losses.distillation_logits import quality_divergence
from efftasks.ops.boxes import box_ciou, decode_distances
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError
from efftasks.structures.features import Stages
from efftasks.structures.instances import PaddedTargets

__all__ = ["OneToManyTerm", "PointTargets"]


class PointTargets(NamedTuple):
    """What the teacher says of each point of the student."""

    probabilities: Tensor  # (B, A, C)
    boxes: Tensor  # (B, A, 4) xyxy in pixels of the student's input
    quality: Tensor  # (B, A) in [0, 1]: 0 where the teacher sees no object


@MODELS.register_module()
class OneToManyTerm(Term):
    """Class probabilities and boxes of a teacher for the one-to-many branch, weighted by the teacher's quality.

    With q the best class probability of the teacher at a point, 0 below ``min_score``, and Q its sum over all points::

        loss_cls = class_weight / Q * sum_ac |sigmoid(s) - t| * KL(t || sigmoid(s))
        loss_box = box_weight / Q * sum_a q * (1 - CIoU(student's box, teacher's box))

    An ``O2OHead`` as teacher predicts the same points by its own one-to-many branch. The detections of a ``QueryHead``
    are assigned to points by the student's one-to-many assigner, with t and q the assigned quality times the score.

    Sources: CrossKD (arXiv 2306.11369) for the two losses; YOLOv10 (arXiv 2405.14458) for the branches.

    Args:
        networks: given by the guide.
        class_weight: of the class loss.
        box_weight: of the box loss.
        min_score: of points or detections of the teacher that count as objects.

    Raises:
        UserError: the student has no O2OHead, or the teacher none of the two.
    """

    compares_classes = True
    parts = ("cls", "box")

    def __init__(
        self, networks: Networks, class_weight: float = 1.0, box_weight: float = 4.0, min_score: float = 0.05
    ) -> None:
        super().__init__()
        self.place = networks.place
        self.class_weight, self.box_weight, self.min_score = class_weight, box_weight, min_score
        head_of(networks.student.network, (O2OHead,), f"{self.place}: the student")
        head_of(networks.teacher.network, (O2OHead, QueryHead), f"{self.place}: the teacher")

    def forward(self, student: Stages, teacher: Stages, classes: ClassMap | None) -> dict[str, Tensor]:
        """``cls`` and ``box``."""
        raw: O2ORaw = student.raw
        branch = raw.one_to_many
        assert branch is not None and classes is not None
        logits = branch.logits.float()
        boxes = decode_distances(raw.points, branch.distances.float() * raw.strides)
        with torch.no_grad():
            if isinstance(teacher.model.head, O2OHead):
                targets = self._of_points(raw, teacher, classes)
            else:
                targets = self._of_detections(student, logits, boxes, teacher, classes)
            total = targets.quality.sum()
            all_reduce(total, op="mean")
            total = total.clamp(min=1.0)
        objects = targets.quality > 0
        losses = (1 - box_ciou(boxes[objects], targets.boxes[objects])) * targets.quality[objects]
        return dict(
            cls=self.class_weight * quality_divergence(logits, targets.probabilities).sum() / total,
            box=self.box_weight * losses.sum() / total,
        )

    def _of_points(self, raw: O2ORaw, teacher: Stages, classes: ClassMap) -> PointTargets:
        """The teacher's one-to-many branch at the same points."""
        points, strides = teacher.raw.points, teacher.raw.strides
        if points.shape != raw.points.shape or not torch.equal(strides, raw.strides):
            raise UserError(
                f"{self.place}: the teacher has {len(points)} points and the student {len(raw.points)}; expected the "
                "same strides, and teacher_scale=1"
            )
        if teacher.model.head.one_to_many is None:
            raise UserError(f"{self.place}: the teacher was stripped of its one-to-many branch")
        branch = teacher.raw.one_to_many  # of a teacher that trains as well
        if branch is None:
            branch = teacher.model.head.one_to_many(teacher.features)
        boxes = decode_distances(points, branch.distances.float() * strides)
        probabilities = classes.columns(branch.logits.float().sigmoid(), 2)
        quality = probabilities.amax(-1)
        is_box = (boxes[..., 2:] - boxes[..., :2] >= 1).all(-1)  # not with its sides exchanged, and no point
        return PointTargets(probabilities, boxes, quality * (is_box & (quality >= self.min_score)))

    def _of_detections(
        self, student: Stages, logits: Tensor, boxes: Tensor, teacher: Stages, classes: ClassMap
    ) -> PointTargets:
        """The teacher's detections, assigned to points as objects are."""
        detections = teacher.model.head.decode(teacher.raw)
        factor = _extent(student) / _extent(teacher)
        labels, is_shared = classes.labels(detections.labels)
        valid = is_shared & (detections.scores >= self.min_score)
        objects = PaddedTargets(labels, detections.boxes * factor, valid, torch.zeros_like(valid))
        assigned = student.model.head.one_to_many_assigner(logits.sigmoid(), boxes, student.raw.points, objects)
        image, point = assigned.foreground.nonzero(as_tuple=True)
        target = assigned.target[image, point]
        score = assigned.quality[image, point] * detections.scores[image, target]
        probabilities, quality, new = torch.zeros_like(logits), torch.zeros_like(logits[..., 0]), boxes.clone()
        probabilities[image, point, labels[image, target]] = score
        quality[image, point] = score
        new[image, point] = objects.boxes[image, target]
        return PointTargets(probabilities, new, quality)


def _extent(stages: Stages) -> Tensor:
    """(4,) width, height, width, height of the input of a network in pixels, from its finest map."""
    height, width = (side * stages.model.feature_specs[0].stride for side in stages.features[0].shape[-2:])
    return stages.features[0].new_tensor([width, height, width, height], dtype=torch.float32)
