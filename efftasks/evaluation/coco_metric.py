"""COCO average precision of boxes, masks and keypoints: a pure function and mmengine's stateful shell around it."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from pycocotools import mask as coco_mask

from efftasks.annotations.coco import check_coco_entries, image_size_of, read_coco, without_size_sentence
from efftasks.evaluation.coco_truth import complete_truth
from efftasks.registry import METRICS
from efftasks.structures.errors import UserError

__all__ = ["CocoMetric", "coco_scores"]

_EVALUATORS = ("faster-coco-eval", "pycocotools")
_FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}  # of annotations and of results
_KEYS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
_KEYS_OF_KEYPOINTS = tuple(key for key in _KEYS if key != "mAP_s")  # COCO annotates none on small objects


def coco_scores(
    ground_truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    kind: str = "bbox",
    evaluator: str = "faster-coco-eval",
    sigmas: Sequence[float] | None = None,
) -> tuple[dict[str, float], np.ndarray]:
    """Average precision as COCO defines it: IoU of boxes or masks, or OKS of keypoints, 0.50 to 0.95.

    Of an image and a category the best 100 detections count, with keypoints the best 20. An object without what is
    scored is no object and no background either, as a crowd region: for ``segm`` its box is such a region, for
    ``keypoints`` the doubled box is, as COCO has it. An object without size (a box of zero, negative or unknown width
    or height, and neither a mask nor keypoints that tell more) is left out, with one warning that counts them: nothing
    could match it, so that it would count as missed.

    Args:
        ground_truth: a COCO dict with images, annotations and categories; left as it is. ``iscrowd`` may be missing,
            and ``area``, which then is that of the box; ``num_keypoints`` is counted anew. Ids of images are numbers
            or texts. Sizes of images are needed for masks alone, and may be those of the detections.
        detections: COCO results: image_id, category_id, score, and what is scored, in pixels of the original image:
            ``bbox`` xywh, ``segmentation`` as compressed RLE, or ``keypoints`` as x, y, v of each in a row.
        kind: ``bbox``, ``segm`` or ``keypoints``.
        evaluator: ``faster-coco-eval``, or ``pycocotools``, the reference.
        sigmas: of each of the P keypoints; for ``keypoints`` alone.

    Returns:
        ``bbox_mAP``, ``bbox_mAP_50``, ``_75``, ``_s``, ``_m``, ``_l`` in [0, 1], -1 where nothing is to be found
        (``segm_mAP`` likewise; ``keypoints_mAP`` without ``_s``); and the AP of each category in the order of their
        ids, NaN where it has no object. Without detections all are 0, where there is something to be found.

    Raises:
        ValueError: a wrong kind or evaluator, sigmas that are missing or not wanted, a broken annotation, a detection
            in no image of the ground truth, a mask of another size than its image, or another number of keypoints than
            of sigmas.
    """
    check_coco_entries(ground_truth, "ground_truth")
    scores = _scores("ground_truth", ground_truth, detections, kind, evaluator, sigmas)
    if scores.without_size:
        warnings.warn(without_size_sentence("ground_truth", scores.without_size), stacklevel=2)
    return scores.values, scores.classwise


class _Scores(NamedTuple):
    values: dict[str, float]
    classwise: np.ndarray  # AP of each category, in the order of their ids
    without_size: int  # objects left out


def _scores(
    name: str,
    ground_truth: Mapping[str, Any],
    detections: Sequence[dict[str, Any]],
    kind: str,
    evaluator: str,
    sigmas: Sequence[float] | None,
) -> _Scores:
    _allow("kind", kind, tuple(_FIELDS))
    _allow("evaluator", evaluator, _EVALUATORS)
    if (sigmas is None) == (kind == "keypoints"):
        raise ValueError(f"sigmas: got {sigmas} for {kind!r}, expected one for each keypoint, and for keypoints alone")
    keys = [f"{kind}_{key}" for key in (_KEYS_OF_KEYPOINTS if kind == "keypoints" else _KEYS)]
    categories = sorted(category["id"] for category in ground_truth["categories"])
    points = 0 if sigmas is None else len(sigmas)
    # No more than what is scored: from a box beside a mask the evaluators would take the size of the detection.
    read = ("image_id", "category_id", "score", _FIELDS[kind])
    results = [{key: row[key] for key in read} for row in detections]
    sizes = _check_detections(name, ground_truth["images"], results, kind, points)
    truth = complete_truth(name, ground_truth, kind, points, sizes)
    objects = {row["category_id"] for row in truth.annotations if _is_object(row)}
    if not results or not objects:  # evaluators stumble over nothing
        values = dict.fromkeys(keys, 0.0 if objects else -1.0)
        return _Scores(values, np.array([0.0 if i in objects else np.nan for i in categories]), truth.without_size)
    numbers = _numbered(ground_truth["images"])
    whole = dict(
        # Evaluators read the sizes, and need none: all masks are run lengths.
        images=[dict(id=number, height=1, width=1) for number in numbers.values()],
        categories=ground_truth["categories"],
        annotations=[dict(row, image_id=numbers[row["image_id"]]) for row in truth.annotations],
    )
    results = [dict(row, image_id=numbers[row["image_id"]]) for row in results]
    stats, precision = _evaluated(whole, results, kind, evaluator, sigmas)
    known = [values[values > -1] for values in np.moveaxis(precision[:, :, :, 0, -1], 2, 0)]
    classwise = [values.mean() if values.size else np.nan for values in known]
    return _Scores({key: float(stats[i]) for i, key in enumerate(keys)}, np.asarray(classwise), truth.without_size)


def _is_object(row: Mapping[str, Any]) -> bool:
    """Whether an annotation is there to be found."""
    return not row["iscrowd"] and row.get("num_keypoints", 1) > 0


def _numbered(images: Sequence[Mapping[str, Any]]) -> dict[Any, int]:
    """A number for each image: evaluators take ids that are texts for none. The order decides among equal scores."""
    ids = [image["id"] for image in images]
    ordered = sorted(i for i in ids if not isinstance(i, str)) + sorted(i for i in ids if isinstance(i, str))
    return {key: number for number, key in enumerate(ordered, start=1)}


def _allow(argument: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument}: got {value!r}, allowed are {', '.join(map(repr, allowed))}")


def _check_detections(
    name: str, images: Sequence[dict], results: Sequence[dict], kind: str, points: int
) -> dict[Any, tuple[int, int]]:
    """What does not fit raises, where evaluators would find no overlap, or stumble.

    Returns:
        The (height, width) of each image that has a detected mask.
    """
    stated = {image["id"]: image_size_of(image) for image in images}
    sizes: dict[Any, tuple[int, int]] = {}
    for row in results:
        image = row["image_id"]
        if image not in stated:
            raise UserError(f"{name}: has no image {image!r}, in which there are detections; expected that of the data")
        if kind == "segm":
            height, width = row["segmentation"]["size"]
            sizes[image] = stated[image] or sizes.get(image, (height, width))
            if (height, width) != sizes[image]:
                expected = list(sizes[image])
                raise ValueError(f"detections: got a mask of {[height, width]} in image {image}, expected {expected}")
        if kind == "keypoints" and len(row["keypoints"]) != 3 * points:
            number = len(row["keypoints"])
            raise ValueError(f"detections: got {number} numbers in keypoints, expected {3 * points}, 3 for each sigma")
    return sizes


def _evaluated(
    ground_truth: dict[str, Any], results: list[dict], kind: str, evaluator: str, sigmas: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's twelve (ten) numbers, and the precision by (IoU, recall, class, area, detections)."""
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
        evaluation = Evaluator(truth, truth.loadRes(results), kind)
        evaluation.params.imgIds = sorted(image["id"] for image in ground_truth["images"])
        evaluation.params.catIds = sorted(category["id"] for category in ground_truth["categories"])
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, float)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats), np.asarray(evaluation.eval["precision"])


@dataclass(frozen=True, eq=False)
class _Found:
    """The detections in an image, or some of them: what is kept until the end of the loop.

    No NamedTuple: mmengine makes plain tuples of them on the way.
    """

    image_id: int | str
    boxes: np.ndarray  # (K, 4) xyxy
    scores: np.ndarray  # (K,)
    labels: np.ndarray  # (K,)
    masks: list[dict[str, Any]] | None  # K compressed RLEs
    keypoints: np.ndarray | None  # (K, P, 3)

    def rows(self, kind: str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """COCO results of one kind."""
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
            {"image_id": self.image_id, "category_id": category_ids[label], "score": score, _FIELDS[kind]: value}
            for score, label, value in scored
        ]


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """COCO AP over a validation loop; keys ``coco/bbox_mAP``, ``coco/segm_mAP_50``, ``coco/keypoints_mAP_75``, ...

    The ground truth is the annotation file itself, so that objects which the loader drops still count; all but those
    without size, of which one warning tells, see :func:`coco_scores`. For keypoints the data set's ``metainfo`` has
    their sigmas, in ``keypoints``.

    Args:
        ann_file: COCO annotation file.
        kinds: what is scored: any of ``bbox``, ``segm``, ``keypoints``.
        evaluator: ``faster-coco-eval`` or ``pycocotools``.
        classwise: also log the AP of each class.
        max_detections: detections kept of a sample; COCO counts 100.

    Raises:
        ValueError: a kind or evaluator that there is not.
    """

    default_prefix = "coco"

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
            _allow("kinds", kind, tuple(_FIELDS))
        _allow("evaluator", evaluator, _EVALUATORS)
        self.ann_file = ann_file
        self.kinds = tuple(kinds)
        self.evaluator = evaluator
        self.classwise = classwise
        self.max_detections = max_detections

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch.

        Args:
            data_batch: not read.
            data_samples: each with ``img_id``, several may have the same; and ``pred_instances``, best first, in
                pixels of the original image: ``bboxes`` (K, 4) xyxy, ``scores`` (K,), ``labels`` (K,), for ``segm``
                ``masks`` bool (K, H, W) or K compressed RLEs, for ``keypoints`` ``keypoints`` (K, P, 3).

        Raises:
            ValueError: masks or keypoints are to be scored and there are none.
        """
        for sample in data_samples:
            found = sample["pred_instances"]
            for kind, field in (("segm", "masks"), ("keypoints", "keypoints")):
                if kind in self.kinds and field not in found:
                    raise ValueError(f"pred_instances.{field}: got none, expected them, as {kind!r} is to be scored")
            best = slice(self.max_detections)
            self.results.append(
                _Found(
                    image_id=sample["img_id"],
                    boxes=_array(found["bboxes"][best]),
                    scores=_array(found["scores"][best]),
                    labels=_array(found["labels"][best]),
                    masks=_rles(found["masks"][best]) if "segm" in self.kinds else None,
                    keypoints=_array(found["keypoints"][best]) if "keypoints" in self.kinds else None,
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Score all predictions; logs the AP of each class.

        Raises:
            UserError: the annotation file has none of what is to be scored.
        """
        assert self.dataset_meta is not None
        ids = self.dataset_meta["category_ids"]
        names = dict(zip(ids, self.dataset_meta["classes"]))
        truth = self._ground_truth(ids)
        values: dict[str, float] = {}
        without_size = 0
        logger = MMLogger.get_current_instance()
        for kind in self.kinds:
            sigmas = self.dataset_meta["keypoints"]["sigmas"] if kind == "keypoints" else None
            detections = [row for found in results for row in found.rows(kind, ids)]
            scores = _scores(self.ann_file, truth, detections, kind, self.evaluator, sigmas)
            values.update(scores.values)
            without_size = max(without_size, scores.without_size)
            if self.classwise:
                rows = [f"{names[i]} {ap:.3f}" for i, ap in zip(sorted(ids), scores.classwise)]
                logger.info("%s AP by class: %s", kind, ", ".join(rows))
        if without_size:
            # mmengine's logger shows the same warning once, whoever gives it.
            logger.warning(without_size_sentence(self.ann_file, without_size))
        return values

    def _ground_truth(self, category_ids: Sequence[int]) -> dict[str, Any]:
        data = read_coco(self.ann_file)
        wanted = set(category_ids)
        annotations = [a for a in data["annotations"] if a["category_id"] in wanted]
        for kind, what in (("segm", "masks"), ("keypoints", "keypoints")):
            field = _FIELDS[kind]
            if kind in self.kinds and annotations and not any(a.get(field) for a in annotations):
                raise UserError(f"{self.ann_file}: has no {field}, expected {what} to score")
        return {
            "images": data["images"],
            "categories": [c for c in data["categories"] if c["id"] in wanted],
            "annotations": annotations,
        }


def _array(values: Any) -> np.ndarray:
    return torch.as_tensor(values, device="cpu").numpy()


def _rles(masks: Any) -> list[dict[str, Any]]:
    """Masks (K, H, W) as compressed RLEs, small enough to keep; a list is one of RLEs already."""
    if isinstance(masks, list):
        return masks
    by_columns = np.asfortranarray(_array(masks).astype(bool, copy=False).transpose(1, 2, 0))
    return [{**rle, "counts": rle["counts"].decode("ascii")} for rle in coco_mask.encode(by_columns.view(np.uint8))]
