"""Distillation between query detectors, with the teacher's queries decoded by the student.

Predictions of two sets of queries have no natural pairs. Here the student's decoder gets another group of queries, the
boxes that the teacher selected, so that the pairs are given.

Legend: B images, K shared queries, C classes; boxes are cxcywh as fractions of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from efftasks.models.det_heads.query_head import QueryHead
from efftasks.models.det_heads.query_raw import LayerOutput
from efftasks.models.det_heads.query_selection import QuerySelection
from efftasks.models.guides.sources import Networks
from efftasks.models.guides.terms import ClassMap, Term, head_of
from efftasks.models.losses.distillation_logits import quality_divergence
from efftasks.ops.boxes import box_giou, cxcywh_to_xyxy
from efftasks.registry import MODELS
from efftasks.structures.features import Stages

__all__ = ["SharedQueryTerm", "cells_at"]

_SELECTION = "head.selection"


@MODELS.register_module()
class SharedQueryTerm(Term):
    """Class probabilities and boxes of the teacher's best queries, for the same queries in the student's decoder.

    The decoder runs once more, with the boxes that the teacher's selection proposed, and as content the student's own
    cells at their centers (:func:`cells_at`), so that these queries are made as those at inference are. With q the best
    class probability of the teacher's last layer for a query, and Q their sum, each loss is a mean over the layers of
    the student's decoder::

        loss_cls = class_weight / Q * sum |sigmoid(s) - t| * KL(t || sigmoid(s))
        loss_l1 = l1_weight / Q * sum q * |box_s - box_t|_1
        loss_giou = giou_weight / Q * sum q * (1 - GIoU(box_s, box_t))

    Source: KD-DETR (arXiv 2211.08071), whose distillation points are shared queries; DETR's weights of the box losses
    (arXiv 2005.12872). Content cannot be shared between networks of different widths, and strides may differ.

    Args:
        networks: given by the guide.
        num_queries: K, at most; those with the highest q.
        class_weight: of the class loss.
        l1_weight: of the L1 loss.
        giou_weight: of the GIoU loss.

    Raises:
        UserError: student or teacher has no QueryHead.
    """

    compares_classes = True
    parts = ("cls", "l1", "giou")
    teacher_paths = (_SELECTION,)

    def __init__(
        self,
        networks: Networks,
        num_queries: int = 100,
        class_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.class_weight, self.l1_weight, self.giou_weight = class_weight, l1_weight, giou_weight
        head = head_of(networks.student.network, (QueryHead,), f"{networks.place}: the student")
        head_of(networks.teacher.network, (QueryHead,), f"{networks.place}: the teacher")
        # Recorded, not computed again: that would count each batch twice in the statistics of their norms.
        self.student_paths = tuple(f"head.input_proj.{i}" for i in range(len(head.strides)))

    def forward(self, student: Stages, teacher: Stages, classes: ClassMap | None) -> dict[str, Tensor]:
        """``cls``, ``l1`` and ``giou``."""
        assert classes is not None
        head: QueryHead = student.model.head
        maps = [student.recorded[path] for path in self.student_paths]
        with torch.no_grad():
            probabilities = classes.columns(teacher.raw.logits.float().sigmoid(), 2)
            quality, index = probabilities.amax(-1).topk(min(self.num_queries, probabilities.shape[1]), dim=1)
            probabilities = _rows(probabilities, index)
            boxes = _rows(teacher.raw.boxes.float(), index)
            proposed = _rows(teacher.recorded[_SELECTION].box_logits.float(), index)
            content = cells_at(head.selection, maps, proposed.sigmoid()[..., :2])
            total = quality.sum()
            all_reduce(total, op="mean")
            total = total.clamp(min=1.0)
        layers: tuple[LayerOutput, ...] = head.decoder(content, proposed, maps).layers
        cls, l1, giou = [], [], []
        for layer in layers:
            cls.append(quality_divergence(layer.logits.float(), probabilities).sum())
            predicted = layer.boxes.float()
            l1.append(((predicted - boxes).abs().sum(-1) * quality).sum())
            giou.append(((1 - box_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(boxes))) * quality).sum())
        return dict(
            cls=self.class_weight * torch.stack(cls).mean() / total,
            l1=self.l1_weight * torch.stack(l1).mean() / total,
            giou=self.giou_weight * torch.stack(giou).mean() / total,
        )


def cells_at(selection: QuerySelection, maps: Sequence[Tensor], centers: Tensor) -> Tensor:
    """The content of queries at given places: of the cells there, that of the map with the highest class score.

    Args:
        selection: projects and scores cells.
        maps: (B, channels, H_i, W_i).
        centers: (B, K, 2) xy as fractions of the image.

    Returns:
        (B, K, channels).
    """
    cells = []
    for level in maps:
        height, width = level.shape[-2:]
        x, y = (centers * centers.new_tensor([width, height])).long().unbind(-1)
        index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        cells.append(_rows(level.flatten(2).transpose(1, 2), index))
    content = selection.project(torch.stack(cells, dim=2))  # (B, K, maps, channels)
    best = selection.score_head(content).amax(-1).argmax(-1)
    return content.gather(2, best[..., None, None].expand(-1, -1, 1, content.shape[-1])).squeeze(2)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """The rows (B, K, n) of (B, Q, n) at indices (B, K)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
