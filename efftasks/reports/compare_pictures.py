"""Pictures of an image side by side: the ground truth, and what each model predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from efftasks.evaluation.coco_ground_truth import complete_ground_truth
from efftasks.evaluation.coco_input import FIELDS
from efftasks.evaluation.records import EvaluationRecord
from efftasks.imaging.drawing import draw_instances, jpeg_of
from efftasks.imaging.images import read_image
from efftasks.imaging.semantic_drawing import draw_semantic, semantic_palette
from efftasks.structures.errors import UserError

__all__ = ["side_by_side"]

_GAP = 6  # pixels between pictures
_SIDE = 420  # of a picture in the page, in pixels


def side_by_side(
    records: Sequence[EvaluationRecord],
    position: int,
    names: Sequence[str],
    label_maps: Sequence[np.ndarray] = (),
    score_thr: float = 0.3,
) -> bytes | None:
    """One picture of an image as JPEG: ground truth, then each model, with their names above.

    Args:
        records: of the same data.
        position: of the image in the records.
        names: of each model.
        label_maps: uint8 (H, W) of the ground truth and of each model; empty without.
        score_thr: least score of drawn detections.

    Returns:
        None if the image cannot be read any more.
    """
    entry = records[0].images[position]
    try:
        image = read_image(entry["path"])
    except UserError:
        return None
    backgrounds = [image] * (1 + len(records))
    if label_maps:
        colors = semantic_palette(len(records[0].semantic_classes))
        backgrounds = [draw_semantic(image, labels, colors) for labels in label_maps]
    pictures = [backgrounds[0] if records[0].ground_truth is None else _draw_truth(records[0], entry, backgrounds[0])]
    pictures += [_draw(one, entry, drawn, score_thr) for one, drawn in zip(records, backgrounds[1:])]
    captions = ["ground truth", *names]
    return jpeg_of(np.concatenate([_titled(*pair) for pair in zip(pictures, captions)], axis=1)[:, :-_GAP])


def _titled(picture: np.ndarray, caption: str) -> np.ndarray:
    """The picture in its size on the page, with a caption above and a gap to its right."""
    height, width = picture.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    bar = np.full((24, size[0], 3), 255, np.uint8)
    text = caption if len(caption) < size[0] // 8 else "..." + caption[3 - size[0] // 8 :]
    cv2.putText(bar, text, (2, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.46, (40, 40, 40), 1, cv2.LINE_AA)
    return np.pad(np.concatenate([bar, resized]), ((0, 0), (0, _GAP), (0, 0)), constant_values=255)


def _draw_truth(record: EvaluationRecord, entry: Mapping[str, Any], image: np.ndarray) -> np.ndarray:
    truth = record.ground_truth
    assert truth is not None
    kind = next(kind for kind in ("keypoints", "segm", "bbox") if kind in record.kinds)
    one = {
        **truth,
        "images": [x for x in truth["images"] if x["id"] == entry["id"]],
        "annotations": [x for x in truth["annotations"] if x["image_id"] == entry["id"]],
    }
    points = len(record.sigmas or ())
    annotations = complete_ground_truth("ground truth", one, kind, points, {entry["id"]: image.shape[:2]}).annotations
    shown = [dict(row, score=1.0) for row in annotations if not row["iscrowd"]]
    return _draw_rows(record, shown, image, is_truth=True)


def _draw(record: EvaluationRecord, entry: Mapping[str, Any], image: np.ndarray, score_thr: float) -> np.ndarray:
    rows = [row for row in record.detections if row["image_id"] == entry["id"] and row["score"] >= score_thr]
    return _draw_rows(record, rows, image)


def _draw_rows(
    record: EvaluationRecord, rows: Sequence[Mapping[str, Any]], image: np.ndarray, is_truth: bool = False
) -> np.ndarray:
    """Draw COCO annotations or results."""
    assert record.ground_truth is not None or not rows
    categories = sorted((record.ground_truth or {}).get("categories", ()), key=lambda category: category["id"])
    ids = [category["id"] for category in categories]
    boxes = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
    masks = None
    if rows and all(FIELDS["segm"] in row for row in rows):
        masks = np.stack([coco_mask.decode(row["segmentation"]) for row in rows]).astype(bool)
    keypoints = None
    if rows and all(row.get("keypoints") for row in rows) and record.sigmas:
        keypoints = np.array([row["keypoints"] for row in rows], float).reshape(len(rows), -1, 3)
        if is_truth:  # visibility, where detections have a score
            keypoints[..., 2] = keypoints[..., 2] > 0
    skeleton = next((category["skeleton"] for category in categories if category.get("skeleton")), ())
    return draw_instances(
        image,
        np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        [ids.index(row["category_id"]) for row in rows],
        [str(category["name"]) for category in categories],
        scores=None if is_truth else [row["score"] for row in rows],
        masks=masks,
        keypoints=keypoints,
        skeleton=[(a - 1, b - 1) for a, b in skeleton],
    )
