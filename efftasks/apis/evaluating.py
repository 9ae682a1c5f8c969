"""Scoring anything that predicts on the test data of a config, and drawing it beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import efftasks.compat  # noqa: F401

# isort: split
import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from tqdm import tqdm

from efftasks.apis.precheck import precheck_together
from efftasks.config import innermost, pixel_range
from efftasks.datasets.coco_masks import decode_mask
from efftasks.datasets.transforms.loading import LoadSegMap
from efftasks.imaging.prediction import Prediction
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError

__all__ = ["Evaluation", "class_facts", "draw_comparison", "evaluate", "test_images"]

# What a data set says of one of its images (or objects, where those are predicted one by one).
Info = dict[str, Any]
Predict = Callable[[Sequence[Info]], Sequence[Prediction]]


class Evaluation(NamedTuple):
    """What :func:`evaluate` found."""

    metrics: dict[str, float]
    kept: dict[int, Prediction]  # index into the data set -> prediction, of those that were to be kept


def class_facts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What predictions and artifacts say of classes and keypoints, of a data set's facts."""
    classes = tuple(meta["classes"])
    keypoints = meta.get("keypoints") or {}
    return dict(
        classes=classes,
        category_ids=tuple(meta.get("category_ids") or range(len(classes))),  # a label map holds indices of classes
        palette=_colours(meta.get("semantic_palette") or meta.get("palette")),
        semantic_classes=tuple(meta.get("semantic_classes") or ()),
        keypoint_names=tuple(keypoints.get("names") or ()),
        skeleton=tuple((int(a), int(b)) for a, b in keypoints.get("skeleton") or ()),
    )


def _colours(palette: Any) -> tuple[tuple[int, int, int], ...]:
    return tuple((int(r), int(g), int(b)) for r, g, b in palette or ())


def _test_data(cfg: Config) -> Any:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(innermost(cfg.test_dataloader.dataset))


def test_images(cfg: Config) -> list[Info]:
    """What the test data of a config says of its images; ``img_path`` is where each is."""
    dataset = _test_data(cfg)
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def evaluate(
    cfg: Config, predict: Predict, classes: Sequence[str], batch_size: int = 8, keep: int = 0, check: bool = True
) -> Evaluation:
    """Score anything that predicts on the test data of a config, with the config's metrics.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        predict: what the data set says of images -> one :class:`Prediction` each; a model's or an artifact's.
        classes: the names of its labels; matched with the data set's by name.
        batch_size: images at a time.
        keep: how many predictions are kept, spread evenly over the data.
        check: look at the data first, see :func:`efftasks.apis.precheck.precheck`.

    Raises:
        UserError: the data cannot be scored, or the classes are not those of the data set.
    """
    if check:
        precheck_together(cfg, ("test",), MMLogger.get_current_instance())
    dataset = _test_data(cfg)
    wanted = list(dataset.metainfo["classes"])
    if sorted(wanted) != sorted(classes):
        raise UserError(f"the model's classes {tuple(classes)} are not those of the test data, {tuple(wanted)}")
    relabel = np.array([wanted.index(name) for name in classes], dtype=np.int64)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo

    chosen = set(_spread(len(dataset), keep))
    kept: dict[int, Prediction] = {}
    for start in tqdm(range(0, len(dataset), batch_size), desc="test", unit="batch", disable=None):
        infos = [dataset.get_data_info(i) for i in range(start, min(start + batch_size, len(dataset)))]
        found = predict(infos)
        kept.update({start + i: found[i] for i in range(len(found)) if start + i in chosen})
        evaluator.process(data_samples=[_scored(info, x, relabel) for info, x in zip(infos, found)])
    return Evaluation(evaluator.evaluate(len(dataset)), kept)


def _spread(count: int, number: int) -> list[int]:
    """``number`` of ``count`` indices, evenly."""
    return np.unique(np.linspace(0, count - 1, number).astype(int)).tolist() if number > 0 else []


def _scored(info: Info, prediction: Prediction, relabel: np.ndarray) -> dict[str, Any]:
    """A prediction as metrics take it, with the data set's labels; ``info`` is the data set's entry."""
    sample: dict[str, Any] = dict(img_path=info["img_path"], img_id=info.get("img_id"))
    if prediction.segmentation is not None:
        # The labels of a map beside objects are not the objects' classes.
        labels = prediction.segmentation.astype(np.int64)
        labels = labels if prediction.semantic_classes else relabel[labels]
        sample.update(pred_sem_seg=dict(data=torch.from_numpy(labels)))
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
    """The annotated label map (H, W) of a data set's entry, in the pixels and labels that are scored."""
    labels: np.ndarray = LoadSegMap()(dict(info))["gt_seg_map"]
    return labels


def draw_comparison(
    cfg: Config, predictions: Mapping[int, Prediction], out: str | Path, score_thr: float = 0.3
) -> list[Path]:
    """Write pictures of the test data: ground truth on the left, predictions on the right.

    Args:
        cfg: from :func:`efftasks.config.load_config`.
        predictions: index into the data set -> prediction, what :func:`evaluate` kept.
        out: folder.
        score_thr: least score drawn.

    Returns:
        Paths of the pictures.
    """
    dataset = _test_data(cfg)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, prediction in predictions.items():
        info = dataset.get_data_info(i)
        truth = replace(_truth(info, dataset.metainfo), pixel_range=pixel_range(cfg)).draw()
        found = prediction.draw(score_thr=score_thr)
        paths.append(folder / f"{prediction.name or Path(info['img_path']).stem}.png")
        cv2.imwrite(str(paths[-1]), np.concatenate([truth, np.full_like(truth[:, :4], 255), found], axis=1))
    return paths


def _truth(info: Info, meta: dict[str, Any]) -> Prediction:
    """What is annotated, as if it had been predicted."""
    facts = class_facts(meta)
    labels = _label_map(info) if "seg_map_path" in info else None
    if "instances" not in info:
        assert labels is not None
        return Prediction.of_labels(info["img_path"], labels, **facts)
    instances = info["instances"]
    boxes = np.array([x["bbox"] for x in instances], np.float32).reshape(-1, 4)
    classes = np.array([x["bbox_label"] for x in instances], np.int64)
    found = Prediction(info["img_path"], boxes, np.ones(len(classes), np.float32), classes, **facts)
    parts: dict[str, Any] = dict(segmentation=labels)
    if any("mask" in x for x in instances):
        parts["masks"] = np.stack([_whole_mask(x.get("mask"), (info["height"], info["width"])) for x in instances])
    if any("keypoints" in x for x in instances):
        none = np.zeros((len(facts["keypoint_names"]), 3))
        parts["keypoints"] = np.array([x.get("keypoints", none) for x in instances], np.float32)
    return replace(found, **parts)


def _whole_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """An annotated mask, or nothing, as bool (H, W)."""
    mask = np.zeros(size, bool)
    part = decode_mask(segmentation, size)
    height, width = part.crop.shape
    mask[part.top : part.top + height, part.left : part.left + width] = part.crop
    return mask
