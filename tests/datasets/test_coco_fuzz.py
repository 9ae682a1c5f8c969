"""Every field of a COCO file missing or of a wrong kind: all goes well, or one sentence names the file.

What goes well is right: an object that the data set has, predicted as it is, is found; and the quick check has said
before what stops the rest.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from efftasks.datasets.coco import CocoDetection
from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.coco_masks import decode_mask
from efftasks.datasets.quick_check import CocoNeeds, quick_check_coco
from efftasks.evaluation.coco_metric import CocoMetric

MISSING = "-"
HEIGHT, WIDTH = 30, 40
PIPELINE = [dict(type="LoadImage"), dict(type="LoadObjects", masks=True, keypoints=True), dict(type="PackObjects")]
FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": (
        *("id", "image_id", "category_id", "bbox", "area"),
        *("iscrowd", "segmentation", "keypoints", "num_keypoints"),
    ),
    "categories": ("id", "name", "supercategory", "keypoints", "skeleton"),
}
VALUES: dict[str, Any] = {
    "missing": MISSING,
    "null": None,
    "a text": "text",
    "a number as text": "1",
    "no text": "",
    "nan": math.nan,
    "infinite": math.inf,
    "huge": 10**30,
    "negative": -1,
    "zero": 0,
    "a fraction": 0.5,
    "true": True,
    "no list": [],
    "a list": [1, 2],
    "four": [1, 2, 3, 4],
    "four texts": ["1", "2", "3", "4"],
    "four nothings": [None] * 4,
    "six": [1, 2, 9, 2, 9, 9],
    "six with nan": [1, 2, math.nan, 2, 9, 9],
    "a list of lists": [[1, 2], [1, 2]],
    "points": [[1, 2], [9, 2], [9, 9]],
    "deep": [[[1, 2], [9, 2], [9, 9]]],
    "a dict": dict(a=1),
    "run lengths": dict(size=[HEIGHT, WIDTH], counts="text"),
    "flat run lengths": dict(size=5, counts=[1]),
    "a nul": "a\0b.png",
}
EVALUATORS = ("faster-coco-eval", "pycocotools")


@pytest.fixture(autouse=True)
def scope() -> None:
    DefaultScope.get_instance("test-coco-fuzz", scope_name="efftasks")


def valid() -> dict[str, Any]:
    images = [dict(id=i, file_name=f"{i}.png", width=WIDTH, height=HEIGHT) for i in (1, 2)]
    annotations = [
        dict(
            id=i,
            image_id=image,
            category_id=category,
            bbox=[left, 5, 20, 10],
            area=200,
            iscrowd=0,
            segmentation=[[left, 5, left + 20, 5, left + 20, 15, left, 15]],
            keypoints=[left + 2, 6, 2, left + 9, 9, 1],
            num_keypoints=2,
        )
        for i, (image, category, left) in enumerate([(1, 1, 4), (1, 2, 12), (2, 1, 7), (2, 2, 3)], start=1)
    ]
    categories = [
        dict(id=i, name=n, supercategory="x", keypoints=["a", "b"], skeleton=[[1, 2]])
        for i, n in ((1, "cat"), (2, "dog"))
    ]
    return dict(images=images, annotations=annotations, categories=categories)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for i in (1, 2):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((HEIGHT, WIDTH, 3), 80 * i, np.uint8))
    return folder


def build(folder: Path, test_mode: bool) -> CocoDetection:
    return CocoDetection(
        ann_file="a.json",
        data_root=str(folder),
        pipeline=PIPELINE,
        test_mode=test_mode,
        serialize_data=False,  # which takes mmengine a collection of garbage each time
    )


def predicted(info: dict[str, Any]) -> dict[str, Any]:
    """The objects of an image as if they had been found."""
    objects = [x for x in info["instances"] if not x["ignore_flag"]]
    size = info["height"], info["width"]
    masks = np.zeros((len(objects), *size), bool)
    for mask, x in zip(masks, objects):
        left, top, crop = decode_mask(x.get("mask"), size)
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        if not mask.any():  # inside the box of an object without a mask nothing is wrong
            left, top, right, bottom = (int(v) for v in x["bbox"])
            mask[top:bottom, left:right] = True
    return dict(
        bboxes=torch.tensor([x["bbox"] for x in objects]).reshape(-1, 4).float(),
        scores=torch.full((len(objects),), 0.9),
        labels=torch.tensor([x["bbox_label"] for x in objects]).long(),
        masks=torch.from_numpy(masks),
        keypoints=torch.tensor([x.get("keypoints", [[0.0] * 3] * 2) for x in objects]).reshape(-1, 2, 3).float(),
    )


def scored(folder: Path, evaluator: str) -> dict[str, float]:
    dataset = build(folder, test_mode=True)
    kinds = ("bbox", "segm", "keypoints") if "keypoints" in dataset.metainfo else ("bbox", "segm")
    metric = CocoMetric(str(folder / "a.json"), kinds=kinds, evaluator=evaluator)
    metric.dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        dataset[i]
        info = dataset.get_data_info(i)
        metric.process(None, [dict(img_id=info["img_id"], pred_instances=predicted(info))])
    return metric.evaluate(len(dataset))


@pytest.mark.parametrize(("key", "field"), [(key, field) for key, fields in FIELDS.items() for field in fields])
def test_each_field(folder: Path, key: str, field: str) -> None:
    for number, (name, value) in enumerate(VALUES.items()):
        data = valid()
        data[key][0][field] = value
        if value is MISSING:
            del data[key][0][field]
        check_outcome(folder, data, EVALUATORS[number % 2], name)


def check_outcome(folder: Path, data: dict[str, Any], evaluator: str, what: str) -> None:
    file = folder / "a.json"
    file.write_text(json.dumps(data))
    check_coco(file, folder)  # raises nothing
    findings = quick_check_coco(file, folder, CocoNeeds(training=True, masks=True, keypoints=True))
    errors = [finding.message for finding in findings if finding.level == "error"]
    raised: list[str] = []
    try:
        dataset = build(folder, test_mode=False)
        for i in range(len(dataset)):
            dataset[i]
        scores = scored(folder, evaluator)
    except ValueError as error:
        raised.append(str(error))
    for sentence in (*errors, *raised):
        assert ("a.json" in sentence or "1.png" in sentence) and "\n" not in sentence and len(sentence) < 400, (
            what,
            sentence,
        )
    if not raised:
        assert all(v == -1 or v > 0.999 for name, v in scores.items() if name.endswith("mAP")), (what, scores)
    assert bool(errors) == bool(raised), (what, errors, raised)
