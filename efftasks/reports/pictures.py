"""Pictures of objects and detections: crops, and whole images with the ground truth on the left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from efftasks.evaluation.records import EvaluationRecord
from efftasks.imaging.images import UnreadableImage, read_image
from efftasks.reports.matches import Matches
from efftasks.reports.page import Picture, data_uri
from efftasks.structures.pixel_range import PixelRange

__all__ = ["Album", "as_jpeg", "fitted"]

TRUTH, PREDICTED, _FALSE = (70, 190, 70), (40, 120, 250), (50, 50, 235)  # (b, g, r): green, orange and red
_CROP, _CONTEXT, _LEAST = 150, 1.6, 24  # side of a crop on the page, around the box, and in the image
_WIDTH, _LARGEST = 520, 3.0  # of an image on the page, and how much larger than it is
_QUALITY = 82


def as_jpeg(picture: np.ndarray) -> str:
    """A picture uint8 (H, W, 3) BGR as a JPEG data URI."""
    return data_uri(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes(), "image/jpeg")


def fitted(picture: np.ndarray, width: int = _WIDTH) -> np.ndarray:
    """The picture with at most this width, and a height of at most that, too."""
    scale = width / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


class Album:
    """Pictures of a record. Images that cannot be read have none.

    Args:
        record: with objects.
        matches: of its main kind.
        pixel_range: of images of more than 8 bits.
    """

    def __init__(self, record: EvaluationRecord, matches: Matches, pixel_range: PixelRange | None = None) -> None:
        assert record.ground_truth is not None
        self._record, self._matches, self._pixel_range = record, matches, pixel_range
        self._by_id = {image["id"]: image for image in record.images}
        self._last: tuple[Any, np.ndarray | None] = (None, None)
        self._skeleton = next(
            ([(a - 1, b - 1) for a, b in row.get("skeleton") or ()] for row in record.ground_truth["categories"]), []
        )

    def crops(self, pairs: Sequence[tuple[int, int]], caption: Callable[[int, int], str]) -> list[Picture]:
        """Crops around detections and objects, in the order of the pairs.

        Args:
            pairs: indices of a detection and an object of the matches; -1 for none.
            caption: of a pair.
        """
        images = {pair: self._image_of(*pair) for pair in pairs}
        made: dict[tuple[int, int], Picture] = {}
        for pair in sorted(images, key=lambda pair: images[pair]):  # each image is read once
            crop = self._crop(images[pair], *pair)
            if crop is not None:
                name = self._info(images[pair])["file_name"]
                made[pair] = Picture(as_jpeg(crop), f"{caption(*pair)} · {name}")
        return [made[pair] for pair in pairs if pair in made]

    def _image_of(self, detection: int, matched: int) -> int:
        return int(self._matches.images[detection] if detection >= 0 else self._matches.object_images[matched])

    def _info(self, image: int) -> dict[str, Any]:
        id_ = self._matches.image_ids[image]
        return self._by_id.get(id_, {"file_name": str(id_), "path": ""})

    def _read(self, image: int) -> np.ndarray | None:
        if self._last[0] != image:
            try:
                self._last = image, read_image(self._info(image)["path"], self._pixel_range)
            except UnreadableImage:
                self._last = image, None
        return self._last[1]

    def _crop(self, image: int, detection: int, matched: int) -> np.ndarray | None:
        picture = self._read(image)
        if picture is None:
            return None
        rows = []
        if matched >= 0:
            rows.append((self._matches.annotations[matched], TRUTH))
        if detection >= 0:
            rows.append((self._record.detections[self._matches.rows[detection]], PREDICTED))
        x1, y1, x2, y2 = _window([row["bbox"] for row, _ in rows], picture.shape[:2])
        if x2 - x1 < 2 or y2 - y1 < 2:
            return None
        scale = _CROP / max(x2 - x1, y2 - y1)
        size = (max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale)))
        crop = np.ascontiguousarray(cv2.resize(picture[y1:y2, x1:x2], size, interpolation=cv2.INTER_AREA))
        for row, color in rows:
            self._draw(crop, row, (x1, y1), scale, color)
        canvas = np.full((_CROP, _CROP, 3), 40, np.uint8)
        top, left = (_CROP - size[1]) // 2, (_CROP - size[0]) // 2
        canvas[top : top + size[1], left : left + size[0]] = crop
        return canvas

    def _draw(
        self, crop: np.ndarray, row: dict[str, Any], origin: tuple[int, int], scale: float, color: tuple[int, int, int]
    ) -> None:
        if self._matches.kind == "segm" and row.get("segmentation"):
            mask = coco_mask.decode(row["segmentation"])
            height, width = (int(np.ceil(side / scale)) for side in crop.shape[:2])
            part = mask[origin[1] : origin[1] + height, origin[0] : origin[0] + width]
            shown = cv2.resize(part, crop.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            outlines, _ = cv2.findContours(shown, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(crop, outlines, -1, color, 1)
            return
        x, y, width, height = row["bbox"]
        corners = (np.array([[x, y], [x + width, y + height]]) - origin) * scale
        (left, top), (right, bottom) = np.rint(corners).astype(int).tolist()
        cv2.rectangle(crop, (left, top), (right, bottom), color, 1 if color == TRUTH else 2)
        if self._matches.kind == "keypoints":
            points = np.array(row["keypoints"], float).reshape(-1, 3)
            places = np.rint((points[:, :2] - origin) * scale).astype(int)
            seen = points[:, 2] > 0
            for a, b in self._skeleton:
                if seen[a] and seen[b]:
                    cv2.line(crop, places[a].tolist(), places[b].tolist(), color, 1, cv2.LINE_AA)
            for place in places[seen].tolist():
                cv2.circle(crop, place, 2, color, -1, cv2.LINE_AA)

    def pair(self, image: int, score_thr: float) -> np.ndarray | None:
        """The whole image twice: objects, missed ones in red; and detections from a score on, false ones in red.

        Where there are several classes, those in red are named.
        """
        picture = self._read(image)
        if picture is None:
            return None
        matches = self._matches
        scale = min(_LARGEST, _WIDTH / max(picture.shape[:2]))
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        left, right = small.copy(), small.copy()
        objects = np.flatnonzero((matches.object_images == image) & matches.must_match)
        detections = np.flatnonzero((matches.images == image) & (matches.scores >= score_thr) & ~matches.ignored)
        is_detected = np.isin(matches.object_matches[objects], detections)
        for i, good in _wrong_last(objects, is_detected):
            self._mark(left, matches.annotations[i], scale, good, matches.names[matches.object_labels[i]])
        for i, good in _wrong_last(detections, matches.hits[detections]):
            row = self._record.detections[matches.rows[i]]
            self._mark(right, row, scale, good, f"{matches.names[matches.labels[i]]} {matches.scores[i]:.2f}")
        return np.concatenate([left, np.full_like(left[:, :4], 255), right], axis=1)

    def _mark(self, picture: np.ndarray, row: dict[str, Any], scale: float, good: bool, name: str) -> None:
        color = TRUTH if good else _FALSE
        self._draw(picture, row, (0, 0), scale, color)
        if not good and len(self._matches.names) > 1:
            x, y = (round(value * scale) for value in row["bbox"][:2])
            text = name.encode("ascii", "replace").decode("ascii")  # the font of OpenCV is ASCII
            place = (max(x, 0), max(y - 3, 10))
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def _wrong_last(indices: np.ndarray, good: np.ndarray) -> list[tuple[int, bool]]:
    """Wrong ones last, so that they are drawn on top."""
    return sorted(zip(indices.tolist(), good.tolist()), key=lambda pair: not pair[1])


def _window(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square around boxes xywh, with context, as far as it is in the image: x1, y1, x2, y2."""
    corners = np.array([[x, y, x + width, y + height] for x, y, width, height in boxes])
    low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
    half = max(_CONTEXT * (high - low).max(), _LEAST) / 2
    center = (low + high) / 2
    low = np.clip(center - half, 0, np.maximum(np.array(size[::-1]) - 2 * half, 0))  # moved rather than cut
    x1, y1 = np.floor(low).astype(int).tolist()
    x2, y2 = np.ceil(np.minimum(low + 2 * half, size[::-1])).astype(int).tolist()
    return x1, y1, x2, y2
