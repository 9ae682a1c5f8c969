"""SimCC: keypoint coordinates as two classifications, over bins of x and bins of y.

Sources: SimCC (arXiv 2107.03332, section 3.2) for the bins and Gaussian smoothing, RTMPose (arXiv 2303.07399, section
3.3) for the width of the Gaussian and the softmax over it. Compared with mmpose's ``SimCCLabel`` (Apache-2.0), which
first rounds a keypoint to a bin, and measures from the corner of a bin; here bin ``i`` covers [i, i + 1) / split_ratio.

Legend: P keypoints, Wx and Wy bins, B crops.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SimCC", "SimCCTargets"]


class SimCCTargets(NamedTuple):
    """Target heat maps; they are 0 for keypoints with weight 0."""

    x: NDArray[np.float32]  # (..., P, Wx)
    y: NDArray[np.float32]  # (..., P, Wy)
    weights: NDArray[np.float32]  # (..., P): 1 for annotated keypoints inside the crop, else 0


class SimCC:
    """Keypoints of a crop <-> two one-dimensional heat maps each.

    Args:
        input_size: (height, width) of the crop in pixels.
        split_ratio: bins per pixel.
        sigma: of the Gaussians over x and y, in bins; None for a quarter of the square root of the number of bins.
        normalize: scale the Gaussian to an area of 1 instead of a peak of 1.
        beta: factor on the heat maps before the softmax, in the loss and in decoding.

    Attributes:
        bins: (Wx, Wy), number of bins.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        split_ratio: float = 2.0,
        sigma: tuple[float, float] | None = None,
        normalize: bool = False,
        beta: float = 10.0,
    ) -> None:
        height, width = input_size
        self.bins = (round(width * split_ratio), round(height * split_ratio))
        if min(self.bins) < 1:
            raise ValueError(f"input_size, split_ratio: got {input_size}, {split_ratio}, allowed is a bin at least")
        self.sigma = (math.sqrt(self.bins[0]) / 4, math.sqrt(self.bins[1]) / 4) if sigma is None else sigma
        if min(self.sigma) <= 0:
            raise ValueError(f"sigma: got {sigma}, allowed are two numbers above 0")
        self.split_ratio = split_ratio
        self.normalize = normalize
        self.beta = beta
        self._peaks = tuple(self._peak(axis) for axis in (0, 1))

    def encode(self, keypoints: NDArray[np.floating]) -> SimCCTargets:
        """Encode keypoints (..., P, 3): x, y in pixels of the crop, and visibility (0: not annotated)."""
        position = keypoints[..., :2] * self.split_ratio
        inside = (position >= 0).all(-1) & (position < self.bins).all(-1)
        weights = (inside & (keypoints[..., 2] > 0)).astype(np.float32)
        x, y = (self._gaussian(position[..., axis], axis) * weights[..., None] for axis in (0, 1))
        return SimCCTargets(x, y, weights)

    def decode(self, x: Tensor, y: Tensor) -> Tensor:
        """Decode heat maps by argmax, with tensor operations only: the exported graph runs the same code.

        Args:
            x: (B, P, Wx).
            y: (B, P, Wy).

        Returns:
            float (B, P, 3): x, y in pixels of the crop, and a score in [0, 1]: the maximum of the softmax relative to
            that of a target, and the lower one of x and y.
        """
        positions, scores = [], []
        for probability, peak in zip(self._probabilities(x, y), self._peaks):
            positions.append((probability.argmax(-1).float() + 0.5) / self.split_ratio)
            scores.append((probability.amax(-1) / peak).clamp(max=1.0))
        return torch.stack([*positions, torch.minimum(*scores)], dim=-1)

    def bin_scores(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps -> the scores of all bins, for decoding outside of the graph; those of :meth:`decode` are the best.

        Args:
            x: (B, P, Wx).
            y: (B, P, Wy).

        Returns:
            (B, P, Wx) and (B, P, Wy).
        """
        of_x, of_y = (probability / peak for probability, peak in zip(self._probabilities(x, y), self._peaks))
        return of_x, of_y

    def _probabilities(self, x: Tensor, y: Tensor) -> list[Tensor]:
        return [(logits.float() * self.beta).softmax(-1) for logits in (x, y)]

    def _gaussian(self, position: NDArray[np.floating], axis: int) -> NDArray[np.float32]:
        """Positions (...) in bins -> heat maps (..., bins)."""
        sigma = self.sigma[axis]
        distance = (np.arange(self.bins[axis], dtype=np.float32) + 0.5 - position[..., None]) / sigma
        value = np.exp(-0.5 * np.square(distance))
        return (value / (sigma * math.sqrt(2 * math.pi)) if self.normalize else value).astype(np.float32)

    def _peak(self, axis: int) -> float:
        """The maximum of the softmax over the target of a keypoint in the middle."""
        heat = self.beta * self._gaussian(np.asarray(self.bins[axis] // 2 + 0.5), axis).astype(np.float64)
        probability = np.exp(heat - heat.max())
        return float(1 / probability.sum())
