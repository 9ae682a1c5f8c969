"""Tracks through a video: an object has the same number in all frames.

The trackers are those of the package ``trackers``, and the trails are drawn by ``supervision``. Neither need be
installed for anything else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.drawing import line_width, track_palette
from efftasks.imaging.prediction import Prediction
from efftasks.imaging.supervision import supervision_package
from efftasks.runtime.tracker_table import LOW_SCORE, TRACKERS
from efftasks.structures.errors import UserError

__all__ = ["Tracker", "Trails", "least_score", "trackers_package"]

_TRAIL = 30  # frames
_FPS = 30.0  # of videos that state none
_INDEX = "efftasks_index"  # of a detection in its prediction, which trackers may give in another order


def trackers_package() -> Any:
    """The package ``trackers``.

    Raises:
        UserError: it is not installed.
    """
    try:
        import trackers
    except ImportError as error:
        raise UserError(
            f"trackers is not installed ({error}); install it with: pip install 'efftasks[track]'"
        ) from error
    return trackers


def least_score(name: str, score_thr: float) -> float:
    """The least score of the detections that a tracker makes use of, for the model's ``score_thr``.

    Args:
        name: of the tracker.
        score_thr: of the detections that are to be kept.
    """
    return min(score_thr, LOW_SCORE) if TRACKERS[name].uses_low_scores else score_thr


class Tracker:
    """Gives the detections of the frames of one video the numbers of their tracks.

    A track begins where detections of two or three frames agree, and ends after a second without one. Classes are not
    compared. Detections below ``score_thr`` only help to continue tracks, and are then left out.

    Args:
        name: of the tracker, a key of :data:`efftasks.runtime.tracker_table.TRACKERS`.
        score_thr: score from which a detection is kept and may begin a track.
        fps: frames per second; None for 30.

    Attributes:
        count: number of tracks so far.

    Raises:
        UserError: there is no such tracker, or the package ``trackers`` is not installed.
    """

    def __init__(self, name: str = "bytetrack", score_thr: float = 0.3, fps: float | None = None) -> None:
        if name not in TRACKERS:
            raise UserError(f"tracker: got {name!r}, expected one of {', '.join(TRACKERS)}")
        kind = TRACKERS[name]
        thresholds = dict.fromkeys(kind.thresholds, score_thr)
        self._tracker = getattr(trackers_package(), kind.class_name)(frame_rate=fps or _FPS, **thresholds)
        self._score_thr, self._fps, self._uses_pixels = score_thr, fps, kind.uses_pixels
        self.count = 0

    def __call__(self, prediction: Prediction) -> Prediction:
        """The detections of the next frame, with ``track_ids``.

        Raises:
            UserError: the model gives label maps and no objects.
        """
        if prediction.segmentation is not None and not prediction.semantic_classes:
            raise UserError("tracking: got a model that gives label maps alone, expected one that finds objects")
        detections = replace(prediction, masks=None, track_ids=None).to_supervision()
        detections.data[_INDEX] = np.arange(len(prediction))
        pixels = {"frame": prediction.read_pixels()} if self._uses_pixels else {}
        tracked = self._tracker.update(detections, timestamp=self._seconds(prediction), **pixels)
        numbers = np.full(len(prediction), -1, np.int64)
        if len(tracked):
            numbers[tracked.data[_INDEX]] = tracked.tracker_id
            self.count = max(self.count, int(numbers.max()) + 1)
        return replace(prediction, track_ids=numbers).filter(self._score_thr)

    def _seconds(self, prediction: Prediction) -> float | None:
        """The time of a frame; None where it is unknown, and frames follow one another."""
        return None if prediction.frame is None or self._fps is None else prediction.frame / self._fps


class Trails:
    """Draws where the objects of tracks were in the last 30 frames.

    Raises:
        UserError: the package ``supervision`` is not installed.
    """

    def __init__(self) -> None:
        package = supervision_package()
        colors = [package.Color(red, green, blue) for blue, green, red in track_palette()]
        self._annotator = package.TraceAnnotator(
            package.ColorPalette(colors), trace_length=_TRAIL, color_lookup=package.ColorLookup.TRACK
        )

    def __call__(self, picture: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.uint8]:
        """The picture of a prediction with ``track_ids``, uint8 (H, W, 3) BGR, and the trails of its objects."""
        detections = replace(prediction, masks=None).to_supervision()
        self._annotator.thickness = line_width(picture)
        return np.asarray(self._annotator.annotate(picture, detections[detections.tracker_id >= 0]), np.uint8)
