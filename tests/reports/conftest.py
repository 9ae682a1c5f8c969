"""Records of a few boxes, and random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from efftasks.evaluation.records import EvaluationRecord, digest_of, task_of

SIDE = 100  # of images, in pixels
NAMES = ("cat", "dog", "cow")
IDS = (3, 7, 9)  # category ids
SIGMAS = (0.05, 0.1, 0.08)

Object = tuple[int, str, Sequence[float]]  # image, class, box xywh
Detection = tuple[int, str, Sequence[float], float]


def make_record(
    objects: Sequence[Object],
    detections: Sequence[Detection],
    crowds: Sequence[Object] = (),
    images: int = 1,
    kinds: tuple[str, ...] = ("bbox",),
    metrics: dict[str, float] | None = None,
) -> EvaluationRecord:
    """A record of boxes; masks and keypoints are made of them where the kinds have them."""
    rows = [dict(id=i, file_name=f"{i}.png", height=SIDE, width=SIDE) for i in range(images)]
    annotations = [
        dict(_parts(box, kinds, visible=2), id=k + 1, image_id=i, category_id=IDS[NAMES.index(name)], iscrowd=crowd)
        for k, (i, name, box, crowd) in enumerate([(*o, 0) for o in objects] + [(*o, 1) for o in crowds])
    ]
    results = [
        dict(_parts(box, kinds, visible=1), image_id=i, category_id=IDS[NAMES.index(name)], score=score)
        for i, name, box, score in detections
    ]
    points = dict(keypoints=["a", "b", "c"], skeleton=[[1, 2]]) if "keypoints" in kinds else {}
    categories = [dict(id=i, name=name, **points) for i, name in zip(IDS, NAMES)]
    truth = dict(images=rows, categories=categories, annotations=annotations)
    images_read = [dict(row, path=f"images/{row['file_name']}") for row in rows]
    return EvaluationRecord(
        model="best.pth",
        task=task_of(kinds, ()),
        kinds=kinds,
        images=images_read,
        ground_truth=truth,
        detections=results,
        sigmas=SIGMAS if "keypoints" in kinds else None,
        semantic_classes=(),
        confusion=None,
        metrics=metrics or {},
        seconds=0.01,
        data_digest=digest_of(images_read, truth, None),
    )


def _parts(box: Sequence[float], kinds: tuple[str, ...], visible: int) -> dict[str, Any]:
    x, y, width, height = box
    row: dict[str, Any] = dict(bbox=list(box), area=width * height)
    if "segm" in kinds:
        polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
        rle = coco_mask.merge(coco_mask.frPyObjects([polygon], SIDE, SIDE))
        row["segmentation"] = dict(size=[SIDE, SIDE], counts=rle["counts"].decode())
    if "keypoints" in kinds:
        row["keypoints"] = [x, y, visible, x + width, y + height, visible, x + width / 2, y + height / 2, visible]
        row["num_keypoints"] = 3
    return row


def make_random(
    seed: int, kinds: tuple[str, ...] = ("bbox",), images: int = 20, crowds: bool = True
) -> EvaluationRecord:
    """Objects of three classes; detections near them, of other classes, twice, or anywhere."""
    random = np.random.default_rng(seed)
    objects: list[Object] = []
    regions: list[Object] = []
    detections: list[Detection] = []

    def add(image: int, name: str, box: np.ndarray) -> None:
        score = float(np.float32(random.random()))
        detections.append((image, name, np.clip(box, 1, SIDE).round(2).tolist(), round(score, 2)))  # some are equal

    for image in range(images):
        for _ in range(random.integers(0, 6)):
            name = str(random.choice(NAMES))
            box = np.array([*random.uniform(0, 60, 2), *random.uniform(8, 38, 2)]).round(1)
            is_crowd = crowds and random.random() < 0.15
            (regions if is_crowd else objects).append((image, name, box.tolist()))
            for _ in range(random.integers(0, 4)):
                other = str(random.choice(NAMES)) if random.random() < 0.3 else name
                add(image, other, box + random.normal(0, random.choice([0.5, 3, 8]), 4))
        for _ in range(random.integers(0, 3)):
            add(image, str(random.choice(NAMES)), random.uniform(5, 50, 4))
    return make_record(objects, detections, regions, images, kinds)


@pytest.fixture(scope="session")
def record_of() -> Callable[..., EvaluationRecord]:
    return make_record


@pytest.fixture(scope="session")
def random_record() -> Callable[..., EvaluationRecord]:
    return make_random
