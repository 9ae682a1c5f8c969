"""Pre-labels in labelme's form: a JSON file beside each image. X-AnyLabeling opens it, too."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.polygons import mask_outlines
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.labels.objects import LabeledObject, labeled_objects, place_image

__all__ = ["LabelmeLabels"]

_VERSION = "5.5.0"  # the first ones that read shapes of type mask are older
_DIGITS = 3


class LabelmeLabels:
    """Images and JSON files in one folder.

    Objects are polygons of their masks, those with holes masks, and without masks rectangles. The parts of an object,
    and its keypoints as points, share a ``group_id``. Score and track are the ``description``.

    Args:
        folder: of images and JSON files, which need not exist.
        score_thr: minimum score, of objects and of each of their keypoints.
    """

    def __init__(self, folder: Path, score_thr: float) -> None:
        self._folder, self._score_thr = folder, score_thr

    def add(self, name: str, prediction: Prediction) -> None:
        """Write the file of an image, and the image."""
        objects = labeled_objects(prediction, self._score_thr)
        assert prediction.size is not None
        shapes = [
            shape
            for number, entry in enumerate(objects, start=1)
            for shape in _shapes(entry, number, prediction.keypoint_names)
        ]
        image = place_image(prediction, self._folder)
        data: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": image,
            "imageData": None,
            "imageHeight": prediction.size[0],
            "imageWidth": prediction.size[1],
        }
        path = (self._folder / image).with_suffix(".json")
        path.write_text(json.dumps(data, indent=2, ensure_ascii=False), encoding="utf-8")

    def close(self) -> None:
        """Nothing to complete."""


def _shapes(entry: LabeledObject, number: int, keypoint_names: tuple[str, ...]) -> list[dict[str, Any]]:
    parts = _parts(entry)
    points = [] if entry.keypoints is None else np.flatnonzero(entry.keypoints[:, 2]).tolist()
    group = number if len(parts) + len(points) > 1 else None

    def shape(kind: str, label: str, corners: NDArray, description: str, **more: str) -> dict[str, Any]:
        places = corners.round(_DIGITS).tolist()
        return {
            "label": label,
            "points": places,
            "group_id": group,
            "description": description,
            "shape_type": kind,
            "flags": {},
            **more,
        }

    shapes = [shape(kind, entry.name, corners, entry.note, **more) for kind, corners, more in parts]
    for i in points:
        assert entry.keypoints is not None
        label = keypoint_names[i] if keypoint_names else f"keypoint_{i}"
        shapes.append(shape("point", label, entry.keypoints[i : i + 1, :2], ""))
    return shapes


def _parts(entry: LabeledObject) -> list[tuple[str, NDArray, dict[str, str]]]:
    """Type, points and further fields of the shapes of an object."""
    if entry.mask is None:
        return [("rectangle", np.reshape(entry.box, (2, 2)), {})]
    outline = mask_outlines(entry.mask)
    if not outline.holes:
        return [("polygon", ring, {}) for ring in outline.outer]
    left, top, width, height = cv2.boundingRect(entry.mask.astype(np.uint8))
    crop = entry.mask[top : top + height, left : left + width].astype(np.uint8)
    encoded = base64.b64encode(cv2.imencode(".png", crop)[1].tobytes()).decode("ascii")
    corners = np.array([[left, top], [left + width - 1, top + height - 1]], np.float64)  # both are inside
    return [("mask", corners, {"mask": encoded})]
