"""The record of an evaluation holds what was scored: the same scores are computed from it alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks import apis
from efftasks.evaluation.coco_scores import coco_scores
from efftasks.evaluation.records import EvaluationRecord
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError

KINDS = ("bbox", "segm", "keypoints")


@pytest.fixture(scope="module")
def root(painted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.write_pictures(tmp_path_factory.mktemp("painted") / "data")


def jittered(prediction: Any, seed: int) -> Prediction:
    """Predictions that are off by odd amounts, so that every digit of their scores matters."""
    random = np.random.default_rng(seed)
    boxes = prediction.boxes + random.normal(0, 2, prediction.boxes.shape).astype(np.float32)
    points = prediction.keypoints.copy()
    points[..., :2] += random.normal(0, 2, points[..., :2].shape)
    scores = np.sort(random.random(len(prediction)).astype(np.float32))[::-1].copy()
    return replace(prediction, boxes=boxes, keypoints=points, scores=scores)


def of_class(prediction: Prediction, label: int) -> Prediction:
    keep = prediction.labels == label
    parts = ("boxes", "scores", "labels", "masks", "keypoints")
    return replace(prediction, **{name: getattr(prediction, name)[keep] for name in parts})


def evaluated(painted: ModuleType, root: Path, **changes: Any) -> Any:
    cfg = painted.config(root, kinds=KINDS, **changes)
    model = painted.detector(cfg)

    def predict(entries: Sequence[dict]) -> list[Prediction]:
        return [
            jittered(prediction, entry["img_id"]) for entry, prediction in zip(entries, apis.predict(model, entries))
        ]

    return apis.evaluate(cfg, predict, painted.NAMES, batch_size=3, record=True, model="best.pth")


def test_scores_of_the_record_are_those_of_the_evaluation(painted, root, tmp_path):
    result = evaluated(painted, root)
    result.record.save(tmp_path)
    record: Any = EvaluationRecord.load(tmp_path)
    assert record.kinds == KINDS and record.task == "instance segmentation+pose" and record.model == "best.pth"
    assert 0 < record.metrics["coco/bbox_mAP"] < 1
    recomputed: dict[str, float] = {}
    for kind in KINDS:
        sigmas = record.sigmas if kind == "keypoints" else None
        scores, _ = coco_scores(record.ground_truth, record.detections, kind, sigmas=sigmas)
        recomputed.update({f"coco/{key}": value for key, value in scores.items()})
    assert recomputed == record.metrics == result.metrics
    assert [image["id"] for image in record.images] == [10, 11, 12, 13]
    assert all(Path(image["path"]).is_file() and image["file_name"] for image in record.images)
    assert record.seconds > 0


def test_without_asking_there_is_no_record(painted, root):
    cfg = painted.config(root)
    model = painted.detector(cfg)
    assert apis.evaluate(cfg, lambda x: apis.predict(model, x), painted.NAMES).record is None


def test_objects_of_one_image_share_its_entry(painted, root):
    """As top-down estimators have them: an entry for each object, all boxes given."""
    changes = {"test_dataloader.dataset.type": "CocoTopDown", "test_evaluator.kinds": ["keypoints"]}
    cfg = painted.config(root, kinds=("keypoints",), **changes)
    model = painted.detector(cfg)

    def predict(entries: Sequence[dict]) -> list[Prediction]:
        made = zip(entries, (apis.predict(model, entry["img_path"])[0] for entry in entries))
        return [of_class(prediction, entry["label"]) for entry, prediction in made]

    record: Any = apis.evaluate(cfg, predict, painted.NAMES, batch_size=2, record=True, check=False).record
    assert [image["id"] for image in record.images] == [10, 11, 12, 13]
    assert [row["image_id"] for row in record.detections] == [10, 10, 11, 11, 12, 13]
    scores, _ = coco_scores(record.ground_truth, record.detections, "keypoints", sigmas=record.sigmas)
    assert {f"coco/{key}": value for key, value in scores.items()} == record.metrics


REGIONS = ("floor", "cat", "dog")


@pytest.fixture(scope="module")
def maps(painted: ModuleType, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.link_label_maps(root, tmp_path_factory.mktemp("maps"))


def test_iou_is_computed_from_the_pixels_of_the_record(maps):
    cfg = apis.load_config(
        "fpnlite-n_mobilenetv4-conv-s_1xb16-12e_shapes-128",
        {
            "data_root": f"{maps}/",
            "classes": list(REGIONS),
            "test_dataloader.dataset.type": "SemanticFolder",
            "test_dataloader.dataset.data_prefix": dict(img_path="img/val", seg_map_path="ann/val"),
        },
    )
    order = ("dog", "floor", "cat")  # of the model's classes

    def predict(entries: Sequence[dict]) -> list[Prediction]:
        predictions = []
        for entry in entries:
            truth = cv2.imread(entry["seg_map_path"], cv2.IMREAD_UNCHANGED)
            random = np.random.default_rng(len(entry["img_path"]) + truth.size)
            labels = np.where(
                random.random(truth.shape) < truth.size / 40000, random.integers(0, 3, truth.shape), truth
            )
            relabeled = np.array([order.index(name) for name in REGIONS], np.uint8)[labels]
            fields = dict(classes=order, category_ids=(0, 1, 2))
            predictions.append(Prediction.of_labels(entry["img_path"], relabeled, **fields))
        return predictions

    result: Any = apis.evaluate(cfg, predict, order, batch_size=3, record=True, keep_maps=2)
    record = result.record
    assert record.semantic_classes == REGIONS and record.task == "semantic segmentation" and record.kinds == ()
    assert record.confusion.shape == (4, 3, 3) and record.ground_truth is None
    total = record.confusion.sum(0)
    ious = 100 * np.diag(total) / (total.sum(0) + total.sum(1) - np.diag(total))
    assert 0 < ious.min() < ious.max() < 100
    assert [record.metrics[f"IoU/{name}"] for name in REGIONS] == np.round(ious, 2).tolist()
    assert record.metrics["mIoU"] == pytest.approx(ious.mean(), abs=0.00501)
    assert record.metrics["aAcc"] == pytest.approx(100 * total.trace() / total.sum(), abs=0.00501)
    wrong = 1 - np.trace(record.confusion, axis1=1, axis2=2) / record.confusion.sum((1, 2))
    assert [kept.image for kept in result.worst_maps] == np.argsort(-wrong)[:2].tolist()
    for kept in result.worst_maps:
        assert (kept.prediction != kept.truth).mean() == pytest.approx(wrong[kept.image]) == pytest.approx(kept.wrong)
        assert [record.images[kept.image][side] for side in ("height", "width")] == list(kept.truth.shape)


def test_metrics_without_a_record_are_named(painted, root):
    cfg = painted.config(root)
    cfg.test_evaluator = [cfg.test_evaluator, cfg.test_evaluator]
    message = "got CocoMetric, CocoMetric, expected one CocoMetric, one SemanticIoU, or one of each"
    with pytest.raises(UserError, match=message):
        apis.evaluate(cfg, lambda entries: [], painted.NAMES, record=True)


def test_images_that_are_not_in_the_file_of_the_metric_are_named(painted, root, tmp_path):
    path = tmp_path / "other.json"
    data = json.loads((root / "annotations/val.json").read_text())
    data["images"] = data["images"][1:]
    data["annotations"] = [x for x in data["annotations"] if x["image_id"] != 10]
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"other\.json: has no image 10"):
        evaluated(painted, root, **{"test_evaluator.ann_file": str(path)})
