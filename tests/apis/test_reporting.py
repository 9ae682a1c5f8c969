"""Reports of whole evaluations: every part that a model has, numbers to the last digit, one file without a network."""

from __future__ import annotations

import csv
import json
import re
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

KINDS = ("bbox", "segm", "keypoints")
REGIONS = ("floor", "cat", "dog")


@pytest.fixture(scope="module")
def root(painted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.write_pictures(tmp_path_factory.mktemp("painted") / "data")


@pytest.fixture(scope="module")
def report(painted: ModuleType, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that gives everything, with errors: a missed dog, a false cat, a cat out of place, wrong pixels."""
    cfg = painted.config(root, kinds=KINDS)
    keypoints = dict(names=("first", "last"), sigmas=(0.1, 0.1), skeleton=((0, 1),))
    cfg.merge_from_dict(
        {
            "test_dataloader.dataset.seg_map": "maps/{stem}.png",
            "test_dataloader.dataset.metainfo": dict(
                classes=painted.NAMES, semantic_classes=REGIONS, keypoints=keypoints
            ),
            "test_evaluator": [
                dict(type="CocoMetric", ann_file=f"{root}/annotations/val.json", kinds=KINDS),
                dict(type="SemanticIoU"),
            ],
        }
    )
    model = painted.detector(cfg)

    def predict(entries: Sequence[dict]) -> list[Prediction]:
        return [_erring(entry, prediction) for entry, prediction in zip(entries, apis.predict(model, entries))]

    result = apis.evaluate(cfg, predict, painted.NAMES, check=False, record=True, model="all.pth", keep_maps=2)
    folder = tmp_path_factory.mktemp("report") / "of all"
    assert apis.write_report(cfg, result, folder) == folder / "index.html"
    return folder


def _erring(entry: dict[str, Any], prediction: Prediction) -> Prediction:
    labels = cv2.imread(entry["seg_map_path"], cv2.IMREAD_UNCHANGED)
    name = Path(entry["img_path"]).stem
    if name == "0":
        assert prediction.masks is not None and prediction.keypoints is not None
        prediction = replace(
            prediction,
            boxes=prediction.boxes + np.float32(3),
            masks=np.roll(prediction.masks, 3, (1, 2)),
            keypoints=prediction.keypoints + np.array([3, 3, 0], np.float32),
        )
        labels = np.roll(labels, 3, (0, 1))
    if name == "1":
        prediction = prediction.filter(0.85)
    if name == "2":
        prediction = replace(prediction, labels=1 - prediction.labels)
    return replace(prediction, segmentation=labels, semantic_classes=REGIONS)


def test_numbers_are_those_of_the_evaluators_to_the_last_digit(report: Path) -> None:
    record: Any = EvaluationRecord.load(report)
    figures = json.loads((report / "report.json").read_text())
    assert figures["metrics"] == record.metrics and figures["model"] == "all.pth"
    assert figures["task"] == "instance segmentation+pose+semantic segmentation"
    for kind in KINDS:
        values, classwise = coco_scores(
            record.ground_truth, record.detections, kind, sigmas=record.sigmas if kind == "keypoints" else None
        )
        assert figures[kind]["scores"] == values == {key: record.metrics[f"coco/{key}"] for key in values}
        assert [row["AP"] for row in figures[kind]["by_class"]] == classwise.tolist()
        assert figures[kind]["by_size"][0]["AP"] == pytest.approx(values[f"{kind}_mAP"], abs=1e-12)
        assert 0 < values[f"{kind}_mAP"] < 1
        with (report / f"{kind}_by_class.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["AP"]) for row in rows] == classwise.tolist()
    by_class = figures["label maps"]["by_class"]
    assert {f"IoU/{row['class']}": row["IoU"] for row in by_class} == {
        key: value for key, value in record.metrics.items() if key.startswith("IoU/")
    }


def test_errors_are_counted_and_shown(report: Path) -> None:
    figures = json.loads((report / "report.json").read_text())["segm"]
    assert figures["errors"]["counts"]["class"] == 1 and figures["errors"]["counts"]["missed"] == 1
    assert figures["confusion"]["names"] == ["cat", "dog", "background"]
    assert figures["confusion"]["matrix"] == [[3, 0, 0], [1, 1, 1], [0, 0, 0]]
    text = (report / "index.html").read_text()
    for words in (
        "Missed objects",
        "dog, 21 x 15 px · 1.png",
        "cat 0.80, class (is dog) · 2.png",
        "Errors by keypoint",
    ):
        assert words in text
    assert "Overlap of masks" in text and "0.png: " in text


def test_the_page_is_one_file(report: Path) -> None:
    text = (report / "index.html").read_text()
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) > 15 and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r'(?:href|src)="(?!#|data:)', text) and "@import" not in text and "url(" not in text
    assert len(text) < 2e6


def test_the_page_is_written_where_images_are_gone(painted: ModuleType, tmp_path: Path) -> None:
    """A record is enough for all but the pictures."""
    root = painted.write_pictures(tmp_path / "data")
    cfg = painted.config(root)
    model = painted.detector(cfg)
    result = apis.evaluate(cfg, lambda x: apis.predict(model, x), painted.NAMES, record=True, model="best.pth")
    for path in (root / "images").iterdir():
        path.unlink()
    text = apis.write_report(cfg, result, tmp_path / "report", score_thr=0.95).read_text()
    assert "Boxes: accuracy by class" in text and "image/jpeg" not in text


def test_nothing_detected_is_a_report_too(painted: ModuleType, root: Path, tmp_path: Path) -> None:
    cfg = painted.config(root, kinds=KINDS)
    model = painted.detector(cfg)
    empty = lambda entries: [prediction.filter(1.5) for prediction in apis.predict(model, entries)]  # noqa: E731
    result = apis.evaluate(cfg, empty, painted.NAMES, record=True)
    apis.write_report(cfg, result, tmp_path)
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["segm"]["errors"]["counts"]["missed"] == 6 and figures["segm"]["by_class"][0]["AP"] == 0
