"""Records compared: figures are those of coco_scores, differences those that were made, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from efftasks.evaluation.coco_metric import coco_scores
from efftasks.evaluation.comparison import (
    MetricRow,
    aligned,
    check_comparable,
    compare_records,
    match_record,
    shared_kinds,
)
from efftasks.evaluation.image_differences import most_different
from efftasks.evaluation.records import EvaluationRecord, digest_of, task_of
from efftasks.evaluation.verdicts import verdict
from efftasks.structures.errors import UserError

IMAGES = 80


def truth() -> dict[str, Any]:
    """A cat at the left and a dog at the right of each image."""
    boxes = [(1, [4.0, 4.0, 30.0, 40.0]), (2, [60.0, 10.0, 36.0, 30.0])]
    return dict(
        images=[dict(id=10 + i, file_name=f"{i}.png", height=64, width=100) for i in range(IMAGES)],
        annotations=[
            dict(id=2 * i + k, image_id=10 + i, category_id=k, bbox=box, area=box[2] * box[3], iscrowd=0)
            for i in range(IMAGES)
            for k, box in boxes
        ],
        categories=[dict(id=2, name="dog"), dict(id=1, name="cat")],
    )


def record(seed: int = 0, noise: float = 0.08, dropped: float = 0.0, **changes: Any) -> EvaluationRecord:
    """Each object detected, with boxes off by ``noise``, but for a share of them; and two confusion matrices."""
    random, drop = np.random.default_rng(seed), np.random.default_rng(99)
    ground_truth = truth()
    detections = []
    for row in ground_truth["annotations"]:
        box = np.array(row["bbox"])
        off = random.normal(0, noise, 4) * [box[2], box[3], box[2], box[3]]
        if drop.random() >= dropped:
            parts = dict(image_id=row["image_id"], category_id=row["category_id"])
            detections.append(dict(parts, score=float(random.random()), bbox=(box + off).tolist()))
    confusion = np.tile(np.array([[50, 3], [4, 20]], np.int64), (IMAGES, 1, 1))
    confusion[5] = [[30, 23], [4, 20]]
    made = EvaluationRecord(
        model="m",
        task=task_of(("bbox",), ("floor", "animal")),
        kinds=("bbox",),
        images=[dict(x, path=f"images/{x['file_name']}") for x in reversed(ground_truth["images"])],
        ground_truth=ground_truth,
        detections=detections,
        sigmas=None,
        semantic_classes=("floor", "animal"),
        confusion=confusion,
        metrics={},
        seconds=0.01,
        data_digest=digest_of(ground_truth["images"], ground_truth, confusion),
    )
    return replace(made, **changes)


def compared(*records: EvaluationRecord, resamples: int = 300, seed: int = 0) -> list[MetricRow]:
    check_comparable(records, [f"model {i}" for i in range(len(records))])
    kinds, same_order = shared_kinds(records), aligned(records)
    return compare_records(same_order, [match_record(one, kinds) for one in same_order], resamples, seed)


def row(rows: list[MetricRow], name: str) -> MetricRow:
    (one,) = [x for x in rows if x.name == name]
    return one


def test_figures_are_those_of_the_metrics() -> None:
    one = record()
    rows = compared(one, record(seed=1))
    values, classwise = coco_scores(truth(), one.detections)
    assert [row(rows, name).values[0].value for name in ("AP", "AP50", "AP75")] == pytest.approx(
        [100 * values[f"bbox_{key}"] for key in ("mAP", "mAP_50", "mAP_75")]
    )
    assert [row(rows, name).values[0].value for name in ("cat", "dog")] == pytest.approx(100 * classwise)
    assert {x.name for x in rows if x.group == "size"} == {"medium"}  # there are no others
    floor, animal = 50 * 79 + 30, 20 * 80
    wrong = 3 * 79 + 23 + 4 * 80
    assert row(rows, "floor").values[0].value == pytest.approx(100 * floor / (floor + wrong))
    assert row(rows, "mIoU").values[0].value == pytest.approx(
        50 * (floor / (floor + wrong) + animal / (animal + wrong))
    )
    for one_row in rows:
        assert all(value.low <= value.value <= value.high for value in one_row.values)


def test_a_model_and_itself_do_not_differ() -> None:
    rows = compared(record(), record())
    assert all((x.value, x.low, x.high) == (0, 0, 0) for one in rows for x in one.differences)
    assert verdict(row(rows, "AP"), 1, "a", "b", IMAGES, 1) == (
        "No difference: AP of boxes of b is that of a in every resample"
    )


def test_a_loss_is_seen_and_noise_is_not() -> None:
    rows = compared(record(), record(dropped=0.3), record(seed=1))
    assert [x.is_real for x in row(rows, "AP").differences] == [True, False]
    lost, noise = row(rows, "AP").differences
    assert lost.low < lost.value < lost.high < 0
    assert noise.low < 0 < noise.high
    sentence = verdict(row(rows, "AP"), 1, "a", "b", IMAGES, 4)
    assert sentence.startswith(f"A difference: AP of boxes of b is {-lost.value:.2f} lower than of a, 95 % interval")
    assert "adjusted for 4 comparisons" in sentence
    sentence = verdict(row(rows, "AP"), 2, "a", "c", IMAGES, 4)
    assert sentence.startswith("No difference that these 80 images can show: ")
    assert sentence.endswith(f"one of less than {noise.detectable:.2f} would often not be seen")


def test_p_is_adjusted_over_all_verdicts_and_no_others() -> None:
    rows = compared(record(), record(dropped=0.1), record(seed=1))
    lost = row(rows, "AP").differences[0]
    assert lost.p_adjusted == pytest.approx(4 * lost.p)  # two models, AP and mIoU
    assert row(rows, "AP50").differences[0].p_adjusted == row(rows, "AP50").differences[0].p


def test_seed_decides() -> None:
    assert compared(record(), record(seed=1)) == compared(record(), record(seed=1))
    assert compared(record(), record(seed=1)) != compared(record(), record(seed=1), seed=5)


def test_label_maps_are_matched_with_images_by_id() -> None:
    """The record has the images in another order than the ground truth; one image has other label maps."""
    worse = record()
    assert worse.confusion is not None
    confusion = worse.confusion.copy()
    confusion[0] = [[3, 50], [4, 20]]
    order = np.random.default_rng(0).permutation(IMAGES)
    shuffled = replace(worse, images=[worse.images[i] for i in order], confusion=confusion[order])
    difference = row(compared(replace(worse, confusion=confusion), shuffled), "mIoU").differences[0]
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_label_maps_alone() -> None:
    alone = record(kinds=(), ground_truth=None, detections=[], data_digest="x")
    rows = compared(alone, alone)
    assert [(x.part, x.group, x.name) for x in rows] == [
        ("label maps", "main", "mIoU"),
        ("label maps", "class", "floor"),
        ("label maps", "class", "animal"),
    ]


def test_different_data_and_tasks_are_refused() -> None:
    other = truth()
    other["annotations"][0]["bbox"] = [0.0, 0.0, 3.0, 3.0]
    digest = digest_of(other["images"], other, record().confusion)
    with pytest.raises(UserError, match=r"a and b were evaluated on different data \(images or annotations\)"):
        check_comparable([record(), record(data_digest=digest)], ["a", "b"])
    with pytest.raises(UserError, match=r"a and c were .* \(80 and 79 images\), expected the same"):
        less = record(data_digest="x", images=record().images[1:])
        check_comparable([record(), record(), less], ["a", "b", "c"])
    alone: dict[str, Any] = dict(semantic_classes=(), confusion=None)
    masks = record(kinds=("segm",), **alone)
    with pytest.raises(UserError, match="nothing of the models can be compared"):
        check_comparable([record(**alone), masks], ["a", "b"])


def test_images_that_differ_most() -> None:
    first = record(noise=0.0)
    kept = [x for x in first.detections if not (x["image_id"] == 13 and x["category_id"] == 1)]
    kept += [dict(image_id=20, category_id=2, score=0.9, bbox=[0.0, 40.0, 9.0, 9.0])] * 3
    sure = [dict(x, score=0.9) for x in first.detections]
    second = replace(first, detections=[dict(x, score=0.9) for x in kept])
    first = replace(first, detections=sure)
    matches = [match_record(one, ("bbox",)) for one in (first, second)]
    images = most_different([first, second], matches, 5)
    names = [first.images[x.position]["id"] for x in images]
    assert names == [20, 13]
    assert [x.amount for x in images] == [3, 1]
    assert images[0].texts == ("0 missed, 0 false", "0 missed, 3 false")
    assert images[1].texts == ("0 missed, 0 false", "1 missed, 0 false")
    assert most_different([first, second], matches, 1) == images[:1]
    faint = replace(second, detections=[dict(x, score=0.2) for x in kept])
    assert most_different([faint, faint], [match_record(faint, ("bbox",))] * 2, 5) == []


def test_label_maps_that_differ_most() -> None:
    first = record()
    assert first.confusion is not None
    confusion = first.confusion.copy()
    confusion[7] = [[40, 13], [4, 20]]
    images = most_different([first, replace(first, confusion=confusion)], [{}, {}], 5)
    assert [x.position for x in images] == [7]
    assert images[0].amount == pytest.approx(100 * 10 / 77)
    assert images[0].texts == ("90.9 % of the pixels right", "77.9 % of the pixels right")


def test_the_order_of_images_and_annotations_does_not_matter() -> None:
    first = record()
    shuffled = truth()
    for name in ("images", "annotations"):
        shuffled[name] = shuffled[name][::-1]
    second = replace(first, ground_truth=shuffled)
    assert first.confusion is not None
    assert digest_of(first.images, first.ground_truth, first.confusion) == digest_of(
        second.images, shuffled, first.confusion
    )
    for one in compared(first, second):
        (difference,) = one.differences
        assert difference.low == difference.value == difference.high == 0
    both = aligned([first, second])
    assert most_different(both, [match_record(one, ("bbox",)) for one in both], 5) == []


@pytest.mark.parametrize(("count", "is_real"), [(1, False), (5, False), (6, True)])
def test_few_images_show_no_difference(count: int, is_real: bool) -> None:
    """Exchanging two models image by image, all images going one way have a chance of 2 in 2^n."""
    ground_truth = truth()
    ids = [image["id"] for image in ground_truth["images"][:count]]
    kept = dict(
        ground_truth,
        images=ground_truth["images"][:count],
        annotations=[x for x in ground_truth["annotations"] if x["image_id"] in ids],
    )
    alone: dict[str, Any] = dict(ground_truth=kept, semantic_classes=(), confusion=None)
    good = record(detections=[x for x in record(noise=0.0).detections if x["image_id"] in ids], **alone)
    rows = compared(good, replace(good, detections=[]))
    (difference,) = row(rows, "AP").differences
    assert difference.p == max(2 / 301, 2.0 ** (1 - count)) and difference.is_real == is_real
    sentence = verdict(row(rows, "AP"), 1, "a", "b", count, 1)
    assert sentence.startswith("A difference: " if is_real else f"Too few images for a verdict, {count}: AP of boxes")
