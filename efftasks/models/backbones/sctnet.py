"""SCTNet: a single convolutional branch for segmentation, with attention to learned kernels in its last stages.

Sources: SCTNet (arXiv 2312.17071), "Conv-Former Block" and "Overall Architecture"; RTFormer (arXiv 2210.07124) for
attention to learned kernels with a grouped double normalization; DDRNet (arXiv 2101.06085) for DAPPM. Tables and the
order of layers were compared with the authors' code (xzz777/SCTNet, MIT), whose checkpoints load here. Written anew.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.drop import DropPath
from torch import Tensor, nn

from efftasks.models.backbones.base import Backbone, check_scale, load_weights, scaled_channels, select_strides
from efftasks.models.layers.conv import ConvNormAct, NormAct, build_activation
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec

__all__ = ["CFBlock", "ConvAttention", "DAPPM", "SCTNet"]

_STRIDES = (8, 16, 32)
_BLOCKS = 2  # residual blocks of each of the first three stages
_FORMERS = (1, 2)  # CFBlocks of the stages of stride 16 and 32
_KERNELS = 64  # that an attention learns for each direction, in every stage and variant
_GROUPS = 8  # of these kernels
_POOLS = ((5, 2), (9, 4), (17, 8))  # DAPPM: window and stride


class Variant(NamedTuple):
    """Channels of the stage of stride 4 (each stage doubles them), and inside DAPPM."""

    channels: int
    context: int


VARIANTS: dict[str, Variant] = {"s": Variant(32, 64), "b": Variant(64, 128)}


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the first convolution and of the shortcut.
        last: the last block of its stage, without an activation: it follows in the next stage.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, last: bool) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, out_channels, 3, stride, bias=True)
        self.conv2 = ConvNormAct(out_channels, out_channels, 3, act=None, bias=True)
        plain = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity() if plain else ConvNormAct(in_channels, out_channels, 1, stride, act=None, bias=True)
        )
        self.act = nn.Identity() if last else build_activation("relu", inplace=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return self.act(self.conv2(self.conv1(x)) + self.shortcut(x))


class ConvAttention(nn.Module):
    """Attention of pixels to learned kernels, which are both keys and values.

    The kernels are vertical and horizontal stripes. Each direction has ``kernels`` scores for a pixel; they are
    normalized by a softmax over all pixels, then by their sum over the kernels of a group.

    Args:
        channels: of input and output.
        kernels: number of learned kernels for each direction.
        groups: of the kernels.
        kernel_size: length of the stripes; odd.
    """

    def __init__(self, channels: int, kernels: int = _KERNELS, groups: int = _GROUPS, kernel_size: int = 7) -> None:
        super().__init__()
        self.groups = groups
        self.margin = kernel_size // 2
        self.norm = NormAct(channels, act=None)
        self.vertical = nn.Parameter(torch.empty(kernels, channels, kernel_size, 1))
        self.horizontal = nn.Parameter(torch.empty(kernels, channels, 1, kernel_size))
        # Small, so that the block starts close to the identity, but not zero: equal kernels would stay equal.
        nn.init.trunc_normal_(self.vertical, std=0.001)
        nn.init.trunc_normal_(self.horizontal, std=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        x = self.norm(x)
        return self._attend(x, self.vertical, (self.margin, 0)) + self._attend(x, self.horizontal, (0, self.margin))

    def _attend(self, x: Tensor, kernels: Tensor, padding: tuple[int, int]) -> Tensor:
        scores = F.conv2d(x, kernels, padding=padding)
        height, width = scores.shape[2:]
        weights = scores.flatten(2).softmax(-1).unflatten(1, (self.groups, -1))
        weights = weights / (weights.sum(2, keepdim=True) + 1e-6)
        return F.conv2d(weights.flatten(1, 2).unflatten(2, (height, width)), kernels.transpose(0, 1), padding=padding)


class ConvMLP(nn.Module):
    """A norm and two 3x3 convolutions with a GELU between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = NormAct(channels, act=None, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = build_activation("gelu")
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        return self.conv2(self.act(self.conv1(self.norm(x))))


class CFBlock(nn.Module):
    """ReLU, then a transformer's block of convolutions: attention and MLP, each added to its input.

    Args:
        channels: of input and output.
        kernel_size: of the attention; odd.
        drop_path: stochastic depth: the probability that a branch is dropped for an image in training.
    """

    def __init__(self, channels: int, kernel_size: int = 7, drop_path: float = 0.1) -> None:
        super().__init__()
        self.act = build_activation("relu", inplace=False)  # the input may be an output map
        self.attention = ConvAttention(channels, kernel_size=kernel_size)
        self.mlp = ConvMLP(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) in and out."""
        x = self.act(x)
        x = x + self.drop_path(self.attention(x))
        return x + self.drop_path(self.mlp(x))


class DAPPM(nn.Module):
    """Averages over windows of increasing size, each refined together with the one before.

    Args:
        in_channels: of the input.
        channels: of each scale.
        out_channels: of the output.
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        pools: list[nn.Module] = [nn.AvgPool2d(window, stride, window // 2) for window, stride in _POOLS]
        self.pools = nn.ModuleList([nn.Identity(), *pools, nn.AdaptiveAvgPool2d(1)])
        self.scales = nn.ModuleList(_pre_norm_conv(in_channels, channels) for _ in self.pools)
        self.refine = nn.ModuleList(_pre_norm_conv(channels, channels, 3) for _ in self.pools[1:])
        self.compression = _pre_norm_conv(channels * (2 + len(_POOLS)), out_channels)
        self.shortcut = _pre_norm_conv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        first, *rest = (scale(pool(x)) for pool, scale in zip(self.pools, self.scales))
        maps = [first]
        for pooled, refine in zip(rest, self.refine):
            maps.append(refine(_resized(pooled, x) + maps[-1]))
        return self.compression(torch.cat(maps, 1)) + self.shortcut(x)


@MODELS.register_module()
class SCTNet(Backbone):
    """SCTNet with its last map, enlarged, beside that of stride 8: this fused map is what its decode head classifies.

    Args:
        variant: s or b.
        out_strides: ascending choice of 8, 16, 32 that begins with 8. The maps: the fused one; after the CFBlock of
            stride 16; after those of stride 32, before DAPPM.
        detail: return the map of stride 8 before fusion too, as the first one, for an auxiliary head.
        width: factor on all channels, rounded to multiples of 8.
        depth: factor on the blocks of every stage, of which at least one stays.
        kernel_size: of the CFBlocks' attention; odd.
        drop_path: stochastic depth: the probability that a branch of a CFBlock is dropped for an image in training.
        frozen: see :meth:`Backbone.freeze`.
        weights: path of a local checkpoint: the authors' or this package's.
    """

    def __init__(
        self,
        variant: str = "s",
        out_strides: Sequence[int] = (8, 16, 32),
        detail: bool = False,
        width: float = 1.0,
        depth: float = 1.0,
        kernel_size: int = 7,
        drop_path: float = 0.1,
        frozen: Sequence[str] = (),
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant: got {variant!r}, allowed {tuple(VARIANTS)}")
        check_scale(width, depth, kernel_size)
        self.out_indices = select_strides(_STRIDES, out_strides)
        if self.out_indices[0] != 0:
            raise ValueError(
                f"out_strides: got {tuple(out_strides)}, allowed a choice of {_STRIDES} that begins with 8"
            )
        self.detail = detail
        published = VARIANTS[variant]
        c4, c8, c16, c32 = (scaled_channels(published.channels * 2**i, width) for i in range(4))
        fused = [FeatureSpec(2 * c8, 8), FeatureSpec(c16, 16), FeatureSpec(c32, 32)]

        self.stem = nn.Sequential(
            OrderedDict(conv1=ConvNormAct(3, c4, 3, 2, bias=True), conv2=ConvNormAct(c4, c4, 3, 2, bias=True))
        )
        self.act = build_activation("relu", inplace=False)  # its inputs are used again, or are output maps
        blocks, former16, former32 = (max(1, int(count * depth + 0.5)) for count in (_BLOCKS, *_FORMERS))
        self.stage4 = _stage(c4, c4, 1, blocks)
        self.stage8 = _stage(c4, c8, 2, blocks)
        self.stage16 = _stage(c8, c16, 2, blocks)
        self.former16 = nn.Sequential(*(CFBlock(c16, kernel_size, drop_path) for _ in range(former16)))
        self.down32 = ConvNormAct(c16, c32, 3, 2, bias=True)
        self.former32 = nn.Sequential(*(CFBlock(c32, kernel_size, drop_path) for _ in range(former32)))
        self.context = DAPPM(c32, scaled_channels(published.context, width), c8)
        self.specs = (FeatureSpec(c8, 8),) * detail + tuple(fused[i] for i in self.out_indices)
        self.freeze(frozen)
        if weights is not None:
            load_weights(self, weights, renamed_key)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps as declared in ``specs``."""
        detail = self.stage8(self.act(self.stage4(self.stem(x))))
        middle = self.former16(self.stage16(self.act(detail)))
        deep = self.former32(self.down32(middle))
        fused = torch.cat([detail, _resized(self.context(deep), detail)], 1)
        maps = (fused, middle, deep)
        selected = tuple(maps[i] for i in self.out_indices)
        return (detail, *selected) if self.detail else selected


def _stage(in_channels: int, out_channels: int, stride: int, blocks: int) -> nn.Sequential:
    last = blocks - 1
    rest = (ResidualBlock(out_channels, out_channels, 1, i == last) for i in range(1, blocks))
    return nn.Sequential(ResidualBlock(in_channels, out_channels, stride, last == 0), *rest)


def _pre_norm_conv(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Sequential:
    """Norm, ReLU, convolution with bias that keeps the size."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(OrderedDict(norm=NormAct(in_channels), conv=conv))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


_RENAMES = tuple(
    (re.compile(rf"^{pattern}(?=\.|$)"), name)
    for pattern, name in (
        (r"conv1\.0", "stem.conv1.conv"),
        (r"conv1\.1", "stem.conv1.norm"),
        (r"conv1\.3", "stem.conv2.conv"),
        (r"conv1\.4", "stem.conv2.norm"),
        (r"layer([123])\.(\d+)\.conv([12])", r"layer\1.\2.conv\3.conv"),
        (r"layer([123])\.(\d+)\.bn([12])", r"layer\1.\2.conv\3.norm"),
        (r"layer([123])\.(\d+)\.downsample\.0", r"layer\1.\2.shortcut.conv"),
        (r"layer([123])\.(\d+)\.downsample\.1", r"layer\1.\2.shortcut.norm"),
        ("layer1", "stage4"),
        ("layer2", "stage8"),
        ("layer3", "stage16"),
        ("layer3_2", "former16.0"),
        (r"convdown4\.0", "down32.conv"),
        (r"convdown4\.1", "down32.norm"),
        ("layer4", "former32.0"),
        ("layer5", "former32.1"),
        (r"(former\d+\.\d)\.attn_l\.norm", r"\1.attention.norm.norm"),
        (r"(former\d+\.\d)\.attn_l\.kv", r"\1.attention.vertical"),
        (r"(former\d+\.\d)\.attn_l\.kv3", r"\1.attention.horizontal"),
        (r"(former\d+\.\d)\.mlp_l\.norm", r"\1.mlp.norm.norm"),
        (r"(former\d+\.\d)\.mlp_l", r"\1.mlp"),
        (r"spp\.scale0\.0", "context.scales.0.norm.norm"),
        (r"spp\.scale0\.2", "context.scales.0.conv"),
        (r"spp\.scale([1-4])\.1", r"context.scales.\1.norm.norm"),
        (r"spp\.scale([1-4])\.3", r"context.scales.\1.conv"),
        *((rf"spp\.process{i + 1}\.0", f"context.refine.{i}.norm.norm") for i in range(4)),
        *((rf"spp\.process{i + 1}\.2", f"context.refine.{i}.conv") for i in range(4)),
        (r"spp\.(compression|shortcut)\.0", r"context.\1.norm.norm"),
        (r"spp\.(compression|shortcut)\.2", r"context.\1.conv"),
    )
)


def renamed_key(key: str) -> str:
    """The name in this package of a parameter of the authors' network."""
    for pattern, name in _RENAMES:
        key = pattern.sub(name, key)
    return key
