from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from efftasks.datasets.coco_check import check_coco
from efftasks.datasets.convert_run import choose_parts
from efftasks.datasets.convert_write import render_written, write_folder
from efftasks.datasets.convert_yolo import read_yolo
from efftasks.structures.errors import UserError


def make(root: Path, names: list[str], part: str = "") -> None:
    for name in names:
        path = root / "images" / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        value = hashlib.sha256(name.encode()).digest()[0]
        cv2.imwrite(str(path), np.full((20, 40, 3), value, np.uint8))
        label = root / "labels" / part / Path(name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.5 0.5 0.5 0.5\n")


def names_of(out: Path, part: str) -> list[str]:
    return [row["file_name"] for row in json.loads((out / f"annotations/{part}.json").read_text())["images"]]


@pytest.fixture
def root(tmp_path) -> Path:
    make(tmp_path / "set", ["a.png", "deep/a.png"], "train")
    make(tmp_path / "set", ["a.png"], "val")
    return tmp_path / "set"


def write(root: Path, out: Path, **options):
    source = read_yolo(root, ["cat"])
    return write_folder(source, choose_parts(source), out, **options)


@pytest.mark.parametrize("how", ["link", "copy", "refer"])
def test_images_from_elsewhere(root, tmp_path, how):
    out = tmp_path / "out"
    written = write(root, out, pictures=how)
    up = "../../set/images/" if how == "refer" else ""
    assert names_of(out, "train") == [f"{up}train/a.png", f"{up}train/deep/a.png"]
    assert names_of(out, "val") == [f"{up}val/a.png"]
    for part in ("train", "val"):
        assert check_coco(out / f"annotations/{part}.json").faults == []
    if how != "refer":
        same = os.path.samefile(out / "images/val/a.png", root / "images/val/a.png")
        assert same == (how == "link")
    assert f"3 {dict(link='linked', copy='copied', refer='left where they are')[how]}" in render_written(written)


def test_a_file_system_without_links_gets_copies(root, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert "3 copied" in render_written(write(root, tmp_path / "out"))
    assert (tmp_path / "out/images/val/a.png").read_bytes() == (root / "images/val/a.png").read_bytes()


def test_into_itself_nothing_moves(root):
    before = sorted(root.rglob("*.png"))
    write(root, root)
    assert sorted(root.rglob("*.png")) == before and names_of(root, "train") == ["train/a.png", "train/deep/a.png"]


def test_writing_again_gives_the_same_bytes(root, tmp_path):
    seen = []
    for _ in range(2):
        write(root, tmp_path / "out")
        files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
        seen.append({path: path.read_bytes() for path in files})
    assert seen[0] == seen[1] and len(seen[0]) == 5


def test_what_others_made_is_not_overwritten(root, tmp_path):
    out = tmp_path / "out"
    (out / "annotations").mkdir(parents=True)
    (out / "annotations/val.json").write_text('{"images": []}')
    with pytest.raises(UserError, match=r"val\.json: is there, and 'efftasks dataset convert' did not write it"):
        write(root, out)
    (out / "annotations/val.json").unlink()
    (out / "images/val").mkdir(parents=True)
    (out / "images/val/a.png").write_bytes(b"another")
    with pytest.raises(UserError, match=r"images/val/a\.png: is there, and is another picture"):
        write(root, out)
    assert not list((out / "annotations").iterdir())


def test_the_split_is_steady(tmp_path):
    make(tmp_path / "set", [f"{number}.png" for number in range(20)])
    parts = {seed: choose_parts(read_yolo(tmp_path / "set", ["cat"]), val_share=0.25, seed=seed) for seed in (0, 1)}
    chosen = {seed: {item.path.name for item in part["val"].items} for seed, part in parts.items()}
    assert len(chosen[0]) == len(chosen[1]) == 5 and chosen[0] != chosen[1]
    assert len(parts[0]["train"].items) == 15
    assert not chosen[0] & {item.path.name for item in parts[0]["train"].items}
    make(tmp_path / "set", ["more.png"])  # one more image moves one at most
    again = choose_parts(read_yolo(tmp_path / "set", ["cat"]), val_share=0.25)
    assert len({item.path.name for item in again["val"].items} ^ chosen[0]) <= 2


def test_copies_of_one_photograph_stay_together(tmp_path):
    names = [f"p{photo}_jpg.rf.{copy}.png" for photo in range(6) for copy in range(3)]
    make(tmp_path / "set", names)
    parts = choose_parts(read_yolo(tmp_path / "set", ["cat"]), val_share=0.3)
    photos = {name: {item.path.name.split(".rf.")[0] for item in part.items} for name, part in parts.items()}
    assert not photos["train"] & photos["val"] and len(parts["val"].items) == 6


def test_one_image_cannot_be_divided(tmp_path):
    make(tmp_path / "set", ["a.png"])
    with pytest.raises(UserError, match=r"--val-share: got 0\.9 of one image"):
        choose_parts(read_yolo(tmp_path / "set", ["cat"]), val_share=0.9)


def test_a_set_without_a_training_part(root):
    for path in [*(root / "images/train").rglob("*.png")]:
        path.unlink()
    with pytest.raises(UserError, match="has val, expected a training part"):
        choose_parts(read_yolo(root, ["cat"]))
    assert list(choose_parts(read_yolo(root, ["cat"]), only="valid")) == ["val"]


def test_an_image_in_both_parts_is_told(root, tmp_path):
    for part in ("train", "val"):
        (root / f"{part}.txt").write_text("images/train/a.png\n")
    (root / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cat]\n")
    source = read_yolo(root)
    write_folder(source, choose_parts(source), tmp_path / "out")
    assert "1 images are in both train and val" in source.report.warnings[0]


def test_a_validation_part_without_objects_is_told(root, tmp_path):
    (root / "labels/val/a.txt").write_text("")
    written = write(root, tmp_path / "out")
    assert "none of 1 images of val shows an object" in written.report.warnings[0]
    for file in (root / "labels/train").rglob("*.txt"):
        file.write_text("")
    with pytest.raises(UserError, match="none of 2 images of train shows an object"):
        write(root, tmp_path / "again")
    assert not (tmp_path / "again").exists()
