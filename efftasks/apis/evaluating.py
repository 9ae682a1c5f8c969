"""Evaluation on the test data of a config, of models and exported files alike, and pictures beside the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
import cv2
import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from tqdm import tqdm

from efftasks.apis.precheck import precheck_together
from efftasks.apis.recording import Recorder
from efftasks.config import innermost, pixel_range
from efftasks.datasets.coco_masks import decode_mask
from efftasks.datasets.transforms.loading import LoadSegMap
from efftasks.evaluation.records import EvaluationRecord
from efftasks.imaging.prediction import Prediction, class_metadata
from efftasks.linking.linked import LinkedConfig
from efftasks.registry import DATASETS
from efftasks.reports.label_maps import LabelMaps
from efftasks.structures.errors import UserError
from efftasks.structures.pixel_range import PixelRange

__all__ = ["Evaluation", "comparison", "draw_comparison", "evaluate", "test_classes", "test_images"]

# The data info of one image of a data set (or of one object, for top-down pose estimation).
Info = dict[str, Any]
Predict = Callable[[Sequence[Info]], Sequence[Prediction]]


class Evaluation(NamedTuple):
    """The result of :func:`evaluate`."""

    metrics: dict[str, float]
    predictions: dict[int, Prediction]  # index into the data set -> prediction, of ``keep`` images
    record: EvaluationRecord | None = None  # where it was asked for
    worst_maps: Sequence[LabelMaps] = ()  # of the images with the most wrong pixels, the worst first
    palette: Sequence[tuple[int, int, int]] = ()  # RGB of each class of label maps; with a record


def _test_dataset(cfg: LinkedConfig) -> Any:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(innermost(cfg.test_dataloader.dataset))


def test_images(cfg: LinkedConfig) -> list[Info]:
    """The data infos of the test data of a config; ``img_path`` is the path of the image."""
    dataset = _test_dataset(cfg)
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def test_classes(cfg: LinkedConfig, classes: Sequence[str]) -> tuple[str, ...]:
    """Name of each label in the test data of a config.

    Raises:
        UserError: they are not the ``classes`` of a model, in any order.
    """
    expected = tuple(_test_dataset(cfg).metainfo["classes"])
    _check_classes(expected, classes)
    return expected


def _check_classes(expected: Sequence[str], classes: Sequence[str]) -> None:
    if sorted(expected) != sorted(classes):
        raise UserError(f"the model's classes {tuple(classes)} are not those of the test data, {tuple(expected)}")


def evaluate(
    cfg: LinkedConfig,
    predict: Predict,
    classes: Sequence[str],
    batch_size: int = 8,
    keep: int = 0,
    check: bool = True,
    record: bool = False,
    model: str = "",
    keep_maps: int = 0,
) -> Evaluation:
    """Evaluate predictions on the test data of a config with the metrics of the config.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        predict: data infos -> one :class:`Prediction` each; of a model or an exported file.
        classes: name of each label of the predictions; matched by name with those of the data set.
        batch_size: images at a time.
        keep: number of predictions to return, spread evenly over the data.
        check: check the data first, see :func:`efftasks.apis.precheck.precheck`.
        record: return the record of the evaluation, too, with all predictions.
        model: name of the model in the record.
        keep_maps: with a record: number of pairs of label maps to return, those with the most wrong pixels.

    Raises:
        UserError: the data cannot be evaluated, the classes are not those of the data set, or there is no record of
            metrics of that kind.
    """
    if check:
        precheck_together(cfg, ("test",), MMLogger.get_current_instance())
    dataset = _test_dataset(cfg)
    expected = list(dataset.metainfo["classes"])
    _check_classes(expected, classes)
    relabel = np.array([expected.index(name) for name in classes], dtype=np.int64)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo

    recorder = Recorder(evaluator, keep_maps) if record else None
    returned_indices = set(_evenly_spaced(len(dataset), keep))
    returned: dict[int, Prediction] = {}
    for start in tqdm(range(0, len(dataset), batch_size), desc="test", unit="batch", disable=None):
        infos = [dataset.get_data_info(i) for i in range(start, min(start + batch_size, len(dataset)))]
        began = perf_counter()
        predictions = predict(infos)
        seconds = perf_counter() - began
        if len(predictions) != len(infos):
            raise ValueError(f"predict: got {len(predictions)} predictions for {len(infos)} images, expected one each")
        returned.update({i: x for i, x in enumerate(predictions, start) if i in returned_indices})
        samples = [_data_sample(info, x, relabel) for info, x in zip(infos, predictions)]
        if recorder is not None:
            recorder.add(infos, samples, seconds)
        evaluator.process(data_samples=samples)
    if recorder is None:
        return Evaluation(evaluator.evaluate(len(dataset)), returned)
    recorded = recorder.finish(model)
    metrics = evaluator.evaluate(len(dataset))
    palette = class_metadata(dataset.metainfo)["palette"]
    return Evaluation(metrics, returned, replace(recorded, metrics=metrics), recorder.worst_maps, palette)


def _evenly_spaced(count: int, number: int) -> list[int]:
    """``number`` of ``count`` indices, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, number).astype(int)).tolist() if number > 0 else []


def _data_sample(info: Info, prediction: Prediction, relabel: np.ndarray) -> dict[str, Any]:
    """A prediction as the data sample that metrics take, with the labels of the data set."""
    sample: dict[str, Any] = dict(img_path=info["img_path"], img_id=info.get("img_id"))
    if prediction.segmentation is not None:
        # Where there are objects too, the label map has classes of its own.
        labels = prediction.segmentation.astype(np.int64)
        labels = labels if prediction.semantic_classes else relabel[labels]
        sample.update(pred_sem_seg=dict(data=torch.from_numpy(labels)))
        if "seg_map_path" in info:  # data of a multi-task model may have none
            sample.update(gt_sem_seg=dict(data=torch.from_numpy(_label_map(info))))
        if not prediction.semantic_classes:
            return sample
    instances: dict[str, Any] = dict(
        bboxes=torch.from_numpy(prediction.boxes),
        scores=torch.from_numpy(prediction.scores),
        labels=torch.from_numpy(relabel[prediction.labels]),
    )
    for name in ("masks", "keypoints"):
        values = getattr(prediction, name)
        if values is not None:
            instances[name] = torch.from_numpy(values)
    return dict(sample, pred_instances=instances)


def _label_map(info: Info) -> np.ndarray:
    """The ground truth label map (H, W) of an image, as metrics take it."""
    labels: np.ndarray = LoadSegMap()(dict(info))["gt_seg_map"]
    return labels


def draw_comparison(
    cfg: LinkedConfig, predictions: Mapping[int, Prediction], out: str | Path, score_thr: float = 0.3
) -> list[Path]:
    """Write pictures of the test data with the ground truth on the left and the predictions on the right.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        predictions: index into the data set -> prediction, from :func:`evaluate`.
        out: folder.
        score_thr: minimum score of drawn detections.

    Returns:
        Paths of the pictures.
    """
    dataset = _test_dataset(cfg)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for i, prediction in predictions.items():
        info = dataset.get_data_info(i)
        stem = prediction.name or Path(info["img_path"]).stem
        # Images may have the same name, and an image several objects that are predicted one by one.
        candidates = (folder / f"{stem}{end}.png" for end in ("", *(f"_{n}" for n in range(1, len(predictions) + 1))))
        paths.append(next(path for path in candidates if path not in paths))
        cv2.imwrite(str(paths[-1]), comparison(info, dataset.metainfo, prediction, pixel_range(cfg), score_thr))
    return paths


def comparison(
    info: Info, meta: dict[str, Any], prediction: Prediction, span: PixelRange | None, score_thr: float = 0.3
) -> np.ndarray:
    """A picture uint8 (H, 2 W + 4, 3) BGR with the ground truth on the left and the prediction on the right.

    Args:
        info: of the image, with its annotations.
        meta: of the data set.
        prediction: for the image.
        span: values of black and white in an image of more than 8 bits.
        score_thr: minimum score of drawn detections.
    """
    ground_truth = replace(_ground_truth(info, meta), pixel_range=span).draw()
    border = np.full_like(ground_truth[:, :4], 255)
    return np.concatenate([ground_truth, border, prediction.draw(score_thr=score_thr)], axis=1)


def _ground_truth(info: Info, meta: dict[str, Any]) -> Prediction:
    """The annotations of an image as a prediction, to be drawn."""
    metadata = class_metadata(meta)
    labels = _label_map(info) if "seg_map_path" in info else None
    if "instances" not in info:
        assert labels is not None
        return Prediction.of_labels(info["img_path"], labels, **metadata)
    instances = info["instances"]
    boxes = np.array([x["bbox"] for x in instances], np.float32).reshape(-1, 4)
    classes = np.array([x["bbox_label"] for x in instances], np.int64)
    prediction = Prediction(info["img_path"], boxes, np.ones(len(classes), np.float32), classes, **metadata)
    parts: dict[str, Any] = dict(segmentation=labels)
    if any("mask" in x for x in instances):
        parts["masks"] = np.stack([_full_mask(x.get("mask"), (info["height"], info["width"])) for x in instances])
    if any("keypoints" in x for x in instances):
        unannotated = np.zeros((len(metadata["keypoint_names"]), 3))
        parts["keypoints"] = np.array([x.get("keypoints", unannotated) for x in instances], np.float32)
    return replace(prediction, **parts)


def _full_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Decode an annotated mask to bool (H, W); all false for None."""
    mask = np.zeros(size, bool)
    part = decode_mask(segmentation, size)
    height, width = part.crop.shape
    mask[part.top : part.top + height, part.left : part.left + width] = part.crop
    return mask
