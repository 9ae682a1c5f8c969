"""The trackers that ``efftasks predict --track`` offers: those of the package ``trackers`` that need no network."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LOW_SCORE", "TRACKERS", "TrackerKind"]

LOW_SCORE = 0.1  # from which a detection may continue a track, in trackers that use those of low scores


class TrackerKind(NamedTuple):
    """A class of the package ``trackers``, and what is stated to it.

    Attributes:
        class_name: of the tracker.
        thresholds: its arguments that are scores from which a detection counts in full.
        uses_low_scores: whether detections of lower scores continue tracks, as in ByteTrack (arXiv 2110.06864).
        uses_pixels: whether it looks at the frames, for the motion of the camera.
    """

    class_name: str
    thresholds: tuple[str, ...]
    uses_low_scores: bool = True
    uses_pixels: bool = False


_BOTH = ("track_activation_threshold", "high_conf_det_threshold")

# The first one is the default.
TRACKERS = {
    "bytetrack": TrackerKind("ByteTrackTracker", _BOTH),
    "sort": TrackerKind("SORTTracker", ("track_activation_threshold",), uses_low_scores=False),
    "ocsort": TrackerKind("OCSORTTracker", ("high_conf_det_threshold",)),
    "cbiou": TrackerKind("CBIoUTracker", _BOTH),
    "botsort": TrackerKind("BoTSORTTracker", _BOTH, uses_pixels=True),
}
