"""COCO average precision of boxes: a pure function and mmengine's stateful shell around it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from efftasks.registry import METRICS

__all__ = ["CocoBoxMetric", "coco_box_scores"]

_EVALUATORS = ("faster-coco-eval", "pycocotools")
_KEYS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def coco_box_scores(
    ground_truth: dict[str, Any], detections: list[dict[str, Any]], evaluator: str = "faster-coco-eval"
) -> tuple[dict[str, float], np.ndarray]:
    """Average precision as COCO defines it (IoU 0.50 to 0.95, at most 100 detections an image).

    Args:
        ground_truth: a COCO dict with images, annotations and categories.
        detections: COCO results: image_id, category_id, bbox (xywh in pixels of the original image), score.
        evaluator: ``faster-coco-eval``, or ``pycocotools``, the reference.

    Returns:
        ``bbox_mAP``, ``bbox_mAP_50``, ``_75``, ``_s``, ``_m``, ``_l`` in [0, 1], -1 where nothing is to be found; and
        the AP of each category in the order of their ids, NaN where it has no object.
    """
    if evaluator not in _EVALUATORS:
        raise ValueError(f"evaluator: got {evaluator!r}, allowed are {', '.join(map(repr, _EVALUATORS))}")
    categories = sorted(category["id"] for category in ground_truth["categories"])
    if not detections:
        return {f"bbox_{key}": 0.0 for key in _KEYS}, np.zeros(len(categories))
    if evaluator == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluator
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluator

    with contextlib.redirect_stdout(io.StringIO()):  # both print their progress
        truth = COCO()
        truth.dataset = ground_truth
        truth.createIndex()
        evaluation = Evaluator(truth, truth.loadRes(detections), "bbox")
        evaluation.params.imgIds = sorted(image["id"] for image in ground_truth["images"])
        evaluation.params.catIds = categories
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = np.asarray(evaluation.eval["precision"])  # (IoU, recall, class, area, detections)
    classwise = []
    for k in range(len(categories)):
        values = precision[:, :, k, 0, -1]
        values = values[values > -1]
        classwise.append(float(values.mean()) if values.size else float("nan"))
    return {f"bbox_{key}": float(evaluation.stats[i]) for i, key in enumerate(_KEYS)}, np.asarray(classwise)


@METRICS.register_module()
class CocoBoxMetric(BaseMetric):
    """COCO box AP over a validation loop; keys ``coco/bbox_mAP``, ``coco/bbox_mAP_50``, ...

    The ground truth is the annotation file itself, so that objects which the loader drops still count.

    Args:
        ann_file: COCO annotation file.
        evaluator: ``faster-coco-eval`` or ``pycocotools``.
        classwise: also log the AP of each class.
        max_detections: detections kept an image; COCO counts 100.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str,
        evaluator: str = "faster-coco-eval",
        classwise: bool = True,
        max_detections: int = 100,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device)
        self.ann_file = ann_file
        self.evaluator = evaluator
        self.classwise = classwise
        self.max_detections = max_detections

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch: ``pred_instances`` with boxes xyxy in pixels of the original image."""
        for sample in data_samples:
            predicted = sample["pred_instances"]
            self.results.append(
                (
                    sample["img_id"],
                    predicted["bboxes"].cpu().numpy()[: self.max_detections],
                    predicted["scores"].cpu().numpy()[: self.max_detections],
                    predicted["labels"].cpu().numpy()[: self.max_detections],
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Score all predictions; logs the AP of each class."""
        assert self.dataset_meta is not None
        ids = self.dataset_meta["category_ids"]
        truth = self._ground_truth(ids)
        detections = [row for image_id, *found in results for row in _coco_rows(image_id, found, ids)]
        scores, classwise = coco_box_scores(truth, detections, self.evaluator)
        if self.classwise:
            names = dict(zip(ids, self.dataset_meta["classes"]))
            rows = [f"{names[i]} {ap:.3f}" for i, ap in zip(sorted(ids), classwise)]
            MMLogger.get_current_instance().info("AP by class: %s", ", ".join(rows))
        return scores

    def _ground_truth(self, category_ids: Sequence[int]) -> dict[str, Any]:
        # Read here, not kept: the evaluators write into it.
        data = json.loads(Path(self.ann_file).read_text(encoding="utf-8"))
        wanted = set(category_ids)
        annotations = []
        for annotation in data.get("annotations", []):
            if annotation["category_id"] in wanted:
                width, height = annotation["bbox"][2:]
                annotations.append({"iscrowd": 0, "area": width * height, **annotation})
        return {
            "images": data["images"],
            "categories": [c for c in data["categories"] if c["id"] in wanted],
            "annotations": annotations,
        }


def _coco_rows(image_id: int, found: Sequence[np.ndarray], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    boxes, scores, labels = found
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(float)
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, score, label in zip(sides.tolist(), scores.astype(float).tolist(), labels.tolist())
    ]
