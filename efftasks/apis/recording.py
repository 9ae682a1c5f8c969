"""Recording an evaluation while it runs, with masks as run lengths and label maps as pixel counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import Evaluator

from efftasks.evaluation.coco_metric import CocoMetric
from efftasks.evaluation.label_counts import confusion_of
from efftasks.evaluation.records import EvaluationRecord, digest_of, task_of
from efftasks.evaluation.semantic_metric import SemanticIoU
from efftasks.reports.label_maps import LabelMaps
from efftasks.structures.errors import UserError

__all__ = ["Recorder"]


class Recorder:
    """Collects the record of an evaluation.

    Args:
        evaluator: of the evaluation.
        keep_maps: number of pairs of label maps to keep, those with the most wrong pixels.

    Raises:
        UserError: it has metrics of which there is no record.
    """

    def __init__(self, evaluator: Evaluator, keep_maps: int = 0) -> None:
        self._coco = [metric for metric in evaluator.metrics if isinstance(metric, CocoMetric)]
        self._semantic = [metric for metric in evaluator.metrics if isinstance(metric, SemanticIoU)]
        if len(self._coco) > 1 or len(self._semantic) > 1 or not self._coco + self._semantic:
            names = ", ".join(type(metric).__name__ for metric in evaluator.metrics)
            raise UserError(
                f"test_evaluator: got {names}, expected one CocoMetric, one SemanticIoU, or one of each, for a record"
            )
        self._keep_maps = keep_maps
        self._images: dict[Any, dict[str, Any]] = {}  # by id: entries of top-down estimators share images
        self._confusions: list[np.ndarray] = []
        self._batches: list[tuple[float, int]] = []  # seconds and entries
        self.worst_maps: list[LabelMaps] = []  # the worst first

    def add(self, infos: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]], seconds: float) -> None:
        """Add a batch.

        Args:
            infos: data infos.
            samples: data samples with the predictions, as the metrics take them.
            seconds: time of the predictions.
        """
        self._batches.append((seconds, len(infos)))
        for info, sample in zip(infos, samples):
            index = len(self._images)
            image = self._images.setdefault(info.get("img_id", index), _image(info, index))
            if self._semantic:
                self._add_maps(image, index, sample)

    def _add_maps(self, image: dict[str, Any], index: int, sample: Mapping[str, Any]) -> None:
        metric = self._semantic[0]
        count = len(metric.dataset_meta["classes"])
        if "gt_sem_seg" not in sample:
            self._confusions.append(np.zeros((count, count), np.int64))
            return
        prediction, truth = (sample[name]["data"].squeeze().numpy() for name in ("pred_sem_seg", "gt_sem_seg"))
        image["height"], image["width"] = truth.shape
        confusion = confusion_of(prediction, truth, count, metric.ignore_index)
        self._confusions.append(confusion)
        wrong = 1 - float(confusion.trace() / confusion.sum()) if confusion.any() else 0.0
        if self._keep_maps and (len(self.worst_maps) < self._keep_maps or wrong > self.worst_maps[-1].wrong):
            kept = LabelMaps(index, prediction.astype(np.uint8), truth.astype(np.uint8), wrong)
            self.worst_maps = sorted([*self.worst_maps, kept], key=lambda maps: -maps.wrong)[: self._keep_maps]

    def finish(self, model: str) -> EvaluationRecord:
        """The record, without metrics: call it before the evaluator computes them, since it then forgets."""
        coco = self._coco[0].collected() if self._coco else None
        semantic_classes = tuple(self._semantic[0].dataset_meta["classes"]) if self._semantic else ()
        images = list(self._images.values())
        if coco is not None:
            stated = {image["id"]: image for image in coco.ground_truth["images"]}
            # The metric names images that it does not have; those without detections are no harm.
            entries = [(stated.get(image["id"], image), image) for image in images]
            images = [{**entry, **image, "file_name": entry["file_name"]} for entry, image in entries]
        confusion = np.stack(self._confusions) if self._confusions else None
        timed = self._batches[1:] or self._batches
        per_entry = sum(seconds for seconds, _ in timed) / max(sum(count for _, count in timed), 1)
        number = sum(count for _, count in self._batches)
        kinds = () if coco is None else coco.kinds
        return EvaluationRecord(
            model=model,
            task=task_of(kinds, semantic_classes),
            kinds=kinds,
            images=images,
            ground_truth=None if coco is None else coco.ground_truth,
            detections=[] if coco is None else coco.detections,
            sigmas=None if coco is None else coco.sigmas,
            semantic_classes=semantic_classes,
            confusion=confusion,
            metrics={},
            seconds=per_entry * number / max(len(images), 1),
            data_digest=digest_of(images, None if coco is None else coco.ground_truth, confusion),
        )


def _image(info: Mapping[str, Any], index: int) -> dict[str, Any]:
    path = info["img_path"]
    size = {key: info[key] for key in ("height", "width") if key in info}
    return {"id": info.get("img_id", index), "file_name": Path(path).name, **size, "path": str(path)}
