"""Average precision of the detections of a single image, in numpy: for choosing among answers."""

from __future__ import annotations

import numpy as np

__all__ = ["image_ap"]

_THRESHOLDS = np.arange(0.5, 0.96, 0.05)  # of the intersection over union, as COCO has them


def image_ap(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, true_boxes: np.ndarray, true_labels: np.ndarray
) -> float:
    """The mean over classes and IoU thresholds of the average precision in one image.

    Only classes that the image has count. An image without objects has 1 where nothing scores 0.5 or more, and 0
    otherwise.

    Args:
        boxes: (K, 4) xyxy.
        scores: (K,).
        labels: (K,).
        true_boxes: (M, 4) xyxy, without crowd regions.
        true_labels: (M,).
    """
    if not len(true_labels):
        return float(not (scores >= 0.5).any())
    return float(
        np.mean(
            [
                _class_ap(boxes[labels == label], scores[labels == label], true_boxes[true_labels == label])
                for label in np.unique(true_labels)
            ]
        )
    )


def _class_ap(boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> float:
    if not len(boxes):
        return 0.0
    ious = _ious(boxes[np.argsort(-scores, kind="stable")], truth)
    precisions = []
    for threshold in _THRESHOLDS:
        hits = _hits(ious, float(threshold))
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        precisions.append((envelope * hits).sum() / len(truth))  # recall grows by one object at each hit
    return float(np.mean(precisions))


def _hits(ious: np.ndarray, threshold: float) -> np.ndarray:
    """Bool (K,): which detections, best first, are matched; each takes the free object of the greatest IoU."""
    free = ious.copy()
    hits = np.zeros(len(ious), bool)
    for i in range(len(ious)):
        best = free[i].argmax()
        if free[i, best] >= threshold:
            hits[i] = True
            free[:, best] = -1
    return hits


def _ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (K, M) of boxes xyxy (K, 4) and (M, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.maximum(high - low, 0).prod(2)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1) for boxes in (a, b)]
    return inside / np.maximum(areas[0][:, None] + areas[1][None] - inside, 1e-9)
