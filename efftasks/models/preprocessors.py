"""From loaded images to the batch a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
from mmdet.models.data_preprocessors import DetDataPreprocessor
from torch import nn

from efftasks.registry import MODELS
from efftasks.structures.protocols import Progressive

__all__ = ["DetPreprocessor", "Normalisation"]


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
