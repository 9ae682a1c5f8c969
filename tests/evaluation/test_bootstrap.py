"""Average precision of resamples, compared with that of data sets in which images are really repeated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from efftasks.evaluation.bootstrap import ap_of_resamples, iou_of_resamples, resample
from efftasks.evaluation.coco_metric import coco_scores
from efftasks.evaluation.matches import match
from efftasks.evaluation.semantic_metric import SemanticIoU
from efftasks.imaging.rle import encode_rle

SIGMAS = (0.05, 0.08)
SIDE = 300


def make_data(images: int, seed: int = 0, categories: int = 3, levels: int = 10**9) -> tuple[dict, list[dict]]:
    """Objects of all sizes, crowd regions among them, and detections: jittered, missing, doubled and false ones."""
    random = np.random.default_rng(seed)
    ids = random.permutation(1000)[:images].tolist()  # neither contiguous nor sorted
    annotations: list[dict] = []
    detections: list[dict] = []
    for image in ids:
        for _ in range(random.integers(0, 6)):
            side = float(random.choice([12, 40, 130]))
            box = [*random.uniform(0, SIDE - 1.3 * side, 2), *(side * random.uniform(0.7, 1.3, 2))]
            category = int(random.integers(1, categories + 1))
            crowd = int(random.random() < 0.1)
            annotations.append(
                dict(annotation(box), id=len(annotations) + 1, image_id=image, category_id=category, iscrowd=crowd)
            )
            for _ in range(random.integers(0, 4)):
                near = np.array(box) + random.normal(0, 0.06 * side, 4)
                detections.append(dict(annotation(near.tolist()), image_id=image, category_id=category))
        for _ in range(random.integers(0, 4)):
            box = [*random.uniform(0, 200, 2), *random.uniform(10, 90, 2)]
            detections.append(
                dict(annotation(box), image_id=image, category_id=int(random.integers(1, categories + 1)))
            )
    for row in detections:
        row["score"] = float(random.integers(levels) / levels)
    images_of = [dict(id=i, file_name=f"{i}.png", height=SIDE, width=SIDE) for i in ids]
    names = [dict(id=i, name=str(i)) for i in range(1, categories + 2)]  # the last has no objects
    return dict(images=images_of, annotations=annotations, categories=names), detections


def annotation(box: list[float]) -> dict[str, Any]:
    """A box with a mask and two keypoints that fill it."""
    x, y, width, height = box
    mask = np.zeros((SIDE, SIDE), bool)
    mask[max(0, int(y)) : int(y + height), max(0, int(x)) : int(x + width)] = True
    points = [x, y, 2, x + width, y + height, 2]
    return dict(bbox=box, area=width * height, segmentation=encode_rle(mask), keypoints=points, num_keypoints=2)


def repeated(ground_truth: dict, detections: list[dict], counts: np.ndarray) -> tuple[dict, list[dict]]:
    """The data with each image as often as it counts, under new ids in the same order."""
    position = {image["id"]: i for i, image in enumerate(ground_truth["images"])}
    copies = {image: range(counts[i]) for image, i in position.items()}
    data = dict(
        images=[dict(x, id=x["id"] * 100 + n) for x in ground_truth["images"] for n in copies[x["id"]]],
        annotations=[
            dict(x, image_id=x["image_id"] * 100 + n)
            for x in ground_truth["annotations"]
            for n in copies[x["image_id"]]
        ],
        categories=ground_truth["categories"],
    )
    return data, [dict(x, image_id=x["image_id"] * 100 + n) for x in detections for n in copies[x["image_id"]]]


@pytest.mark.parametrize("evaluator", ["faster-coco-eval", "pycocotools"])
@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_resample_is_the_data_with_repeated_images(kind: str, evaluator: str) -> None:
    ground_truth, detections = make_data(25)
    sigmas = SIGMAS if kind == "keypoints" else None
    weights = resample(25, 3, seed=1)
    result = ap_of_resamples(match(ground_truth, detections, kind, sigmas), weights)
    for i, counts in enumerate(weights):
        data, rows = repeated(ground_truth, detections, counts)
        values, classwise = coco_scores(data, rows, kind, evaluator, sigmas)
        assert set(result.values) == set(values)
        for name, value in values.items():
            assert result.values[name][i] == pytest.approx(value, abs=1e-12), name
        np.testing.assert_allclose(result.classwise[i], classwise, rtol=0, atol=1e-12)


def test_weights_of_one_give_the_metric_also_with_equal_scores() -> None:
    ground_truth, detections = make_data(30, seed=2, levels=5)
    result = ap_of_resamples(match(ground_truth, detections), np.ones((1, 30), np.int32))
    values, _ = coco_scores(ground_truth, detections, evaluator="pycocotools")
    assert {name: value.item() for name, value in result.values.items()} == pytest.approx(values, abs=1e-12)


def test_equal_scores_move_little() -> None:
    """Copies of an image do not keep together among equal scores, detections of an image do."""
    ground_truth, detections = make_data(60, seed=3, levels=100)
    weights = resample(60, 3)
    result = ap_of_resamples(match(ground_truth, detections), weights).values["bbox_mAP"]
    exact = [coco_scores(*repeated(ground_truth, detections, counts))[0]["bbox_mAP"] for counts in weights]
    np.testing.assert_allclose(result, exact, atol=5e-3)


def test_images_without_objects_or_detections() -> None:
    ground_truth, detections = make_data(4, seed=4)
    matches = match(ground_truth, [])
    has_objects = np.isin(
        [x["id"] for x in ground_truth["images"]], [a["image_id"] for a in ground_truth["annotations"]]
    )
    weights = np.stack([np.ones(4, int), np.where(has_objects, 0, 4)])
    values = ap_of_resamples(matches, weights).values["bbox_mAP"]
    assert values[0] == 0
    assert np.isnan(values[1])
    assert np.isnan(
        ap_of_resamples(match({**ground_truth, "annotations": []}, detections), weights).values["bbox_mAP"]
    ).all()


def test_matched_objects_are_numbered_alike_for_every_model() -> None:
    ground_truth, _ = make_data(12, seed=5, categories=1)
    everything = [dict(x, score=0.9) for x in ground_truth["annotations"]]
    complete = match(ground_truth, everything).areas["all"][0]
    partial = match(ground_truth, everything[::2]).areas["all"][0]
    annotated = sum(not x["iscrowd"] for x in ground_truth["annotations"])
    assert len(set(complete.object_numbers) - {0}) == complete.objects.sum() == annotated
    pairs = set(zip(complete.object_numbers.tolist(), complete.images.tolist()))
    assert set(zip(partial.object_numbers.tolist(), partial.images.tolist())) - {(0, i) for i in range(12)} <= pairs


def test_resamples_draw_as_many_images_and_are_seeded() -> None:
    draws = resample(50, 400, seed=7)
    assert (draws.sum(1) == 50).all()
    assert draws.mean(0) == pytest.approx(np.ones(50), abs=0.25)
    np.testing.assert_array_equal(draws, resample(50, 400, seed=7))
    assert (draws != resample(50, 400, seed=8)).any()


def test_iou_is_that_of_repeated_label_maps() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, (6, 8, 8))
    truth[0] = 255  # all ignored
    predicted = np.where(random.random(truth.shape) < 0.6, np.minimum(truth, 2), random.integers(0, 4, truth.shape))
    confusion = np.zeros((6, 5, 5), np.int64)
    for i in range(6):
        for true, label in zip(truth[i].ravel(), predicted[i].ravel()):
            if true != 255:
                confusion[i, true, label] += 1
    weights = resample(6, 4, seed=3)
    means, ious = iou_of_resamples(confusion, weights)
    for row, counts in enumerate(weights):
        metric = SemanticIoU(ignore_index=255)
        metric.dataset_meta = dict(classes=tuple("abcde"))
        chosen = np.repeat(np.arange(6), counts)
        samples = [
            dict(
                pred_sem_seg=dict(data=torch.from_numpy(predicted[i])), gt_sem_seg=dict(data=torch.from_numpy(truth[i]))
            )
            for i in chosen
        ]
        metric.process({}, samples)
        values = metric.compute_metrics(metric.results)
        assert means[row] == pytest.approx(values["mIoU"], abs=0.0051)
        expected = [values.get(f"IoU/{name}", np.nan) for name in "abcde"]
        np.testing.assert_allclose(ious[row], expected, atol=0.0051)
