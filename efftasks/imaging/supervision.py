"""Predictions as objects of the package supervision, which annotates, tracks and counts, and back.

The package need not be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    from efftasks.imaging.prediction import Prediction

__all__ = ["detection_fields", "supervision_package", "to_detections", "to_key_points"]


def to_detections(prediction: Prediction) -> Any:
    """``supervision.Detections``; see :meth:`efftasks.imaging.prediction.Prediction.to_supervision`."""
    return supervision_package().Detections(
        xyxy=prediction.boxes.astype(np.float32).reshape(-1, 4),
        mask=prediction.masks,
        confidence=prediction.scores,
        class_id=prediction.labels.astype(int),
        tracker_id=prediction.track_ids,
        data={"class_name": _class_names(prediction)},
    )


def to_key_points(prediction: Prediction) -> Any:
    """``supervision.KeyPoints``; see :meth:`efftasks.imaging.prediction.Prediction.to_supervision_keypoints`."""
    if prediction.keypoints is None:
        raise UserError(
            "to_supervision_keypoints: got a prediction without keypoints, expected that of a pose estimator"
        )
    # By position: the third one was renamed in 0.29.
    return supervision_package().KeyPoints(
        prediction.keypoints[..., :2].astype(np.float32),
        prediction.labels.astype(int),
        prediction.keypoints[..., 2].astype(np.float32),
        data={"class_name": _class_names(prediction)},
    )


def detection_fields(
    detections: Any, image: str | np.ndarray, num_classes: int, key_points: Any = None
) -> dict[str, Any]:
    """Attributes of a prediction; see :meth:`efftasks.imaging.prediction.Prediction.from_supervision`."""
    count = len(detections.xyxy)
    labels = _class_ids(detections, count, num_classes)
    scores = np.ones(count) if detections.confidence is None else np.asarray(detections.confidence)
    order = np.argsort(-scores, kind="stable")
    masks, tracks = detections.mask, detections.tracker_id
    return dict(
        boxes=np.asarray(detections.xyxy, np.float32).reshape(-1, 4)[order],
        scores=scores.astype(np.float32)[order],
        labels=labels[order],
        masks=None if masks is None else np.asarray(masks, bool)[order],
        keypoints=None if key_points is None else _keypoints(key_points, count)[order],
        track_ids=None if tracks is None else np.asarray(tracks, np.int64)[order],
        size=_size(image, masks),
    )


def _class_ids(detections: Any, count: int, num_classes: int) -> np.ndarray:
    if detections.class_id is None and count:
        raise UserError("from_supervision: got detections without class_id, expected an index into classes of each")
    labels = np.asarray([] if detections.class_id is None else detections.class_id, np.int64)
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise UserError(
            f"from_supervision: got class_id {outside[0]}, expected 0 to {num_classes - 1}, an index into classes"
        )
    return labels


def _keypoints(key_points: Any, count: int) -> np.ndarray:
    """float32 (K, P, 3): x, y and score, which is 1 where there is none."""
    places = np.asarray(key_points.xy, np.float32)
    if len(places) != count:
        raise UserError(f"from_supervision: got key_points of {len(places)} objects, expected {count}, one a detection")
    scores = key_points.keypoint_confidence
    if scores is None:
        scores = np.ones(places.shape[:2])
    return np.concatenate([places, np.asarray(scores, np.float32)[..., None]], -1)


def _size(image: str | np.ndarray, masks: Any) -> tuple[int, int] | None:
    """(height, width) of the image where it is known without reading it."""
    if not isinstance(image, str):
        return image.shape[0], image.shape[1]
    return None if masks is None else (int(masks.shape[1]), int(masks.shape[2]))


def _class_names(prediction: Prediction) -> np.ndarray:
    return np.array([prediction.classes[label] for label in prediction.labels], dtype=str)


def supervision_package() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise UserError(
            f"supervision is not installed ({error}); install it with: pip install 'efftasks[supervision]'"
        ) from error
    return supervision
