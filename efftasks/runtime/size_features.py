"""What a size rule looks at: numbers of an answer, or of the picture itself. numpy and OpenCV only."""

from __future__ import annotations

import cv2
import numpy as np

from efftasks.imaging.prediction import Prediction

__all__ = ["ANSWER_FEATURES", "LEAST_SCORE", "PICTURE_FEATURES", "answer_features", "picture_features", "sides_at"]

LEAST_SCORE = 0.1  # detections below are not looked at
ANSWER_FEATURES = (
    "log_count",  # log(1 + number of detections)
    "log_expected",  # log(1 + sum of scores)
    "log_undecided",  # log(1 + sum of 4 s (1 - s))
    "mean_score",
    "best_score",
    "log_smallest",  # log of the shortest side of a box, the square root of its area, in pixels of the network input
    "log_median",  # log of the middle one
    "small_share",  # share of scores of boxes below 16 pixels
)
_THUMBNAIL = 64  # pixels
_SIDES = (64, 32, 16)
PICTURE_FEATURES = (
    "mean",  # of the grey thumbnail, in [0, 1]
    "std",
    *(f"edges_{side}" for side in _SIDES),  # mean difference of neighbors at each size
    *(f"strong_{side}" for side in _SIDES),  # its 90th percentile
    "busy",  # share of the thumbnail with strong edges
    "log_sides",  # log of the square root of the picture's area in pixels
)
_STRONG = 0.1  # difference of neighbors
_SMALL = 16.0  # pixels of the network input


def sides_at(answer: Prediction, size: tuple[int, int]) -> np.ndarray:
    """Square roots of the areas of the boxes (K,), in pixels of a network input of ``size`` (height, width).

    The picture is taken as fitted into the input; where it is stretched instead, the shorter scale counts.
    """
    assert answer.size is not None
    scale = min(size[0] / answer.size[0], size[1] / answer.size[1])
    width_height = np.maximum(answer.boxes[:, 2:] - answer.boxes[:, :2], 0).astype(np.float64)
    return np.sqrt(width_height.prod(1)) * scale


def answer_features(answer: Prediction, size: tuple[int, int]) -> np.ndarray:
    """Float64 (F,): ``ANSWER_FEATURES`` of an answer at a network input of ``size`` (height, width)."""
    shown = answer.scores >= LEAST_SCORE
    scores = answer.scores[shown].astype(np.float64)
    if not len(scores):
        return np.array([0, 0, 0, 0, 0, np.log(max(size)), np.log(max(size)), 0])
    sides = np.maximum(sides_at(answer, size)[shown], 1)
    return np.array(
        [
            np.log1p(len(scores)),
            np.log1p(scores.sum()),
            np.log1p((4 * scores * (1 - scores)).sum()),
            scores.mean(),
            scores.max(),
            np.log(sides.min()),
            np.log(np.median(sides)),
            (scores * (sides < _SMALL)).sum() / scores.sum(),
        ]
    )


def picture_features(picture: np.ndarray) -> np.ndarray:
    """Float64 (F,): ``PICTURE_FEATURES`` of a picture uint8 (H, W, 3) BGR, from a grey thumbnail of 64 x 64 pixels."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32) / 255
    differences = [_edges(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)) for side in _SIDES]
    return np.array(
        [
            grey.mean(),
            grey.std(),
            *(edges.mean() for edges in differences),
            *(np.percentile(edges, 90) for edges in differences),
            (differences[0] > _STRONG).mean(),
            np.log(height * width) / 2,
        ],
        np.float64,
    )


def _edges(grey: np.ndarray) -> np.ndarray:
    """The larger difference to the right and lower neighbor, float32 (h - 1, w - 1)."""
    right, down = np.abs(np.diff(grey, axis=1))[:-1], np.abs(np.diff(grey, axis=0))[:, :-1]
    return np.maximum(right, down)
