"""Mask terms of the loss of a set predictor, at sampled cells. Terms are sums; the caller normalizes.

Sources: Mask2Former (arXiv 2112.01527, sections 3.2 and 3.3) for both terms on sampled points; PointRend (arXiv
1912.08193, section 3.3) for sampling; V-Net (arXiv 1606.04797) for the Dice term, here in first power, smoothed by 1.

Legend: B images, M objects, P matched pairs, N samples, (h, w) cells of a mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.assigners.hungarian import Matching
from efftasks.models.det_heads.query_raw import MaskFactors, QueryTargets
from efftasks.ops.cells import object_windows, random_cells, unsure_cells
from efftasks.registry import MODELS

__all__ = ["MaskBCETerm", "MaskDiceTerm", "MaskSampler", "SampledMasks"]


class SampledMasks(NamedTuple):
    """Matched masks and those of their objects at sampled cells."""

    logits: Tensor  # (P, N)
    targets: Tensor  # (P, N) in [0, 1]
    weights: Tensor  # (P,): 0 where the object has no mask, else 1


class MaskSampler:
    """Samples cells of the masks, for each pair its own (PointRend).

    A share ``importance`` of them is the most uncertain of ``oversample * N`` random candidates; the rest is random.
    Half of the random cells are from the whole image, half from around the object: decoding crops masks to boxes.

    Args:
        share: N over the cells of a mask; 1 takes all of them, each once.
        oversample: number of candidates over N.
        importance: share of N with the most uncertain predictions.

    Raises:
        ValueError: an argument is outside of its range.
    """

    def __init__(self, share: float = 1 / 16, oversample: float = 3.0, importance: float = 0.75) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share: got {share}, allowed above 0 to 1")
        if not 0 <= importance <= 1:
            raise ValueError(f"importance: got {importance}, allowed 0 to 1")
        if oversample < 1:
            raise ValueError(f"oversample: got {oversample}, allowed from 1")
        self.share, self.oversample, self.importance = share, oversample, importance

    def __call__(self, factors: MaskFactors, matching: Matching, targets: QueryTargets) -> SampledMasks:
        """The masks of matched pairs at sampled cells.

        Args:
            factors: of all queries.
            matching: ordered by image.
            targets: with masks.
        """
        assert targets.masks is not None
        place = (matching.image, matching.target)
        logits = _pair_logits(factors, matching)
        target_masks = targets.masks[place].flatten(1)
        if self.share < 1:
            height, width = factors.pixels.shape[-2:]
            cells = self._sample(logits.detach(), targets.boxes[place], (height, width))
            logits, target_masks = logits.gather(1, cells), target_masks.gather(1, cells)
        return SampledMasks(logits, target_masks.float() / 255, targets.masked()[place].float())

    def _sample(self, logits: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (P, h * w), boxes (P, 4) -> int64 (P, N)."""
        count = max(1, round(self.share * logits.shape[1]))
        uncertain = round(self.importance * count)
        one = torch.ones(len(boxes), 1, dtype=torch.bool, device=boxes.device)

        def random(number: int) -> Tensor:
            return random_cells(object_windows(boxes[:, None], one, number), size)

        candidates = random(round(self.oversample * count))
        return torch.cat([unsure_cells(logits, candidates, uncertain), random(count - uncertain)], dim=1)


def _pair_logits(factors: MaskFactors, matching: Matching) -> Tensor:
    """Logits of the matched queries at all cells, float32 (P, h * w)."""
    kernels = factors.kernels[matching.image, matching.query]
    pixels = factors.pixels.flatten(2)
    # Image by image: pixels repeated for every pair would take D times the memory of the masks.
    counts = torch.bincount(matching.image, minlength=len(pixels)).tolist()
    logits = [image_kernels @ image for image_kernels, image in zip(kernels.split(counts), pixels)]
    return torch.cat(logits).float() + factors.bias


@MODELS.register_module()
class MaskBCETerm(nn.Module):
    """Binary cross-entropy, a mean over the cells of each mask."""

    def __init__(self, weight: float = 5.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, masks: SampledMasks) -> Tensor:
        """Weighted sum over the masks, a scalar."""
        loss = F.binary_cross_entropy_with_logits(masks.logits, masks.targets, reduction="none").mean(1)
        return self.weight * (loss * masks.weights).sum()


@MODELS.register_module()
class MaskDiceTerm(nn.Module):
    """1 - Dice of each mask."""

    def __init__(self, weight: float = 5.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, masks: SampledMasks) -> Tensor:
        """Weighted sum over the masks, a scalar."""
        scores = masks.logits.sigmoid()
        intersection = 2 * (scores * masks.targets).sum(1) + 1
        loss = 1 - intersection / (scores.sum(1) + masks.targets.sum(1) + 1)
        return self.weight * (loss * masks.weights).sum()
