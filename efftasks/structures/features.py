"""What one feature map of a backbone or neck is: declared once by its maker, read by everyone else."""

from __future__ import annotations

from typing import NamedTuple


class FeatureSpec(NamedTuple):
    """A feature map of shape (B, channels, H / stride, W / stride) for an input of (B, 3, H, W)."""

    channels: int
    stride: int
