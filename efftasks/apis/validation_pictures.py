"""Pictures of validations for the loggers: a few images, each with its ground truth beside its predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from efftasks.apis.evaluating import comparison
from efftasks.apis.predicting import prediction_of
from efftasks.imaging.prediction import class_metadata
from efftasks.structures.errors import first_line
from efftasks.structures.pixel_range import PixelRange

__all__ = ["ValidationPictures"]

IMAGES = 4
VALIDATIONS = 10  # of a training that have pictures, and the last one
SIDE = 400  # pixels of the longer side of an image in a picture


class ValidationPictures(Hook):
    """Give the loggers ``validation_1`` to ``validation_4``, the same images each time.

    A failure is a warning, after which there are no more pictures.

    Args:
        span: values of black and white in images of more than 8 bits.
    """

    priority = "LOW"  # the visualizer is open

    def __init__(self, span: PixelRange | None = None) -> None:
        self._span = span
        self._is_active = True
        self._indices: dict[int, int] = {}  # place in the order of this validation -> index into the data set
        self._seen = 0
        self._drawn = 0

    def before_val_epoch(self, runner: Any) -> None:
        """Choose the images, if this validation has pictures."""
        self._seen = self._drawn = 0
        self._indices = {}
        if self._is_active and is_main_process() and _is_due(runner):
            order = list(iter(runner.val_dataloader.sampler))  # of this process
            places = np.linspace(0, len(order) - 1, min(IMAGES, len(order))).astype(int).tolist()
            self._indices = {place: int(order[place]) for place in places}

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draw the chosen images of a batch."""
        samples: Sequence[Any] = outputs or ()
        first, self._seen = self._seen, self._seen + len(samples)
        for place in range(first, self._seen):
            if place in self._indices and self._is_active:
                try:
                    self._draw(runner, self._indices[place], samples[place - first])
                except Exception as error:  # no picture is worth a training
                    self._is_active = False
                    kind = type(error).__name__
                    runner.logger.warning(f"no more pictures of validations: {kind}: {first_line(error)}")

    def _draw(self, runner: Any, index: int, sample: Any) -> None:
        dataset = runner.val_dataloader.dataset
        info = dataset.get_data_info(index)
        fields = dict(class_metadata(dataset.metainfo), pixel_range=self._span)
        prediction = prediction_of(sample, str(info["img_path"]), 0.0, **fields)
        picture = comparison(info, dataset.metainfo, prediction, self._span)
        scale = SIDE / max(picture.shape[0], picture.shape[1] // 2)
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._drawn += 1
        rgb = np.ascontiguousarray(picture[..., ::-1])
        runner.visualizer.add_image(f"validation_{self._drawn}", rgb, step=runner.epoch)


def _is_due(runner: Any) -> bool:
    """Whether this validation has pictures: at most about ten of a training have, and the last one."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        return True
    every = loop.val_interval * math.ceil(loop.max_epochs / loop.val_interval / VALIDATIONS)
    return loop.epoch % every == 0 or loop.epoch >= loop.max_epochs
