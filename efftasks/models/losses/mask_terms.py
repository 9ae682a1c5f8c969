"""Terms of the loss of a set predictor on masks, and the cells they look at. Terms sum; the caller normalises.

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
    """Cells of matched masks and of the objects'."""

    logits: Tensor  # (P, N)
    targets: Tensor  # (P, N) in [0, 1]
    weights: Tensor  # (P,): 0 where the object has no mask to learn, else 1


class MaskSampler:
    """Chooses the cells that the terms look at, for each pair its own.

    Three quarters are where the prediction is unsure, of candidates three times as many as samples; the rest is random.
    Candidates and the rest come half from all of the image, half from around the object: what lies further outside of
    a box is cut off when decoding.

    Args:
        share: N over the cells of a mask; 1 takes all of them, each once.
        oversample: candidates over N.
        importance: share of N that is where the prediction is unsure.

    Raises:
        ValueError: a share outside of its range, or fewer candidates than samples.
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
        """The masks of matched pairs at the chosen cells.

        Args:
            factors: of all queries.
            matching: ordered by image.
            targets: with masks.
        """
        assert targets.masks is not None
        place = (matching.image, matching.target)
        logits = _pair_logits(factors, matching)
        wanted = targets.masks[place].flatten(1)
        if self.share < 1:
            height, width = factors.pixels.shape[-2:]
            cells = self._choose(logits.detach(), targets.boxes[place], (height, width))
            logits, wanted = logits.gather(1, cells), wanted.gather(1, cells)
        return SampledMasks(logits, wanted.float() / 255, targets.masked()[place].float())

    def _choose(self, logits: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (P, h * w), boxes (P, 4) -> int64 (P, N)."""
        count = max(1, round(self.share * logits.shape[1]))
        unsure = round(self.importance * count)
        one = torch.ones(len(boxes), 1, dtype=torch.bool, device=boxes.device)

        def drawn(number: int) -> Tensor:
            return random_cells(object_windows(boxes[:, None], one, number), size)

        candidates = drawn(round(self.oversample * count))
        return torch.cat([unsure_cells(logits, candidates, unsure), drawn(count - unsure)], dim=1)


def _pair_logits(factors: MaskFactors, matching: Matching) -> Tensor:
    """Full masks of the matched queries: float32 (P, h * w)."""
    kernels = factors.kernels[matching.image, matching.query]
    pixels = factors.pixels.flatten(2)
    # Image by image: pixels repeated for every pair would be D times as large as the masks.
    counts = torch.bincount(matching.image, minlength=len(pixels)).tolist()
    rows = [own @ image for own, image in zip(kernels.split(counts), pixels)]
    return torch.cat(rows).float() + factors.bias


@MODELS.register_module()
class MaskBCETerm(nn.Module):
    """Binary cross-entropy, a mean over the cells of each mask."""

    def __init__(self, weight: float = 5.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, masks: SampledMasks) -> Tensor:
        """A scalar."""
        loss = F.binary_cross_entropy_with_logits(masks.logits, masks.targets, reduction="none").mean(1)
        return self.weight * (loss * masks.weights).sum()


@MODELS.register_module()
class MaskDiceTerm(nn.Module):
    """1 - Dice of each mask."""

    def __init__(self, weight: float = 5.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, masks: SampledMasks) -> Tensor:
        """A scalar."""
        scores = masks.logits.sigmoid()
        both = 2 * (scores * masks.targets).sum(1) + 1
        loss = 1 - both / (scores.sum(1) + masks.targets.sum(1) + 1)
        return self.weight * (loss * masks.weights).sum()
