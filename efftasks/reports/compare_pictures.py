"""Pictures of an image side by side: the ground truth, and what each model has right, false and missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from efftasks.evaluation.coco_ground_truth import complete_ground_truth
from efftasks.evaluation.image_differences import shown_kind
from efftasks.evaluation.matches import Matches
from efftasks.evaluation.records import EvaluationRecord
from efftasks.imaging.drawing import jpeg_of
from efftasks.imaging.images import read_image
from efftasks.imaging.semantic_drawing import draw_semantic, semantic_palette
from efftasks.structures.errors import UserError

__all__ = ["LEGEND", "SideBySide"]

LEGEND = "blue: objects; green: right, at an IoU or OKS of 0.5; red: false; orange: missed; gray: not counted"
_OBJECT, _RIGHT, _FALSE, _MISSED, _IGNORED = (230, 120, 40), (60, 170, 30), (40, 40, 230), (0, 150, 255), (150,) * 3
_GAP = 6  # pixels between pictures
_SIDE = 420  # of a picture in the page, in pixels
_MOST_CAPTIONS = 15
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class _Mark(NamedTuple):
    """An object or a detection to draw."""

    row: Mapping[str, Any]  # COCO annotation or result
    color: tuple[int, ...]
    text: str


class SideBySide:
    """Draws images of a comparison.

    Args:
        records: of the same data.
        matches: of each record, by kind; empty of label maps alone.
        names: of each model.
        score_thr: least score of drawn detections.
    """

    def __init__(
        self,
        records: Sequence[EvaluationRecord],
        matches: Sequence[Mapping[str, Matches]],
        names: Sequence[str],
        score_thr: float,
    ) -> None:
        self._records, self._names, self._score_thr = records, names, score_thr
        self._objects: dict[Any, list[dict[str, Any]]] = {}  # image id -> annotations, numbered as in the matches
        self._categories: list[dict[str, Any]] = []
        truth = records[0].ground_truth
        if truth is None or not matches[0]:
            return
        kind = shown_kind(matches[0])
        self._kind, self._matches = kind, [one[kind] for one in matches]
        self._indices = {image["id"]: i for i, image in enumerate(truth["images"])}
        self._categories = sorted(truth["categories"], key=lambda category: category["id"])
        sizes = {row["image_id"]: row["segmentation"]["size"] for row in records[0].detections if kind == "segm"}
        for row in complete_ground_truth("ground truth", truth, kind, len(records[0].sigmas or ()), sizes).annotations:
            self._objects.setdefault(row["image_id"], []).append(row)

    def draw(self, position: int, label_maps: Sequence[np.ndarray] = ()) -> bytes | None:
        """One picture of an image as JPEG: ground truth, then each model, with their names above.

        Args:
            position: of the image in the records.
            label_maps: uint8 (H, W) of the ground truth and of each model; empty without.

        Returns:
            None if the image cannot be read any more.
        """
        entry = self._records[0].images[position]
        try:
            image = read_image(entry["path"])
        except UserError:
            return None
        pictures = [image] * (1 + len(self._records))
        if label_maps:
            colors = semantic_palette(len(self._records[0].semantic_classes))
            pictures = [draw_semantic(image, labels, colors) for labels in label_maps]
        scale = _SIDE / max(image.shape[:2])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pictures = [cv2.resize(picture, size, interpolation=way) for picture in pictures]
        if self._categories:
            marks = [
                list(self._truth(entry["id"])),
                *(list(self._detected(k, entry["id"])) for k in range(len(self._names))),
            ]
            pictures = [self._mark(*pair, scale) for pair in zip(pictures, marks)]
        captions = ["ground truth", *self._names]
        return jpeg_of(np.concatenate([_titled(*pair) for pair in zip(pictures, captions)], axis=1)[:, :-_GAP])

    def _truth(self, image: Any) -> Iterator[_Mark]:
        names = {category["id"]: str(category["name"]) for category in self._categories}
        for row in self._objects.get(image, ()):
            yield _Mark(row, _IGNORED if row["iscrowd"] else _OBJECT, names[row["category_id"]])

    def _detected(self, number: int, image: Any) -> Iterator[_Mark]:
        """Detections of a model by class and falling score, as in its matches, and the objects it has missed."""
        index = self._indices[image]
        rows = [row for row in self._records[number].detections if row["image_id"] == image]
        for category, matches in zip(self._categories, self._matches[number].areas["all"]):
            chosen = matches.images == index
            detections = sorted((x for x in rows if x["category_id"] == category["id"]), key=lambda x: -x["score"])
            detected = set()
            entries = zip(
                detections, matches.hits[0, chosen], matches.ignored[0, chosen], matches.object_numbers[chosen]
            )
            for row, is_hit, is_ignored, target in entries:
                if row["score"] >= self._score_thr:
                    detected.add(int(target))
                    color = _RIGHT if is_hit else _IGNORED if is_ignored else _FALSE
                    yield _Mark(row, color, f"{category['name']} {row['score']:.2f}")
            for row in self._objects.get(image, ()):
                is_object = not row["iscrowd"] and row.get("num_keypoints", 1) > 0
                if row["category_id"] == category["id"] and is_object and row["id"] not in detected:
                    yield _Mark(row, _MISSED, "")

    def _mark(self, picture: np.ndarray, marks: Sequence[_Mark], scale: float) -> np.ndarray:
        canvas = np.ascontiguousarray(picture)
        for mark in marks:
            self._outline(canvas, mark, scale)
        if len(marks) <= _MOST_CAPTIONS:
            for mark in marks:
                x, y = (round(value * scale) for value in mark.row["bbox"][:2])
                for color, thickness in (((255, 255, 255), 3), (mark.color, 1)):
                    cv2.putText(canvas, mark.text, (x, max(10, y - 3)), _FONT, 0.36, color, thickness, cv2.LINE_AA)
        return canvas

    def _outline(self, canvas: np.ndarray, mark: _Mark, scale: float) -> None:
        """Box, contour of the mask, or keypoints with their connections."""
        x, y, width, height = mark.row["bbox"]
        if self._kind == "segm":
            mask = cv2.resize(
                coco_mask.decode(mark.row["segmentation"]), canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST
            )
            contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            cv2.drawContours(canvas, contours, -1, mark.color, 2, cv2.LINE_AA)
            return
        corners = [(round(a * scale), round(b * scale)) for a, b in ((x, y), (x + width, y + height))]
        cv2.rectangle(canvas, *corners, mark.color, 1 if self._kind == "keypoints" else 2, cv2.LINE_AA)
        if self._kind == "keypoints":
            points = np.array(mark.row["keypoints"], float).reshape(-1, 3)
            places = [tuple(map(round, point)) for point in (points[:, :2] * scale).tolist()]
            skeleton = next((x["skeleton"] for x in self._categories if x.get("skeleton")), ())
            for a, b in skeleton:
                if min(points[a - 1, 2], points[b - 1, 2]) > 0:
                    cv2.line(canvas, places[a - 1], places[b - 1], mark.color, 1, cv2.LINE_AA)
            for place, value in zip(places, points[:, 2]):
                if value > 0:
                    cv2.circle(canvas, place, 3, mark.color, -1, cv2.LINE_AA)


def _titled(picture: np.ndarray, caption: str) -> np.ndarray:
    """The picture with a caption above and a gap to its right; all are of one width."""
    bar = np.full((24, _SIDE, 3), 255, np.uint8)
    text = caption if len(caption) < _SIDE // 8 else "..." + caption[3 - _SIDE // 8 :]
    cv2.putText(bar, text, (2, 16), _FONT, 0.46, (40, 40, 40), 1, cv2.LINE_AA)
    padded = np.pad(picture, ((0, 0), (0, _SIDE - picture.shape[1]), (0, 0)), constant_values=255)
    return np.pad(np.concatenate([bar, padded]), ((0, 0), (0, _GAP), (0, 0)), constant_values=255)
