"""Deformable attention: each query attends to a few points of each map, near its reference box or point.

Sources: Deformable DETR (arXiv 2010.04159, section 4.1); RT-DETRv2 (arXiv 2407.17140, section 3) for a number of
points for each level; D-FINE (arXiv 2410.13842) for leaving out the projections of values and output.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.ops.sampling import SAMPLINGS, point_constants, sample_maps, without_grid_sample

__all__ = ["DeformableAttention"]

# Offsets are in units of half the reference box, so that a point of offset 1 lies on its border.
_OFFSET_SCALE = 0.5
_REFERENCES = ("box", "point")


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention on boxes or points.

    Args:
        channels: C, a multiple of ``num_heads``.
        num_heads: G.
        num_points: points on each level.
        project: project the values before sampling and the result after it.
        sampling: ``grid_sample``, ``gather`` (the same without GridSample) or ``discrete`` (nearest cells; offsets are
            not trained, since they have no gradient).
        reference: ``box``: offsets are in units of the reference box; ``point``: in cells of each map.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        num_points: Sequence[int],
        project: bool = False,
        sampling: str = "grid_sample",
        reference: str = "box",
    ) -> None:
        super().__init__()
        if reference not in _REFERENCES:
            raise ValueError(f"reference: got {reference!r}, allowed {_REFERENCES}")
        if channels % num_heads:
            raise ValueError(f"num_heads: got {num_heads}, allowed are divisors of the {channels} channels")
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling: got {sampling!r}, allowed {SAMPLINGS}")
        self.num_heads, self.num_points, self.sampling = num_heads, tuple(num_points), sampling
        total = sum(self.num_points)
        self.sampling_offsets = nn.Linear(channels, num_heads * total * 2)
        self.attention_weights = nn.Linear(channels, num_heads * total)
        self.value_proj: nn.Linear | None = nn.Linear(channels, channels) if project else None
        self.output_proj: nn.Linear | None = nn.Linear(channels, channels) if project else None
        scales = [_OFFSET_SCALE / n if reference == "box" else 1.0 for n in self.num_points]
        unit = torch.tensor([scale for scale, n in zip(scales, self.num_points) for _ in range(n)])
        self.unit: Tensor
        self.register_buffer("unit", unit.repeat_interleave(2).repeat(num_heads), persistent=False)
        self._init_weights()
        if sampling == "discrete":
            self.sampling_offsets.requires_grad_(False)

    @property
    def reads_parts(self) -> tuple[str, ...]:
        """Parts whose weights are read: folding merges two layers, and the projection of values works on maps."""
        return ("sampling_offsets", "attention_weights", *(("value_proj",) if self.value_proj is not None else ()))

    def _init_weights(self) -> None:
        """Place points on rays, one for each head, further out with each point of a level; all weights are equal."""
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        rays = torch.stack([angles.cos(), angles.sin()], dim=-1)
        rays = rays / rays.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1, n + 1) for n in self.num_points])
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((rays[:, None] * steps[None, :, None]).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            if projection is not None:
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Attend.

        Args:
            query: (B, Q, C).
            boxes: (B, Q, 4) cxcywh in [0, 1]: the reference boxes; (B, Q, 2) xy for reference points.
            maps: one (B, C, H_i, W_i) a level.

        Returns:
            (B, Q, C).
        """
        offsets = self.sampling_offsets(query) * self.unit
        return _attend(self, offsets.transpose(1, 2), self.attention_weights(query).transpose(1, 2), boxes, maps)

    def use_export_form(self) -> None:
        """Sample without GridSample from now on."""
        self.sampling = without_grid_sample(self.sampling)

    def fold(self) -> nn.Module:
        """One linear layer for offsets and weights, with the points' units in it."""
        return FoldedDeformableAttention(self).eval()


class FoldedDeformableAttention(nn.Module):
    """A folded :class:`DeformableAttention`."""

    def __init__(self, trained: DeformableAttention) -> None:
        super().__init__()
        self.num_heads, self.num_points, self.sampling = trained.num_heads, trained.num_points, trained.sampling
        self.value_proj = copy.deepcopy(trained.value_proj)
        self.output_proj = copy.deepcopy(trained.output_proj)
        offsets, weights = trained.sampling_offsets, trained.attention_weights
        self.both = nn.Linear(offsets.in_features, offsets.out_features + weights.out_features)
        # Assigned, not copied, to keep device and precision.
        self.both.weight.data = torch.cat([offsets.weight * trained.unit[:, None], weights.weight]).detach()
        self.both.bias.data = torch.cat([offsets.bias * trained.unit, weights.bias]).detach()
        self.split = (offsets.out_features, weights.out_features)

    @property
    def reads_parts(self) -> tuple[str, ...]:
        """The projection of values works on maps."""
        return ("value_proj",) if self.value_proj is not None else ()

    def use_export_form(self) -> None:
        """As :meth:`DeformableAttention.use_export_form`."""
        self.sampling = without_grid_sample(self.sampling)

    def forward(self, query: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """As :meth:`DeformableAttention.forward`."""
        offsets, logits = self.both(query).transpose(1, 2).split(self.split, dim=1)
        return _attend(self, offsets, logits, boxes, maps)


def _attend(
    attention: DeformableAttention | FoldedDeformableAttention,
    offsets: Tensor,
    logits: Tensor,
    boxes: Tensor,
    maps: Sequence[Tensor],
) -> Tensor:
    """Sample the projected maps and project the result.

    Args:
        attention: the module with projections and numbers of points.
        offsets: (B, heads * points * 2, Q), in units of the boxes' width and height.
        logits: (B, heads * points, Q) of the weights.
        boxes: (B, Q, 4), or points (B, Q, 2).
        maps: one (B, C, H_i, W_i) a level.
    """
    # Queries last: runtimes are slow where the last dimension is the two coordinates.
    shape = (offsets.shape[0], attention.num_heads, sum(attention.num_points), 2, offsets.shape[-1])
    center, size = _frame(boxes, maps, attention.num_points)
    locations = (center - 1) + offsets.reshape(shape) * size
    weights = F.softmax(logits.reshape(*shape[:3], shape[4]), dim=2)
    project = attention.value_proj
    projection = None if project is None else (project.weight, project.bias)
    out = sample_maps(maps, locations, weights, attention.num_points, attention.sampling, projection)
    return out if attention.output_proj is None else attention.output_proj(out)


def _frame(boxes: Tensor, maps: Sequence[Tensor], num_points: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The origin of offsets (B, 1, 1, 2, Q) and their unit (broadcastable to it and the points), from 0 to 2."""
    places = (2 * boxes).transpose(1, 2)[:, None, None]
    if boxes.shape[-1] == 2:
        cells, _ = point_constants(maps, num_points, places)
        return places, 2 / cells[..., None]
    center, size = places.split(2, dim=3)
    return center, size
