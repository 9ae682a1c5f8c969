"""A loss of the boundaries of classes, to be added to a loss of pixels: 1 - F1 of soft boundary maps.

Source: Boundary Loss for Remote Sensing Imagery Semantic Segmentation (arXiv 1905.07852), the boundary maps and the
surrogate of their F1. Written from the formulas; the extension of its two classes to more is described below.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.registry import MODELS

__all__ = ["BoundaryF1Loss"]

_EPS = 1e-7


@MODELS.register_module()
class BoundaryF1Loss(nn.Module):
    """1 - F1 of predicted against true boundaries, a mean over the classes of each image.

    The boundary of a class at a pixel is its probability minus the lowest one in a window of side ``theta0``. Precision
    is the share of the predicted boundary that lies near the true one, recall the share of the true boundary that lies
    near the predicted one.

    Classes without a boundary in the labels of an image are left out: those that are absent, and one that fills the
    image. Neither ignored pixels nor the border of the image make a boundary. It goes into the list ``loss_decode`` of
    a head, beside a loss of pixels.

    Args:
        loss_weight: factor.
        theta0: side of the window that defines a boundary; odd, in pixels of the labels.
        theta: side of the window in which boundaries match; odd, in pixels of the labels.
        loss_name: name in the log; without the prefix ``loss_`` it is logged and not trained on.
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
            avg_factor: divisor of the sum over classes and images, instead of their number.
            ignore_index: label of ignored pixels.
            kwargs: further arguments of mmseg's losses, not used.
        """
        valid = label != ignore_index
        image, index = _present(label, valid, seg_logit.shape[1])
        # Half precision would lose small differences. Only maps of classes in the labels are made, to save memory.
        scores = seg_logit.softmax(1, dtype=torch.promote_types(seg_logit.dtype, torch.float32))
        predicted = scores[image, index]
        true = (label[image] == index[:, None, None]).to(predicted.dtype)
        counts = valid[image].to(predicted.dtype)

        predicted, true = self._boundary(predicted, counts), self._boundary(true, counts)
        compared = counts if weight is None else weight[image]
        precision = _share(predicted * compared, _window_max(true, self.theta))
        recall = _share(true * compared, _window_max(predicted, self.theta))
        f1 = 2 * precision * recall / (precision + recall + _EPS)
        counted = (true * compared).sum((1, 2)) > 0
        number = counted.sum().clamp(min=1) if avg_factor is None else avg_factor
        return self.loss_weight * ((1 - f1) * counted).sum() / number

    def _boundary(self, score: Tensor, counts: Tensor) -> Tensor:
        """The probability of a class (N, H, W) minus the lowest one in the window, at pixels that count."""
        absent = (1 - score) * counts  # the minimum of the class is the maximum of the rest
        return (_window_max(absent, self.theta0) - absent) * counts


def _present(label: Tensor, valid: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Indices (N,), (N,) of images and of the classes in their labels."""
    shifted = torch.where(valid, label, classes).flatten(1)
    present = torch.zeros(label.shape[0], classes + 1, dtype=torch.bool, device=label.device)
    image, index = present.scatter(1, shifted.long(), True)[:, :classes].nonzero(as_tuple=True)
    return image, index


def _window_max(maps: Tensor, side: int) -> Tensor:
    """The maximum within a window around each pixel of maps (N, H, W)."""
    return F.max_pool2d(maps[:, None], side, stride=1, padding=side // 2)[:, 0]


def _share(boundary: Tensor, near: Tensor) -> Tensor:
    """The share (N,) of boundaries (N, H, W) that is near others."""
    return (boundary * near).sum((1, 2)) / (boundary.sum((1, 2)) + _EPS)
