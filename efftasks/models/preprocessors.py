"""From loaded images to the batch of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmengine.model import ImgDataPreprocessor
from mmseg.models import SegDataPreProcessor
from torch import nn

from efftasks.registry import MODELS
from efftasks.structures.image_fit import PAD_VALUE
from efftasks.structures.protocols import Progressive

__all__ = ["DetPreprocessor", "Normalization", "SegPreprocessor", "normalization_of"]


class Normalization(NamedTuple):
    """``(pixel - mean) / std`` with pixels in 0..255, one number for each channel in ``color`` order."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: str
    pad_value: float


@MODELS.register_module()
class DetPreprocessor(DetDataPreprocessor):
    """mmdet's preprocessor with a normalization that exported files describe.

    uint8 (C, H, W) BGR images -> float32 (B, 3, H, W) RGB, normalized, padded on the right and at the bottom to a
    multiple of the divisor of the backbone.

    Args:
        mean: of each RGB channel, pixels in 0..255.
        std: of each RGB channel.
        pad_value: pixel value of padding, before normalization.
        pad_size_divisor: set by the detector.
        batch_augments: mmdet's batch augmentations, e.g. ``mmdet.BatchSyncRandomResize``.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        pad_value: float = PAD_VALUE,
        pad_size_divisor: int = 32,
        batch_augments: list[dict] | None = None,
    ) -> None:
        super().__init__(
            mean=list(mean),
            std=list(std),
            bgr_to_rgb=True,
            pad_value=pad_value,
            pad_size_divisor=pad_size_divisor,
        )
        self.batch_augments = nn.ModuleList(MODELS.build(augment) for augment in batch_augments or ())
        self.normalization = Normalization(tuple(map(float, mean)), tuple(map(float, std)), "RGB", float(pad_value))

    def set_progress(self, fraction: float) -> None:
        """Set training progress, in [0, 1], which batch augmentations depend on."""
        for augment in self.batch_augments:
            if isinstance(augment, Progressive):
                augment.set_progress(fraction)


@MODELS.register_module()
class SegPreprocessor(SegDataPreProcessor):
    """mmseg's preprocessor with a normalization that exported files describe.

    uint8 (C, H, W) BGR images of one size -> float32 (B, 3, H, W) RGB, normalized. The size is that of the pipeline:
    crops in training, ``FitImage`` in testing.

    Args:
        mean: of each RGB channel, pixels in 0..255; the default is ImageNet's.
        std: of each RGB channel.
    """

    # Dumped configs of earlier versions have no mean and std: the defaults are theirs.
    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__(mean=list(mean), std=list(std), bgr_to_rgb=True, size_divisor=1)
        # The pipeline pads, with the pixel value of FitImage.
        self.normalization = Normalization(tuple(map(float, mean)), tuple(map(float, std)), "RGB", 0.0)


def normalization_of(preprocessor: nn.Module) -> Normalization | None:
    """The normalization of a preprocessor of BGR images: this package's, mmdet's or mmseg's; None of another module.

    One that leaves pixels in 0..255, as that of mmdet's YOLOX, has means of 0 and deviations of 1.
    """
    if isinstance(preprocessor, (DetPreprocessor, SegPreprocessor)):
        return preprocessor.normalization
    if not isinstance(preprocessor, ImgDataPreprocessor):
        return None
    color = "RGB" if preprocessor._channel_conversion else "BGR"
    if not preprocessor._enable_normalize:
        return Normalization((0.0,) * 3, (1.0,) * 3, color, 0.0)
    mean, std = (tuple(x.flatten().tolist()) for x in (preprocessor.mean, preprocessor.std))
    return Normalization(mean * (3 // len(mean)), std * (3 // len(std)), color, 0.0)
