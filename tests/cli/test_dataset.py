from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import efftasks
from efftasks.cli import dataset
from efftasks.datasets.shapes import SEMANTIC_CLASSES
from efftasks.structures.errors import UserError


def call(*words: object) -> int:
    parser = argparse.ArgumentParser()
    dataset.add_parser(parser.add_subparsers())
    args = parser.parse_args(["dataset", *map(str, words)])
    return args.run(args)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "shapes"
    assert call("shapes", "--out", folder, "--train", 4, "--val", 2, "--size", 64, "--seed", 5) == 0
    return folder


def test_shapes_check_and_preview_in_a_row(root, tmp_path, capsys):
    annotations = root / "annotations/train.json"
    assert call("check", annotations, "--images", root / "images", "--keypoints", 4) == 0
    assert "result: no faults" in capsys.readouterr().out
    assert call("preview", annotations, "--images", root / "images", "--out", tmp_path / "seen", "--num", 3) == 0
    assert "3 pictures" in capsys.readouterr().out and len(list((tmp_path / "seen").iterdir())) == 4


def test_check_exits_1_on_a_fault_and_writes_the_report(root, tmp_path, capsys):
    data = json.loads((root / "annotations/train.json").read_text())
    for annotation in data["annotations"]:
        annotation["category_id"] = 50
    (tmp_path / "ann.json").write_text(json.dumps(data))
    words = [tmp_path / "ann.json", "--classes", "circle,sqare", "--examples", 1, "--out", tmp_path / "report.json"]
    assert call("check", *words) == 1
    out = capsys.readouterr().out
    assert "the nearest is 'square'" in out and "more" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["faults_by_rule"]["unknown-category"] == len(data["annotations"]) and not report["ok"]


def test_a_folder_of_label_maps_is_checked_and_drawn(root, tmp_path, capsys):
    labels, names = root / "cityscapes/gtFine/train", ",".join(SEMANTIC_CLASSES)
    assert call("check", labels, "--classes", names, "--out", tmp_path / "report.json") == 0
    out = capsys.readouterr().out
    assert "4 images, 4 label maps, 4 pairs" in out and "result: no faults" in out
    assert json.loads((tmp_path / "report.json").read_text())["counts"]["pairs"] == 4
    images = ["--images", root / "cityscapes/leftImg8bit/train"]
    assert call("preview", labels, *images, "--out", tmp_path / "seen", "--num", 3, "--classes", names) == 0
    assert "3 pictures" in capsys.readouterr().out and len(list((tmp_path / "seen").iterdir())) == 4
    assert call("check", labels, *images, "--classes", "background", "--examples", 0) == 1
    out = capsys.readouterr().out
    assert "label-ids (fault): 4 x" in out and "... and 4 more" in out


def test_warnings_are_no_faults_and_the_classes_file_is_found(tmp_path, capsys):
    for folder, picture in (("images", np.zeros((20, 20, 3), np.uint8)), ("labels", np.full((20, 20), 9, np.uint8))):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), picture)
    (tmp_path / "classes.json").write_text('["road"]')
    assert call("check", tmp_path / "labels") == 1
    assert "has 9 (400 px); expected 0 to 0, or 255" in capsys.readouterr().out
    assert call("check", tmp_path / "labels", "--ignore", 9) == 0
    assert "result: no faults, 2 warnings" in capsys.readouterr().out


def test_options_of_the_other_kind_of_source(root, tmp_path):
    labels, annotations = root / "cityscapes/gtFine/train", root / "annotations/train.json"
    for words, message in (
        (["check", labels, "--keypoints", 4], "--keypoints: is for COCO files"),
        (["check", annotations, "--ignore", 255], "--ignore: is for folders of label maps"),
        (["preview", annotations, "--out", tmp_path, "--classes", "a"], "--classes: is for folders of label maps"),
        (["preview", annotations, "--out", tmp_path, "--ignore", 0], "--ignore: is for folders of label maps"),
    ):
        with pytest.raises(UserError, match=message):
            call(*words)
    assert not any(tmp_path.iterdir())


def test_convert_from_both_forms(tmp_path, capsys):
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images/train/a.jpg"), np.zeros((50, 100, 3), np.uint8))
    (tmp_path / "labels/train/a.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    out = tmp_path / "yolo.json"
    assert call("convert", tmp_path, "--from", "yolo", "--split", "train", "--out", out, "--classes", "cat,dog") == 0
    assert json.loads(out.read_text())["annotations"][0]["bbox"] == [40, 15, 20, 20]
    assert f"relative to {tmp_path / 'images/train'}" in capsys.readouterr().out
    xml = "<annotation><object><name>dog</name><bndbox><xmin>41</xmin><ymin>16</ymin><xmax>60</xmax><ymax>35</ymax>"
    (tmp_path / "labels/train/a.xml").write_text(xml + "</bndbox></object></annotation>")
    out = tmp_path / "voc.json"
    words = ["--images", tmp_path / "images/train", "--labels", tmp_path / "labels/train", "--out", out]
    assert call("convert", tmp_path, "--from", "voc", *words) == 0
    assert json.loads(out.read_text())["annotations"][0]["bbox"] == [40, 15, 20, 20]
    assert call("convert", tmp_path, "--from", "voc", *words, "--voc-offset", 0) == 0
    assert json.loads(out.read_text())["annotations"][0]["bbox"] == [41, 16, 19, 19]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "none.json"], "none.json: no such annotation file"),
        (["preview", "none.json", "--images", ".", "--out", "x"], "none.json: cannot be read"),
        (["convert", "none", "--from", "voc", "--out", "x.json"], "none: no such folder"),
        (["convert", ".", "--from", "yolo", "--out", "x.json", "--labels", "none"], "none: no such folder"),
        (["convert", ".", "--from", "yolo", "--out", "x.json"], "no class names found"),
        (["shapes", "--out", "x", "--train", "0"], "train: got 0"),
        (["check", "."], "no folder of images found beside it"),
        (["check", ".", "--images", "none"], "none: no such folder of images"),
        (["preview", ".", "--images", "none", "--out", "x"], "none: no such folder of images"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        call(*words)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_numbers_out_of_range(root):
    for flag in ("--keypoints", "--examples"):
        with pytest.raises(UserError, match=f"{flag}: got -1"):
            call("check", root / "annotations/val.json", flag, "-1")


@pytest.mark.parametrize("action", [[], ["shapes"], ["check"], ["preview"], ["convert"]])
def test_help_has_examples(action, capsys):
    with pytest.raises(SystemExit) as caught:
        call(*action, "--help")
    assert caught.value.code == 0 and "examples:" in capsys.readouterr().out


def test_neither_torch_nor_mm_is_imported():
    code = (
        "import sys, efftasks.cli.dataset, efftasks.datasets.shapes, efftasks.datasets.coco_check;"
        "import efftasks.datasets.coco_preview, efftasks.datasets.convert_yolo, efftasks.datasets.convert_voc;"
        "import efftasks.datasets.convert_coco, efftasks.datasets.convert_labelme, efftasks.datasets.convert_write;"
        "import efftasks.datasets.semantic_check, efftasks.datasets.semantic_preview;"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg')])"
    )
    folder = Path(efftasks.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
