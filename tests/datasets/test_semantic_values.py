"""Label maps whose numbers are not the indices of classes: 0 and 255, 0, 128 and 255, from 1 on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from efftasks import apis
from efftasks.cli.options import parse_options
from efftasks.datasets.coco import CocoDetection
from efftasks.datasets.semantic import SemanticFolder
from efftasks.datasets.semantic_preview import preview_semantic
from efftasks.datasets.semantic_values import label_values, parse_values
from efftasks.imaging.prediction import Prediction
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError

CONFIG = "fpnlite-n_mobilenetv4-conv-s_1xb8-100e_custom-512"
NAMES = ["ground", "ball"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One image of 8 x 10 in each part, whose upper half is a ball, drawn as 255."""
    labels = np.zeros((8, 10), np.uint8)
    labels[:4] = 255
    for part in ("train", "val"):
        for folder, picture in (("img", np.full((8, 10, 3), 90, np.uint8)), ("ann", labels)):
            (tmp_path / folder / part).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / folder / part / "a.png"), picture)
    (tmp_path / "classes.json").write_text(json.dumps(NAMES))
    return tmp_path


def config(root: Path, *options: str):
    return apis.load_config(CONFIG, parse_options([f"data_root={root}", "image_size=8,8", *options]))


def test_255_may_be_a_class_in_training_and_in_scoring(root: Path) -> None:
    cfg = config(root, "label_values=0,255")
    with DefaultScope.overwrite_default_scope("efftasks"):
        val = DATASETS.build(cfg.val_dataloader.dataset)
        train = DATASETS.build(cfg.train_dataloader.dataset)
    labels = val[0]["data_samples"].gt_sem_seg.data[0].numpy()
    assert (labels[:4] == 1).all() and (labels[4:] == 0).all()
    assert set(np.unique(train[0]["data_samples"].gt_sem_seg.data)) <= {0, 1}

    def ground(entries):
        facts = dict(classes=tuple(NAMES), category_ids=(0, 1))
        return [Prediction.of_labels(entry["img_path"], np.zeros((8, 10), np.uint8), **facts) for entry in entries]

    # The half that is ball is missed: without the values it was ignored, and the score was 100.
    found = apis.evaluate(cfg, ground, NAMES).metrics
    assert found["IoU/ground"] == 50 and found["IoU/ball"] == 0 and found["mIoU"] == 25 and found["aAcc"] == 50


def test_the_file_of_classes_states_them_as_well(root: Path) -> None:
    entries = [dict(name=name, value=value) for name, value in zip(NAMES, (0, 255))]
    (root / "classes.json").write_text(json.dumps(dict(classes=entries)))
    for options in ((), (f"classes={','.join(NAMES)}",)):  # a checkpoint names the classes when it is loaded
        dataset = config(root, *options).val_dataloader.dataset
        assert tuple(dataset.metainfo.label_values) == (0, 255)
    assert "label_values" not in config(root, "classes=a,b").val_dataloader.dataset.metainfo


def test_a_config_that_was_written_out_is_read_again(root: Path) -> None:
    cfg = config(root, "label_values=0,255")
    cfg.dump(root / "dumped.py")
    again = apis.load_config(root / "dumped.py", dict(label_values=[0, 255]))
    assert tuple(again.val_dataloader.dataset.metainfo.label_values) == (0, 255)
    other = apis.load_config(root / "dumped.py", dict(label_values=[0, 1]))
    assert tuple(other.val_dataloader.dataset.metainfo.label_values) == (0, 1)
    cfg.val_dataloader.dataset.metainfo = dict(classes=NAMES, label_values=[1, 0])
    with pytest.raises(UserError, match=r"label_values: got .*, but metainfo.label_values of a data set is"):
        apis.load_config(cfg)


def test_numbers_without_a_class_are_an_error_when_they_are_read(root: Path) -> None:
    def load(**meta):
        with DefaultScope.overwrite_default_scope("efftasks"):
            data = SemanticFolder(
                data_root=str(root),
                data_prefix=dict(img_path="img/train", seg_map_path="ann/train"),
                metainfo=dict(classes=NAMES, **meta),
                pipeline=[dict(type="LoadSegMap")],
            )
        return np.unique(data[0]["gt_seg_map"]).tolist()

    assert load() == [0, 255]
    assert load(label_values=(255, 0)) == [0, 1]
    assert load(label_values=(255, 7), ignore=0) == [0, 255]
    assert load(label_values=(0, 7)) == [0, 255]  # 255 is ignored where no class has it
    with pytest.raises(UserError, match="the label map has the number 0, expected 7, 255; where classes"):
        load(label_values=(7, 255))
    with pytest.raises(UserError, match="expected 2 different integers"):
        load(label_values=(7,))
    with pytest.raises(UserError, match="ignore: got 255, which is class 'ball'"):
        load(label_values=(0, 255), ignore=255)


def test_mmseg_data_sets_have_numbers_of_their_own(root: Path) -> None:
    name = "fpnlite-n_mobilenetv4-conv-s_4xb4-480e_cityscapes-2048"
    with pytest.raises(UserError, match=re.escape("label_values: got [0, 255] for mmseg.CityscapesDataset")):
        apis.load_config(name, dict(label_values=[0, 255]))


@pytest.mark.parametrize("values", [(0, 0), (0,), (0, 256), (0, -1), (0, 1.0), (0, True), 255, "0,1"])
def test_values_are_one_number_a_class(values) -> None:
    with pytest.raises(UserError, match=re.escape(f"label_values: got {values!r}, expected 2 different integers")):
        label_values(NAMES, values)


def test_table_by_hand() -> None:
    table = label_values(["a", "b", "c"], [128, 255, 7], ignore=0).table()
    assert table[[128, 255, 7, 0, 1]].tolist() == [0, 1, 2, 255, -1]
    assert label_values(["a"]).table()[[0, 255, 1]].tolist() == [0, 255, -1]


def test_values_of_a_command() -> None:
    assert parse_values("0, 255") == (0, 255) and parse_values(None) is None
    with pytest.raises(UserError, match="--values: got '0;255'"):
        parse_values("0;255")


def test_preview_draws_each_class_in_its_color(root: Path) -> None:
    facts = dict(name="x", color=[0, 0, 0])
    entries = [
        dict(facts, name="ground", value=0, color=[0, 0, 255]),
        dict(facts, name="ball", value=255, color=[255, 0, 0]),
    ]
    (root / "classes.json").write_text(json.dumps(dict(classes=entries)))
    result = preview_semantic(root / "ann/train", None, root / "out", num=1)
    picture = cv2.imread(str(result.files[0])).astype(int)
    height = len(picture)
    above, below = picture[height // 4, 100], picture[3 * height // 4, 100]
    assert above[2] - above[0] > 60 and below[0] - below[2] > 60  # red above, blue below
    (root / "classes.json").write_text(json.dumps(NAMES))
    plain = cv2.imread(str(preview_semantic(root / "ann/train", None, root / "out", num=1).files[0])).astype(int)
    assert np.abs(plain[height // 4, 100] - 90).max() < 12  # ignored: as the image has it


def test_label_maps_beside_objects_may_have_other_numbers_too(root: Path) -> None:
    image = dict(id=1, file_name="a.png", width=10, height=8)
    data = dict(images=[image], annotations=[], categories=[dict(id=1, name="cat")])
    (root / "val.json").write_text(json.dumps(data))
    facts = dict(semantic_classes=NAMES, label_values=[0, 255])

    def load(metainfo):
        options: dict[str, Any] = dict(data_prefix=dict(img="img/val"), seg_map="ann/val/{stem}.png", test_mode=True)
        with DefaultScope.overwrite_default_scope("efftasks"):
            data = CocoDetection(
                ann_file="val.json",
                data_root=str(root),
                metainfo=metainfo,
                pipeline=[dict(type="LoadSegMap")],
                **options,
            )
        return data[0]["gt_seg_map"]

    labels = load(facts)
    assert (labels[:4] == 1).all() and (labels[4:] == 0).all()
    assert np.unique(load(dict(semantic_classes=NAMES))).tolist() == [0, 255]
    with pytest.raises(UserError, match="label_values: got"):
        load(dict(facts, label_values=[0]))
