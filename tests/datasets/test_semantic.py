"""Folders of images and label maps, and one real frame of Cityscapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image

from efftasks import apis
from efftasks.datasets.semantic import SemanticFolder
from efftasks.datasets.transforms.loading import LoadSegMap
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError

META = dict(classes=("a", "b", "c"))
PREFIX = dict(img_path="img", seg_map_path="ann")
LOAD: list[dict] = [
    dict(type="LoadImage"),
    dict(type="LoadSegMap"),
    dict(type="mmseg.PackSegInputs", meta_keys=("skipped_files",)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 6 x 8 with labels that are their number."""
    for name in ("img", "ann"):
        (tmp_path / name).mkdir()
    for i, suffix in enumerate(("png", "jpg", "bmp")):
        cv2.imwrite(str(tmp_path / "img" / f"{i}.{suffix}"), np.full((6, 8, 3), 50 * i, np.uint8))
        cv2.imwrite(str(tmp_path / "ann" / f"{i}.png"), np.full((6, 8), i, np.uint8))
    return tmp_path


def make(root: Path, **changes: Any) -> SemanticFolder:
    with DefaultScope.overwrite_default_scope("efftasks"):
        return SemanticFolder(
            **{**dict(data_root=str(root), data_prefix=PREFIX, metainfo=META, pipeline=LOAD), **changes}
        )


def test_images_of_any_suffix_with_their_labels(folder: Path) -> None:
    data = make(folder)
    assert len(data) == 3
    for i in range(3):
        sample = data[i]
        assert int(sample["inputs"].float().mean()) == pytest.approx(50 * i, abs=1)
        assert (sample["data_samples"].gt_sem_seg.data == i).all()
    assert len(data.metainfo["palette"]) == 3


def test_zero_may_be_no_class(folder: Path) -> None:
    data = make(folder, reduce_zero_label=True)
    assert [int(data[i]["data_samples"].gt_sem_seg.data[0, 0, 0]) for i in range(3)] == [255, 0, 1]


def test_what_the_classes_file_ignores_is_ignored_in_training_and_scoring(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for folder, picture in (("img", np.zeros((6, 8, 3), np.uint8)), ("ann", np.full((6, 8), 99, np.uint8))):
            (tmp_path / folder / part).mkdir(parents=True)
            picture[0, 0] = 1
            cv2.imwrite(str(tmp_path / folder / part / "a.png"), picture)
    (tmp_path / "classes.json").write_text(json.dumps(dict(classes=["a", "b"], ignore=99)))
    options = {"data_root": str(tmp_path), "image_size": (8, 8)}
    cfg = apis.load_config("fpnlite-n_mobilenetv4-conv-s_1xb8-100e_custom-512", options)
    with DefaultScope.overwrite_default_scope("efftasks"):
        train, val = (DATASETS.build(cfg[f"{part}_dataloader"].dataset) for part in ("train", "val"))
    assert set(np.unique(train[0]["data_samples"].gt_sem_seg.data)) <= {1, 255}
    assert np.unique(val[0]["data_samples"].gt_sem_seg.data).tolist() == [1, 255]


def test_what_does_not_pair_up_is_an_error(folder: Path) -> None:
    (folder / "ann" / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.jpg: one of 1 files that have no label map"):
        make(folder)
    (folder / "img" / "1.jpg").unlink()
    assert len(make(folder)) == 2
    (folder / "img" / "2.bmp").unlink()
    with pytest.raises(UserError, match=r"2\.png: one of 1 files that have no image"):
        make(folder)
    with pytest.raises(UserError, match="classes: got none"):
        make(folder, metainfo={})
    with pytest.raises(UserError, match="no such folder"):
        make(folder, data_prefix=dict(img_path="nowhere", seg_map_path="ann"))


def test_unreadable_images_are_skipped_in_training_and_blank_in_testing(folder: Path) -> None:
    broken = folder / "img" / "1.jpg"
    broken.write_bytes(b"no image")
    sample = make(folder)[1]
    assert sample["data_samples"].metainfo["skipped_files"] == (str(broken),)
    assert (sample["data_samples"].gt_sem_seg.data == 2).all()
    sample = make(folder, test_mode=True)[1]
    assert (sample["inputs"] == 114).all() and (sample["data_samples"].gt_sem_seg.data == 1).all()
    label = folder / "ann" / "0.png"
    label.write_bytes(label.read_bytes()[:40])
    assert make(folder)[0]["data_samples"].metainfo["skipped_files"] == (str(label), str(broken))


def test_label_maps_are_indices(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(numbers, mode="P")
    image.putpalette([7] * 36)
    image.save(path)
    assert np.array_equal(LoadSegMap()(dict(seg_map_path=str(path)))["gt_seg_map"], numbers)
    found = LoadSegMap()(dict(seg_map_path=str(path), label_map={0: 5, 5: 255}))["gt_seg_map"]
    assert found[0, 0] == 5 and found[1, 1] == 255 and found[2, 3] == 11
    assert LoadSegMap()(dict(img_path="only.png")) == dict(img_path="only.png")
    cv2.imwrite(str(path), np.full((3, 4), 300, np.uint16))
    with pytest.raises(UserError, match="has the number 300"):
        LoadSegMap()(dict(seg_map_path=str(path)))
    cv2.imwrite(str(path), np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(UserError, match="channels"):
        LoadSegMap()(dict(seg_map_path=str(path)))


def test_the_cityscapes_frame_is_read_by_mmseg_too(real_data: Path) -> None:
    root = real_data / "cityscapes_sample"
    common: dict[str, Any] = dict(data_root=str(root), pipeline=LOAD, test_mode=True)
    with DefaultScope.overwrite_default_scope("efftasks"):
        prefix = dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")
        native = DATASETS.build(dict(type="mmseg.CityscapesDataset", data_prefix=prefix, **common))
        plain = SemanticFolder(data_prefix=prefix, metainfo=dict(classes=native.metainfo["classes"]), **common)
    assert len(native) == len(plain) == 1
    a, b = native[0], plain[0]
    assert (a["inputs"] == b["inputs"]).all() and tuple(a["inputs"].shape) == (3, 128, 256)
    assert (a["data_samples"].gt_sem_seg.data == b["data_samples"].gt_sem_seg.data).all()
    labels = np.unique(a["data_samples"].gt_sem_seg.data)
    assert 0 in labels and 255 in labels and labels[labels != 255].max() <= 18
