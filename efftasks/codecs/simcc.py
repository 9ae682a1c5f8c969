"""Coordinates as two classifications: a bin for x and a bin for y, each half a pixel wide or so.

Sources: SimCC (arXiv 2107.03332, section 3.2) for the bins and Gaussian smoothing, RTMPose (arXiv 2303.07399, section
3.3) for the width of the Gaussian and the soft-max over it. Compared with mmpose's ``SimCCLabel`` (Apache-2.0), which
rounds a keypoint to its bin first and counts from the corner of a bin; here bin ``i`` covers [i, i + 1) / split_ratio.

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
    """What is to be learnt; rows of a keypoint without weight are 0."""

    x: NDArray[np.float32]  # (..., P, Wx)
    y: NDArray[np.float32]  # (..., P, Wy)
    weights: NDArray[np.float32]  # (..., P): 1 where a keypoint is annotated and inside of the crop, else 0


class SimCC:
    """Keypoints of a crop <-> two one-dimensional heat maps each.

    Args:
        input_size: (height, width) of the crop in pixels.
        split_ratio: bins a pixel.
        sigma: of the Gaussian over x and over y, in bins; None for a quarter of the square root of the bins.
        normalise: give the Gaussian an area of 1, not a peak of 1.
        beta: the heat maps are read, and learnt, through a soft-max of ``beta`` times them.

    Attributes:
        bins: (Wx, Wy).
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        split_ratio: float = 2.0,
        sigma: tuple[float, float] | None = None,
        normalise: bool = False,
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
        self.normalise = normalise
        self.beta = beta
        self._surest = tuple(self._peak(axis) for axis in (0, 1))

    def encode(self, keypoints: NDArray[np.floating]) -> SimCCTargets:
        """Targets of keypoints (..., P, 3): x, y in pixels of the crop, and visibility (0: not annotated)."""
        place = keypoints[..., :2] * self.split_ratio
        inside = (place >= 0).all(-1) & (place < self.bins).all(-1)
        weights = (inside & (keypoints[..., 2] > 0)).astype(np.float32)
        x, y = (self._gaussian(place[..., axis], axis) * weights[..., None] for axis in (0, 1))
        return SimCCTargets(x, y, weights)

    def decode(self, x: Tensor, y: Tensor) -> Tensor:
        """The best bins of heat maps. Pure tensors, the same when exported.

        Args:
            x: (B, P, Wx).
            y: (B, P, Wy).

        Returns:
            float (B, P, 3): x, y in pixels of the crop, and a score in [0, 1]: how high the soft-max peaks, 1 for as
            high as that of a target, of the two directions the less sure one.
        """
        places, scores = [], []
        for logits, surest in zip((x, y), self._surest):
            share = (logits.float() * self.beta).softmax(-1)
            places.append((share.argmax(-1).float() + 0.5) / self.split_ratio)
            scores.append((share.amax(-1) / surest).clamp(max=1.0))
        return torch.stack([*places, torch.minimum(*scores)], dim=-1)

    def _gaussian(self, place: NDArray[np.floating], axis: int) -> NDArray[np.float32]:
        """Places (...) in bins -> (..., bins)."""
        sigma = self.sigma[axis]
        distance = (np.arange(self.bins[axis], dtype=np.float32) + 0.5 - place[..., None]) / sigma
        value = np.exp(-0.5 * np.square(distance))
        return (value / (sigma * math.sqrt(2 * math.pi)) if self.normalise else value).astype(np.float32)

    def _peak(self, axis: int) -> float:
        """The largest share of the soft-max of a target in the middle."""
        heat = self.beta * self._gaussian(np.asarray(self.bins[axis] // 2 + 0.5), axis).astype(np.float64)
        share = np.exp(heat - heat.max())
        return float(1 / share.sum())
