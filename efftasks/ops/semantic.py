"""From class logits at the stride of a head to a label map, in prediction and in the exported graph."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["class_scores", "label_map"]


def label_map(logits: Tensor, size: tuple[int, int], align_corners: bool = False, coarse: bool = False) -> Tensor:
    """The class with the highest score in each pixel.

    Args:
        logits: (B, C, h, w) with C up to 255.
        size: (H, W) in pixels.
        align_corners: of the head, see ``torch.nn.functional.interpolate``.
        coarse: take the argmax at the size of the logits and upsample it by nearest neighbor, instead of upsampling
            the logits: no tensor of C scores per pixel is needed, and edges follow the coarse grid.

    Returns:
        uint8 (B, H, W), class indices.
    """
    if coarse:
        labels = logits.argmax(1, keepdim=True).float()
        return functional.interpolate(labels, size, mode="nearest").squeeze(1).byte()
    return class_scores(logits, size, align_corners).argmax(1).byte()


def class_scores(logits: Tensor, size: tuple[int, int], align_corners: bool = False, coarse: bool = False) -> Tensor:
    """The scores (B, C, H, W) whose argmax is the :func:`label_map` of the same arguments."""
    if coarse:
        return functional.interpolate(logits, size, mode="nearest")
    return functional.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
