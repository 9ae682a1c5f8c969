"""The objects of a prediction as a person would label them, and the image beside the labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.drawing import jpeg_of
from efftasks.imaging.placing import link_or_copy
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError, WorkError

__all__ = ["LabeledObject", "check_objects", "labeled_objects", "place_image"]

_VISIBLE = 2  # COCO's visibility of keypoints that are labeled and seen


@dataclass(frozen=True, eq=False)
class LabeledObject:
    """An object to label.

    Attributes:
        label: index of its class.
        name: of its class.
        score: of the prediction.
        box: x1, y1, x2, y2 in pixels of the image, with an area.
        mask: bool (H, W) with at least one pixel, or None.
        keypoints: float64 (P, 3): x, y and visibility: 2, or all 0 for those below the threshold or outside the image;
            or None.
        track: number of its track, or None.
    """

    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = None
    keypoints: NDArray[np.float64] | None = None
    track: int | None = None

    @property
    def note(self) -> str:
        """Score and track as text, for formats with room for a text."""
        return f"score {self.score:.3f}" + ("" if self.track is None else f", track {self.track}")


def check_objects(prediction: Prediction) -> None:
    """Raise UserError for a label map alone."""
    if prediction.segmentation is not None and not prediction.semantic_classes:
        raise UserError(
            "--save-labels: got a model that gives label maps alone, expected one that finds objects; the label maps "
            "are written without it, as PNGs with the class of each pixel"
        )


def labeled_objects(prediction: Prediction, score_thr: float) -> list[LabeledObject]:
    """The objects of a prediction of known size.

    Args:
        prediction: of an image.
        score_thr: minimum score, of objects and of each of their keypoints.

    Raises:
        UserError: it is a label map alone.
    """
    check_objects(prediction)
    assert prediction.size is not None, "predictors state the size of what they have read"
    kept = prediction.filter(score_thr)
    height, width = prediction.size
    boxes = np.clip(kept.boxes.astype(np.float64), 0, (width, height, width, height))
    objects = []
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        if x2 > x1 and y2 > y1:
            label = int(kept.labels[i])
            mask = None if kept.masks is None or not kept.masks[i].any() else kept.masks[i]
            points = None if kept.keypoints is None else _visible(kept.keypoints[i], score_thr, (width, height))
            track = None if kept.track_ids is None or kept.track_ids[i] < 0 else int(kept.track_ids[i])
            score = float(kept.scores[i])
            objects.append(LabeledObject(label, kept.classes[label], score, (x1, y1, x2, y2), mask, points, track))
    return objects


def _visible(points: NDArray[np.float32], score_thr: float, size: tuple[int, int]) -> NDArray[np.float64]:
    seen = (points[:, 2] >= score_thr) & (points[:, :2] >= 0).all(1) & (points[:, :2] <= size).all(1)
    return np.column_stack([points[:, :2], np.full(len(points), _VISIBLE)]) * seen[:, None]


def place_image(prediction: Prediction, folder: Path) -> str:
    """Put the image into a folder: a file as a link or copy, a frame as JPEG.

    Returns:
        Its file name.

    Raises:
        WorkError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suffix = Path(prediction.image).suffix if isinstance(prediction.image, str) else ".jpg"
    target = folder / f"{prediction.stem}{suffix}"
    try:
        if isinstance(prediction.image, str):
            link_or_copy(Path(prediction.image), target)
        else:
            target.write_bytes(jpeg_of(prediction.read_pixels()))
    except (OSError, cv2.error) as error:
        raise WorkError(f"{target}: the image could not be written ({error})") from error
    return target.name
