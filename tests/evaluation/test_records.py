"""Records of evaluations: a round trip through files, digests, and what is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efftasks.evaluation.records import EvaluationRecord, digest_of, task_of
from efftasks.structures.errors import UserError, WorkError


def record(**changes: Any) -> EvaluationRecord:
    """One image with an object, and a label map of two classes."""
    truth = dict(
        images=[dict(id=7, file_name="a.jpg", height=4, width=6)],
        categories=[dict(id=3, name="cat")],
        annotations=[dict(id=1, image_id=7, category_id=3, bbox=[0, 0, 2.5, 3], iscrowd=0, area=7.5)],
    )
    images = [dict(truth["images"][0], path="data/a.jpg")]
    detections = [dict(image_id=7, category_id=3, score=float(np.float32(0.1)), bbox=[0.1 + 0.2, 0.0, 2.0, 3.0])]
    confusion = np.array([[[20, 1], [0, 3]]], np.int64)
    made = EvaluationRecord(
        model="best.pth",
        task="detection+semantic segmentation",
        kinds=("bbox",),
        images=images,
        ground_truth=truth,
        detections=detections,
        sigmas=None,
        semantic_classes=("floor", "cat"),
        confusion=confusion,
        metrics={"coco/bbox_mAP": 1 / 3, "mIoU": float("nan")},
        seconds=0.01,
        data_digest=digest_of(images, truth, confusion),
    )
    return replace(made, **changes)


def assert_equal(a: EvaluationRecord, b: EvaluationRecord) -> None:
    for field in fields(EvaluationRecord):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if field.name in ("confusion", "metrics"):  # NaN is equal to itself here
            np.testing.assert_equal(left, right)
        else:
            assert left == right and type(left) is type(right), field.name


LABEL_MAPS_ALONE: dict[str, Any] = dict(kinds=(), ground_truth=None, detections=[], task="semantic segmentation")
OBJECTS_ALONE: dict[str, Any] = dict(
    semantic_classes=(), confusion=None, kinds=("bbox", "keypoints"), sigmas=(0.1, 0.05)
)


@pytest.mark.parametrize("changes", [{}, LABEL_MAPS_ALONE, OBJECTS_ALONE], ids=["both", "label maps", "objects"])
def test_what_is_saved_is_loaded_to_the_last_digit(tmp_path: Path, changes: dict[str, Any]) -> None:
    saved = record(**changes)
    saved.save(tmp_path / "new" / "folder")
    assert_equal(EvaluationRecord.load(tmp_path / "new" / "folder"), saved)


@pytest.mark.parametrize(
    ("kinds", "classes", "task"),
    [
        (("bbox",), (), "detection"),
        (("bbox", "segm"), (), "instance segmentation"),
        (("keypoints",), (), "pose"),
        ((), ("road",), "semantic segmentation"),
        (("bbox", "segm", "keypoints"), ("road",), "instance segmentation+pose+semantic segmentation"),
    ],
)
def test_tasks(kinds: tuple[str, ...], classes: tuple[str, ...], task: str) -> None:
    assert task_of(kinds, classes) == task


def test_the_digest_is_that_of_the_data_and_not_of_their_order() -> None:
    made = record()
    truth, images = made.ground_truth, [*made.images, dict(id="b", file_name="b.jpg", path="b.jpg")]
    assert truth is not None and made.confusion is not None
    confusion = np.concatenate([made.confusion, np.zeros_like(made.confusion)])
    original = digest_of(images, truth, confusion)
    moved = [dict(image, path=f"elsewhere/{image['path']}") for image in images]
    assert digest_of(moved[::-1], truth, confusion[::-1]) == original
    assert digest_of(images, truth, confusion + np.eye(2, dtype=int)) != original
    assert digest_of(images[:1], truth, confusion[:1]) != original
    other = dict(truth, annotations=[dict(truth["annotations"][0], bbox=[0, 0, 2, 3])])
    assert digest_of(images, other, confusion) != original
    # The same annotation, predicted differently, is the same data.
    assert digest_of(images, truth, confusion[:, :, ::-1]) == original


def test_a_folder_without_a_record_says_who_writes_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"record\.json: no such file, .* efftasks test --report writes it"):
        EvaluationRecord.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("record.json", b"{", r"record\.json: cannot be read"),
        ("record.json", b"[]", r"record\.json: has no 'model', expected the record"),
        ("record.json", None, r"record\.json: schema: got 9, expected 1"),
        ("predictions.json", b"\xff", r"predictions\.json: cannot be read"),
        ("confusion.npz", b"no zip", r"confusion\.npz: cannot be read"),
        ("confusion.npz", b"PK\x03\x04 cut off", r"confusion\.npz: cannot be read"),
        ("confusion.npz", b"", r"confusion\.npz: cannot be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    record().save(tmp_path)
    if content is None:
        about = json.loads((tmp_path / name).read_text())
        content = json.dumps(dict(about, schema=9)).encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        EvaluationRecord.load(tmp_path)


@pytest.mark.parametrize("name", ["ground_truth.json", "confusion.npz"])
def test_a_missing_part_is_named(tmp_path: Path, name: str) -> None:
    record().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name}: no such file"):
        EvaluationRecord.load(tmp_path)


def test_a_place_that_cannot_be_written_is_a_failure_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="the record of the evaluation could not be written"):
        record().save(tmp_path / "file")


def test_a_folder_keeps_no_part_of_an_older_record(tmp_path: Path) -> None:
    record().save(tmp_path)
    record(**LABEL_MAPS_ALONE).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.npz", "record.json"]
    record(**OBJECTS_ALONE).save(tmp_path)
    assert not (tmp_path / "confusion.npz").exists()
