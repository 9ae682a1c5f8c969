"""Pixels of a label map by true and predicted class, in numpy."""

from __future__ import annotations

import numpy as np

__all__ = ["confusion_of"]


def confusion_of(prediction: np.ndarray, truth: np.ndarray, classes: int, ignore_index: int = 255) -> np.ndarray:
    """Confusion matrix of one image: int64 (C, C), the true class by rows.

    Args:
        prediction: integers (H, W), below ``classes``.
        truth: integers (H, W).
        classes: number C of classes.
        ignore_index: true label of pixels that do not count.

    Raises:
        ValueError: the shapes differ, or a label is not that of a class.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction: got shape {prediction.shape}, expected that of the ground truth, {truth.shape}")
    is_counted = truth != ignore_index
    rows, columns = truth[is_counted].astype(np.int64), prediction[is_counted].astype(np.int64)
    if rows.size and (min(rows.min(), columns.min()) < 0 or max(rows.max(), columns.max()) >= classes):
        raise ValueError(f"labels: got up to {max(rows.max(), columns.max())}, expected 0 to {classes - 1}")
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)
