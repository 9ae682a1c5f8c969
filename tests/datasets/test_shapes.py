from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from efftasks.datasets import shapes
from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.shapes import SEMANTIC_CLASSES, write_shapes
from efftasks.datasets.shapes_geometry import CLASSES, KEYPOINTS, cover, keypoints_of, outlines_of
from efftasks.datasets.shapes_scene import MIN_PIXELS, make_scene
from efftasks.structures.errors import UserError

TRAIN, VAL, SIZE = 24, 8, 128


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), TRAIN, VAL, SIZE, seed=3)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def load(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"{split}.json").read_text())


def test_the_same_seed_gives_the_same_bytes_in_another_process(root, tmp_path):
    code = "import sys; from efftasks.datasets.shapes import write_shapes as w; w(sys.argv[1], 24, 8, 128, 3)"
    environment = {**os.environ, "PYTHONPATH": str(Path(shapes.__file__).parents[2]), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True, env=environment)
    assert files_of(tmp_path / "again") == files_of(root)


def test_another_seed_and_the_other_split_give_other_pictures(root, tmp_path):
    other = write_shapes(tmp_path, 2, 1, SIZE, seed=4)
    pictures = [root / "images/train/000000.png", root / "images/val/000000.png", other / "images/train/000000.png"]
    assert len({p.read_bytes() for p in pictures}) == 3


def test_a_larger_set_begins_with_the_smaller_and_a_smaller_one_leaves_nothing_behind(root, tmp_path):
    small = write_shapes(tmp_path, 5, 3, SIZE, seed=3)
    big, little = files_of(root), files_of(small)
    same = [name for name in little if name.endswith(".png")]
    assert len(same) == 3 * (5 + 3) and all(big[name] == little[name] for name in same)
    for split, count in (("train", 5), ("val", 3)):
        whole, part = load(root, split), load(small, split)
        assert whole["images"][:count] == part["images"]
        assert whole["annotations"][: len(part["annotations"])] == part["annotations"]
    write_shapes(tmp_path, TRAIN, VAL, SIZE, seed=3)
    write_shapes(tmp_path, 5, 3, SIZE, seed=3)
    assert files_of(tmp_path) == little


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_and_areas_are_those_that_pycocotools_finds_in_the_masks(root, split):
    data = COCO(str(root / "annotations" / f"{split}.json"))
    assert len(data.anns) > 10
    for annotation in data.anns.values():
        encoded = data.annToRLE(annotation)
        assert coco_mask.toBbox(encoded).tolist() == annotation["bbox"]
        assert int(coco_mask.area(encoded)) == annotation["area"] >= MIN_PIXELS


def test_visible_keypoints_lie_on_their_objects_mask_and_hidden_ones_do_not(root):
    data = COCO(str(root / "annotations/train.json"))
    seen = {0: 0, 1: 0, 2: 0}
    for annotation in data.anns.values():
        mask = data.annToMask(annotation)
        points = np.reshape(annotation["keypoints"], (-1, 3))
        assert len(points) == len(KEYPOINTS) and annotation["num_keypoints"] == (points[:, 2] > 0).sum()
        for x, y, v in points:
            seen[int(v)] += 1
            if v:
                assert 0 <= x < SIZE and 0 <= y < SIZE
                assert mask[int(y), int(x)] == (v == 2)
            else:
                assert x == y == 0
    assert min(seen.values()) > 0


def test_semantic_maps_are_the_instance_masks(root):
    for split in ("train", "val"):
        data = COCO(str(root / "annotations" / f"{split}.json"))
        for image in data.imgs.values():
            stem = Path(image["file_name"]).stem
            name = f"cityscapes/gtFine/{split}/shapes/shapes_{stem}_000019_gtFine_labelTrainIds.png"
            found = cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED)
            expected = np.zeros((SIZE, SIZE), np.uint8)
            covered = np.zeros((SIZE, SIZE), int)
            for annotation in data.imgToAnns[image["id"]]:
                mask = data.annToMask(annotation)
                covered += mask
                expected[mask > 0] = SEMANTIC_CLASSES.index(data.cats[annotation["category_id"]]["name"])
            assert covered.max() <= 1
            np.testing.assert_array_equal(found, expected)


def test_cityscapes_files_pair_up_and_are_the_same_pictures(root):
    for split, count in (("train", TRAIN), ("val", VAL)):
        pictures = sorted((root / "cityscapes/leftImg8bit" / split).rglob("*.png"))
        maps = sorted((root / "cityscapes/gtFine" / split).rglob("*.png"))
        assert len(pictures) == len(maps) == count
        for number, (picture, truth) in enumerate(zip(pictures, maps, strict=True)):
            assert picture.name.replace("_leftImg8bit.png", "_gtFine_labelTrainIds.png") == truth.name
            assert picture.parent.name == truth.parent.name
            assert picture.read_bytes() == (root / f"images/{split}/{number:06d}.png").read_bytes()


def test_without_hard_links_the_pictures_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(shapes.os, "link", refuse)
    write_shapes(tmp_path, 1, 1, 64)
    copied = tmp_path / "cityscapes/leftImg8bit/train/shapes/shapes_000000_000019_leftImg8bit.png"
    assert copied.read_bytes() == (tmp_path / "images/train/000000.png").read_bytes()


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_checker_finds_nothing(root, split):
    report = check_coco(root / "annotations" / f"{split}.json", root / "images", CLASSES, len(KEYPOINTS))
    assert report.faults == []


def test_scenes_vary_as_promised():
    scenes = [make_scene(0, 0, index, 96) for index in range(150)]
    counts = [len(scene.instances) for scene in scenes]
    assert 1 <= counts.count(0) <= 12 and max(counts) >= 7
    labels = [instance.label for scene in scenes for instance in scene.instances]
    assert min(np.bincount(labels, minlength=len(CLASSES))) > 0.1 * len(labels)
    areas = np.array([instance.mask.mean() for scene in scenes for instance in scene.instances])
    assert np.quantile(areas, 0.9) > 6 * np.quantile(areas, 0.1)


def test_objects_stand_out_from_what_is_behind_them():
    differences = []
    for index in range(60):
        scene = make_scene(0, 0, index, 96)
        saturation = cv2.cvtColor(scene.image, cv2.COLOR_BGR2HSV)[..., 1].astype(float)
        differences += [
            saturation[item.mask].mean() - saturation[scene.semantic == 0].mean() for item in scene.instances
        ]
    assert np.quantile(differences, 0.1) > 10  # of 255


@pytest.mark.parametrize("name", ["square", "circle"])
def test_a_cover_lies_where_its_outline_does(name):
    """On the average its center of mass is the center: half a pixel of the fine grid would be 0.125 pixels."""
    errors = []
    for center in np.linspace((50, 41), (51, 42), 16, endpoint=False):
        left, top, shares = cover([line * 20 + center for line in outlines_of(name)])
        rows, columns = np.mgrid[: shares.shape[0], : shares.shape[1]] + 0.5
        found = (columns * shares).sum() / shares.sum() + left, (rows * shares).sum() / shares.sum() + top
        errors.append(found - center)
    np.testing.assert_allclose(np.mean(errors, axis=0), 0, atol=0.02)
    np.testing.assert_allclose(errors, 0, atol=0.1)


@pytest.mark.parametrize("name", CLASSES)
def test_outlines_have_the_area_of_their_formula_and_keypoints_lie_inside(name):
    scale, center = 40.0, np.array([60.3, 57.8])
    left, top, shares = cover([line * scale + center for line in outlines_of(name)])
    sides = {  # of the unit shapes, by the formulas of elementary geometry
        "circle": np.pi,
        "ring": np.pi * (1 - 0.52**2),
        "square": 2 * 1.15**2,
        "triangle": 0.75 * np.sqrt(3) * 1.15**2,
        "star": 10 * 0.5 * 1.1 * 0.48 * np.sin(np.deg2rad(36)),
        "cross": 4 * 0.66 * (1.05 - 0.33) + 0.66**2,
    }
    assert shares.sum() == pytest.approx(sides[name] * scale**2, rel=0.03)
    for x, y in keypoints_of(name) * scale + center:
        assert shares[int(y) - top, int(x) - left] == 1


@pytest.mark.parametrize(
    ("field", "given"), [("train", {"train": 0}), ("val", {"val": 0}), ("size", {"size": 8}), ("seed", {"seed": -1})]
)
def test_numbers_out_of_range_are_named(tmp_path, field, given):
    with pytest.raises(UserError, match=f"^{field}: got"):
        write_shapes(tmp_path, **given)
    assert not any(tmp_path.iterdir())


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        write_shapes(tmp_path, 1, 1, 64)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    shutil.rmtree(tmp_path)
    tmp_path.write_text("a file")
    with pytest.raises(UserError, match="is a file"):
        write_shapes(tmp_path, 1, 1, 64)
