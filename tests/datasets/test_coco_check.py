from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from efftasks.annotations.coco import rle_counts
from efftasks.datasets.coco_check import check_coco, images_beside
from efftasks.datasets.coco_rules import RULES
from efftasks.structures.errors import UserError

WIDTH, HEIGHT = 40, 30


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def clean() -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[5:15, 10:20] = 1
    rle = coco_mask.encode(mask)
    return {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 2, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [10, 5, 10, 10],
                "area": 100,
                "iscrowd": 0,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},
                "keypoints": [12, 6, 2, 0, 0, 0],
                "num_keypoints": 1,
            },
            {
                "id": 2,
                "image_id": 2,
                "category_id": 2,
                "bbox": [0, 0, 40.2, 30],
                "area": 1200.0,
                "segmentation": [[0, 0, 40, 0, 40, 30]],
            },
        ],
        "categories": [
            {"id": 1, "name": "cat", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]},
            {"id": 2, "name": "dog"},
        ],
    }


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "b.png")):
        cv2.imwrite(str(folder / name), picture(number))
    return folder


def write(folder: Path, data: object) -> Path:
    path = folder / "ann.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def rules_of(folder: Path, data: object, **options) -> dict[str, int]:
    return {rule: len(faults) for rule, faults in check_coco(write(folder, data), **options).by_rule().items()}


def test_a_clean_file_has_no_fault(tmp_path, images):
    report = check_coco(write(tmp_path, clean()), images, classes=["dog", "cat"])
    assert report.ok and report.notes == []
    assert report.counts == {"images": 2, "annotations": 2, "categories": 2}
    assert report.render_text().endswith("result: no faults")


# One fault at a time: (rule, how often, what is done to a clean file).
BREAK = {
    "images key missing": ("file", 1, lambda d: d.pop("images")),
    "annotations not a list": ("file", 1, lambda d: d.update(annotations={})),
    "annotations empty": ("file", 1, lambda d: d.update(annotations=[])),
    "entry not an object": ("fields", 1, lambda d: d["annotations"].append(7)),
    "id missing": ("fields", 1, lambda d: d["annotations"][0].pop("id")),
    "id a list": ("fields", 1, lambda d: d["annotations"][0].update(id=[7])),
    "category id a text": ("fields", 1, lambda d: d["annotations"][0].update(category_id="1")),
    "text for a number": ("unknown-image", 1, lambda d: d["annotations"][0].update(image_id="1")),
    "area missing": ("fields", 1, lambda d: d["annotations"][0].pop("area")),
    "area nan": ("fields", 1, lambda d: d["annotations"][0].update(area=float("nan"))),
    "box missing": ("fields", 1, lambda d: d["annotations"][0].pop("bbox")),
    "crowd flag": ("fields", 1, lambda d: d["annotations"][0].update(iscrowd=[1])),
    "width zero": ("fields", 1, lambda d: d["images"][0].update(width=0)),
    "file name empty": ("fields", 1, lambda d: d["images"][0].update(file_name=" ")),
    "same image id": ("duplicate-image-id", 1, lambda d: d["images"].append({**d["images"][0], "file_name": "c.jpg"})),
    "same file name": ("duplicate-file-name", 1, lambda d: d["images"].append({**d["images"][0], "id": 3})),
    "same annotation id": ("duplicate-annotation-id", 1, lambda d: d["annotations"].append(d["annotations"][0])),
    "same category id": ("duplicate-category-id", 1, lambda d: d["categories"].append({"id": 1, "name": "cow"})),
    "same category name": ("duplicate-category-name", 1, lambda d: d["categories"].append({"id": 3, "name": "dog"})),
    "no such image": ("unknown-image", 1, lambda d: d["annotations"][0].update(image_id=9)),
    "no such category": ("unknown-category", 1, lambda d: d["annotations"][1].update(category_id=9)),
    "box of three": ("box-form", 1, lambda d: d["annotations"][0].update(bbox=[1, 2, 3])),
    "box with nan": ("box-form", 1, lambda d: d["annotations"][0].update(bbox=[1, 2, float("nan"), 3])),
    "box with inf": ("box-form", 1, lambda d: d["annotations"][0].update(bbox=[1, 2, float("inf"), 3])),
    "box with text": ("box-form", 1, lambda d: d["annotations"][0].update(bbox=[1, 2, "3", 3])),
    "box of huge numbers": ("box-form", 1, lambda d: d["annotations"][0].update(bbox=[1, 2, 10**400, 3])),
    "box flat": ("box-area", 1, lambda d: d["annotations"][0].update(bbox=[1, 2, 3, 0])),
    "box negative": ("box-area", 1, lambda d: d["annotations"][0].update(bbox=[9, 2, -3, 4])),
    "box too far right": ("box-outside", 1, lambda d: d["annotations"][0].update(bbox=[31.5, 2, 10, 4])),
    "box above": ("box-outside", 1, lambda d: d["annotations"][0].update(bbox=[3, -2, 10, 9])),
    "polygon of two points": ("mask-polygon", 1, lambda d: d["annotations"][1].update(segmentation=[[1, 2, 3, 4]])),
    "polygon odd": ("mask-polygon", 1, lambda d: d["annotations"][1].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]])),
    "polygon not nested": ("mask-polygon", 1, lambda d: d["annotations"][1].update(segmentation=[1, 2, 3, 4, 5, 6])),
    "polygon text": ("mask-polygon", 1, lambda d: d["annotations"][1].update(segmentation="square")),
    "rle of another size": ("mask-rle", 1, lambda d: d["annotations"][0]["segmentation"].update(size=[WIDTH, HEIGHT])),
    "rle cut": ("mask-rle", 1, lambda d: d["annotations"][0]["segmentation"].update(counts="eT")),
    "rle nonsense": ("mask-rle", 1, lambda d: d["annotations"][0]["segmentation"].update(counts="\x01 nonsense")),
    "rle too short": ("mask-rle", 1, lambda d: d["annotations"][0]["segmentation"].update(counts=[5, 5])),
    "rle negative": ("mask-rle", 1, lambda d: d["annotations"][0]["segmentation"].update(counts=[-5, 1205])),
    "rle empty": ("mask-rle", 1, lambda d: d["annotations"][0]["segmentation"].update(counts=[1200])),
    "rle without counts": ("mask-rle", 1, lambda d: d["annotations"][0]["segmentation"].pop("counts")),
    "skeleton": ("keypoint-names", 1, lambda d: d["categories"][0].update(skeleton=[[0, 1]])),
    "keypoint names": ("keypoint-names", 1, lambda d: d["categories"][1].update(keypoints="nose")),
    "one keypoint": ("keypoint-length", 1, lambda d: d["annotations"][0].update(keypoints=[1, 2, 2])),
    "keypoint nan": ("keypoint-length", 1, lambda d: d["annotations"][0].update(keypoints=[float("nan")] * 6)),
    "visibility": ("keypoint-visibility", 1, lambda d: d["annotations"][0].update(keypoints=[1, 2, 3, 0, 0, 0])),
    "keypoint far": ("keypoint-outside", 1, lambda d: d["annotations"][0].update(keypoints=[99, 2, 2, 0, 0, 0])),
    "keypoint count": ("keypoint-count", 1, lambda d: d["annotations"][0].update(num_keypoints=2)),
    "no keypoint count": ("keypoint-count", 1, lambda d: d["annotations"][0].pop("num_keypoints")),
}


@pytest.mark.parametrize("name", BREAK)
def test_each_fault_is_found(tmp_path, name):
    rule, times, spoil = BREAK[name]
    data = clean()
    spoil(data)
    assert rules_of(tmp_path, data).get(rule) == times


@pytest.mark.parametrize("text", ["", "  \n", "{", "[1, 2", "\x00\x01", "[]", "3", "null", "{}"])
def test_what_is_no_coco_file_at_all(tmp_path, text):
    assert set(rules_of(tmp_path, text)) == {"file"}


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "ann.json"
    path.write_bytes(b"\xff\xfe\x00{")
    assert [fault.rule for fault in check_coco(path).faults] == ["file"]


def test_ids_that_are_texts_are_a_note_and_byte_order_marks_are_nothing(tmp_path, images):
    data = clean()
    for row in data["images"]:
        row["id"] = f"im{row['id']}"
    for row in data["annotations"]:
        row.update(id=f"ann{row['id']}", image_id=f"im{row['image_id']}")
    (tmp_path / "ann.json").write_text(json.dumps(data), encoding="utf-8-sig")
    report = check_coco(tmp_path / "ann.json", images)
    assert report.ok and report.notes == [
        "the ids of 2 images are texts: efftasks takes them, other tools may want whole numbers"
    ]


def test_ids_that_json_cannot_hold_are_reported_as_text(tmp_path):
    data = clean()
    data["annotations"][0].update(id=float("nan"), image_id=[1], bbox=[1])
    report = check_coco(write(tmp_path, data))
    assert set(report.by_rule()) == {"fields", "box-form"}
    faults = json.loads(json.dumps(report.to_dict(), allow_nan=False))["faults"]
    assert {(fault["annotation_id"], fault["image_id"]) for fault in faults} == {("nan", "[1]")}


def test_a_file_name_that_no_file_can_have_is_a_missing_image(tmp_path, images):
    data = clean()
    data["images"][0]["file_name"] = "x" * 5000
    assert rules_of(tmp_path, data, images=images) == {"image-missing": 1}


def test_class_lists_that_do_not_fit_name_the_nearest(tmp_path):
    report = check_coco(write(tmp_path, clean()), classes=["Cat", "dgo", "dgo", "zebra"])
    text = "\n".join(fault.message for fault in report.faults)
    assert {fault.rule for fault in report.faults} == {"classes"}
    assert "class 'Cat' is no category of the file; the nearest is 'cat'" in text
    assert "class 'dgo' is 2 times in the list" in text
    assert "class 'zebra' is no category of the file" in text and "'zebra' is no category of the file;" not in text
    assert "category 'dog' of the file is not in the class list; the nearest is 'dgo'" in text


def test_keypoints_asked_for(tmp_path):
    assert rules_of(tmp_path, clean(), keypoints=2) == {"keypoint-length": 1}  # the dog has none
    assert rules_of(tmp_path, clean(), keypoints=3) == {"keypoint-names": 1, "keypoint-length": 2}


def progressive(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.98, 1.0])
@pytest.mark.parametrize("kind", ["jpg", "progressive", "png", "webp", "bmp"])
def test_truncated_files_are_found_and_whole_ones_pass(tmp_path, images, kind, share):
    image = cv2.resize(picture(), (WIDTH, HEIGHT))
    data = progressive(image) if kind == "progressive" else cv2.imencode(f".{kind}", image)[1].tobytes()
    (images / "a.jpg").write_bytes(data[: int(len(data) * share)])
    found = rules_of(tmp_path, clean(), images=images)
    assert found == ({} if share == 1 else {"image-unreadable": 1})


def test_bytes_after_the_end_and_end_marks_of_thumbnails_do_not_mislead(tmp_path, images):
    data = cv2.imencode(".jpg", picture())[1].tobytes()
    thumbnail = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data  # a whole JPEG inside a segment
    (images / "a.jpg").write_bytes(data[:2] + thumbnail + data[2:] + b"\0" * 20)
    assert rules_of(tmp_path, clean(), images=images) == {}
    (images / "a.jpg").write_bytes(data[:2] + thumbnail + data[2 : len(data) // 2])
    assert rules_of(tmp_path, clean(), images=images) == {"image-unreadable": 1}


def test_a_damaged_png_is_found_by_its_checksum(tmp_path, images):
    data = bytearray((images / "b.png").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (images / "b.png").write_bytes(bytes(data))
    report = check_coco(write(tmp_path, clean()), images)
    assert [fault.rule for fault in report.faults] == ["image-unreadable"] and "checksum" in report.faults[0].message


def test_missing_and_swapped_images(tmp_path, images):
    (images / "a.jpg").unlink()
    cv2.imwrite(str(images / "b.png"), picture(0, WIDTH, HEIGHT))
    report = check_coco(write(tmp_path, clean()), images)
    assert {fault.rule: fault.file_name for fault in report.faults} == {"image-missing": "a.jpg", "image-size": "b.png"}
    assert "30 x 40, the file says 40 x 30; the two sides are swapped" in report.by_rule()["image-size"][0].message


def test_a_wrong_folder_is_guessed(tmp_path, images):
    report = check_coco(write(tmp_path, clean()), tmp_path)
    assert len(report.by_rule()["image-missing"]) == 2 and any(
        "the folder that file_name is relative to" in note for note in report.notes
    )


def test_images_and_categories_without_annotations_are_notes(tmp_path):
    data = clean()
    data["annotations"].pop()
    report = check_coco(write(tmp_path, data))
    assert report.ok
    assert "1 of 2 images have no annotations (b.png)" in report.notes
    assert "1 of 2 categories have no annotations (dog)" in report.notes


def test_all_faults_are_found_in_one_run(tmp_path, images):
    data, extra = clean(), clean()["annotations"]
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:-40])
    cv2.imwrite(str(images / "d.png"), picture(0, 20, 20))
    for number, name in ((2, "b.png"), (3, "gone.jpg"), (4, "d.png"), (5, "d.png")):
        data["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
    data["categories"] += [{"id": 2, "name": "cat", "keypoints": ["a"], "skeleton": [[1, 9]]}]
    changes: list[dict] = [
        {"image_id": 99},
        {"category_id": 99},
        {"bbox": [0, 0, 1]},
        {"bbox": [0, 0, 0, 5]},
        {"bbox": [35, 0, 10, 5]},
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": {"size": [3, 3], "counts": [9]}},
        {"keypoints": [1, 2]},
        {"keypoints": [1, 1, 5, 99, 99, 2], "num_keypoints": 0},
    ]
    for number, change in enumerate(changes):
        data["annotations"].append({**copy.deepcopy(extra[0]), "id": 10 + number, **change})
    data["annotations"] += [{"id": 10}, "nonsense"]
    data["annotations"][0].pop("area")
    data["extra"] = "harmless"
    del data["images"][3]["width"]
    report = check_coco(write(tmp_path, data), images, classes=["cat", "dog", "cow"])
    assert set(report.by_rule()) == set(RULES) - {"file"}
    text = report.render_text(examples=1)
    assert all(rule in text for rule in set(RULES) - {"file"})
    assert f"result: {len(report.faults)} faults in {len(RULES) - 1} rules" in text
    assert json.loads(json.dumps(report.to_dict()))["faults_by_rule"]["unknown-image"] == 1


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_are_those_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    mask = (cv2.resize(rng.random((6, 5)), (70 + seed, 400)) > rng.uniform(0.2, 0.8)).astype(np.uint8)
    flat = np.concatenate([[0], mask.reshape(-1, order="F"), [2]])
    changes = np.flatnonzero(np.diff(flat))
    expected = np.diff(np.concatenate([[0], changes]))  # lengths of runs, the first of zeros
    found = rle_counts(coco_mask.encode(np.asfortranarray(mask))["counts"].decode())
    np.testing.assert_array_equal(found, expected)


def test_calls_without_a_file_or_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such annotation file"):
        check_coco(tmp_path / "none.json")
    with pytest.raises(UserError, match="no such folder of images"):
        check_coco(write(tmp_path, clean()), tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "split", "keypoints"),
    [("bccd", "val", None), ("coco_mini", "val", None), ("nuclei", "val", None), ("coco_pose", "val", 17)],
)
def test_real_sets_have_no_fault(name, split, keypoints):
    root = os.environ.get("EFFTASKS_TEST_DATA")
    if not root:
        pytest.skip("EFFTASKS_TEST_DATA is not set")
    folder = Path(root, name)
    report = check_coco(folder / "annotations" / f"{split}.json", folder / "images", keypoints=keypoints)
    assert report.faults == []
    assert report.counts["annotations"] > 40


def test_one_pixel_outside_is_allowed(tmp_path):
    data = clean()
    data["annotations"][0]["bbox"] = [-1, 5, 10, 26]
    assert rules_of(tmp_path, data) == {}
    data["annotations"][0]["bbox"] = [-1.1, 5, 10, 26]
    assert rules_of(tmp_path, data) == {"box-outside": 1}


def test_the_folder_of_images_is_found_beside_that_of_the_annotations(tmp_path, images):
    (tmp_path / "annotations").mkdir()
    path = write(tmp_path / "annotations", clean())
    assert images_beside(path) == images
    (images / "a.jpg").unlink()
    assert [fault.rule for fault in check_coco(path).faults] == ["image-missing"]
    assert images_beside(write(tmp_path, clean())) is None
    assert any("not looked at" in note for note in check_coco(write(tmp_path, clean())).notes)
