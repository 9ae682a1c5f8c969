import json
import os
from pathlib import Path

import numpy as np
import pytest

from efftasks.evaluation.coco_metric import coco_box_scores

DATA = os.environ.get("EFFTASKS_TEST_DATA")


def truth(boxes: dict[int, list[tuple[int, list[float]]]], categories: list[int]) -> dict:
    annotations = [
        dict(id=i, image_id=image, category_id=category, bbox=box, area=box[2] * box[3], iscrowd=0)
        for i, (image, category, box) in enumerate(
            ((image, c, b) for image, rows in boxes.items() for c, b in rows), start=1
        )
    ]
    images = [dict(id=image, width=200, height=200, file_name=f"{image}.jpg") for image in boxes]
    return dict(images=images, annotations=annotations, categories=[dict(id=c, name=str(c)) for c in categories])


def detection(image: int, category: int, box: list[float], score: float) -> dict:
    return dict(image_id=image, category_id=category, bbox=box, score=score)


@pytest.mark.parametrize("evaluator", ["faster-coco-eval", "pycocotools"])
def test_by_hand(evaluator):
    """One object found exactly; one with IoU 0.6, which counts at 0.50, 0.55 and 0.60: AP (1 + 0.3) / 2."""
    gold = truth({1: [(3, [0, 0, 100, 100])], 2: [(7, [0, 0, 100, 100])]}, [3, 7])
    found = [detection(1, 3, [0, 0, 100, 100], 0.9), detection(2, 7, [0, 0, 60.5, 100], 0.8)]
    scores, classwise = coco_box_scores(gold, found, evaluator)
    assert scores["bbox_mAP"] == pytest.approx(0.65, abs=1e-6)
    assert scores["bbox_mAP_50"] == pytest.approx(1.0)
    assert scores["bbox_mAP_75"] == pytest.approx(0.5)
    assert classwise == pytest.approx([1.0, 0.3], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_evaluators_agree(seed):
    rng = np.random.default_rng(seed)
    boxes, found = {}, []
    for image in range(1, 9):
        rows = []
        for _ in range(int(rng.integers(0, 6))):
            x, y, w, h = rng.uniform([0, 0, 5, 5], [100, 100, 100, 100])
            category = int(rng.choice([2, 5, 11]))
            rows.append((category, [x, y, w, h]))
            for _ in range(int(rng.integers(0, 3))):
                box = (np.array([x, y, w, h]) + rng.normal(0, 4, 4)).clip(1).tolist()
                found.append(detection(image, category, box, float(rng.uniform())))
        boxes[image] = rows
    gold = truth(boxes, [2, 5, 11])
    gold["annotations"][0]["iscrowd"] = 1
    ours, per_class = coco_box_scores(json.loads(json.dumps(gold)), found, "faster-coco-eval")
    reference, per_class_reference = coco_box_scores(gold, found, "pycocotools")
    assert ours == pytest.approx(reference, abs=1e-6)
    assert per_class == pytest.approx(per_class_reference, abs=1e-6, nan_ok=True)


def test_nothing_found_and_wrong_evaluator():
    gold = truth({1: [(1, [0, 0, 10, 10])]}, [1])
    assert coco_box_scores(gold, [])[0]["bbox_mAP"] == 0
    with pytest.raises(ValueError, match="evaluator: got 'coco'"):
        coco_box_scores(gold, [], "coco")


@pytest.mark.skipif(DATA is None, reason="EFFTASKS_TEST_DATA is not set")
def test_real_ground_truth_scores_one():
    gold = json.loads(Path(str(DATA), "bccd/annotations/val.json").read_text())
    found = [detection(a["image_id"], a["category_id"], a["bbox"], 1.0) for a in gold["annotations"]]
    assert coco_box_scores(gold, found)[0]["bbox_mAP"] > 0.99  # duplicates in the annotations cost a little
