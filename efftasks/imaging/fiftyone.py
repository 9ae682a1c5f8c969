"""Predictions as labels of FiftyOne, which shows and compares them. The package need not be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    from efftasks.imaging.prediction import Prediction

__all__ = ["to_labels"]


def to_labels(prediction: Prediction) -> dict[str, Any]:
    """See :meth:`efftasks.imaging.prediction.Prediction.to_fiftyone`."""
    try:
        import fiftyone
    except ImportError as error:
        raise UserError(f"fiftyone is not installed ({error}); install it with: pip install fiftyone") from error
    labels: dict[str, Any] = {}
    if prediction.segmentation is not None:
        labels["segmentation"] = fiftyone.Segmentation(mask=prediction.segmentation)
        if not prediction.semantic_classes:
            return labels
    if prediction.size is None:
        raise UserError(f"{prediction.stem}: to_fiftyone: got no size of the image, expected (height, width)")
    sides = np.array(prediction.size[::-1], np.float64)
    detections = [fiftyone.Detection(**_detection(prediction, i, sides)) for i in range(len(prediction))]
    labels["detections"] = fiftyone.Detections(detections=detections)
    if prediction.keypoints is not None:
        keypoints = [fiftyone.Keypoint(**_keypoint(prediction, i, sides)) for i in range(len(prediction))]
        labels["keypoints"] = fiftyone.Keypoints(keypoints=keypoints)
    return labels


def _detection(prediction: Prediction, i: int, sides: NDArray[np.float64]) -> dict[str, Any]:
    x1, y1, x2, y2 = prediction.boxes[i].astype(np.float64)
    corner, extent = np.array([x1, y1]) / sides, np.array([x2 - x1, y2 - y1]) / sides
    fields = dict(
        **_label_fields(prediction, i),
        bounding_box=[*corner.tolist(), *extent.tolist()],
        confidence=float(prediction.scores[i]),
    )
    if prediction.masks is not None:
        fields["mask"] = _inside(prediction.masks[i], np.rint([x1, y1, x2, y2]).astype(int))
    return fields


def _inside(mask: NDArray[np.bool_], box: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The part of a mask in a box of at least a pixel, which may reach beyond the image: nothing is there."""
    last = np.array(mask.shape[::-1]) - 1
    low = np.minimum(box[:2], last)
    width, height = np.maximum(box[2:] - low, 1)
    part = np.zeros((height, width), bool)
    (left, top), (shift_x, shift_y) = np.maximum(low, 0), np.maximum(-low, 0)
    visible = mask[top : max(low[1] + height, 0), left : max(low[0] + width, 0)]
    part[shift_y : shift_y + visible.shape[0], shift_x : shift_x + visible.shape[1]] = visible
    return part


def _keypoint(prediction: Prediction, i: int, sides: NDArray[np.float64]) -> dict[str, Any]:
    assert prediction.keypoints is not None
    points = prediction.keypoints[i].astype(np.float64)
    places = [(x, y) for x, y in (points[:, :2] / sides).tolist()]
    return dict(**_label_fields(prediction, i), points=places, confidence=points[:, 2].tolist())


def _label_fields(prediction: Prediction, i: int) -> dict[str, Any]:
    """Class, and the number of the track where there is one."""
    fields: dict[str, Any] = {"label": prediction.classes[prediction.labels[i]]}
    if prediction.track_ids is not None and prediction.track_ids[i] >= 0:
        fields["index"] = int(prediction.track_ids[i])
    return fields
