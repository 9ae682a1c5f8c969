import json
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from efftasks.datasets.coco_topdown import CocoTopDown
from efftasks.datasets.transforms.topdown import CropBox, MirrorCrop, PackTopDown
from efftasks.imaging.crops import warp_points
from efftasks.structures.errors import UserError

TEST = [dict(type="LoadImage"), dict(type=CropBox, size=(64, 48)), dict(type=PackTopDown)]
TRAIN = [
    dict(type="LoadImage"),
    dict(type=CropBox, size=(64, 48), shift=0.1, scale=(0.75, 1.25), degrees=30.0),
    dict(type=MirrorCrop),
    dict(type="mmdet.YOLOXHSVRandomAug"),
    dict(type=PackTopDown),
]


@pytest.fixture(autouse=True)
def scope():
    DefaultScope.get_instance("test-coco-topdown", scope_name="efftasks")


@pytest.fixture
def data(tmp_path: Path) -> dict:
    (tmp_path / "images").mkdir()
    images = []
    for i in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), np.full((40, 80, 3), 10 * i, np.uint8))
        images.append(dict(id=100 + i, file_name=f"{i}.png", width=80, height=40))
    seen = [12, 14, 2, 28, 26, 1, 0, 0, 0]
    annotations = [
        dict(id=1, image_id=100, category_id=9, bbox=[10, 10, 20, 20], area=400, iscrowd=0, keypoints=seen),
        dict(id=2, image_id=100, category_id=2, bbox=[-4, 0, 12, 8], area=64, iscrowd=0, keypoints=[0] * 9),
        dict(id=3, image_id=101, category_id=2, bbox=[0, 0, 80, 40], area=3200, iscrowd=1, keypoints=[0] * 9),
        dict(id=4, image_id=102, category_id=2, bbox=[1, 2, 30, 20], area=600, iscrowd=0, keypoints=seen),
        dict(id=5, image_id=102, category_id=2, bbox=[1, 2, 0, 20], area=0, iscrowd=0, keypoints=[5, 5, 2, *[0] * 6]),
        dict(id=6, image_id=102, category_id=9, bbox=[1, 2, 8, 8], area=64),
        dict(id=7, image_id=999, category_id=9, bbox=[1, 2, 8, 8], area=64, keypoints=seen),
    ]
    points = dict(keypoints=["tail", "left_eye", "right_eye"], skeleton=[[1, 2], [1, 3]])
    categories = [dict(id=9, name="cat", **points), dict(id=2, name="dog", **points), dict(id=5, name="stone")]
    return dict(images=images, annotations=annotations, categories=categories)


def build(folder: Path, data: dict, pipeline=TEST, classes=("cat", "dog"), keypoints=None, **kwargs) -> CocoTopDown:
    (folder / "a.json").write_text(json.dumps(data))
    metainfo: dict[str, Any] = dict(classes=classes) | ({} if keypoints is None else dict(keypoints=keypoints))
    return CocoTopDown(
        ann_file="a.json",
        data_root=str(folder),
        data_prefix=dict(img="images/"),
        pipeline=pipeline,
        metainfo=metainfo,
        **kwargs,
    )


def test_a_sample_an_object_and_in_training_only_those_with_keypoints(tmp_path, data):
    dataset = build(tmp_path, data)
    assert [dataset.get_data_info(i)["ann_id"] for i in range(len(dataset))] == [1, 4]
    tested = build(tmp_path, data, test_mode=True)
    infos = [tested.get_data_info(i) for i in range(len(tested))]
    assert [info["ann_id"] for info in infos] == [1, 2, 4, 6]  # neither the crowd nor the line
    assert [info["label"] for info in infos] == [0, 1, 1, 0]
    assert infos[1]["box"] == (0, 0, 8, 8)  # clipped to the image
    assert infos[3]["keypoints"].tolist() == [[0, 0, 0]] * 3  # none annotated
    assert [x["bbox"] for x in infos[1]["instances"]] == [[0, 0, 8, 8]]  # as those have it who draw


def test_without_a_box_of_any_size_that_around_the_keypoints_is_taken(tmp_path, data):
    for number in (0, 3):
        data["annotations"][number].pop("bbox")
    data["annotations"][0]["bbox"] = [0, 0, 0, 0]
    dataset = build(tmp_path, data)
    assert [dataset.get_data_info(i)["box"] for i in range(len(dataset))] == [(12, 14, 28, 26)] * 2


def test_facts_are_the_files_unless_the_config_says_otherwise(tmp_path, data):
    facts = build(tmp_path, data).metainfo
    assert facts["classes"] == ("cat", "dog") and facts["category_ids"] == (9, 2)
    assert facts["keypoints"] == dict(
        names=("tail", "left_eye", "right_eye"),
        sigmas=(0.05, 0.025, 0.025),
        flip_pairs=((1, 2),),
        skeleton=((0, 1), (0, 2)),  # the file counts from 1
    )
    said = build(tmp_path, data, keypoints=dict(sigmas=0.1, flip_pairs=()))
    assert said.metainfo["keypoints"]["sigmas"] == (0.1, 0.1, 0.1)
    assert said.get_data_info(0)["keypoint_mirror"] == (0, 1, 2)


def test_keypoints_are_in_pixels_of_the_crop_and_lead_back(tmp_path, data):
    sample = build(tmp_path, data)[0]["data_samples"]
    # 20 px of width times 1.25 become 48: 1.92 a pixel, about (20, 20).
    wanted = [24 + (12 - 20) * 1.92, 32 + (14 - 20) * 1.92, 2]
    np.testing.assert_allclose(sample.gt_instances.keypoints[0, 0], wanted, atol=1e-4)
    back = warp_points(sample.gt_instances.keypoints[0].numpy(), sample.crop_to_image)
    np.testing.assert_allclose(back, [[12, 14, 2], [28, 26, 1], [0, 0, 0]], atol=1e-4)


def test_unreadable_images(tmp_path, data):
    (tmp_path / "images" / "0.png").write_bytes(b"no image")
    sample = build(tmp_path, data)[0]["data_samples"]
    assert sample.ann_id == 4 and [Path(p).name for p in sample.skipped_files] == ["0.png"]
    tested = build(tmp_path, data, test_mode=True)[0]
    assert tested["data_samples"].ann_id == 1 and (tested["inputs"] == 114).all()


def test_what_is_no_keypoints_file_is_refused(tmp_path, data):
    with pytest.raises(UserError, match="none of the categories \\('stone',\\) has keypoints"):
        build(tmp_path, {**data, "annotations": [dict(data["annotations"][0], category_id=5)]}, classes=("stone",))
    with pytest.raises(UserError, match="annotation 1: 'keypoints' has 9 numbers, expected 12"):
        build(tmp_path, {**data, "categories": [dict(c, keypoints=["a", "b", "c", "d"]) for c in data["categories"]]})
    with pytest.raises(UserError, match="none of 1 annotations has keypoints"):
        build(tmp_path, {**data, "annotations": data["annotations"][1:2]})


@pytest.mark.parametrize(("name", "points", "train", "val"), [("coco_pose", 17, 42, 44), ("glue_tubes", 2, 185, 41)])
def test_real_sets(real_data, name, points, train, val):
    """42 persons have keypoints to train on; of 46 to test on 2 are crowds."""
    common: dict[str, Any] = dict(data_root=str(real_data / name), data_prefix=dict(img="images/"))
    dataset = CocoTopDown(ann_file="annotations/train.json", pipeline=TRAIN, **common)
    tested = CocoTopDown(ann_file="annotations/val.json", pipeline=TEST, test_mode=True, **common)
    assert (len(dataset), len(tested)) == (train, val)
    assert len(dataset.metainfo["keypoints"]["names"]) == points
    for i in range(0, len(dataset), 7):
        sample = dataset[i]
        assert sample["inputs"].shape == (3, 64, 48)
        info, truth = dataset.get_data_info(i), sample["data_samples"]
        back = warp_points(truth.gt_instances.keypoints[0].numpy(), truth.crop_to_image)
        order = [list(info["keypoint_mirror"]), list(range(points))]
        assert min(np.abs(back - info["keypoints"][o]).max() for o in order) < 0.02
    if name == "coco_pose":
        assert dataset.metainfo["keypoints"]["flip_pairs"] == tuple((i, i + 1) for i in range(1, 17, 2))
        assert dataset.metainfo["keypoints"]["skeleton"][0] == (15, 13)
        assert dataset.metainfo["keypoints"]["sigmas"][0] == 0.026
