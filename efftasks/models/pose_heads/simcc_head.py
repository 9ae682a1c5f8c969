"""From the coarsest map to two one-dimensional heat maps a keypoint: the head of RTMPose.

Sources: RTMPose (arXiv 2303.07399, section 3.3, figure 4), GAU (arXiv 2202.10447, section 3), SimCC (arXiv 2107.03332).
Compared with mmpose's ``RTMCCHead`` and ``RTMCCBlock`` (Apache-2.0). The norms have no gain: the
linear map after each of them contains it.

Legend: B crops, P keypoints, C channels of the map, D channels of a keypoint's embedding, Wx and Wy bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from efftasks.codecs.simcc import SimCC
from efftasks.models.losses.simcc import SimCCLoss
from efftasks.registry import MODELS
from efftasks.structures.features import FeatureSpec
from efftasks.structures.spec import DecoderSpec, OutputSpec

__all__ = ["GatedAttention", "SimCCHead", "SimCCRaw"]

_MIN_MEAN_SQUARE = 1e-10


class SimCCRaw(NamedTuple):
    """Heat maps over the bins of each direction, before the softmax."""

    x: Tensor  # (B, P, Wx)
    y: Tensor  # (B, P, Wy)


def _scaled(x: Tensor) -> Tensor:
    """Rows (..., D) divided by their root mean square (arXiv 1910.05895), in float32."""
    x = x.float()
    return x * x.square().mean(-1, keepdim=True).clamp(min=_MIN_MEAN_SQUARE).rsqrt()


class GatedAttention(nn.Module):
    """Gated attention unit: one head of attention between keypoints, squared ReLU for softmax, a gate on its output.

    Args:
        channels: D.
        attention_channels: of queries and keys, which share one projection.
        expansion: of values and gate over ``channels``.
    """

    def __init__(self, channels: int, attention_channels: int = 128, expansion: int = 2) -> None:
        super().__init__()
        inner = expansion * channels
        self.widths = (inner, inner, attention_channels)
        self.project = nn.Linear(channels, sum(self.widths), bias=False)
        self.scale = nn.Parameter(torch.rand(2, attention_channels))  # of queries and of keys
        self.shift = nn.Parameter(torch.rand(2, attention_channels))
        self.merge = nn.Linear(inner, channels, bias=False)
        self.shortcut = nn.Parameter(torch.ones(channels))
        nn.init.xavier_uniform_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, D) in and out."""
        gate, value, base = functional.silu(self.project(_scaled(x))).split(self.widths, dim=-1)
        query, key = (base * scale + shift for scale, shift in zip(self.scale, self.shift))
        attention = (query @ key.transpose(1, 2) / math.sqrt(self.widths[2])).relu().square()
        return x * self.shortcut + self.merge(gate * (attention @ value))


@MODELS.register_module()
class SimCCHead(nn.Module):
    """A large-kernel convolution to one map a keypoint, a linear map of it, gated attention, and two classifiers.

    Args:
        in_specs: the feature maps, finest first; the last is used. Given by the estimator.
        sigmas: of OKS, one for each keypoint. Only their number is used here.
        input_size: (height, width) of the network input in pixels, multiples of the coarsest stride.
        split_ratio: bins per pixel.
        sigma: of the target Gaussians over x and y, in bins; None for RTMPose's rule.
        beta: factor of the heat maps in the softmax.
        kernel_size: of the convolution.
        channels: D.
        attention_channels: of queries and keys.
    """

    linked_sizes: ClassVar[dict[str, str]] = {"input_size": "image_size"}

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        sigmas: Sequence[float],
        input_size: tuple[int, int],
        split_ratio: float = 2.0,
        sigma: tuple[float, float] | None = None,
        beta: float = 10.0,
        kernel_size: int = 7,
        channels: int = 256,
        attention_channels: int = 128,
    ) -> None:
        super().__init__()
        if not sigmas:
            raise ValueError(f"sigmas: got {sigmas!r}, allowed is one number for each keypoint")
        width, stride = in_specs[-1]
        if input_size is None or any(side < stride or side % stride for side in input_size):
            raise ValueError(f"input_size: got {input_size}, allowed is (height, width), multiples of {stride}")
        self.input_size = (int(input_size[0]), int(input_size[1]))
        self.num_keypoints = len(sigmas)
        self.codec = SimCC(self.input_size, split_ratio, sigma, beta=beta)
        self.criterion = SimCCLoss(beta)
        cells = math.prod(side // stride for side in self.input_size)
        self.conv = nn.Conv2d(width, len(sigmas), kernel_size, padding=kernel_size // 2)
        self.project = nn.Linear(cells, channels, bias=False)
        self.attend = GatedAttention(channels, attention_channels)
        self.classify_x, self.classify_y = (nn.Linear(channels, bins, bias=False) for bins in self.codec.bins)
        for classifier in (self.classify_x, self.classify_y):
            nn.init.normal_(classifier.weight, 0.0, 0.01 / beta)  # nearly equal scores at first

    def forward(self, features: Sequence[Tensor]) -> SimCCRaw:
        """Features (B, C_i, H_i, W_i), finest first -> heat maps."""
        maps = self.conv(features[-1]).flatten(2)
        keypoints = self.attend(self.project(_scaled(maps)))
        return SimCCRaw(self.classify_x(keypoints), self.classify_y(keypoints))

    def decode(self, raw: SimCCRaw) -> Tensor:
        """Heat maps -> (B, P, 3): x, y in pixels of the network input, and score. The same when exported."""
        return self.codec.decode(raw.x, raw.y)

    def candidates(self, raw: SimCCRaw) -> tuple[Tensor, ...]:
        """Heat maps -> the scores of all bins, (B, P, Wx) and (B, P, Wy)."""
        return self.codec.bin_scores(raw.x, raw.y)

    def candidate_outputs(self) -> tuple[OutputSpec, ...]:
        """What :meth:`candidates` gives."""
        return tuple(
            OutputSpec(f"{axis}_bins", ("N", self.num_keypoints, bins), "float32", f"score of each bin over {axis}")
            for axis, bins in zip("xy", self.codec.bins)
        )

    @property
    def decoder_spec(self) -> DecoderSpec:
        """The decoder that takes them."""
        return DecoderSpec("bins", bins_per_pixel=self.codec.split_ratio)

    def loss(self, features: Sequence[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Losses of features against keypoints (B, P, 3): x, y in pixels of the network input, and visibility."""
        return self.loss_by_feat(self(features), targets)

    def loss_by_feat(self, raw: SimCCRaw, targets: Tensor) -> dict[str, Tensor]:
        """Losses of heat maps against keypoints (B, P, 3), one for each direction."""
        encoded = self.codec.encode(targets.detach().cpu().numpy())
        x, y, weights = (torch.from_numpy(array).to(raw.x.device) for array in encoded)
        return dict(loss_x=self.criterion(raw.x, x, weights), loss_y=self.criterion(raw.y, y, weights))
