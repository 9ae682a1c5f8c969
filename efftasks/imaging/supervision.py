"""Predictions as objects of the package supervision, which annotates, tracks and counts. It need not be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    from efftasks.imaging.prediction import Prediction

__all__ = ["to_detections", "to_key_points"]


def to_detections(prediction: Prediction) -> Any:
    """``supervision.Detections``; see :meth:`efftasks.imaging.prediction.Prediction.to_supervision`."""
    return _supervision().Detections(
        xyxy=prediction.boxes.astype(np.float32).reshape(-1, 4),
        mask=prediction.masks,
        confidence=prediction.scores,
        class_id=prediction.labels.astype(int),
        data={"class_name": _class_names(prediction)},
    )


def to_key_points(prediction: Prediction) -> Any:
    """``supervision.KeyPoints``; see :meth:`efftasks.imaging.prediction.Prediction.to_supervision_keypoints`."""
    if prediction.keypoints is None:
        raise UserError(
            "to_supervision_keypoints: got a prediction without keypoints, expected that of a pose estimator"
        )
    # By position: the third one was renamed in 0.29.
    return _supervision().KeyPoints(
        prediction.keypoints[..., :2].astype(np.float32),
        prediction.labels.astype(int),
        prediction.keypoints[..., 2].astype(np.float32),
        data={"class_name": _class_names(prediction)},
    )


def _class_names(prediction: Prediction) -> np.ndarray:
    return np.array([prediction.classes[label] for label in prediction.labels], dtype=str)


def _supervision() -> Any:
    try:
        import supervision
    except ImportError as error:
        raise UserError(f"supervision is not installed ({error}); install it with: pip install supervision") from error
    return supervision
