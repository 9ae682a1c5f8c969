"""From class scores at a head's stride to a label map: what predicting runs and what an exported graph holds."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["label_map"]


def label_map(logits: Tensor, size: tuple[int, int], align_corners: bool = False, coarse: bool = False) -> Tensor:
    """The best class of each pixel.

    Args:
        logits: (B, C, h, w) with C up to 255.
        size: (H, W) in pixels.
        align_corners: how the head's scores lie in the image, as in ``torch.nn.functional.interpolate``.
        coarse: choose the class at the logits' own size and repeat it, instead of interpolating the scores first: no
            tensor of C scores a pixel is made, and edges follow the coarse grid.

    Returns:
        uint8 (B, H, W), indices of classes.
    """
    if coarse:
        labels = logits.argmax(1, keepdim=True).float()
        return functional.interpolate(labels, size, mode="nearest").squeeze(1).byte()
    full = functional.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    return full.argmax(1).byte()
