"""Pre-labels in COCO form: a data set that training and ``dataset check`` read, and many tools open."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from efftasks.imaging.prediction import Prediction
from efftasks.imaging.rle import encode_rle
from efftasks.runtime.labels.objects import LabeledObject, check_objects, labeled_objects, place_image
from efftasks.runtime.outputs import CocoWriter

__all__ = ["CocoLabels"]

_PIXEL_DIGITS, _SCORE_DIGITS = 3, 6


class CocoLabels(CocoWriter):
    """``annotations/train.json`` and ``images/``. Masks are run lengths; ``score`` and ``track_id`` are fields beside.

    Args:
        folder: of the data set, which need not exist.
        score_thr: minimum score, of objects and of each of their keypoints.
    """

    def __init__(self, folder: Path, score_thr: float) -> None:
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "annotations" / "train.json")
        self._pictures, self._score_thr, self._ids = folder / "images", score_thr, count(1)

    def add(self, name: str, prediction: Prediction) -> None:
        """Add the objects of an image, and the image."""
        check_objects(prediction)  # before its image is written
        super().add(place_image(prediction, self._pictures), replace(prediction, segmentation=None))

    def rows(self, prediction: Prediction, image_id: int) -> list[dict[str, Any]]:
        """The annotations of an image."""
        objects = labeled_objects(prediction, self._score_thr)
        return [_row(entry, next(self._ids), image_id, prediction.category_ids[entry.label]) for entry in objects]


def _row(entry: LabeledObject, key: int, image_id: int, category_id: int) -> dict[str, Any]:
    x1, y1, x2, y2 = entry.box
    area = (x2 - x1) * (y2 - y1) if entry.mask is None else int(entry.mask.sum())
    row: dict[str, Any] = {
        "id": key,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [round(value, _PIXEL_DIGITS) for value in (x1, y1, x2 - x1, y2 - y1)],
        "area": round(area, _PIXEL_DIGITS),
        "iscrowd": 0,
        "segmentation": [] if entry.mask is None else encode_rle(entry.mask),  # some tools need the field
        "score": round(entry.score, _SCORE_DIGITS),
    }
    if entry.keypoints is not None:
        row["keypoints"] = entry.keypoints.round(_PIXEL_DIGITS).ravel().tolist()
        row["num_keypoints"] = int((entry.keypoints[:, 2] > 0).sum())
    if entry.track is not None:
        row["track_id"] = entry.track
    return row
