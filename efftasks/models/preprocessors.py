"""From loaded images to the batch a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmseg.models import SegDataPreProcessor
from torch import nn

from efftasks.registry import MODELS
from efftasks.structures.protocols import Progressive

__all__ = ["DetPreprocessor", "Normalisation", "SegPreprocessor"]


class Normalisation(NamedTuple):
    """``(pixel - mean) / std`` with pixels in 0..255, one number a channel in ``color`` order."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: str
    pad_value: float


@MODELS.register_module()
class DetPreprocessor(DetDataPreprocessor):
    """mmdet's preprocessor with explicit normalisation that an exported file can state.

    uint8 (C, H, W) BGR images -> float32 (B, 3, H, W) RGB, normalised, padded on the right and at the bottom to a
    multiple of the divisor that the backbone declares.

    Args:
        mean: of each RGB channel, pixels in 0..255.
        std: of each RGB channel.
        pad_value: pixel value of padding, before normalisation.
        pad_size_divisor: given by the detector.
        batch_augments: mmdet's batch augmentations, e.g. ``mmdet.BatchSyncRandomResize``.
    """

    def __init__(
        self,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (255.0, 255.0, 255.0),
        pad_value: float = 114.0,
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
        self.normalisation = Normalisation(tuple(map(float, mean)), tuple(map(float, std)), "RGB", float(pad_value))

    def set_progress(self, fraction: float) -> None:
        """Tell how much of training is done, in [0, 1]; batch augmentations may act in a part of it."""
        for augment in self.batch_augments:
            if isinstance(augment, Progressive):
                augment.set_progress(fraction)


@MODELS.register_module()
class SegPreprocessor(SegDataPreProcessor):
    """mmseg's preprocessor with explicit normalisation that an exported file can state.

    uint8 (C, H, W) BGR images of one size -> float32 (B, 3, H, W) RGB, normalised. The pipeline gives the size: crops
    in training, ``FitImage`` in testing.

    Args:
        mean: of each RGB channel, pixels in 0..255; the default is ImageNet's.
        std: of each RGB channel.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__(mean=list(mean), std=list(std), bgr_to_rgb=True, size_divisor=1)
        # Padding is the pipeline's: it is the pixel value that FitImage says.
        self.normalisation = Normalisation(tuple(map(float, mean)), tuple(map(float, std)), "RGB", 0.0)
