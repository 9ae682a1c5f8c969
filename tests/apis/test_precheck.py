"""The data of a config is looked at before the first step: what would be wrong in silence stops, or is told once."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks import apis
from efftasks.apis import precheck
from efftasks.apis.precheck import precheck as check
from efftasks.cli.main import main
from efftasks.datasets.shapes import write_shapes
from efftasks.structures.errors import UserError

BOXES = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
MASKS = "o2oseg-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
POSE = "o2opose-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
ALL = "o2omulti-n_mobilenetv4-conv-s_1xb16-36e_shapes-128"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "efftasks" / "checks"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=16, val=6, size=64, seed=1)


@pytest.fixture
def data(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the built-in shapes."""
    shutil.copytree(shapes, tmp_path / "data")
    return tmp_path / "data"


def change(data: Path, split: str, how: Callable[[dict], Any]) -> None:
    file = data / "annotations" / f"{split}.json"
    content = json.loads(file.read_text())
    how(content)
    file.write_text(json.dumps(content))


def config(name: str, data: Path, **options: Any) -> Any:
    return apis.load_config(name, {"data_root": f"{data}/", **options})


def clear(field: str) -> Callable[[dict], None]:
    def how(content: dict) -> None:
        for annotation in content["annotations"]:
            annotation[field] = []

    return how


@pytest.mark.parametrize("name", [BOXES, MASKS, POSE, ALL])
def test_of_good_data_nothing_is_told(data: Path, name: str) -> None:
    assert check(config(name, data), ("train", "val", "test")) == []


@pytest.mark.parametrize(
    ("name", "field", "said"), [(MASKS, "segmentation", "a mask"), (POSE, "keypoints", "a labeled keypoint")]
)
def test_what_is_learned_and_scored_must_be_there(data: Path, name: str, field: str, said: str) -> None:
    for split in ("train", "val"):
        change(data, split, clear(field))
    with pytest.raises(UserError) as caught:
        check(config(name, data), ("train", "val"))
    message = str(caught.value)
    assert "train.json: none of" in message and "which this config trains on" in message and said in message
    assert "val.json: none of" in message and "which this config scores" in message and "--skip-check" in message
    assert check(config(BOXES, data), ("train", "val")) == []  # boxes do not ask for it


def test_a_validation_without_objects_is_told(data: Path) -> None:
    change(data, "val", lambda content: content.update(annotations=[]))
    (warning,) = check(config(BOXES, data), ("train", "val"))
    assert "val.json: has no objects, so there is nothing to score" in warning
    assert check(config(BOXES, data), ("train",)) == []


def test_a_category_that_nothing_is_of_is_told(data: Path) -> None:
    for split in ("train", "val"):
        change(
            data,
            split,
            lambda content: content["categories"].insert(0, dict(id=0, name="shapes", supercategory="none")),
        )
    cfg = config(BOXES, data, classes=("shapes", "circle", "square", "triangle", "star", "ring", "cross"))
    (warning,) = check(cfg, ("train", "val"))
    assert "1 of the classes have no object to learn from ('shapes')" in warning and "`classes`" in warning


def test_label_maps_beside_the_objects_must_be_there(data: Path) -> None:
    shutil.rmtree(data / "cityscapes" / "gtFine")
    with pytest.raises(UserError, match=r"label maps are missing .* does seg_map name their place"):
        check(config(ALL, data), ("train",))


def test_a_part_of_a_mixture_may_lack_what_another_has(data: Path) -> None:
    leaf = config(MASKS, data).train_dataloader.dataset.to_dict()
    shutil.copy(data / "annotations/train.json", data / "annotations/boxes.json")
    change(data, "boxes", clear("segmentation"))
    other = dict(leaf, ann_file="annotations/boxes.json")
    cfg = config(MASKS, data)
    cfg.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[leaf, other])
    assert check(cfg, ("train",)) == []
    change(data, "train", clear("segmentation"))
    with pytest.raises(UserError, match=r"train\.json, .*boxes\.json: no object of any of these files has masks"):
        check(cfg, ("train",))


def test_what_has_not_changed_is_not_looked_at_again(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    look = precheck.look

    def watched(path: str, *args: Any) -> Any:
        looked.append(Path(path).name)
        return look(path, *args)

    monkeypatch.setattr(precheck, "look", watched)
    change(data, "val", lambda content: content.update(annotations=[]))
    cfg = config(BOXES, data)
    first = check(cfg, ("train", "val"))
    assert looked == ["train.json", "val.json"] and len(first) == 1 and len(list(cache.iterdir())) == 2
    assert check(cfg, ("train", "val")) == first and len(looked) == 2
    os.utime(data / "annotations/val.json", ns=(1, 1))
    check(cfg, ("train", "val"))
    assert looked[2:] == ["val.json"]
    monkeypatch.setattr("efftasks.__version__", "another")
    check(cfg, ("train", "val"))
    assert looked[3:] == ["train.json", "val.json"]
    check(config(MASKS, data), ("train",))  # asks for more
    assert looked[5:] == ["train.json"]


def test_without_a_place_for_the_cache_it_looks_each_time(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(data / "file"))
    assert check(config(BOXES, data), ("train",)) == []


def test_the_command_stops_before_the_first_step_and_may_be_told_not_to_look(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(data, "val", clear("segmentation"))
    words = ["train", MASKS, "--work-dir", str(tmp_path / "run"), "--cfg-options", f"data_root={data}/"]
    stepped: list[int] = []
    monkeypatch.setattr("efftasks.engine.runner.EffRunner.train", lambda self: stepped.append(1))
    assert main(words) == 2 and not stepped
    assert "val.json: none of" in capsys.readouterr().err
    assert main([*words[:2], "--skip-check", *words[2:]]) == 0 and stepped


def test_warnings_are_logged_once(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(
        data, "val", lambda content: content["annotations"][0].update(bbox=[0, 0, 0, 0], segmentation=[], keypoints=[])
    )
    logger = logging.getLogger("test-precheck")
    precheck.precheck_together(config(BOXES, data), ("val", "test"), logger)
    assert [record.getMessage() for record in caplog.records if "no size" in record.getMessage()] == [
        f"{data}/annotations/val.json: 1 objects have no size (a box of zero, negative or unknown width or height, and "
        "no mask) and are left out, of training and of scores alike"
    ]


def test_label_maps_of_0_and_255_stop_the_training_before_its_first_step(tmp_path):
    for split in ("train", "val"):
        for folder, value in ((tmp_path / "img" / split, 90), (tmp_path / "ann" / split, 255)):
            folder.mkdir(parents=True)
            for i in range(3):
                picture = np.zeros((32, 32), np.uint8)
                picture[8:20, 8:20] = value
                cv2.imwrite(str(folder / f"{i}.png"), picture)
    name = "fpnlite-n_mobilenetv4-conv-s_1xb8-100e_custom-512"
    options = {"data_root": f"{tmp_path}/", "classes": ("background", "object"), "image_size": (32, 32)}
    with pytest.raises(UserError, match=r"ann/train: 3 label maps have the numbers 0, 255 only.*label_values=0,255"):
        check(apis.load_config(name, options), ("train", "val"))
    assert check(apis.load_config(name, {**options, "label_values": (0, 255)}), ("train", "val")) == []


def test_pictures_of_12_bits_are_told(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.full((32, 32, 3), 4000, np.uint16))
    box = dict(id=1, image_id=1, category_id=1, bbox=[2, 2, 9, 9], area=81, iscrowd=0)
    image = dict(id=1, file_name="a.png", width=32, height=32)
    data = dict(images=[image], annotations=[box], categories=[dict(id=1, name="ant")])
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"annotations/{split}.json").write_text(json.dumps(data))
    options = {"data_root": f"{tmp_path}/"}
    name = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"
    (warning,) = check(apis.load_config(name, options), ("train",))
    assert "values 4000..4000 in 16 bits" in warning and "pixel_range=0,4095" in warning
    assert check(apis.load_config(name, {**options, "pixel_range": (0, 4095)}), ("train",)) == []
