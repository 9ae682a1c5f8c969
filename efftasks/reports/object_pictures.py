"""Galleries of a report on objects: right, wrong and missed ones, and the worst images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from efftasks.evaluation.records import EvaluationRecord
from efftasks.reports import page
from efftasks.reports.error_kinds import KINDS, ErrorKinds
from efftasks.reports.matches import Matches
from efftasks.reports.page import Picture
from efftasks.reports.parts import ReportSettings
from efftasks.reports.pictures import Album, as_jpeg

__all__ = ["ImageErrors", "image_errors", "object_galleries"]

ImageErrors = tuple[int, int, int, int]  # index of the image, and numbers of right, false and missed objects


def object_galleries(
    record: EvaluationRecord, matches: Matches, errors: ErrorKinds, score_thr: float, settings: ReportSettings
) -> list[str]:
    """Sections with pictures: whole images with the most errors first, then crops."""
    album = Album(record, matches, settings.pixel_range)
    counted = (matches.scores >= score_thr) & ~matches.ignored
    colors = "Ground truth green, detection orange."
    wrong = np.flatnonzero(counted & ~matches.hits)
    right = np.flatnonzero(counted & matches.hits)
    missed = np.flatnonzero(_missed(matches, score_thr))
    areas = np.array([matches.annotations[i]["area"] for i in missed])
    false_pairs = [(int(i), int(_nearest(matches, errors, i))) for i in wrong[np.argsort(-matches.scores[wrong])]]
    right_pairs = [(int(i), int(matches.matched[i])) for i in right[np.argsort(matches.overlaps[right])]]
    missed_pairs = [(-1, int(i)) for i in missed[np.argsort(-areas, kind="stable")]]
    return [
        _worst_images(album, record, matches, score_thr, settings),
        _crops(
            album,
            "False detections",
            f"The highest scores first. {colors}",
            false_pairs,
            _false(matches, errors),
            settings,
        ),
        _crops(album, "Missed objects", "The largest first.", missed_pairs, _missing(matches), settings),
        _crops(
            album, "Right detections", f"The smallest overlaps first. {colors}", right_pairs, _right(matches), settings
        ),
    ]


def _crops(
    album: Album,
    heading: str,
    note: str,
    pairs: list[tuple[int, int]],
    caption: Callable[[int, int], str],
    settings: ReportSettings,
) -> str:
    shown = album.crops(pairs[: settings.pictures], caption)
    return page.section(heading, page.paragraph(f"{len(shown)} of {len(pairs)}. {note}"), page.gallery(shown, "small"))


def _nearest(matches: Matches, errors: ErrorKinds, detection: int) -> int:
    """The object that a wrong detection overlaps most, if it is not on background; else -1."""
    image = matches.each_image.get(int(matches.images[detection]))
    if image is None or errors.kinds[detection] == KINDS.index("background"):
        return -1
    row = np.flatnonzero(image.detections == detection)[0]
    allowed = matches.must_match[image.objects]
    best = int(np.where(allowed, image.overlaps[row], -1.0).argmax())
    return int(image.objects[best]) if allowed[best] else -1


def _false(matches: Matches, errors: ErrorKinds) -> Callable[[int, int], str]:
    def caption(detection: int, nearest: int) -> str:
        kind = KINDS[errors.kinds[detection]]
        truth = (
            f" (is {matches.names[matches.object_labels[nearest]]})"
            if nearest >= 0 and kind in ("class", "both")
            else ""
        )
        return f"{matches.names[matches.labels[detection]]} {matches.scores[detection]:.2f}, {kind}{truth}"

    return caption


def _missing(matches: Matches) -> Callable[[int, int], str]:
    def caption(_: int, matched: int) -> str:
        width, height = matches.annotations[matched]["bbox"][2:]
        return f"{matches.names[matches.object_labels[matched]]}, {width:.0f} x {height:.0f} px"

    return caption


def _right(matches: Matches) -> Callable[[int, int], str]:
    measure = "OKS" if matches.kind == "keypoints" else "IoU"

    def caption(detection: int, _: int) -> str:
        score, overlap = matches.scores[detection], matches.overlaps[detection]
        return f"{matches.names[matches.labels[detection]]} {score:.2f}, {measure} {overlap:.2f}"

    return caption


def _missed(matches: Matches, score_thr: float) -> np.ndarray:
    """Bool (M,): objects without a detection from a score on."""
    scores = np.append(matches.scores, -np.inf)[matches.object_matches]  # -1 takes the last
    return matches.must_match & ~((matches.object_matches >= 0) & (scores >= score_thr))


def image_errors(matches: Matches, score_thr: float) -> list[ImageErrors]:
    """Right, false and missed objects of each image, the images with the most errors first."""
    count = len(matches.image_ids)
    counted = (matches.scores >= score_thr) & ~matches.ignored
    right = np.bincount(matches.images[counted & matches.hits], minlength=count)
    false = np.bincount(matches.images[counted & ~matches.hits], minlength=count)
    missed = np.bincount(matches.object_images[_missed(matches, score_thr)], minlength=count)
    order = np.lexsort((right, -(false + missed)))
    return [(int(i), int(right[i]), int(false[i]), int(missed[i])) for i in order]


def _worst_images(
    album: Album, record: EvaluationRecord, matches: Matches, score_thr: float, settings: ReportSettings
) -> str:
    names = {image["id"]: image["file_name"] for image in record.images}
    pictures = []
    for image, right, false, missed in image_errors(matches, score_thr)[: settings.images]:
        drawn = album.pair(image, score_thr) if false + missed else None
        if drawn is not None:
            name = names.get(matches.image_ids[image], matches.image_ids[image])
            pictures.append(Picture(as_jpeg(drawn), f"{name}: {right} right, {false} false, {missed} missed"))
    note = (
        "Objects on the left, missed ones in red; on the right detections with scores from "
        f"{score_thr:.3g} on, false ones in red. The most errors first."
    )
    return (
        page.section("Images with the most errors", page.paragraph(note), page.gallery(pictures, "wide"))
        if pictures
        else ""
    )
