"""Query selection of DETRPose: the cells with the highest class scores, their proposed poses, and the tokens.

Source: DETRPose (arXiv 2506.13027) and its public code: a proposed pose is the center of a cell plus an offset for each
keypoint; the tokens are learned and do not depend on the cell.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from efftasks.models.det_heads.query_decoder import class_heads
from efftasks.models.layers.transformer import MLP
from efftasks.models.pose_heads.pose_raw import PoseOutput
from efftasks.registry import MODELS

__all__ = ["PoseSelection", "SelectedPoses"]

# The features of cells whose center is nearer than this to the border of the image are set to 0.
_BORDER = 0.01


class SelectedPoses(NamedTuple):
    """The selected queries."""

    content: Tensor  # (B, Q, 1 + P, channels)
    proposals: PoseOutput  # (B, Q, ...)


@MODELS.register_module()
class PoseSelection(nn.Module):
    """The ``num_queries`` cells with the highest class score.

    Args:
        num_classes: C.
        num_keypoints: P.
        channels: of the maps.
        num_queries: Q; fewer where the maps have fewer cells.
    """

    def __init__(self, num_classes: int, num_keypoints: int, channels: int, num_queries: int = 60) -> None:
        super().__init__()
        self.num_queries = num_queries
        linear = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(linear.weight)
        self.project = nn.Sequential(OrderedDict(linear=linear, norm=nn.LayerNorm(channels)))
        self.score_head = class_heads(num_classes, channels, 1)[0]
        self.pose_head = MLP((channels, *[2 * channels] * 3, 2 * num_keypoints))
        self.pose_head.zero_last()
        self.query_tokens = nn.Parameter(torch.empty(num_queries, channels))
        self.keypoint_tokens = nn.Parameter(torch.empty(num_keypoints, channels))
        self.instance_token = nn.Parameter(torch.empty(1, channels))
        for tokens in (self.query_tokens, self.keypoint_tokens, self.instance_token):
            nn.init.xavier_uniform_(tokens)

    def forward(self, maps: Sequence[Tensor]) -> SelectedPoses:
        """Maps (B, channels, H_i, W_i), finest first -> the queries, best first."""
        cells = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps], dim=1)
        centers = _centers(maps)
        inside = ((centers > _BORDER) & (centers < 1 - _BORDER)).all(-1, keepdim=True)
        cells = self.project(cells * inside.to(cells.dtype))
        logits = self.score_head(cells)
        count = min(self.num_queries, cells.shape[1])
        index = logits.amax(-1).topk(count, dim=1).indices[..., None]
        selected = cells.gather(1, index.expand(-1, -1, cells.shape[-1]))
        start = torch.log(centers / (1 - centers))[index[..., 0]]
        poses = (self.pose_head(selected).unflatten(-1, (-1, 2)) + start[:, :, None]).sigmoid()
        scores = logits.gather(1, index.expand(-1, -1, logits.shape[-1]))
        return SelectedPoses(self._tokens(count).expand(cells.shape[0], -1, -1, -1), PoseOutput(scores, poses))

    def _tokens(self, count: int) -> Tensor:
        """The tokens of ``count`` queries, (1, count, 1 + P, channels)."""
        keypoints = self.query_tokens[:count, None] + self.keypoint_tokens
        instance = self.instance_token.expand(count, 1, -1)
        return torch.cat([instance, keypoints], dim=1)[None]


def _centers(maps: Sequence[Tensor]) -> Tensor:
    """Centers (L, 2) xy of the cells of all maps, as fractions of the image."""
    centers = []
    for level in maps:
        height, width = level.shape[-2:]
        y = (torch.arange(height, device=level.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=level.device, dtype=torch.float32) + 0.5) / width
        grid = torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], dim=-1)
        centers.append(grid.reshape(-1, 2))
    return torch.cat(centers)
