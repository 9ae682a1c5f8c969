"""A loss on where the boundaries of classes run, beside a loss on pixels: 1 - F1 of soft boundary maps.

Source: Boundary Loss for Remote Sensing Imagery Semantic Segmentation (arXiv 1905.07852), the boundary maps and the
surrogate of their F1. Written from the formulas; what the paper, which has two classes, leaves open is said below.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.registry import MODELS

__all__ = ["BoundaryF1Loss"]

_TINY = 1e-7


@MODELS.register_module()
class BoundaryF1Loss(nn.Module):
    """1 - F1 of predicted against true boundaries, a mean over the classes of each image.

    A pixel is as much boundary of a class as its probability exceeds the least one within ``theta0``. Precision is
    the part of the predicted boundary that lies near the true one, recall the part of the true one that lies near the
    predicted one.

    Classes without a boundary in an image's labels have no F1 and are left out: those absent, and one that is all
    there is. Pixels to ignore are no boundary, make none of their neighbours, and do not count; nor does the rim of the
    image make one. It goes into the list ``loss_decode`` of a head, beside a loss on pixels.

    Args:
        loss_weight: factor.
        theta0: side of the window in which a boundary is looked for; odd, in pixels of the labels.
        theta: side of the window in which a boundary counts as met; odd, in pixels of the labels.
        loss_name: name in the log; what does not begin with ``loss_`` is logged and not trained on.
    """

    def __init__(
        self, loss_weight: float = 1.0, theta0: int = 3, theta: int = 5, loss_name: str = "loss_boundary"
    ) -> None:
        super().__init__()
        for name, side, least in (("theta0", theta0, 3), ("theta", theta, 1)):
            if side < least or side % 2 == 0:
                raise ValueError(f"{name}: got {side}, allowed is an odd number of at least {least}")
        self.loss_weight = loss_weight
        self.theta0 = theta0
        self.theta = theta
        self.loss_name = loss_name

    def forward(
        self,
        seg_logit: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        ignore_index: int = 255,
        **kwargs: Any,
    ) -> Tensor:
        """The loss, a scalar; 0 where no image has a boundary.

        Args:
            seg_logit: (B, C, H, W).
            label: int (B, H, W), class indices.
            weight: (B, H, W), of the pixels where boundaries are compared.
            avg_factor: what to divide the sum over classes and images by, instead of their number.
            ignore_index: label of the pixels to ignore.
            kwargs: what mmseg passes to other losses.
        """
        valid = label != ignore_index
        image, index = _present(label, valid, seg_logit.shape[1])
        # Half precision would lose the small differences that make a boundary. Only classes that are there are
        # looked at: a map for each of 150 classes would not fit.
        scores = seg_logit.softmax(1, dtype=torch.promote_types(seg_logit.dtype, torch.float32))
        predicted = scores[image, index]
        true = (label[image] == index[:, None, None]).to(predicted.dtype)
        counts = valid[image].to(predicted.dtype)

        predicted, true = self._boundary(predicted, counts), self._boundary(true, counts)
        compared = counts if weight is None else weight[image]
        precision = _part(predicted * compared, _widest(true, self.theta))
        recall = _part(true * compared, _widest(predicted, self.theta))
        f1 = 2 * precision * recall / (precision + recall + _TINY)
        counted = (true * compared).sum((1, 2)) > 0
        number = counted.sum().clamp(min=1) if avg_factor is None else avg_factor
        return self.loss_weight * ((1 - f1) * counted).sum() / number

    def _boundary(self, part: Tensor, counts: Tensor) -> Tensor:
        """How much of a class (N, H, W) is there above the least within the window, at pixels that count."""
        absent = (1 - part) * counts  # the least of the class is the most of the rest, of which nothing is ignored
        return (_widest(absent, self.theta0) - absent) * counts


def _present(label: Tensor, valid: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Images and classes (N,), (N,): each class of each image's labels."""
    shifted = torch.where(valid, label, classes).flatten(1)
    found = torch.zeros(label.shape[0], classes + 1, dtype=torch.bool, device=label.device)
    image, index = found.scatter(1, shifted.long(), True)[:, :classes].nonzero(as_tuple=True)
    return image, index


def _widest(maps: Tensor, side: int) -> Tensor:
    """The maximum within a window around each pixel of maps (N, H, W)."""
    return F.max_pool2d(maps[:, None], side, stride=1, padding=side // 2)[:, 0]


def _part(boundary: Tensor, near: Tensor) -> Tensor:
    """The part (N,) of boundaries (N, H, W) that is near others."""
    return (boundary * near).sum((1, 2)) / (boundary.sum((1, 2)) + _TINY)
