"""COCO average precision of boxes, masks and keypoints as an mmengine metric; the function is in `coco_scores.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from pycocotools import mask as coco_mask

from efftasks.annotations.coco import read_coco, without_size_warning
from efftasks.evaluation.coco_input import FIELDS, check_choice
from efftasks.evaluation.coco_scores import EVALUATORS, coco_scores, score_coco
from efftasks.registry import METRICS
from efftasks.structures.errors import UserError

__all__ = ["CocoMetric", "CocoRecord", "coco_scores"]

_NEEDED = {"segm": "masks", "keypoints": "keypoints"}  # annotations that a kind of score needs


class CocoRecord(NamedTuple):
    """What a :class:`CocoMetric` scores: detections beside the ground truth."""

    kinds: tuple[str, ...]
    ground_truth: dict[str, Any]  # a COCO dict with the classes of the data set
    detections: list[dict[str, Any]]  # COCO results: bbox, and segmentation and keypoints where they are scored
    sigmas: tuple[float, ...] | None  # of keypoints, where they are scored


@dataclass(frozen=True, eq=False)
class _Detections:
    """Detections of one image, kept until the end of the loop; a top-down sample has one object of the image.

    Not a NamedTuple: mmengine turns those into plain tuples.
    """

    image_id: int | str
    boxes: np.ndarray  # (K, 4) xyxy
    scores: np.ndarray  # (K,)
    labels: np.ndarray  # (K,)
    masks: list[dict[str, Any]] | None  # K compressed RLEs
    keypoints: np.ndarray | None  # (K, P, 3)

    def rows(self, kind: str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """COCO results of one kind, a dict for each detection."""
        values: Any
        if kind == "bbox":
            values = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1).tolist()
        elif kind == "segm":
            values = self.masks
        else:
            assert self.keypoints is not None
            values = [pose.ravel().tolist() for pose in self.keypoints]
        scored = zip(self.scores.tolist(), self.labels.tolist(), values)
        return [
            {"image_id": self.image_id, "category_id": category_ids[label], "score": score, FIELDS[kind]: value}
            for score, label, value in scored
        ]


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """COCO AP over a validation loop; keys ``coco/bbox_mAP``, ``coco/segm_mAP_50``, ``coco/keypoints_mAP_75``, ...

    The ground truth is the annotation file itself, so that objects which the loader drops still count. Objects without
    size do not count, see :func:`coco_scores`; one warning says how many. The sigmas of keypoints are in the data set's
    ``metainfo["keypoints"]``.

    Args:
        ann_file: COCO annotation file.
        kinds: any of ``bbox``, ``segm``, ``keypoints``.
        evaluator: ``faster-coco-eval`` or ``pycocotools``.
        classwise: also log the AP of each class.
        max_detections: maximum number of detections of a sample; COCO counts 100.

    Raises:
        ValueError: an unknown kind or evaluator.
    """

    default_prefix = "coco"
    annotations: ClassVar[str] = "coco"  # the format of ann_file

    def __init__(
        self,
        ann_file: str,
        kinds: Sequence[str] = ("bbox",),
        evaluator: str = "faster-coco-eval",
        classwise: bool = True,
        max_detections: int = 100,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device)
        for kind in kinds:
            check_choice("kinds", kind, tuple(FIELDS))
        check_choice("evaluator", evaluator, EVALUATORS)
        self.ann_file = ann_file
        self.kinds = tuple(kinds)
        self.evaluator = evaluator
        self.classwise = classwise
        self.max_detections = max_detections

    @staticmethod
    def needed_annotations(arguments: Mapping[str, Any]) -> set[str]:
        """See :mod:`efftasks.linking.declared`."""
        return {_NEEDED[kind] for kind in arguments["kinds"] if kind in _NEEDED}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch.

        Args:
            data_batch: not read.
            data_samples: each has ``img_id``, which several may share, and ``pred_instances``, sorted by score, in
                pixels of the original image: ``bboxes`` (K, 4) xyxy, ``scores`` (K,), ``labels`` (K,), for ``segm``
                ``masks`` bool (K, H, W) or K compressed RLEs, for ``keypoints`` ``keypoints`` (K, P, 3).

        Raises:
            ValueError: the predictions have no masks or keypoints, which are to be scored.
        """
        for sample in data_samples:
            predictions = sample["pred_instances"]
            for kind, field in (("segm", "masks"), ("keypoints", "keypoints")):
                if kind in self.kinds and field not in predictions:
                    raise ValueError(f"pred_instances.{field}: got none, expected them, as {kind!r} is to be scored")
            top = slice(self.max_detections)
            self.results.append(
                _Detections(
                    image_id=sample["img_id"],
                    boxes=_array(predictions["bboxes"][top]),
                    scores=_array(predictions["scores"][top]),
                    labels=_array(predictions["labels"][top]),
                    masks=_rles(predictions["masks"][top]) if "segm" in self.kinds else None,
                    keypoints=_array(predictions["keypoints"][top]) if "keypoints" in self.kinds else None,
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Score all predictions, and log the AP of each class.

        Raises:
            UserError: the annotation file has no masks or keypoints, which are to be scored.
        """
        assert self.dataset_meta is not None
        ids = self.dataset_meta["category_ids"]
        names = dict(zip(ids, self.dataset_meta["classes"]))
        ground_truth = self._ground_truth(ids)
        values: dict[str, float] = {}
        without_size = 0
        logger = MMLogger.get_current_instance()
        for kind in self.kinds:
            sigmas = self.dataset_meta["keypoints"]["sigmas"] if kind == "keypoints" else None
            detections = [row for image_detections in results for row in image_detections.rows(kind, ids)]
            scores = score_coco(self.ann_file, ground_truth, detections, kind, self.evaluator, sigmas)
            values.update(scores.values)
            without_size = max(without_size, scores.without_size)
            if self.classwise:
                rows = [f"{names[i]} {ap:.3f}" for i, ap in zip(sorted(ids), scores.classwise)]
                logger.info("%s AP by class: %s", kind, ", ".join(rows))
        if without_size:
            # mmengine's logger shows the same warning only once, wherever it comes from.
            logger.warning(without_size_warning(self.ann_file, without_size))
        return values

    def collected(self) -> CocoRecord:
        """The detections so far, and the ground truth that they are scored against; before :meth:`evaluate`.

        Raises:
            UserError: as :meth:`compute_metrics`.
        """
        assert self.dataset_meta is not None
        ids = self.dataset_meta["category_ids"]
        kinds = ("bbox", *(kind for kind in self.kinds if kind != "bbox"))
        detections = []
        for image in self.results:
            by_kind = [image.rows(kind, ids) for kind in kinds]
            detections += [{key: value for row in rows for key, value in row.items()} for rows in zip(*by_kind)]
        sigmas = tuple(map(float, self.dataset_meta["keypoints"]["sigmas"])) if "keypoints" in kinds else None
        return CocoRecord(self.kinds, self._ground_truth(ids), detections, sigmas)

    def _ground_truth(self, category_ids: Sequence[int]) -> dict[str, Any]:
        data = read_coco(self.ann_file)
        category_set = set(category_ids)
        annotations = [a for a in data["annotations"] if a["category_id"] in category_set]
        for kind, description in (("segm", "masks"), ("keypoints", "keypoints")):
            field = FIELDS[kind]
            if kind in self.kinds and annotations and not any(a.get(field) for a in annotations):
                raise UserError(f"{self.ann_file}: has no {field}, expected {description} to score")
        return {
            "images": data["images"],
            "categories": [c for c in data["categories"] if c["id"] in category_set],
            "annotations": annotations,
        }


def _array(values: Any) -> np.ndarray:
    return torch.as_tensor(values, device="cpu").numpy()


def _rles(masks: Any) -> list[dict[str, Any]]:
    """Masks (K, H, W) as compressed RLEs, to save memory; a list already has RLEs."""
    if isinstance(masks, list):
        return masks
    by_columns = np.asfortranarray(_array(masks).astype(bool, copy=False).transpose(1, 2, 0))
    return [{**rle, "counts": rle["counts"].decode("ascii")} for rle in coco_mask.encode(by_columns.view(np.uint8))]
