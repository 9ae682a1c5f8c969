"""The hybrid encoder: self-attention on the coarsest map, convolutional fusion across maps.

Sources: RT-DETR (arXiv 2304.08069, section 4.2), whose fusion blocks are CSP blocks of RepConvs; D-FINE (arXiv
2410.13842, appendix) with ELAN blocks of RepConvs and light downsampling; DEIMv2 (arXiv 2509.20787, section 3.2) adds
maps where the others concatenate them; DETRPose (arXiv 2506.13027, by its public code) activates the laterals of D-FINE
and embeds positions as fractions of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from efftasks.models.layers.conv import ConvNormAct
from efftasks.models.layers.rep import CSPRepBlock, RepELANBlock, upsampled
from efftasks.models.layers.transformer import AddNorm, FeedForward, SelfAttention, point_embedding, position_embedding
from efftasks.models.necks.base import Neck
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["HybridEncoder"]

_BLOCKS = ("csp", "elan")
_FUSIONS = ("cat", "sum")
_POSITIONS = ("cell", "fraction")
# Of embeddings of positions as fractions.
_TEMPERATURE = 20.0


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with a residual connection and a norm.

    Args:
        channels: C.
        num_heads: heads.
        hidden: width of the feed-forward network.
    """

    def __init__(self, channels: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(channels, num_heads)
        self.add1 = AddNorm(channels, "layer")
        self.ffn = FeedForward(channels, hidden, "gelu")
        self.add2 = AddNorm(channels, "layer")

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Tokens (B, N, C) with positions (1, N, C) -> tokens."""
        x = self.add1(x, self.self_attn(x, position))
        return self.add2(x, self.ffn(x))


@MODELS.register_module()
class HybridEncoder(Neck):
    """Attention within the coarsest map, then top-down and bottom-up fusion; every map gets the same channels.

    Args:
        in_specs: maps of the backbone, strides doubling, finest first; given by the detector.
        channels: of every output map.
        ffn_channels: width of the feed-forward network of the attention layers.
        num_layers: attention layers.
        num_heads: their heads.
        block: how maps are fused: ``csp`` (RT-DETR: activated laterals, plain strided 3x3) or ``elan`` (D-FINE).
        fusion: two maps are concatenated (``cat``) or added (``sum``) before a block.
        expansion: width inside a block.
        depth: RepConvs in a row inside a block.
        project: bring a map that already has ``channels`` to them all the same, as RT-DETR does.
        position: what attention knows of a token's place: its ``cell``, or its place as a ``fraction`` of the map.
        activate_laterals: None for what the block's paper does.
    """

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        channels: int = 256,
        ffn_channels: int = 1024,
        num_layers: int = 1,
        num_heads: int = 8,
        block: str = "elan",
        fusion: str = "cat",
        expansion: float = 1.0,
        depth: int = 3,
        project: bool = False,
        position: str = "cell",
        activate_laterals: bool | None = None,
    ) -> None:
        strides = [spec.stride for spec in in_specs]
        if any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(f"in_specs: got strides {strides}, expected each to be twice the one before")
        super().__init__(strides)
        choices = (("block", block, _BLOCKS), ("fusion", fusion, _FUSIONS), ("position", position, _POSITIONS))
        for name, value, allowed in choices:
            if value not in allowed:
                raise ValueError(f"{name}: got {value!r}, allowed {allowed}")
        self.fusion, self.position = fusion, position
        self.input_proj = nn.ModuleList(
            ConvNormAct(spec.channels, channels, 1, act=None) if project or spec.channels != channels else nn.Identity()
            for spec in in_specs
        )
        self.layers = nn.ModuleList(EncoderLayer(channels, num_heads, ffn_channels) for _ in range(num_layers))
        joined = (channels, channels) if fusion == "cat" else (channels,)
        steps = range(len(strides) - 1)

        def fuse_block(upsample: bool) -> nn.Module:
            kind = CSPRepBlock if block == "csp" else RepELANBlock
            return kind(joined, channels, depth, expansion, upsample=0 if upsample and fusion == "cat" else None)

        def down() -> nn.Module:
            if block == "csp":
                return ConvNormAct(channels, channels, 3, 2, act="silu")
            return nn.Sequential(
                ConvNormAct(channels, channels, 1, act=None),
                ConvNormAct(channels, channels, 3, 2, groups=channels, act=None),
            )

        activated = block == "csp" if activate_laterals is None else activate_laterals
        lateral_act = "silu" if activated else None
        self.laterals = nn.ModuleList(ConvNormAct(channels, channels, 1, act=lateral_act) for _ in steps)
        self.top_down = nn.ModuleList(fuse_block(True) for _ in steps)
        self.down = nn.ModuleList(down() for _ in steps)
        self.bottom_up = nn.ModuleList(fuse_block(False) for _ in steps)

    def last_parts(self) -> list[nn.Module]:
        """The last fusion block of each map; the encoder layers if there is one map."""
        return [*self.top_down[-1:], *self.bottom_up] or [self.layers if len(self.layers) else self.input_proj]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C_i, H_i, W_i), finest first -> maps (B, channels, H_i, W_i)."""
        maps = [project(x) for project, x in zip(self.input_proj, features)]
        maps[-1] = self._attend(maps[-1])
        # As in the published models the first lateral belongs to the coarsest map.
        for step, (lateral, block) in enumerate(zip(self.laterals, self.top_down)):
            i = len(maps) - 1 - step
            maps[i] = lateral(maps[i])
            if self.fusion == "cat":  # the block upsamples
                maps[i - 1] = block((maps[i], maps[i - 1]))
            else:
                maps[i - 1] = block((upsampled(maps[i]) + maps[i - 1],))
        for i, (down, block) in enumerate(zip(self.down, self.bottom_up)):
            pair = (down(maps[i]), maps[i + 1])
            maps[i + 1] = block(pair if self.fusion == "cat" else (pair[0] + pair[1],))
        return tuple(maps)

    def _attend(self, x: Tensor) -> Tensor:
        if not len(self.layers):
            return x
        height, width = x.shape[-2:]
        embedding = position_embedding if self.position == "cell" else _fraction_embedding
        position = embedding(height, width, x.shape[1], x.device)
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, position)
        return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def _fraction_embedding(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Embeddings (1, height * width, channels) of the far corners of a map's cells as fractions of it, rows first."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 1) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 1) / width
    corners = torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], dim=-1)
    return point_embedding(corners.reshape(1, -1, 2), channels, _TEMPERATURE)
