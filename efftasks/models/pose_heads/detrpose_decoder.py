"""The decoder of DETRPose: each query is a token for the instance and one for each keypoint.

Source: DETRPose (arXiv 2506.13027) and its public code. In a layer the tokens of one instance attend to each other,
then tokens of the same keypoint to those of the other instances, then each token to the maps around its own keypoint.
Poses are refined as D-FINE (arXiv 2410.13842, section 4.1) refines boxes: the first layer regresses poses, every layer
adds logits to the distributions of the offsets of their coordinates.

Legend: B images, Q queries, P keypoints, T = 1 + P tokens of a query.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.det_heads.query_decoder import class_heads, inverse_sigmoid, layers_in_use
from efftasks.models.layers.deformable_attention import DeformableAttention
from efftasks.models.layers.transformer import MLP, AddNorm, FeedForward, Gate, SelfAttention, point_embedding
from efftasks.models.pose_heads.pose_raw import PoseOutput
from efftasks.ops.distribution import bin_values
from efftasks.ops.sampling import sample_maps, without_grid_sample
from efftasks.registry import MODELS

__all__ = ["PoseDecoder", "PoseDecoderOutputs"]

# Logits of coordinates nearer than this to the border are clamped to that of this distance.
_BORDER = 1e-3


class PoseDecoderOutputs(NamedTuple):
    """The outputs of the layers in order, and in training the regressed poses of the first."""

    layers: tuple[PoseOutput, ...]
    first: PoseOutput | None


class PoseQuality(nn.Module):
    """Pose quality from the finest map at the keypoints, added to the class logits.

    Args:
        num_keypoints: P.
        top: the number of largest channels at each keypoint that are its input, with their mean.
        hidden: width of the head.
        sampling: as :class:`DeformableAttention` has it.
    """

    def __init__(self, num_keypoints: int, sampling: str, top: int = 4, hidden: int = 256) -> None:
        super().__init__()
        self.top, self.sampling = top, sampling
        self.head = MLP((num_keypoints * (top + 1), hidden, 1))
        self.head.zero_last()

    def use_export_form(self) -> None:
        """Sample without GridSample from now on."""
        self.sampling = without_grid_sample(self.sampling)

    def forward(self, finest: Tensor, poses: Tensor) -> Tensor:
        """The finest map (B, C, H, W) and poses (B, Q, P, 2) -> (B, Q, 1)."""
        locations = (2 * poses - 1).flatten(1, 2).transpose(1, 2)[:, None, None]
        sampled = sample_maps([finest], locations, torch.ones_like(locations[:, :, :, 0]), (1,), self.sampling)
        largest = sampled.topk(self.top, dim=-1).values
        statistics = torch.cat([largest, largest.mean(-1, keepdim=True)], dim=-1)
        return self.head(statistics.unflatten(1, poses.shape[1:3]).flatten(2))


class PoseDecoderLayer(nn.Module):
    """Attention within instances, attention across instances, deformable attention, a feed-forward network.

    Args:
        channels: C.
        num_heads: heads of all attentions.
        num_points: sampled points on each level.
        hidden: width of the feed-forward network.
        sampling: as :class:`DeformableAttention` has it.
    """

    def __init__(self, channels: int, num_heads: int, num_points: Sequence[int], hidden: int, sampling: str) -> None:
        super().__init__()
        self.within = SelfAttention(channels, num_heads)
        self.add1 = AddNorm(channels, "layer")
        self.across = SelfAttention(channels, num_heads)
        self.add2 = AddNorm(channels, "layer")
        self.cross_attn = DeformableAttention(channels, num_heads, num_points, False, sampling, "point")
        self.gate = Gate(channels, "layer")
        self.ffn = FeedForward(channels, hidden, "relu")
        self.add3 = AddNorm(channels, "layer")

    def forward(
        self, x: Tensor, position: Tensor, places: Tensor, maps: Sequence[Tensor], blocked: Tensor | None
    ) -> Tensor:
        """Update the tokens.

        Args:
            x: (B, Q, T, C) with positions added; as in the authors' code they are in the values too.
            position: (B, Q, T, C), added again before the deformable attention.
            places: (B, Q, T, 2) in [0, 1], the reference point of each token.
            maps: one (B, C, H_i, W_i) a level.
            blocked: bool (Q, Q) as :class:`SelfAttention` has it.

        Returns:
            (B, Q, T, C).
        """
        queries, tokens = x.shape[1:3]
        inner = x.flatten(0, 1)
        inner = self.add1(inner, self.within(inner))
        outer = inner.unflatten(0, (-1, queries)).transpose(1, 2).flatten(0, 1)
        outer = self.add2(outer, self.across(outer, None, blocked))
        x = outer.unflatten(0, (-1, tokens)).transpose(1, 2) + position
        attended = self.cross_attn(x.flatten(1, 2), places.flatten(1, 2), maps)
        x = self.gate(x, attended.unflatten(1, (queries, tokens)))
        return self.add3(x, self.ffn(x))


@MODELS.register_module()
class PoseDecoder(nn.Module):
    """The first layer regresses poses; every layer adds logits to the distributions of their offsets.

    Args:
        num_classes: C.
        num_keypoints: P.
        channels: of a token.
        num_layers: decoder layers.
        num_points: sampled points on each level.
        ffn_channels: width of the feed-forward networks.
        eval_layers: the number of layers used at inference; None for all.
        num_heads: heads.
        reg_max: bins less one.
        reg_scale: as :func:`bin_values` has it; distances are in fractions of the image divided by it.
        sampling: as :class:`DeformableAttention` has it.
    """

    def __init__(
        self,
        num_classes: int,
        num_keypoints: int,
        channels: int,
        num_layers: int,
        num_points: Sequence[int],
        ffn_channels: int = 1024,
        eval_layers: int | None = None,
        num_heads: int = 8,
        reg_max: int = 32,
        reg_scale: float = 4.0,
        sampling: str = "grid_sample",
    ) -> None:
        super().__init__()
        self.eval_layers = layers_in_use(num_layers, eval_layers)
        self.reg_scale = float(reg_scale)
        self.layers = nn.ModuleList(
            PoseDecoderLayer(channels, num_heads, num_points, ffn_channels, sampling) for _ in range(num_layers)
        )
        self.position_head = MLP((channels, channels, channels))
        self.score_heads = class_heads(num_classes, channels, num_layers)
        self.first_pose_head = MLP((channels, channels, channels, 2))
        self.pose_heads = nn.ModuleList(
            MLP((channels, channels, channels, 2 * (reg_max + 1))) for _ in range(num_layers)
        )
        for head in (self.first_pose_head, *self.pose_heads):
            head.zero_last()  # type: ignore[operator]
        self.quality = nn.ModuleList(PoseQuality(num_keypoints, sampling) for _ in range(num_layers))
        self.bin_values: Tensor
        self.register_buffer("bin_values", bin_values(reg_max, reg_scale=reg_scale), persistent=False)

    def forward(
        self, x: Tensor, poses: Tensor, maps: Sequence[Tensor], blocked: Tensor | None = None
    ) -> PoseDecoderOutputs:
        """Decode.

        Args:
            x: (B, Q, 1 + P, C): tokens of the instance and of its keypoints.
            poses: (B, Q, P, 2), the initial poses, without gradient.
            maps: one (B, C, H_i, W_i) a level, finest first.
            blocked: bool (Q, Q) as :class:`SelfAttention` has it.

        Returns:
            The outputs of all layers in training; else that of the last layer in use.
        """
        outputs = []
        first: PoseOutput | None = None
        initial = corners = torch.zeros_like(poses[..., None])
        count = len(self.layers) if self.training else self.eval_layers
        for i in range(count):
            placed, position, places = self._placed(x, poses)
            x = self.layers[i](placed, position, places, maps, blocked)
            instance, keypoints = x[:, :, 0], x[:, :, 1:]
            if i == 0:
                regressed = (self.first_pose_head(keypoints) + inverse_sigmoid(poses, _BORDER)).sigmoid()
                initial = regressed.detach()
                if self.training:
                    first = PoseOutput(self.score_heads[0](instance), regressed)
            before = placed[:, :, 1:].detach()
            delta = self.pose_heads[i](keypoints + before if i else keypoints).unflatten(-1, (2, -1))
            corners = corners + delta  # not in half precision: they add up
            distances = (F.softmax(corners, dim=-1) * self.bin_values).sum(-1)
            refined = initial + distances / self.reg_scale
            if self.training or i == count - 1:
                logits = self.score_heads[i](instance) + self.quality[i](maps[0], refined)
                outputs.append(PoseOutput(logits, refined))
            poses = refined.detach()
        return PoseDecoderOutputs(tuple(outputs), first)

    def _placed(self, x: Tensor, poses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens with their positions added, these positions, and the reference points of the tokens.

        The token of the instance has no position; its reference point is the mean of the keypoints.
        """
        position = F.pad(self.position_head(point_embedding(poses, x.shape[-1])), (0, 0, 1, 0))
        return x + position, position, torch.cat([poses.mean(2, keepdim=True), poses], dim=2)

    def strip(self) -> PoseDecoder:
        """A copy for inference: the layers in use, and the class and quality heads of the last."""
        stripped = copy.deepcopy(self)
        last = stripped.eval_layers - 1
        stripped.layers, stripped.pose_heads = stripped.layers[: last + 1], stripped.pose_heads[: last + 1]
        unused = [nn.Identity()] * last
        stripped.score_heads = nn.ModuleList([*unused, stripped.score_heads[last]])
        stripped.quality = nn.ModuleList([*unused, stripped.quality[last]])
        return stripped
