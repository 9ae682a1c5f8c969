"""The loss of coordinate classification.

Sources: SimCC (arXiv 2107.03332, section 3.2) for the Kullback-Leibler divergence, RTMPose (arXiv 2303.07399, section
3.3) for the softmax of the labels. Compared with mmpose's ``KLDiscretLoss`` (Apache-2.0), which divides by the
number of bins, and by that of keypoints, annotated or not.
"""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn

__all__ = ["SimCCLoss"]


class SimCCLoss(nn.Module):
    """Kullback-Leibler divergence of predicted from target distributions over bins, a weighted mean over keypoints.

    Args:
        beta: both distributions are the softmax of ``beta`` times the heat maps.
    """

    def __init__(self, beta: float = 10.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Loss of one direction in nats, a scalar; 0 if all weights are 0.

        Args:
            logits: (B, P, W) predicted heat maps.
            targets: (B, P, W) target heat maps.
            weights: (B, P) of the keypoints.
        """
        predicted = (self.beta * logits.float()).log_softmax(-1)
        target = (self.beta * targets.float()).log_softmax(-1)
        divergence = F.kl_div(predicted, target, reduction="none", log_target=True).sum(-1)
        total = weights.sum()
        all_reduce(total, op="mean")  # every process, with or without keypoints, takes part
        return (divergence * weights).sum() / total.clamp(min=1.0)
