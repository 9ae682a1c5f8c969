from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from efftasks.datasets.coco_preview import fit_mask, preview_coco
from efftasks.datasets.shapes import write_shapes
from efftasks.structures.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 6, 1, 96)


def test_pictures_and_sheet_are_written_and_show_something(root, tmp_path):
    result = preview_coco(root / "annotations/train.json", root / "images", tmp_path, num=4)
    assert len(result.files) == 4 and result.left_out == []
    assert set(tmp_path.iterdir()) == {*result.files, result.sheet}
    for file in result.files:
        drawn = cv2.imread(str(file))
        plain = cv2.imread(str(root / "images" / "train" / f"{file.stem.split('_')[-1]}.png"))
        assert drawn.shape == (480, 480, 3)
        changed = np.abs(drawn.astype(int) - cv2.resize(plain, (480, 480), interpolation=cv2.INTER_CUBIC)).max(-1) > 60
        assert changed.any()


def test_the_seed_chooses_the_images(root, tmp_path):
    def names(seed: int) -> list[str]:
        return [p.name for p in preview_coco(root / "annotations/train.json", root / "images", tmp_path, 2, seed).files]

    assert names(0) == names(0)
    assert len({tuple(names(seed)) for seed in range(6)}) > 1


def test_the_folder_of_images_beside_that_of_the_annotations_is_the_default(root, tmp_path):
    assert len(preview_coco(root / "annotations/train.json", None, tmp_path, num=2).files) == 2
    (tmp_path / "ann.json").write_bytes((root / "annotations/train.json").read_bytes())
    with pytest.raises(UserError, match="name one with --images"):
        preview_coco(tmp_path / "ann.json", None, tmp_path)


def test_the_box_is_drawn_where_it_is(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((600, 500, 3), 90, np.uint8))
    data = {
        "images": [{"id": 7, "file_name": "a.png", "width": 500, "height": 600}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [100, 200, 300, 250]}],
        "categories": [{"id": 3, "name": "x"}],
    }
    (tmp_path / "ann.json").write_text(json.dumps(data))
    file = preview_coco(tmp_path / "ann.json", tmp_path, tmp_path / "out").files[0]
    changed = np.abs(cv2.imread(str(file)).astype(int) - 90).max(-1) > 60
    edges = np.flatnonzero(changed[400])
    assert abs(edges.min() - 100) <= 2 and abs(edges.max() - 399) <= 2


def test_broken_annotations_and_images_are_left_out_and_named(root, tmp_path):
    data = json.loads((root / "annotations/train.json").read_text())
    data["annotations"][0]["bbox"] = [1, 2]
    data["annotations"][1]["category_id"] = 77
    data["annotations"][2]["segmentation"] = [[1, 2]]
    data["annotations"][3].pop("image_id")
    data["images"].append({"id": 99, "file_name": "gone.png"})
    (tmp_path / "ann.json").write_text(json.dumps(data))
    result = preview_coco(tmp_path / "ann.json", root / "images", tmp_path / "out", num=50)
    assert len(result.files) == 6
    assert result.left_out[0].startswith("4 broken annotations") and "gone.png" in result.left_out[1]


def test_files_of_the_same_name_in_two_folders_both_get_a_picture(tmp_path):
    for folder in ("x", "y/x"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    names = ["x/a.png", "x_a.png", "x/a.jpg"]
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 20, 3), np.uint8))
    images = [{"id": k, "file_name": name, "width": 20, "height": 20} for k, name in enumerate(names)]
    data = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "ann.json").write_text(json.dumps(data))
    assert len(set(preview_coco(tmp_path / "ann.json", tmp_path, tmp_path / "out").files)) == 3


def test_all_three_forms_of_a_mask_decode_to_the_same():
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, 8:20] = 1
    packed = coco_mask.encode(np.asfortranarray(mask))
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], mask.reshape(-1, order="F"), [2]]))), prepend=0).tolist()
    forms = [
        [[8, 5, 20, 5, 20, 12, 8, 12]],
        {"size": [20, 30], "counts": packed["counts"].decode()},
        {"size": [20, 30], "counts": runs},
    ]
    for form in forms:
        np.testing.assert_array_equal(fit_mask(form, 20, 30), mask > 0)
    assert fit_mask(forms[1], 10, 40).shape == (10, 40)


def test_wrong_calls(root, tmp_path):
    annotations = root / "annotations/train.json"
    with pytest.raises(UserError, match="num: got 0"):
        preview_coco(annotations, root / "images", tmp_path, num=0)
    with pytest.raises(UserError, match="no such folder of images"):
        preview_coco(annotations, tmp_path / "none", tmp_path)
    with pytest.raises(UserError, match="none of 6 images can be read"):
        preview_coco(annotations, tmp_path, tmp_path / "out")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        preview_coco(tmp_path / "bad.json", root / "images", tmp_path)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match="'images' is missing"):
        preview_coco(tmp_path / "bad.json", root / "images", tmp_path)
