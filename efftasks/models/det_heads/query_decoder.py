"""Decoders: layers that refine the boxes of a set of queries, as coordinates or as distributions, and classify them.

Sources: RT-DETRv2 (arXiv 2407.17140) for :class:`BoxDecoder`, which refines boxes as DINO does ("look forward twice",
arXiv 2203.03605, section 3.5); D-FINE (arXiv 2410.13842, section 4) for :class:`DistributionDecoder`; DEIMv2 (arXiv
2509.20787, section 3.2) for RMSNorm, SwiGLU, the plain residual instead of the gate, one box head for all layers, and
query positions that are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.det_heads.layered_decoder import LayeredDecoder, for_inference
from efftasks.models.det_heads.query_raw import Bins, LayerOutput
from efftasks.models.layers.deformable_attention import DeformableAttention
from efftasks.models.layers.prediction import outputs_of
from efftasks.models.layers.transformer import MLP, AddNorm, FeedForward, Gate, SelfAttention, SwiGLU
from efftasks.ops.distribution import bin_values, distances_to_boxes
from efftasks.registry import MODELS

__all__ = ["BoxDecoder", "DistributionDecoder"]

_EPS = 1e-5


def inverse_sigmoid(x: Tensor, eps: float = _EPS) -> Tensor:
    """The logit of x in [0, 1], held to about +-log(eps): +-11.5."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def score_rows(head: Any) -> list[str]:
    """Names of the tensors with a row for each class in the selection and the decoder of a head of queries."""
    names = outputs_of(head.selection.score_head, "selection.score_head")
    for layer, scores in head.decoder.score_heads.named_children():
        names += outputs_of(scores, f"decoder.score_heads.{layer}")
    return names


def class_heads(num_classes: int, channels: int, count: int) -> nn.ModuleList:
    """Linear classification heads that start with a score of 0.01."""
    heads = nn.ModuleList(nn.Linear(channels, num_classes) for _ in range(count))
    for head in heads:
        nn.init.constant_(head.bias, -math.log(99))  # type: ignore[arg-type]
    return heads


def layers_in_use(num_layers: int, eval_layers: int | None) -> int:
    """The number of layers used at inference.

    Raises:
        ValueError: not between 1 and ``num_layers``.
    """
    if eval_layers is None:
        return num_layers
    if not 1 <= eval_layers <= num_layers:
        raise ValueError(f"eval_layers: got {eval_layers}, allowed 1 to {num_layers}")
    return eval_layers


class DecoderLayer(nn.Module):
    """Attention among queries, deformable attention to the maps, a feed-forward network.

    Args:
        channels: C.
        num_heads: heads of both attentions.
        num_points: sampled points on each level.
        ffn: ``dict(hidden=..., act=...)``; ``act="swiglu"`` gives the gated network.
        norm: ``layer`` or ``rms``.
        gate: merge input and output of the deformable attention by a gate instead of a sum.
        project: projections of values and output in the deformable attention.
        sampling: as :class:`DeformableAttention` has it.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        num_points: Sequence[int],
        ffn: dict[str, Any],
        norm: str,
        gate: bool,
        project: bool,
        sampling: str,
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(channels, num_heads)
        self.add1 = AddNorm(channels, norm)
        self.cross_attn = DeformableAttention(channels, num_heads, num_points, project, sampling)
        self.add2 = (Gate if gate else AddNorm)(channels, norm)
        hidden, act = ffn["hidden"], ffn["act"]
        self.ffn = SwiGLU(channels, hidden) if act == "swiglu" else FeedForward(channels, hidden, act)
        self.add3 = AddNorm(channels, norm)

    def forward(
        self, x: Tensor, position: Tensor, boxes: Tensor, maps: Sequence[Tensor], blocked: Tensor | None
    ) -> Tensor:
        """Queries (B, Q, C) with positions (B, Q, C) and boxes (B, Q, 4) -> queries."""
        x = self.add1(x, self.self_attn(x, position, blocked))
        x = self.add2(x, self.cross_attn(x + position, boxes, maps))
        return self.add3(x, self.ffn(x))


class BoxState(NamedTuple):
    """What :class:`BoxDecoder` has between two layers."""

    content: Tensor  # (B, Q, C)
    reference: Tensor  # (B, Q, 4), without gradient
    start: Tensor  # the same boxes, with the gradient of the layer that made them


@MODELS.register_module()
class BoxDecoder(LayeredDecoder):
    """Each layer refines the boxes of the layer before.

    Args:
        num_classes: C.
        channels: of a query.
        num_layers: decoder layers.
        eval_layers: the number of layers used at inference; None for all.
        num_heads: heads.
        num_points: sampled points on each level.
        ffn_channels: width of the feed-forward network.
        act: activation of the feed-forward network and of the heads.
        sampling: as :class:`DeformableAttention` has it.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        num_layers: int,
        num_points: Sequence[int],
        eval_layers: int | None = None,
        num_heads: int = 8,
        ffn_channels: int = 1024,
        act: str = "relu",
        sampling: str = "grid_sample",
    ) -> None:
        super().__init__()
        self.eval_layers = layers_in_use(num_layers, eval_layers)
        ffn = dict(hidden=ffn_channels, act=act)
        self.layers = nn.ModuleList(
            DecoderLayer(channels, num_heads, num_points, ffn, "layer", False, True, sampling)
            for _ in range(num_layers)
        )
        self.position_head = MLP((4, 2 * channels, channels), act)
        self.score_heads = class_heads(num_classes, channels, num_layers)
        self.box_heads = nn.ModuleList(MLP((channels, channels, channels, 4), act) for _ in range(num_layers))
        for head in self.box_heads:
            head.zero_last()  # type: ignore[operator]

    def begin(self, x: Tensor, box_logits: Tensor) -> BoxState:
        """The state before the first layer."""
        boxes = box_logits.sigmoid()
        return BoxState(x, boxes, boxes)

    def step(
        self, i: int, state: BoxState, maps: Sequence[Tensor], blocked: Tensor | None, answers: bool
    ) -> tuple[BoxState, LayerOutput | None]:
        """Run a layer; see :meth:`LayeredDecoder.step`."""
        x, reference, start = state
        x = self.layers[i](x, self.position_head(reference), reference, maps, blocked)
        delta = self.box_heads[i](x)
        output = None
        if answers:
            # The gradient also reaches the layer before, whose box this layer refines ("look forward twice").
            boxes = (delta + inverse_sigmoid(start)).sigmoid()
            output = LayerOutput(self.score_heads[i](x), boxes, content=x)
        start = (delta + inverse_sigmoid(reference)).sigmoid()
        return BoxState(x, start.detach(), start), output

    def carried(self, state: BoxState) -> tuple[Tensor, ...]:
        """The queries and their boxes."""
        return state.content, state.reference

    def restored(self, carried: Sequence[Tensor]) -> BoxState:
        """The state of the queries and their boxes."""
        content, reference = carried
        return BoxState(content, reference, reference)

    def bins(self) -> None:
        """None: boxes are not distributions."""
        return None

    def strip(self) -> BoxDecoder:
        """A copy for inference: the layers in use, and the classification heads of those that answer."""
        return for_inference(self, ())


class LocationQuality(nn.Module):
    """Localization quality from the distributions of the sides, added to the class logits (D-FINE).

    Args:
        top: the number of largest probabilities of each side that are its input, with their mean.
        hidden: width of the head.
        act: its activation.
    """

    def __init__(self, top: int = 4, hidden: int = 64, act: str = "relu") -> None:
        super().__init__()
        self.top = top
        self.head = MLP((4 * (top + 1), hidden, 1), act)
        self.head.zero_last()

    def forward(self, probabilities: Tensor) -> Tensor:
        """Probabilities of bins (B, Q, 4, R + 1) -> (B, Q, 1)."""
        best = probabilities.topk(self.top, dim=-1).values
        return self.head(torch.cat([best, best.mean(-1, keepdim=True)], dim=-1).flatten(2))


class DistributionState(NamedTuple):
    """What :class:`DistributionDecoder` has between two layers."""

    content: Tensor  # (B, Q, C)
    reference: Tensor  # (B, Q, 4), without gradient
    initial: Tensor  # (B, Q, 4): the boxes that the distributions refine, without gradient
    before: Tensor  # the content, without gradient
    position: Tensor  # (B, Q, C): the embedded boxes
    corners: Tensor | None  # (B, Q, 4, R + 1): logits of bins; None before the first layer
    first: LayerOutput | None  # the regressed boxes, in training


@MODELS.register_module()
class DistributionDecoder(LayeredDecoder):
    """The first layer regresses boxes; every layer adds logits to the distributions of their offsets.

    Args:
        num_classes: C.
        channels: of a query.
        num_layers: decoder layers.
        num_points: sampled points on each level.
        eval_layers: the number of layers used at inference; None for all.
        num_heads: heads.
        ffn: as :class:`DecoderLayer` has it.
        norm: ``layer`` or ``rms``.
        gate: as :class:`DecoderLayer` has it.
        act: activation of the heads.
        position_widths: hidden widths of the MLP that embeds boxes as query positions.
        moving_position: compute query positions before each layer from the current boxes; else once.
        share_box_head: one box head for all layers.
        reg_max: bins less one.
        reg_scale: as :func:`bin_values` has it.
        sampling: as :class:`DeformableAttention` has it.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        num_layers: int,
        num_points: Sequence[int],
        ffn: dict[str, Any],
        eval_layers: int | None = None,
        num_heads: int = 8,
        norm: str = "layer",
        gate: bool = True,
        act: str = "relu",
        position_widths: Sequence[int] | None = None,
        moving_position: bool = True,
        share_box_head: bool = False,
        reg_max: int = 32,
        reg_scale: float = 4.0,
        sampling: str = "grid_sample",
    ) -> None:
        super().__init__()
        self.eval_layers = layers_in_use(num_layers, eval_layers)
        self.moving_position = moving_position
        self.reg_scale = float(reg_scale)
        self.layers = nn.ModuleList(
            DecoderLayer(channels, num_heads, num_points, ffn, norm, gate, False, sampling) for _ in range(num_layers)
        )
        between = (2 * channels,) if position_widths is None else tuple(position_widths)
        self.position_head = MLP((4, *between, channels), act)
        self.score_heads = class_heads(num_classes, channels, num_layers)
        self.first_box_head = MLP((channels, channels, channels, 4), act)
        box_heads = 1 if share_box_head else num_layers
        self.box_heads = nn.ModuleList(
            MLP((channels, channels, channels, 4 * (reg_max + 1)), act) for _ in range(box_heads)
        )
        for head in (self.first_box_head, *self.box_heads):
            head.zero_last()  # type: ignore[operator]
        self.quality = nn.ModuleList(LocationQuality(act=act) for _ in range(num_layers))
        self.bin_values: Tensor
        self.register_buffer("bin_values", bin_values(reg_max, reg_scale=reg_scale), persistent=False)

    def begin(self, x: Tensor, box_logits: Tensor) -> DistributionState:
        """The state before the first layer."""
        boxes = box_logits.sigmoid()
        return DistributionState(x, boxes, boxes, torch.zeros_like(x), self._position(boxes), None, None)

    def step(
        self, i: int, state: DistributionState, maps: Sequence[Tensor], blocked: Tensor | None, answers: bool
    ) -> tuple[DistributionState, LayerOutput | None]:
        """Run a layer; see :meth:`LayeredDecoder.step`."""
        x, reference, initial, before, position, corners, first = state
        if i and self.moving_position:
            position = self._position(reference)
        x = self.layers[i](x, position, reference, maps, blocked)
        if i == 0:
            boxes = (self.first_box_head(x) + inverse_sigmoid(reference)).sigmoid()
            initial = boxes.detach()
            if self.training:
                first = LayerOutput(self.score_heads[0](x), boxes)
        delta = self.box_heads[min(i, len(self.box_heads) - 1)](x + before if i else x).unflatten(-1, (4, -1))
        corners = delta.float() if corners is None else corners + delta  # not in half precision: they add up
        probabilities = F.softmax(corners, dim=-1)
        distances = (probabilities * self.bin_values).sum(-1)
        boxes = distances_to_boxes(initial, distances, self.reg_scale)
        output = None
        if answers:
            logits = self.score_heads[i](x) + self.quality[i](probabilities)
            output = LayerOutput(logits, boxes, corners, initial, x)
        return DistributionState(x, boxes.detach(), initial, x.detach(), position, corners, first), output

    def first_output(self, state: DistributionState) -> LayerOutput | None:
        """The regressed boxes that the distributions refine; None at inference."""
        return state.first

    def carried(self, state: DistributionState) -> tuple[Tensor, ...]:
        """The queries, their boxes, the boxes that are refined, the logits of bins, and positions that do not move."""
        assert state.corners is not None
        tensors = (state.content, state.reference, state.initial, state.corners)
        return tensors if self.moving_position else (*tensors, state.position)

    def restored(self, carried: Sequence[Tensor]) -> DistributionState:
        """The state of these tensors; positions that move are computed by the next layer."""
        content, reference, initial, corners = carried[:4]
        position = content if self.moving_position else carried[4]
        return DistributionState(content, reference, initial, content, position, corners, None)

    def _position(self, boxes: Tensor) -> Tensor:
        return self.position_head(boxes).clamp(-10, 10)

    def bins(self) -> Bins:
        """The bins of the distributions."""
        return Bins(self.bin_values, self.reg_scale)

    def strip(self) -> DistributionDecoder:
        """A copy for inference: the layers in use, and the class and quality heads of those that answer."""
        return for_inference(self, ("quality",))
