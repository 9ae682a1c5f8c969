import json
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from efftasks.datasets.coco import CocoDetection, match_classes, read_coco
from efftasks.structures.errors import UserError

PIPELINE = [
    dict(type="LoadImage"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="FitImage", size=(64, 64)),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "ori_shape", "scale_factor", "skipped_files")),
]


@pytest.fixture(autouse=True)
def scope():
    DefaultScope.get_instance("test-coco", scope_name="efftasks")


@pytest.fixture
def data(tmp_path: Path) -> dict:
    (tmp_path / "images").mkdir()
    images = []
    for i in range(4):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), np.full((40, 80, 3), 10 * i, np.uint8))
        images.append(dict(id=100 + i, file_name=f"{i}.png", width=80, height=40))
    annotations = [
        dict(id=1, image_id=100, category_id=9, bbox=[10, 10, 20, 20], area=400, iscrowd=0),
        dict(id=2, image_id=100, category_id=2, bbox=[0, 0, 8, 8], area=64, iscrowd=0),
        dict(id=3, image_id=101, category_id=5, bbox=[0, 0, 80, 40], area=3200, iscrowd=1),
    ]
    categories = [dict(id=9, name="cat"), dict(id=2, name="dog"), dict(id=5, name="bird")]
    return dict(images=images, annotations=annotations, categories=categories)


def build(folder: Path, data: dict, classes=None, **kwargs) -> CocoDetection:
    (folder / "a.json").write_text(json.dumps(data))
    metainfo: dict[str, Any] = {} if classes is None else dict(metainfo=dict(classes=classes))
    return CocoDetection(
        ann_file="a.json",
        data_root=str(folder),
        data_prefix=dict(img="images/"),
        pipeline=PIPELINE,
        **metainfo,
        **kwargs,
    )


def test_boxes_are_cut_to_the_image_and_those_beside_it_dropped(tmp_path, data):
    data["annotations"] = [
        dict(id=1, image_id=100, category_id=2, bbox=[-5, -7, 100, 20], iscrowd=0),
        dict(id=2, image_id=100, category_id=2, bbox=[70, 30, 20, 20], iscrowd=0),
        dict(id=3, image_id=100, category_id=2, bbox=[90, 10, 5, 5], iscrowd=0),
        dict(id=4, image_id=100, category_id=2, bbox=[10, -9, 5, 9], iscrowd=0),
    ]
    instances = build(tmp_path, data).get_data_info(0)["instances"]
    assert [row["bbox"] for row in instances] == [[0, 0, 80, 13], [70, 30, 80, 40]]


def test_labels_follow_the_ids_which_may_have_gaps(tmp_path, data):
    dataset = build(tmp_path, data)
    assert dataset.metainfo["classes"] == ("dog", "bird", "cat")
    assert dataset.metainfo["category_ids"] == (2, 5, 9)
    sample = dataset[0]["data_samples"]
    assert sample.gt_instances.labels.tolist() == [2, 0]


def test_labels_follow_the_classes_where_they_are_given(tmp_path, data):
    dataset = build(tmp_path, data, classes=("cat", "dog"))
    assert dataset.metainfo["category_ids"] == (9, 2)
    assert dataset[0]["data_samples"].gt_instances.labels.tolist() == [0, 1]
    assert len(dataset) == 4  # images without objects stay
    assert len(dataset[2]["data_samples"].gt_instances) == 0


def test_boxes_are_in_the_letterboxed_frame_and_crowds_apart(tmp_path, data):
    dataset = build(tmp_path, data)
    sample = dataset[0]
    assert sample["inputs"].shape == (3, 64, 64)
    assert sample["inputs"][:, 40, 40].tolist() == [114, 114, 114]  # 80 x 40 -> 64 x 32, padded below
    assert sample["data_samples"].gt_instances.bboxes.tensor[0].tolist() == [8, 8, 24, 24]
    crowd = dataset[1]["data_samples"]
    assert len(crowd.gt_instances) == 0 and len(crowd.ignored_instances) == 1


def test_an_unreadable_image_is_replaced_in_training_and_blank_in_testing(tmp_path, data):
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    sample = build(tmp_path, data)[1]["data_samples"]
    assert sample.img_id == 102 and [Path(p).name for p in sample.skipped_files] == ["1.png"]
    sample = build(tmp_path, data, test_mode=True)[1]
    assert sample["data_samples"].img_id == 101 and sample["data_samples"].ori_shape == (40, 80)
    assert (sample["inputs"] == 114).all()


def test_all_images_unreadable_ends_with_a_sentence(tmp_path, data):
    dataset = build(tmp_path, data)
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="images in a row cannot be read"):
        dataset[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("{}", "empty"),
        ("[1]", "empty"),
        ("{oops", "not JSON"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}]}', "'images' is missing or empty"),
        ('{"images": [{"id": 1}], "categories": []}', "'categories' is missing or empty"),
    ],
)
def test_broken_annotation_files(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_coco(tmp_path / "a.json")


def test_missing_annotation_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_coco(tmp_path / "none.json")


def test_classes_that_do_not_fit_are_named_before_training(tmp_path, data):
    with pytest.raises(UserError, match="'cta', which is no category of the file; did you mean 'cat'"):
        build(tmp_path, data, classes=("cta", "dog"))
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] == 9]
    with pytest.raises(UserError, match="none of 1 annotations"):
        build(tmp_path, data, classes=("dog",))


def test_category_names_twice(data):
    data["categories"].append(dict(id=11, name="cat"))
    with pytest.raises(UserError, match="category names occur twice"):
        match_classes("a.json", data["categories"], None)
