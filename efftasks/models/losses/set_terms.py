"""Terms of the loss of a set predictor, each a small module with one ``weight``. All are sums; the caller normalizes.

Sources: varifocal loss arXiv 2008.13367; matchability-aware loss DEIM (arXiv 2412.04234, section 3.2); L1 and GIoU DETR
(arXiv 2005.12872, section 3.1); fine-grained localization and decoupled distillation D-FINE (arXiv 2410.13842, sections
4.2 and 4.3).

Legend: B images, Q queries, C classes, P matched pairs, R + 1 bins.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.assigners.hungarian import Matching
from efftasks.models.det_heads.query_raw import LayerOutput
from efftasks.ops.boxes import box_giou, cxcywh_to_xyxy
from efftasks.ops.distribution import BinTargets
from efftasks.registry import MODELS

__all__ = ["FineGrainedTerm", "GIoUTerm", "L1Term", "LocalizationDistillation", "Matched", "MatchabilityTerm"]
__all__ += ["Teacher", "VarifocalTerm"]


class Teacher(NamedTuple):
    """The last layer, which is distilled into the others, without gradient."""

    confidence: Tensor  # (B, Q): its highest score
    corners: Tensor  # (B, Q, 4, R + 1)
    balance: Tensor  # (2,): weights of matched and unmatched queries


class Matched(NamedTuple):
    """An output, its pairs with objects, and the inputs of terms on these pairs."""

    output: LayerOutput
    matching: Matching
    labels: Tensor  # int64 (P,)
    boxes: Tensor  # (P, 4) cxcywh: the objects'
    iou: Tensor  # (P,): of the predicted boxes with them, without gradient
    bins: BinTargets | None = None  # (P, 4): of the objects' sides; None where boxes are not distributions
    teacher: Teacher | None = None

    def gather(self, values: Tensor) -> Tensor:
        """The rows (P, ...) of (B, Q, ...) that are matched."""
        return values[self.matching.image, self.matching.query]


class Scored(Protocol):
    """An output with scores."""

    @property
    def logits(self) -> Tensor:
        """(B, Q, C)."""
        ...


class Graded(Protocol):
    """The input of classification terms: matched pairs with their quality, the IoU of boxes or the OKS of poses."""

    @property
    def output(self) -> Scored:
        """The output of a layer."""
        ...

    @property
    def matching(self) -> Matching:
        """The matched pairs."""
        ...

    @property
    def labels(self) -> Tensor:
        """The labels of the pairs' objects, int64 (P,)."""
        ...

    @property
    def iou(self) -> Tensor:
        """The quality (P,) of the pairs in [0, 1], without gradient."""
        ...


class ClassTerm(nn.Module):
    """Base of the classification terms.

    Args:
        weight: of the term.
        gamma: exponent.
    """

    def __init__(self, weight: float, gamma: float) -> None:
        super().__init__()
        self.weight, self.gamma = weight, gamma

    @staticmethod
    def targets(matched: Graded) -> tuple[Tensor, Tensor]:
        """One-hot class targets and the same with the IoU for 1, (B, Q, C) each."""
        place = (matched.matching.image, matched.matching.query, matched.labels)
        one_hot = torch.zeros_like(matched.output.logits, dtype=torch.float32)
        quality = torch.zeros_like(one_hot)
        one_hot[place] = 1.0
        quality[place] = matched.iou
        return one_hot, quality


@MODELS.register_module()
class VarifocalTerm(ClassTerm):
    """Binary cross-entropy with the IoU as target, weighted by the IoU, negatives by ``alpha * score^gamma``."""

    def __init__(self, weight: float = 1.0, alpha: float = 0.75, gamma: float = 2.0) -> None:
        super().__init__(weight, gamma)
        self.alpha = alpha

    def forward(self, matched: Graded) -> Tensor:
        """Sum over all queries and classes, a scalar."""
        one_hot, quality = self.targets(matched)
        logits = matched.output.logits.float()
        weight = self.alpha * logits.detach().sigmoid().pow(self.gamma) * (1 - one_hot) + quality
        return self.weight * F.binary_cross_entropy_with_logits(logits, quality, weight, reduction="sum")


@MODELS.register_module()
class MatchabilityTerm(ClassTerm):
    """Binary cross-entropy with ``IoU^gamma`` as target; positives have weight 1, negatives ``score^gamma``."""

    def __init__(self, weight: float = 1.0, gamma: float = 1.5) -> None:
        super().__init__(weight, gamma)

    def forward(self, matched: Graded) -> Tensor:
        """Sum over all queries and classes, a scalar."""
        one_hot, quality = self.targets(matched)
        logits = matched.output.logits.float()
        weight = logits.detach().sigmoid().pow(self.gamma) * (1 - one_hot) + one_hot
        return self.weight * F.binary_cross_entropy_with_logits(
            logits, quality.pow(self.gamma), weight, reduction="sum"
        )


@MODELS.register_module()
class L1Term(nn.Module):
    """L1 distance of center and size."""

    def __init__(self, weight: float = 5.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, matched: Matched) -> Tensor:
        """Sum over pairs, a scalar."""
        return self.weight * (matched.gather(matched.output.boxes) - matched.boxes).abs().sum()


@MODELS.register_module()
class GIoUTerm(nn.Module):
    """1 - GIoU."""

    def __init__(self, weight: float = 2.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, matched: Matched) -> Tensor:
        """Sum over pairs, a scalar."""
        boxes = cxcywh_to_xyxy(matched.gather(matched.output.boxes))
        return self.weight * (1 - box_giou(boxes, cxcywh_to_xyxy(matched.boxes))).sum()


@MODELS.register_module()
class FineGrainedTerm(nn.Module):
    """Fine-grained localization loss: cross-entropy of each side with its two nearest bins, weighted by the IoU."""

    def __init__(self, weight: float = 0.15) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, matched: Matched) -> Tensor:
        """Sum over pairs and sides, a scalar."""
        assert matched.output.corners is not None and matched.bins is not None
        left, weight_left, weight_right = matched.bins
        log_prob = F.log_softmax(matched.gather(matched.output.corners).float(), dim=-1)
        at_left = log_prob.gather(-1, left[..., None])[..., 0]
        at_right = log_prob.gather(-1, left[..., None] + 1)[..., 0]
        loss = -(weight_left * at_left + weight_right * at_right)
        return self.weight * (loss * matched.iou[:, None]).sum()


@MODELS.register_module(name=["LocalizationDistillation", "LocalisationDistillation"])  # the second in old configs
class LocalizationDistillation(nn.Module):
    """Kullback-Leibler divergence of a layer's distributions from those of the last layer.

    Matched queries are weighted by their IoU, others by the score of the last layer. It is a mean of each of these two
    groups, not a sum, and is not normalized by the caller.

    Args:
        weight: of the term.
        temperature: of both distributions.
    """

    def __init__(self, weight: float = 1.5, temperature: float = 5.0) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(self, matched: Matched) -> Tensor:
        """Weighted mean over queries, a scalar."""
        assert matched.output.corners is not None and matched.teacher is not None
        confidence, corners, balance = matched.teacher
        place = (matched.matching.image, matched.matching.query)
        weight = confidence.index_put(place, matched.iou.to(confidence.dtype))
        matched_mask = torch.zeros_like(weight).index_put(place, torch.ones_like(matched.iou, dtype=weight.dtype))
        t = self.temperature
        student = F.log_softmax(matched.output.corners.float() / t, dim=-1)
        teacher = F.log_softmax(corners.float() / t, dim=-1)
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean(-1) * weight * t**2
        groups = torch.stack([matched_mask, 1 - matched_mask])  # (2, B, Q)
        means = (divergence * groups).sum((1, 2)) / groups.sum((1, 2)).clamp(min=1)
        return self.weight * (means * balance).sum() / balance.sum()
