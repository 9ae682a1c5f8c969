"""Masks of a set of queries: the product of a kernel of each query and pixel embeddings.

Sources: MaskFormer (arXiv 2107.06278, section 3.2) and Mask2Former (arXiv 2112.01527) for the product; D-FINE-seg
(arXiv 2602.23043) and RF-DETR-Seg for masks of a box decoder, the latter with the bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from efftasks.models.det_heads.query_raw import MaskFactors
from efftasks.models.insseg_heads.pixel_decoder import PixelDecoder
from efftasks.models.layers.transformer import MLP
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.instances import MASK_STRIDE
from efftasks.structures.spec import OutputSpec

__all__ = ["QueryMasks"]


@MODELS.register_module()
class QueryMasks(nn.Module):
    """Predicts kernels from queries and pixel embeddings from maps; a mask is their product.

    The product is computed only where it is needed: for matched queries in the loss, at sampled cells in the matching,
    for the K detections in decoding. The masks of all queries of all layers would take gigabytes.

    Args:
        in_specs: of the maps that the decoder attends to, finest first; given by the head.
        channels: of a query; given by the head.
        mask_channels: of pixels and kernels.
        act: activation.
    """

    def __init__(
        self, in_specs: Sequence[FeatureSpec], channels: int, mask_channels: int = 64, act: str = "relu"
    ) -> None:
        super().__init__()
        self.mask_channels = mask_channels
        self.pixels = PixelDecoder(in_specs, mask_channels, act)
        self.kernels = MLP((channels, channels, channels, mask_channels), act)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, contents: Sequence[Tensor], maps: Sequence[Tensor]) -> tuple[MaskFactors, ...]:
        """The masks of several layers, over the same pixels.

        Args:
            contents: one (B, Q, channels) a layer.
            maps: (B, C_i, H / s_i, W / s_i), finest first.
        """
        pixels = self.pixels(maps)
        return tuple(MaskFactors(self.kernels(content), pixels, self.bias) for content in contents)

    def decode(self, factors: MaskFactors, index: Tensor) -> Tensor:
        """The masks of some queries. They are cropped to boxes later, in pixels.

        Args:
            factors: of all queries.
            index: int64 (B, K): which queries.

        Returns:
            (B, K, H / 4, W / 4), logits.
        """
        kernels, pixels, bias = factors
        height, width = pixels.shape[-2:]
        selected = kernels.gather(1, index[..., None].expand(-1, -1, kernels.shape[-1]))
        logits = torch.matmul(selected, pixels.flatten(2)) + bias
        return logits.float().unflatten(2, (height, width))

    def candidates(self, factors: MaskFactors) -> tuple[Tensor, Tensor]:
        """Coefficients (B, Q, R) and prototypes (B, R, H / 4, W / 4); the last prototype is the bias."""
        kernels, pixels, bias = factors
        ones, level = torch.ones_like(kernels[..., :1]), bias.expand_as(pixels[:, :1])
        return torch.cat([kernels, ones], dim=-1).float(), torch.cat([pixels, level], dim=1).float()

    def candidate_outputs(self, height: int, width: int, count: int) -> tuple[OutputSpec, OutputSpec]:
        """The tensors of :meth:`candidates` for ``count`` queries and an input of this size in pixels."""
        maps = self.mask_channels + 1
        shape = ("N", maps, height // MASK_STRIDE, width // MASK_STRIDE)
        return (
            OutputSpec("coefficients", ("N", count, maps), "float32", "weights of the prototypes"),
            OutputSpec("prototypes", shape, "float32", "maps whose weighted sums are the masks"),
        )
