"""Distillation losses between maps of a student and of a teacher, both (B, C, H, W), each with one ``weight``."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from efftasks.models.losses.channel_wise import channel_wise_divergence
from efftasks.registry import MODELS

__all__ = ["CWDLoss", "FeatureMSELoss", "MGDLoss", "MapLoss", "PKDLoss"]

_EPS = 1e-6


class MapLoss(nn.Module):
    """The base of losses between two maps.

    Args:
        weight: of the loss.

    Attributes:
        adapter: config of the adapter of the student's map, for all maps; None for none.
        projection: config of the adapter where channels differ, if there is no other.
    """

    adapter: ClassVar[dict[str, Any] | None] = None
    projection: ClassVar[dict[str, Any]] = dict(type="ConvAdapter")

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight


@MODELS.register_module()
class FeatureMSELoss(MapLoss):
    """Mean squared error: ``weight * mean (T - S)^2``, with a 1x1 convolution of the student's map.

    Source: FitNets (arXiv 1412.6550), section 2.2.
    """

    adapter = MapLoss.projection

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Maps (B, C, H, W) -> a scalar."""
        return self.weight * functional.mse_loss(student, teacher)


@MODELS.register_module()
class PKDLoss(MapLoss):
    """Pearson correlation: ``weight * mean_c (1 - r_c)``, r_c of channel c over all pixels of the batch.

    It is half the mean squared error of maps whose channels are standardized over the batch; their scale and mean do
    not matter. The published weight for each level of an FPN is 6 to 10 for the sum of the levels.

    Source: PKD (arXiv 2207.02039), section 3.
    """

    projection: ClassVar[dict[str, Any]] = dict(type="ConvAdapter", bias=False)  # it would change nothing

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Maps (B, C, H, W) -> a scalar in [0, 2 * weight]."""
        return self.weight * functional.mse_loss(_standardized(student), _standardized(teacher)) / 2


@MODELS.register_module()
class CWDLoss(MapLoss):
    """Channel-wise divergence, see :func:`~efftasks.models.losses.channel_wise.channel_wise_divergence`.

    Source: CWD (arXiv 2011.13256), section 3.2. The published weights are 3 for logits and 50 for feature maps of
    segmentors, with a temperature of 4, and 10 with a temperature of 1 for detectors.

    Args:
        weight: of the loss.
        temperature: T.
    """

    projection: ClassVar[dict[str, Any]] = dict(type="ConvAdapter", bias=False)  # it would change nothing

    def __init__(self, weight: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__(weight)
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Maps or logits (B, C, H, W) -> a scalar."""
        return self.weight * channel_wise_divergence(student, teacher, self.temperature)


@MODELS.register_module()
class MGDLoss(MapLoss):
    """Squared error of the generated map: ``weight / B * sum (T - G(M S))^2``; the adapter masks and generates.

    Source: MGD (arXiv 2205.01529), section 3. The published weight is 2e-5 for detectors with one stage,
    5e-7 with two, and 2e-5 for segmentors.
    """

    adapter: ClassVar[dict[str, Any] | None] = dict(type="MaskedGenerator")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Maps (B, C, H, W) -> a scalar."""
        return self.weight * functional.mse_loss(student, teacher, reduction="sum") / student.shape[0]


def _standardized(maps: Tensor) -> Tensor:
    """Maps with mean 0 and deviation 1 of each channel over images and pixels."""
    mean = maps.mean((0, 2, 3), keepdim=True)
    deviation = maps.std((0, 2, 3), correction=0, keepdim=True)  # not var().sqrt(), whose gradient at 0 is infinite
    return (maps - mean) / (deviation + _EPS)
