"""Query selection: the cells of the maps with the highest class scores, and their proposed boxes.

Sources: RT-DETR (arXiv 2304.08069, section 4.3); DINO (arXiv 2203.03605, section 3.4) for queries whose boxes are
selected. DEIMv2 (arXiv 2509.20787) scores the maps as they are.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from efftasks.models.det_heads.query_raw import LayerOutput
from efftasks.models.layers.transformer import MLP
from efftasks.registry import MODELS

__all__ = ["QuerySelection", "SelectedQueries"]

# Anchors of the finest map have this side, as a fraction of the image; it doubles from map to map.
_ANCHOR_SIZE = 0.05
# Cells whose center is nearer than this to the border of the image are left out.
_BORDER = 0.01


class SelectedQueries(NamedTuple):
    """The selected cells."""

    content: Tensor  # (B, Q, channels)
    box_logits: Tensor  # (B, Q, 4): their sigmoid is the proposed box, cxcywh as fractions of the image
    logits: Tensor  # (B, Q, C)

    def proposals(self) -> LayerOutput:
        """The proposals as the output of a layer, for the losses."""
        return LayerOutput(self.logits, self.box_logits.sigmoid())


@MODELS.register_module()
class QuerySelection(nn.Module):
    """The ``num_queries`` cells with the highest class score.

    Args:
        num_classes: C.
        channels: of the maps.
        num_queries: Q; fewer where the maps have fewer cells.
        project: a linear layer and a layer norm before scoring.
        act: activation of the box head.
        few_queries: at inference only so many of the selected queries are decoded where they suffice: where no image
            of the batch has more cells with a score of at least ``few_below``. None always decodes all.
        few_below: a score, see ``few_queries``. At 0 all are always decoded, above 1 always the few.

    Raises:
        ValueError: ``few_queries`` is not below ``num_queries``, or ``few_below`` is negative.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        num_queries: int = 300,
        project: bool = True,
        act: str = "relu",
        few_queries: int | None = None,
        few_below: float = 0.05,
    ) -> None:
        super().__init__()
        if few_queries is not None and not 1 <= few_queries < num_queries:
            raise ValueError(f"few_queries: got {few_queries}, allowed 1 to {num_queries - 1}, below num_queries")
        if few_below < 0:
            raise ValueError(f"few_below: got {few_below}, allowed are numbers from 0")
        self.num_queries, self.few_queries, self.few_below = num_queries, few_queries, float(few_below)
        self.project: nn.Module = nn.Identity()
        if project:
            linear = nn.Linear(channels, channels)
            nn.init.xavier_uniform_(linear.weight)
            self.project = nn.Sequential(OrderedDict(linear=linear, norm=nn.LayerNorm(channels)))
        self.score_head = nn.Linear(channels, num_classes)
        nn.init.constant_(self.score_head.bias, -math.log(99))  # objects are rare: a score of 0.01
        self.box_head = MLP((channels, channels, channels, 4), act)
        self.box_head.zero_last()

    def forward(self, maps: Sequence[Tensor]) -> SelectedQueries:
        """Maps (B, channels, H_i, W_i), finest first -> the selected cells."""
        cells = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps], dim=1)
        anchors, inside = _anchors(maps)
        cells = self.project(cells * inside)
        logits = self.score_head(cells)
        count = min(self.num_queries, cells.shape[1])
        index = logits.amax(-1).topk(count, dim=1).indices[..., None]
        content = cells.gather(1, index.expand(-1, -1, cells.shape[-1]))
        anchor = anchors[index[..., 0]]
        return SelectedQueries(
            content, self.box_head(content) + anchor, logits.gather(1, index.expand(-1, -1, logits.shape[-1]))
        )

    def few_suffice(self, selected: SelectedQueries) -> Tensor:
        """Bool, a single element: whether ``few_queries`` are enough for all images of the batch."""
        assert self.few_queries is not None
        # Queries are in the order of their scores.
        best_left_out = selected.logits[:, self.few_queries].amax(-1).sigmoid()
        return best_left_out.amax(0) < self.few_below


def _anchors(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of the anchors (L, 4) cxcywh, infinite at the border, and whether they are inside (L, 1), 1 or 0."""
    boxes = []
    for i, level in enumerate(maps):
        height, width = level.shape[-2:]
        y = (torch.arange(height, device=level.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=level.device, dtype=torch.float32) + 0.5) / width
        center = torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], dim=-1)
        size = torch.full_like(center, _ANCHOR_SIZE * 2**i)
        boxes.append(torch.cat([center, size], dim=-1).reshape(-1, 4))
    box = torch.cat(boxes)
    inside = ((box > _BORDER) & (box < 1 - _BORDER)).all(-1, keepdim=True)
    return torch.where(inside, torch.log(box / (1 - box)), torch.inf), inside.to(maps[0].dtype)
