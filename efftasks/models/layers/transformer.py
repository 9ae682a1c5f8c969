"""Parts of transformer layers: attention among tokens, feed-forward networks, norms, a gate.

Sources: arXiv 1706.03762 for attention and the feed-forward network; RMSNorm arXiv 1910.07467; SwiGLU arXiv 2002.05202;
the gate D-FINE (arXiv 2410.13842, section 4.4, "target gating layer"). Tokens are (B, N, C) throughout.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efftasks.models.layers.conv import build_activation

__all__ = [
    "MLP",
    "AddNorm",
    "FeedForward",
    "Gate",
    "RMSNorm",
    "SelfAttention",
    "SwiGLU",
    "build_norm",
    "point_embedding",
    "position_embedding",
]


class MLP(nn.Module):
    """Linear layers with an activation between them.

    Args:
        widths: of the input, between the layers, and of the output.
        act: see ``build_activation``.
    """

    def __init__(self, widths: Sequence[int], act: str | None = "relu") -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.act = build_activation(act, inplace=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.layers[-1](x)

    def zero_last(self) -> None:
        """Initialize the last layer with zeros."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class RMSNorm(nn.Module):
    """Division by the root of the mean square, then a learned scale; in float32 inside.

    Args:
        channels: C.
        eps: added to the mean square.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        # In this form runtimes recognize the norm: they fuse a division by a root, not a product with its inverse.
        square = x.float().pow(2).mean(-1, keepdim=True)
        return (x / torch.sqrt(square + self.eps)).type_as(x) * self.weight


def build_norm(name: str, channels: int) -> nn.Module:
    """A new norm over the last dimension.

    Raises:
        ValueError: ``name`` is neither ``layer`` nor ``rms``.
    """
    if name == "layer":
        return nn.LayerNorm(channels)
    if name == "rms":
        return RMSNorm(channels)
    raise ValueError(f"norm: got {name!r}, allowed 'layer', 'rms'")


class SelfAttention(nn.Module):
    """Multi-head self-attention; positions are added to queries and keys only.

    The parameters are those of ``nn.MultiheadAttention``.

    Args:
        channels: C, a multiple of ``num_heads``.
        num_heads: heads.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"num_heads: got {num_heads}, allowed are divisors of the {channels} channels")
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, position: Tensor | None = None, blocked: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, N, C).
            position: (B or 1, N, C) or None.
            blocked: bool (N, N); True where the token of the row must not attend to that of the column.
        """
        channels = x.shape[-1]
        placed = x if position is None else x + position
        both = F.linear(placed, self.in_proj_weight[: 2 * channels], self.in_proj_bias[: 2 * channels])
        value = F.linear(x, self.in_proj_weight[2 * channels :], self.in_proj_bias[2 * channels :])
        query, key = both.chunk(2, dim=-1)
        mask = None if blocked is None else ~blocked
        out = F.scaled_dot_product_attention(self._split(query), self._split(key), self._split(value), attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def fold(self) -> nn.Module:
        """The same as explicit products, with the scale in the weights of the queries."""
        return FoldedSelfAttention(self).eval()


class FoldedSelfAttention(nn.Module):
    """A folded :class:`SelfAttention`, with a minimal exported graph."""

    def __init__(self, trained: SelfAttention) -> None:
        super().__init__()
        self.num_heads = trained.num_heads
        channels = trained.in_proj_weight.shape[1]
        weight, bias = trained.in_proj_weight.detach().clone(), trained.in_proj_bias.detach().clone()
        scale = (channels // self.num_heads) ** -0.5
        weight[:channels] *= scale
        bias[:channels] *= scale
        self.query_key = nn.Linear(channels, 2 * channels)
        self.value = nn.Linear(channels, channels)
        self.query_key.weight.data, self.query_key.bias.data = weight[: 2 * channels], bias[: 2 * channels]
        self.value.weight.data, self.value.bias.data = weight[2 * channels :], bias[2 * channels :]
        self.out_proj = copy.deepcopy(trained.out_proj)

    def forward(self, x: Tensor, position: Tensor | None = None, blocked: Tensor | None = None) -> Tensor:
        """As :meth:`SelfAttention.forward`."""
        batch, count, channels = x.shape
        shape = (batch, count, self.num_heads, channels // self.num_heads)
        query, key = self.query_key(x if position is None else x + position).chunk(2, dim=-1)
        scores = query.reshape(shape).transpose(1, 2) @ key.reshape(shape).permute(0, 2, 3, 1)
        if blocked is not None:
            scores = scores.masked_fill(blocked, -math.inf)
        out = F.softmax(scores, dim=-1) @ self.value(x).reshape(shape).transpose(1, 2)
        return self.out_proj(out.transpose(1, 2).reshape(batch, count, channels))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, channels: int, hidden: int, act: str | None) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.act = build_activation(act, inplace=False)
        self.linear2 = nn.Linear(hidden, channels)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) in and out."""
        return self.linear2(self.act(self.linear1(x)))


class SwiGLU(nn.Module):
    """A gated feed-forward network; ``hidden`` is the width of gate and value together."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(channels, 2 * (hidden // 2))
        self.w3 = nn.Linear(hidden // 2, channels)
        for linear in (self.w12, self.w3):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) in and out."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class Gate(nn.Module):
    """A learned gated sum of two inputs, then a norm."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * channels, 2 * channels)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.norm = build_norm(norm, channels)

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """(..., channels) each, and so the result."""
        keep, take = torch.sigmoid(self.gate(torch.cat([old, new], dim=-1))).chunk(2, dim=-1)
        return self.norm(keep * old + take * new)


class AddNorm(nn.Module):
    """The sum of two inputs, then a norm."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.norm = build_norm(norm, channels)

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """(..., channels) each, and so the result."""
        return self.norm(old + new)


def position_embedding(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Sines and cosines of row and column for a map's tokens, rows first: (1, height * width, channels).

    For square maps this is the embedding of RT-DETR's published models. For other maps these order embeddings by
    columns and features by rows; here both are by rows.

    Args:
        height: of the map.
        width: of the map.
        channels: C, a multiple of 4: sin and cos of the row, then of the column.
        device: of the result.
    """
    if channels % 4:
        raise ValueError(f"channels: got {channels}, allowed are multiples of 4")
    quarter = channels // 4
    exponent = torch.arange(quarter, dtype=torch.float32, device=device) / quarter
    omega = torch.exp(-math.log(10000.0) * exponent)
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None] * omega
    columns = torch.arange(width, dtype=torch.float32, device=device)[:, None] * omega
    row = torch.cat([rows.sin(), rows.cos()], dim=-1)[:, None].expand(height, width, 2 * quarter)
    column = torch.cat([columns.sin(), columns.cos()], dim=-1)[None].expand(height, width, 2 * quarter)
    return torch.cat([row, column], dim=-1).reshape(1, height * width, channels)


def point_embedding(points: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines of points: (..., 2) xy in [0, 1] -> (..., channels), half for y, then half for x.

    Source: DAB-DETR (arXiv 2201.12329).

    Args:
        points: coordinates; 1 is one period of the fastest wave.
        channels: C, a multiple of 4; sines and cosines alternate.
        temperature: approximate ratio of the slowest to the fastest period.
    """
    if channels % 4:
        raise ValueError(f"channels: got {channels}, allowed are multiples of 4")
    pairs = torch.arange(channels // 4, dtype=torch.float32, device=points.device)
    omega = 2 * math.pi * torch.exp(pairs * (-4 * math.log(temperature) / channels))
    angles = points.flip(-1).reshape(-1, 2, 1) * omega  # few dimensions: runtimes of accelerators have at most five
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1)
    return waves.reshape(*points.shape[:-1], channels)
