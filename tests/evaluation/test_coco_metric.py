"""COCO's AP of boxes, masks and keypoints: by hand, and both evaluators beside pycocotools on its own."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from efftasks.evaluation.coco_metric import CocoMetric, coco_scores
from efftasks.structures.errors import UserError

EVALUATORS = ("faster-coco-eval", "pycocotools")
SIDE = 200  # of every image, in pixels
both = pytest.mark.parametrize("evaluator", EVALUATORS)


def truth(annotations: Sequence[dict], images: Sequence[int] = (1,), categories: Sequence[int] = (1,)) -> dict:
    """A COCO dict; annotations have image 1 and category 1 where they name none."""
    return dict(
        images=[dict(id=i, width=SIDE, height=SIDE, file_name=f"{i}.jpg") for i in images],
        categories=[dict(id=c, name=f"class {c}") for c in categories],
        annotations=[
            {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a}
            for i, a in enumerate(annotations, start=1)
        ],
    )


def boxes(rows: dict[int, list[tuple[int, list[float]]]], categories: list[int]) -> dict:
    """The truth of boxes (category, xywh) by image."""
    annotations = [dict(image_id=i, category_id=c, bbox=box) for i, found in rows.items() for c, box in found]
    return truth(annotations, tuple(rows), categories)


def detection(score: float, image: int = 1, category: int = 1, **found: Any) -> dict:
    return dict(image_id=image, category_id=category, score=score, **found)


def blocks(*parts: tuple[int, int, int, int], holes: Sequence[tuple[int, int, int, int]] = ()) -> np.ndarray:
    """A mask of boxes xywh, without those that are holes."""
    mask = np.zeros((SIDE, SIDE), bool)
    for value, places in ((True, parts), (False, holes)):
        for x, y, w, h in places:
            mask[y : y + h, x : x + w] = value
    return mask


def rle(mask: np.ndarray) -> dict:
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(size=list(found["size"]), counts=found["counts"].decode())


def plain_rle(mask: np.ndarray) -> dict:
    """The uncompressed form, that of COCO's crowd regions."""
    flat = np.concatenate([[False], mask.T.ravel()])
    return dict(
        size=list(mask.shape), counts=np.diff(np.flatnonzero(np.diff(flat)), prepend=0, append=mask.size).tolist()
    )


def masked(mask: np.ndarray, segmentation: Any = None, **more: Any) -> dict:
    """An annotation with the box and area of a mask."""
    box = coco_mask.toBbox(rle(mask)).tolist()
    return dict(bbox=box, area=int(mask.sum()), segmentation=segmentation or rle(mask), **more)


def reference(
    gold: dict, found: list[dict], kind: str, sigmas: Sequence[float] | None = None
) -> tuple[list, np.ndarray]:
    """pycocotools as its own documentation has it, on copies: its numbers, and precision by class."""
    api = COCO()
    api.dataset = copy.deepcopy(gold)
    api.createIndex()
    evaluation = COCOeval(api, api.loadRes(copy.deepcopy(found)), kind)
    if sigmas is not None:
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats.tolist(), evaluation.eval["precision"][:, :, :, 0, -1]


# Boxes


@both
def test_boxes_by_hand(evaluator: str) -> None:
    """One object found exactly; one with IoU 0.6, which counts at 0.50, 0.55 and 0.60: AP (1 + 0.3) / 2."""
    gold = boxes({1: [(3, [0, 0, 100, 100])], 2: [(7, [0, 0, 100, 100])]}, [3, 7])
    found = [detection(0.9, 1, 3, bbox=[0, 0, 100, 100]), detection(0.8, 2, 7, bbox=[0, 0, 60.5, 100])]
    scores, classwise = coco_scores(gold, found, "bbox", evaluator)
    assert list(scores) == [f"bbox_mAP{end}" for end in ("", "_50", "_75", "_s", "_m", "_l")]
    assert scores["bbox_mAP"] == pytest.approx(0.65, abs=1e-6)
    assert scores["bbox_mAP_50"] == pytest.approx(1.0)
    assert scores["bbox_mAP_75"] == pytest.approx(0.5)
    assert scores["bbox_mAP_s"] == scores["bbox_mAP_m"] == -1  # there are large objects alone
    assert classwise == pytest.approx([1.0, 0.3], abs=1e-6)


@both
def test_an_object_with_id_0_is_an_object(evaluator: str) -> None:
    """pycocotools on its own takes a match with id 0 for none."""
    gold = boxes({1: [(1, [0, 0, 50, 50])], 2: [(1, [0, 0, 50, 50])]}, [1])
    found = [detection(0.9, i, bbox=[0, 0, 50, 50]) for i in (1, 2)]
    for annotation, number in zip(gold["annotations"], (0, 0)):  # and both with the same
        annotation["id"] = number
    assert coco_scores(gold, found, "bbox", evaluator)[0]["bbox_mAP"] == pytest.approx(1)


@both
def test_what_may_be_missing(evaluator: str) -> None:
    """Without area that of the box counts: 40 x 40 is medium."""
    gold = boxes({1: [(1, [0, 0, 40, 40])]}, [1])
    del gold["annotations"][0]["area"], gold["annotations"][0]["iscrowd"]
    before = copy.deepcopy(gold)
    found = [detection(0.9, bbox=[0, 0, 40, 40])]
    scores, _ = coco_scores(gold, found, "bbox", evaluator)
    assert (scores["bbox_mAP_s"], scores["bbox_mAP_m"]) == (-1, pytest.approx(1))
    assert gold == before and found == [detection(0.9, bbox=[0, 0, 40, 40])]


@both
def test_an_image_with_a_crowd_alone(evaluator: str) -> None:
    """What lies inside it is neither right nor wrong, what lies beside it is wrong: precision 1 / 2."""
    gold = truth([dict(bbox=[0, 0, 50, 50]), dict(image_id=2, bbox=[0, 0, 100, 100], iscrowd=1)], (1, 2))
    right, inside = detection(0.5, bbox=[0, 0, 50, 50]), detection(0.9, 2, bbox=[20, 20, 30, 30])
    beside = detection(0.8, 2, bbox=[150, 150, 30, 30])
    for found, expected in (([right, inside], 1.0), ([right, inside, beside], 0.5)):
        scores, _ = coco_scores(gold, found, "bbox", evaluator)
        assert scores["bbox_mAP"] == pytest.approx(expected)
        assert list(scores.values()) == pytest.approx(reference(gold, found, "bbox")[0][:6], abs=1e-6)


# Masks


@both
def test_a_hole_is_not_part_of_the_object(evaluator: str) -> None:
    """Without its hole the square has IoU (1600 - 400) / 1600 = 0.75, which counts at six of ten thresholds."""
    mask = blocks((50, 50, 40, 40), holes=[(60, 60, 20, 20)])
    found = [detection(0.9, segmentation=rle(blocks((50, 50, 40, 40))))]
    scores, classwise = coco_scores(truth([masked(mask)]), found, "segm", evaluator)
    assert list(scores) == [f"segm_mAP{end}" for end in ("", "_50", "_75", "_s", "_m", "_l")]
    assert scores["segm_mAP"] == pytest.approx(0.6) and classwise == pytest.approx([0.6])
    assert scores["segm_mAP_75"] == pytest.approx(1) and scores["segm_mAP_m"] == pytest.approx(0.6)
    smaller = [detection(0.9, segmentation=rle(blocks((50, 50, 40, 40), holes=[(60, 60, 20, 20), (0, 0, 51, 51)])))]
    assert coco_scores(truth([masked(mask)]), smaller, "segm", evaluator)[0]["segm_mAP_75"] == pytest.approx(1)


@both
def test_several_parts_are_one_object(evaluator: str) -> None:
    """One of two equal parts has IoU 1 / 2, which counts at the first threshold alone."""
    polygons = [[x, 20, x, 40, x + 20, 40, x + 20, 20] for x in (20, 100)]
    mask = blocks((20, 20, 20, 20), (100, 20, 20, 20))
    gold = truth([masked(mask, [*polygons, [1, 1, 5, 5]])])  # the last is no polygon
    for parts, expected in ([rle(mask), 1.0], [rle(blocks((20, 20, 20, 20))), 0.1]):
        found = [detection(0.9, segmentation=parts)]
        assert coco_scores(gold, found, "segm", evaluator)[0]["segm_mAP"] == pytest.approx(expected)


@both
def test_a_mask_of_one_pixel(evaluator: str) -> None:
    gold = truth([masked(blocks((7, 9, 1, 1)))])
    for x, expected in ((7, 1.0), (8, 0.0)):
        found = [detection(0.9, segmentation=rle(blocks((x, 9, 1, 1))))]
        assert coco_scores(gold, found, "segm", evaluator)[0]["segm_mAP_s"] == pytest.approx(expected)


@both
def test_inside_a_crowd_nothing_is_wrong(evaluator: str) -> None:
    crowd = blocks((0, 0, 100, 200))
    gold = truth([masked(blocks((150, 50, 20, 20))), masked(crowd, plain_rle(crowd), iscrowd=1)])
    right = detection(0.5, segmentation=rle(blocks((150, 50, 20, 20))))
    inside = [detection(0.9, segmentation=rle(blocks((10, y, 20, 20)))) for y in (10, 60)]
    half = detection(0.8, segmentation=rle(blocks((91, 10, 20, 20))))  # 9 of 20 columns inside
    assert coco_scores(gold, [right, *inside], "segm", evaluator)[0]["segm_mAP"] == pytest.approx(1)
    assert coco_scores(gold, [right, half], "segm", evaluator)[0]["segm_mAP"] == pytest.approx(0.5)
    alone = truth([masked(crowd, plain_rle(crowd), iscrowd=1)])
    scores, classwise = coco_scores(alone, inside, "segm", evaluator)
    assert set(scores.values()) == {-1} and np.isnan(classwise).all()


@both
@pytest.mark.parametrize("missing", [None, [], [[]], [[10, 10, 50, 50]]])
def test_an_object_without_a_mask_is_neither_object_nor_background(evaluator: str, missing: Any) -> None:
    gold = truth([masked(blocks((150, 50, 20, 20))), dict(bbox=[10, 10, 40, 40])])
    if missing is not None:
        gold["annotations"][1]["segmentation"] = missing
    right = detection(0.5, segmentation=rle(blocks((150, 50, 20, 20))))
    inside = detection(0.9, segmentation=rle(blocks((15, 15, 30, 20))))
    beside = detection(0.9, segmentation=rle(blocks((15, 100, 30, 20))))
    assert coco_scores(gold, [right, inside], "segm", evaluator)[0]["segm_mAP"] == pytest.approx(1)
    assert coco_scores(gold, [right, beside], "segm", evaluator)[0]["segm_mAP"] == pytest.approx(0.5)


@both
def test_the_size_of_a_detection_is_that_of_what_is_scored(evaluator: str) -> None:
    """A wrong mask of 100 pixels is small, so that it costs no medium objects, whatever box came with it."""
    gold = truth([masked(blocks((100, 100, 50, 50)))])
    right = detection(0.5, bbox=[100, 100, 50, 50], segmentation=rle(blocks((100, 100, 50, 50))))
    wrong = detection(0.9, bbox=[0, 0, 50, 50], segmentation=rle(blocks((0, 0, 10, 10))))
    scores, _ = coco_scores(gold, [right, wrong], "segm", evaluator)
    assert scores["segm_mAP_m"] == pytest.approx(1) and scores["segm_mAP"] == pytest.approx(0.5)
    assert coco_scores(gold, [right, wrong], "bbox", evaluator)[0]["bbox_mAP_m"] == pytest.approx(0.5)


# Keypoints: an object of 400 pixels, sigmas 0.05 and 0.1. A keypoint d pixels off has exp(-d^2 / (2 * 400 * (2 s)^2)).
PAIR = (0.05, 0.1)
HALF = math.sqrt(2 * 400 * 0.2**2 * math.log(2))  # how far off the second has 0.5


def posed(keypoints: Sequence[float], **more: Any) -> dict:
    return dict(bbox=[100, 100, 20, 20], keypoints=list(keypoints), num_keypoints=sum(keypoints[2::3]) // 2, **more)


@both
@pytest.mark.parametrize(("off", "at_75", "mean"), [(HALF - 1e-6, 1, 0.6), (HALF + 1e-6, 0, 0.5)])
def test_oks_by_hand(evaluator: str, off: float, at_75: float, mean: float) -> None:
    """(1 + 0.5) / 2 = 0.75, approached from both sides. 20 x 20 is small: of that COCO has no keypoints' AP."""
    gold = truth([posed([105, 105, 2, 115, 115, 2])])
    found = [detection(0.9, keypoints=[105, 105, 1, 115, 115 + off, 0.3])]
    scores, classwise = coco_scores(gold, found, "keypoints", evaluator, PAIR)
    assert list(scores) == [f"keypoints_mAP{end}" for end in ("", "_50", "_75", "_m", "_l")]
    assert scores["keypoints_mAP"] == pytest.approx(mean) and classwise == pytest.approx([mean])
    assert scores["keypoints_mAP_75"] == pytest.approx(at_75) and scores["keypoints_mAP_50"] == pytest.approx(1)
    assert scores["keypoints_mAP_m"] == scores["keypoints_mAP_l"] == -1


@both
def test_keypoints_that_are_not_annotated_do_not_count(evaluator: str) -> None:
    found = [detection(0.9, keypoints=[105, 105, 1, 190, 20, 1])]
    for visibility, expected in ((0, 1.0), (1, 0.1)):  # hidden ones do count: OKS is a half
        gold = truth([posed([105, 105, 2, 115, 115, visibility])])
        gold["annotations"][0].pop("num_keypoints")
        scores, _ = coco_scores(gold, found, "keypoints", evaluator, PAIR)
        assert scores["keypoints_mAP"] == pytest.approx(expected)


@both
@pytest.mark.parametrize(
    "without", [{}, {"keypoints": []}, {"keypoints": [0] * 6}, {"keypoints": [0] * 6, "num_keypoints": 0}]
)
def test_an_object_without_keypoints_is_neither_object_nor_background(evaluator: str, without: dict) -> None:
    gold = truth([posed([105, 105, 2, 115, 115, 2]), dict(bbox=[20, 20, 40, 40], **without)])
    right = detection(0.5, keypoints=[105, 105, 1, 115, 115, 1])
    near = detection(0.9, keypoints=[30, 30, 1, 70, 70, 1])  # in the doubled box
    far = detection(0.9, keypoints=[30, 180, 1, 70, 190, 1])
    assert coco_scores(gold, [right, near], "keypoints", evaluator, PAIR)[0]["keypoints_mAP"] == pytest.approx(1)
    assert coco_scores(gold, [right, far], "keypoints", evaluator, PAIR)[0]["keypoints_mAP"] == pytest.approx(0.5)


@both
def test_twenty_poses_of_an_image_count(evaluator: str) -> None:
    gold = truth([posed([105, 105, 2, 115, 115, 2])])
    wrong = [detection(0.9, keypoints=[5, 5, 1, 9, 9, 1]) for _ in range(20)]
    right = detection(0.5, keypoints=[105, 105, 1, 115, 115, 1])
    for number, expected in ((19, 1 / 20), (20, 0.0)):
        found = [*wrong[:number], right]
        scores, _ = coco_scores(gold, found, "keypoints", evaluator, PAIR)
        assert scores["keypoints_mAP"] == pytest.approx(expected)


# All kinds


def scene(seed: int, points: int) -> tuple[dict, list[dict]]:
    """Objects of three classes with crowds, holes and missing keypoints, and detections about them."""
    rng = np.random.default_rng(seed)
    rows, found = [], []
    for image in range(1, 7):
        for _ in range(int(rng.integers(0, 6))):
            x, y = (int(v) for v in rng.integers(0, 100, 2))
            w, h = (int(v) for v in rng.integers(1, 100, 2))
            mask = blocks((x, y, w, h), holes=[(x + w // 3, y + h // 3, w // 3, h // 3)])
            pose = np.column_stack([rng.uniform([x, y], [x + w, y + h], (points, 2)), rng.integers(0, 3, points)])
            pose = pose * (rng.random() > 0.2)
            kind = int(rng.integers(0, 4))
            outline = [[x, y, x, y + h - 0.4, x + w * 0.7, y + h, x + w, y]] if kind == 0 else rle(mask)
            category, crowd = int(rng.choice([2, 5, 11])), int(kind == 1)
            rows.append(
                masked(mask, plain_rle(mask) if crowd else outline, image_id=image, category_id=category, iscrowd=crowd)
                | dict(keypoints=pose.ravel().tolist(), num_keypoints=int((pose[:, 2] > 0).sum()))
            )
            for _ in range(int(rng.integers(0, 4)) + 8 * (kind == 2)):
                a, b = (int(v) for v in rng.integers(-3, 4, 2).clip([-x, -y]))
                moved = np.column_stack([pose[:, :2] + rng.normal(0, 3, (points, 2)), np.ones(points)])
                found.append(
                    detection(
                        float(rng.uniform()),
                        image,
                        category if rng.random() < 0.8 else 5,
                        bbox=(np.array([x, y, w, h]) + rng.normal(0, 4, 4)).clip(1).tolist(),
                        segmentation=rle(blocks((x + a, y + b, w, h))),
                        keypoints=moved.ravel().tolist(),
                    )
                )
    return truth(rows, range(1, 8), (2, 5, 11, 12)), found


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", range(6))
def test_evaluators_agree_with_pycocotools(kind: str, seed: int) -> None:
    points = (2, 5, 17)[seed % 3]
    sigmas = np.random.default_rng(seed).uniform(0.03, 0.2, points).tolist() if kind == "keypoints" else None
    gold, found = scene(seed, points)
    gold, found = json.loads(json.dumps(gold)), json.loads(json.dumps(found))
    field = {"segm": "segmentation"}.get(kind, kind)
    only = [{key: row[key] for key in ("image_id", "category_id", "score", field)} for row in found]
    stats, precision = reference(gold, only, kind, sigmas)
    by_class = [p[p > -1].mean() if (p > -1).any() else math.nan for p in np.moveaxis(precision, 2, 0)]
    assert 0.05 < stats[0] < 0.999  # something is found, and something is not
    for evaluator in EVALUATORS:
        scores, classwise = coco_scores(gold, found, kind, evaluator, sigmas)
        assert list(scores.values()) == pytest.approx(stats[: len(scores)], abs=1e-6)
        assert classwise == pytest.approx(by_class, abs=1e-6, nan_ok=True)
        assert math.isnan(classwise[-1])  # no object of the last class


@pytest.mark.parametrize(("kind", "sigmas"), [("bbox", None), ("segm", None), ("keypoints", PAIR)])
def test_nothing_found(kind: str, sigmas: tuple | None) -> None:
    gold = truth([masked(blocks((0, 0, 10, 10)), keypoints=[1, 1, 2, 3, 3, 2])], categories=(1, 2))
    scores, classwise = coco_scores(gold, [], kind, sigmas=sigmas)
    assert set(scores.values()) == {0.0}
    assert classwise == pytest.approx([0, math.nan], nan_ok=True)  # no object is of the second class


def test_wrong_arguments() -> None:
    gold = truth([masked(blocks((0, 0, 10, 10)), keypoints=[1, 1, 2, 3, 3, 2])])
    with pytest.raises(ValueError, match="evaluator: got 'coco'"):
        coco_scores(gold, [], evaluator="coco")
    with pytest.raises(ValueError, match="kind: got 'masks', allowed are 'bbox', 'segm', 'keypoints'"):
        coco_scores(gold, [], "masks")
    with pytest.raises(ValueError, match="sigmas: got None for 'keypoints'"):
        coco_scores(gold, [], "keypoints")
    with pytest.raises(ValueError, match=r"sigmas: got .* for 'segm'"):
        coco_scores(gold, [], "segm", sigmas=PAIR)
    with pytest.raises(ValueError, match=r"detections: got a mask of \[4, 5\] in image 1, expected \[200, 200\]"):
        coco_scores(gold, [detection(1, segmentation=rle(np.ones((4, 5), bool)))], "segm")
    with pytest.raises(ValueError, match="ground_truth: annotation 1: 'keypoints' has 6 numbers, expected 9"):
        coco_scores(gold, [detection(1, keypoints=[1, 1, 1] * 3)], "keypoints", sigmas=[0.1] * 3)


# Files as tools write them

SIZELESS = ([0, 0, 0, 0], [10, 10, -5, 8], [10, 10, 5, 0], [math.nan] * 4, [None] * 4)


def found_all(kind: str) -> list[dict]:
    mask = blocks((50, 50, 40, 40))
    return [detection(0.9, bbox=[50, 50, 40, 40], segmentation=rle(mask), keypoints=[55, 55, 2, 80, 80, 2])]


def whole_object(**more: Any) -> dict:
    return masked(blocks((50, 50, 40, 40)), keypoints=[55, 55, 2, 80, 80, 2], num_keypoints=2, **more)


@both
@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_an_object_without_size_is_left_out_with_one_warning(evaluator: str, kind: str) -> None:
    """Nothing can match it: beside one object that is found exactly it would make the AP a half."""
    gold = truth([whole_object()])
    gold["annotations"] += [dict(id=9, image_id=1, category_id=1, area=0, bbox=box) for box in SIZELESS]
    sigmas = PAIR if kind == "keypoints" else None
    with pytest.warns(UserWarning, match="ground_truth: 5 objects have no size .* left out") as caught:
        scores, _ = coco_scores(gold, found_all(kind), kind, evaluator, sigmas)
    assert len(caught) == 1
    assert scores[f"{kind}_mAP"] == pytest.approx(1)


@both
@pytest.mark.parametrize("box", [*SIZELESS, None])
def test_without_a_box_the_mask_or_the_pose_is_still_an_object(evaluator: str, box: Any) -> None:
    gold = truth([whole_object()])
    gold["annotations"][0].update(bbox=box, area=None)
    other = [detection(0.9, bbox=[0, 0, 9, 9], segmentation=rle(blocks((0, 0, 9, 9))), keypoints=[1, 1, 1, 9, 9, 1])]
    for kind, sigmas in (("bbox", None), ("segm", None), ("keypoints", PAIR)):
        assert coco_scores(gold, found_all(kind), kind, evaluator, sigmas)[0][f"{kind}_mAP"] == pytest.approx(1)
        assert coco_scores(gold, other, kind, evaluator, sigmas)[0][f"{kind}_mAP"] == pytest.approx(0)
    del gold["annotations"][0]["segmentation"]
    scores, _ = coco_scores(gold, found_all("keypoints"), "keypoints", evaluator, PAIR)
    assert scores["keypoints_mAP"] == pytest.approx(1)  # a file of poses alone


@both
@pytest.mark.parametrize("shape", [[[5, 5] * 3], dict(size=[SIDE, SIDE], counts=[SIDE * SIDE])])
def test_a_mask_without_a_pixel_is_as_none(evaluator: str, shape: Any) -> None:
    gold = truth([whole_object(), dict(bbox=[100, 100, 20, 20], segmentation=shape)])
    assert coco_scores(gold, found_all("segm"), "segm", evaluator)[0]["segm_mAP"] == pytest.approx(1)
    inside = detection(1.0, segmentation=rle(blocks((105, 105, 9, 9))))  # its box is a region, as without a mask
    assert coco_scores(gold, [inside, *found_all("segm")], "segm", evaluator)[0]["segm_mAP"] == pytest.approx(1)


@both
def test_areas_that_are_none_are_those_of_the_boxes(evaluator: str) -> None:
    """Evaluators would skip an object of a negative area, and match no pose on one of 0."""
    for area in (0, -4, math.nan, "1600", None):
        gold = truth([whole_object()])
        gold["annotations"][0]["area"] = area
        for kind, sigmas in (("bbox", None), ("keypoints", PAIR)):
            scores, _ = coco_scores(gold, found_all(kind), kind, evaluator, sigmas)
            assert scores[f"{kind}_mAP_m"] == pytest.approx(1), (kind, area)


@both
@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_ids_of_images_may_be_texts_and_sizes_missing(evaluator: str, kind: str) -> None:
    points = 5
    sigmas = [0.1] * points if kind == "keypoints" else None
    gold, found = scene(1, points)
    expected, classwise = coco_scores(gold, found, kind, evaluator, sigmas)
    assert 0.05 < expected[f"{kind}_mAP"] < 0.999
    for row in (*gold["annotations"], *found):
        row["image_id"] = f"frame {row['image_id']}"
    for image in gold["images"]:
        image["id"] = f"frame {image['id']}"
        del image["width"], image["height"]
    scores, by_class = coco_scores(gold, found, kind, evaluator, sigmas)
    assert scores == pytest.approx(expected, abs=1e-12)
    assert by_class == pytest.approx(classwise, abs=1e-12, nan_ok=True)


@both
def test_one_flat_polygon(evaluator: str) -> None:
    gold = truth([whole_object()])
    gold["annotations"][0]["segmentation"] = [50, 50, 50, 90, 90, 90, 90, 50]
    assert coco_scores(gold, found_all("segm"), "segm", evaluator)[0]["segm_mAP"] == pytest.approx(1)


@both
@pytest.mark.parametrize(
    "annotations", [[], None, [dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 9, 9], iscrowd=1)]]
)
def test_where_there_is_nothing_to_be_found(evaluator: str, annotations: Any) -> None:
    gold = dict(truth([]), annotations=annotations)
    for kind, sigmas in (("bbox", None), ("segm", None), ("keypoints", PAIR)):
        for found in ([], found_all(kind)):
            scores, classwise = coco_scores(gold, found, kind, evaluator, sigmas)
            assert set(scores.values()) == {-1} and np.isnan(classwise).all()


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("bbox", dict(bbox=["1", "2", "3", "4"]), "annotation 1: 'bbox' is .*, expected four numbers"),
        ("bbox", dict(iscrowd="0"), "annotation 1: 'iscrowd' is '0', expected 0 or 1"),
        ("segm", dict(segmentation="none"), "annotation 1: 'segmentation' is 'none'"),
        ("segm", dict(segmentation=dict(size=[3, 3], counts=[9])), r"annotation 1: run lengths are of size \[3, 3\]"),
        ("keypoints", dict(keypoints="none"), "annotation 1: 'keypoints' is 'none'"),
        ("bbox", dict(category_id="1"), r"annotations\[0\] \(id 1\): 'category_id' is '1'"),
    ],
)
def test_broken_annotations_are_named(kind: str, more: dict, said: str) -> None:
    gold = truth([whole_object()])
    gold["annotations"][0].update(more)
    with pytest.raises(ValueError, match=f"ground_truth: {said}"):
        coco_scores(gold, found_all(kind), kind, sigmas=PAIR if kind == "keypoints" else None)


def test_detections_in_an_image_that_the_truth_does_not_have() -> None:
    found = [detection(0.5, image=77, bbox=[1, 2, 3, 4])]
    with pytest.raises(ValueError, match="ground_truth: has no image 77"):
        coco_scores(truth([whole_object()]), found)


# The metric


def built(path: Path, gold: dict, **arguments: Any) -> Evaluator:
    """mmengine's Evaluator around the metric; labels are in another order than the ids."""
    path.write_text(json.dumps(gold))
    with DefaultScope.overwrite_default_scope("efftasks"):
        evaluator = Evaluator(dict(type="CocoMetric", ann_file=str(path), **arguments))
    evaluator.dataset_meta = dict(classes=("b", "a"), category_ids=(7, 3), keypoints=dict(sigmas=PAIR))
    return evaluator


def sample(image: int, label: int, score: float, **instances: Any) -> dict:
    facts = dict(bboxes=torch.tensor([[0.0, 0, 20, 20]]), scores=torch.tensor([score]), labels=torch.tensor([label]))
    return dict(img_id=image, pred_instances={**facts, **instances})


@both
def test_the_metric_scores_all_kinds(tmp_path: Path, evaluator: str) -> None:
    """Two samples of one image, as poses come. Masks: a tensor and RLEs. The second object is missed as a mask."""
    first, second = blocks((10, 10, 20, 20)), blocks((120, 120, 40, 40))
    gold = truth(
        [
            masked(first, category_id=3, keypoints=[12, 12, 2, 25, 25, 2], num_keypoints=2),
            masked(second, category_id=7, keypoints=[130, 130, 2, 150, 150, 2], num_keypoints=2),
        ],
        images=(4, 9),
        categories=(3, 7, 8),  # 8 is not of the data set's classes
    )
    for annotation in gold["annotations"]:
        annotation["image_id"] = 4
    runner = built(tmp_path / "ann.json", gold, kinds=("bbox", "segm", "keypoints"), evaluator=evaluator)
    wrong = blocks((0, 0, 40, 40))
    runner.process(
        data_samples=[
            sample(
                4,
                1,
                0.9,
                bboxes=torch.tensor([[10.0, 10, 30, 30]]),
                masks=torch.from_numpy(first[None]),
                keypoints=torch.tensor([[[12.0, 12, 0.5], [25, 25, 0.5]]]),
            ),
            sample(
                4,
                0,
                0.8,
                bboxes=torch.tensor([[120.0, 120, 160, 160]]),
                masks=[rle(wrong)],
                keypoints=np.array([[[130.0, 130, 0.5], [150, 150 + 2 * HALF - 0.01, 0.5]]], np.float32),
            ),
        ]
    )
    empty = dict(
        bboxes=torch.zeros(0, 4),
        scores=torch.zeros(0),
        labels=torch.zeros(0, dtype=torch.int64),
        masks=torch.zeros(0, SIDE, SIDE, dtype=torch.bool),
        keypoints=torch.zeros(0, 2, 3),
    )
    runner.process(data_samples=[dict(img_id=9, pred_instances=empty)])
    scores = runner.evaluate(3)
    assert scores["coco/bbox_mAP"] == pytest.approx(1)
    assert scores["coco/segm_mAP"] == pytest.approx(0.5) and scores["coco/segm_mAP_s"] == pytest.approx(1)
    assert scores["coco/keypoints_mAP_50"] == pytest.approx(1)
    assert scores["coco/keypoints_mAP"] == pytest.approx(0.8)  # 1, and 0.6 for an OKS just above 0.75
    assert len(scores) == 6 + 6 + 5


def test_masks_are_kept_small() -> None:
    metric = CocoMetric("ann.json", kinds=("segm",), max_detections=2)
    masks = np.stack([blocks((i, i, 9, 9)) for i in range(3)])
    many = dict(bboxes=torch.zeros(3, 4), scores=torch.ones(3), labels=torch.zeros(3, dtype=torch.int64))
    metric.process(None, [dict(img_id=1, pred_instances=dict(**many, masks=torch.from_numpy(masks)))])
    (found,) = metric.results
    assert found.masks == [rle(mask) for mask in masks[:2]]
    assert len(found.scores) == len(found.boxes) == 2 and found.keypoints is None


def test_a_file_without_what_is_scored(tmp_path: Path) -> None:
    gold = truth([dict(bbox=[0, 0, 20, 20], category_id=3)], categories=(3, 7))
    for kind, field, more, said in (
        ("segm", "masks", torch.ones(1, SIDE, SIDE, dtype=torch.bool), "has no segmentation, expected masks"),
        ("keypoints", "keypoints", torch.ones(1, 2, 3), "has no keypoints, expected keypoints"),
    ):
        runner = built(tmp_path / "ann.json", gold, kinds=(kind,))
        with pytest.raises(ValueError, match=f"pred_instances.{field}: got none"):
            runner.process(data_samples=[sample(1, 1, 0.9)])
        runner.process(data_samples=[sample(1, 1, 0.9, **{field: more})])
        with pytest.raises(UserError, match=f"ann.json: {said} to score"):
            runner.evaluate(1)


def test_the_metric_warns_once_of_objects_without_size_and_takes_texts_as_ids(tmp_path: Path) -> None:
    gold = truth([dict(bbox=[0, 0, 20, 20], category_id=3), dict(bbox=[0, 0, 0, 0], category_id=3)], categories=(3, 7))
    for row in gold["annotations"]:
        row["image_id"] = "1"
    gold["images"][0]["id"] = "1"
    runner = built(tmp_path / "ann.json", gold)
    logger = MMLogger.get_instance("test-coco-metric", log_file=str(tmp_path / "log"))
    for _ in range(2):
        runner.process(data_samples=[dict(sample(1, 1, 0.9), img_id="1")])
        assert runner.evaluate(1)["coco/bbox_mAP"] == pytest.approx(1)
    logger.handlers[-1].flush()
    assert (tmp_path / "log").read_text().count("ann.json: 1 objects have no size") == 1


def test_wrong_arguments_of_the_metric() -> None:
    with pytest.raises(ValueError, match="kinds: got 'mask', allowed are 'bbox', 'segm', 'keypoints'"):
        CocoMetric("ann.json", kinds=("bbox", "mask"))
    with pytest.raises(ValueError, match="evaluator: got 'coco'"):
        CocoMetric("ann.json", evaluator="coco")


# Real annotations


@both
def test_real_boxes_score_one(real_data: Path, evaluator: str) -> None:
    gold = json.loads((real_data / "bccd/annotations/val.json").read_text())
    found = [detection(1.0, a["image_id"], a["category_id"], bbox=a["bbox"]) for a in gold["annotations"]]
    # Duplicates in the annotations cost a little.
    assert coco_scores(gold, found, "bbox", evaluator)[0]["bbox_mAP"] > 0.99


@both
def test_real_masks_score_one(real_data: Path, evaluator: str) -> None:
    path = real_data / "coco_mini/annotations/val.json"
    api, gold = COCO(str(path)), json.loads(path.read_text())
    found = []
    for annotation in gold["annotations"]:
        outline = api.annToRLE(annotation)
        outline["counts"] = outline["counts"].decode()
        found.append(detection(1.0, annotation["image_id"], annotation["category_id"], segmentation=outline))
    scores, _ = coco_scores(gold, found, "segm", evaluator)
    assert scores["segm_mAP"] == pytest.approx(1) and scores["segm_mAP_s"] == pytest.approx(1)


@both
def test_real_keypoints_score_one(real_data: Path, evaluator: str) -> None:
    for name, sigmas in (("glue_tubes", PAIR), ("coco_pose", [0.05] * 17)):
        gold = json.loads((real_data / name / "annotations/val.json").read_text())
        objects = [a for a in gold["annotations"] if a["num_keypoints"] > 0 and not a["iscrowd"]]
        found = [detection(1.0, a["image_id"], a["category_id"], keypoints=a["keypoints"]) for a in objects]
        scores, _ = coco_scores(gold, found, "keypoints", evaluator, sigmas)
        assert scores["keypoints_mAP"] == pytest.approx(1)
