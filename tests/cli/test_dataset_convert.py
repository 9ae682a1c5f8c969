"""Exports of annotation tools, made here in each tool's form, the whole way: convert, check, the custom configs."""

from __future__ import annotations

import argparse
import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from efftasks.apis import shipped_configs
from efftasks.cli import dataset
from efftasks.cli.main import main
from efftasks.config import load_config
from efftasks.registry import DATASETS
from efftasks.structures.errors import UserError

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"
NAMES = ["cat", "dog"]


def call(*words: object) -> int:
    parser = argparse.ArgumentParser()
    dataset.add_parser(parser.add_subparsers())
    args = parser.parse_args(["dataset", *map(str, words)])
    return args.run(args)


class Picture(NamedTuple):
    """A picture of noise with plain rectangles on it, and what they are: class, x, y, width, height in pixels."""

    stem: str
    size: tuple[int, int]
    boxes: list[tuple[int, int, int, int, int]]

    def draw(self) -> np.ndarray:
        width, height = self.size
        image = np.random.default_rng(len(self.stem)).integers(0, 60, (height, width, 3), dtype=np.uint8)
        for label, x, y, w, h in self.boxes:
            image[y : y + h, x : x + w] = (40, 220, 90) if label else (220, 60, 200)
        return image

    def write(self, folder: Path, name: str | None = None) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / (name or f"{self.stem}.png")), self.draw())
        return name or f"{self.stem}.png"


def pictures(prefix: str, count: int) -> list[Picture]:
    rng = np.random.default_rng(sum(map(ord, prefix)) + count)
    result = []
    for number in range(count):
        size = (int(rng.integers(60, 120)), int(rng.integers(60, 120)))
        boxes = []
        for _ in range(int(rng.integers(1, 4))):
            w, h = (int(v) for v in rng.integers(8, 30, 2))
            x, y = int(rng.integers(0, size[0] - w)), int(rng.integers(0, size[1] - h))
            boxes.append((int(rng.integers(0, 2)), x, y, w, h))
        result.append(Picture(f"{prefix}{number}", size, boxes))
    return result


TRAIN, VAL = pictures("train", 5), pictures("val", 3)
SETS = {"train": TRAIN, "val": VAL}


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def yolo_lines(picture: Picture, polygon: bool = False) -> str:
    width, height = picture.size
    lines = []
    for label, x, y, w, h in picture.boxes:
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        numbers = [v / (height if i % 2 else width) for i, v in enumerate(corners)]
        box = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
        lines.append(" ".join([str(label), *(f"{v:.8f}" for v in (numbers if polygon else box))]))
    return "\n".join(lines) + "\n"


def voc_xml(picture: Picture, name: str) -> str:
    boxes = "".join(
        f"<object><name>{NAMES[label]}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax>"
        f"<ymax>{y + h}</ymax></bndbox></object>"
        for label, x, y, w, h in picture.boxes
    )
    width, height = picture.size
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{name}</filename>{size}{boxes}</annotation>"


def coco(items: list[tuple[Picture, str]], first_id: int = 1, polygon: bool = False) -> dict[str, Any]:
    """A COCO file of pictures under the names that it gives them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for key, (picture, name) in enumerate(items, start=first_id):
        images.append({"id": key, "file_name": name, "width": picture.size[0], "height": picture.size[1]})
        for label, x, y, w, h in picture.boxes:
            row = {"id": len(annotations) + first_id, "image_id": key, "category_id": label + first_id}
            shape = [[x, y, x + w, y, x + w, y + h, x, y + h]] if polygon else []
            annotations.append({**row, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": shape})
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(NAMES, first_id)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


Made = list[object]  # the words that follow `convert`


def ultralytics(root: Path, wrong_path: bool = False) -> Made:
    for part, items in SETS.items():
        for picture in items:
            picture.write(root / "images" / part)
            put(root / "labels" / part / f"{picture.stem}.txt", yolo_lines(picture))
    path = "/home/someone/datasets/mine" if wrong_path else "."
    put(root / "data.yaml", f"path: {path}\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")
    return ["--from", "yolo", root / "data.yaml"]


def ultralytics_of_another_machine(root: Path) -> Made:
    return ultralytics(root, wrong_path=True)


def ultralytics_without_yaml(root: Path) -> Made:
    ultralytics(root)
    (root / "data.yaml").unlink()
    return ["--from", "yolo", root, "--classes", "cat,dog"]


def ultralytics_lists(root: Path) -> Made:
    """Parts are lists of folders, and text files of paths."""
    ultralytics(root)
    for half, items in (("a", TRAIN[:2]), ("b", TRAIN[2:])):
        for kind, end in (("images", "png"), ("labels", "txt")):
            (root / kind / half).mkdir(parents=True)
            for picture in items:
                shutil.move(root / kind / "train" / f"{picture.stem}.{end}", root / kind / half)
    put(root / "val.txt", "".join(f"./images/val/{picture.stem}.png\n" for picture in VAL))
    put(root / "data.yaml", "train: [images/a, images/b]\nval: val.txt\nnames: [cat, dog]\n")
    return ["--from", "yolo", root]


def roboflow_yolo(root: Path) -> Made:
    for part, items in (("train", TRAIN), ("valid", VAL)):
        for picture in items:
            picture.write(root / part / "images")
            put(root / part / "labels" / f"{picture.stem}.txt", yolo_lines(picture))
    put(root / "README.roboflow.txt", "mine - v1\n")
    yaml = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    put(root / "data.yaml", yaml + "roboflow:\n  workspace: me\n  version: 1\n")
    return ["--from", "yolo", root / "data.yaml"]


def roboflow_coco(root: Path) -> Made:
    for part, items in (("train", TRAIN), ("valid", VAL)):
        content = coco([(picture, picture.write(root / part)) for picture in items])
        group = {"id": 0, "name": "animals", "supercategory": "none"}
        content["categories"] = [group, *({**row, "supercategory": "animals"} for row in content["categories"])]
        put(root / part / "_annotations.coco.json", json.dumps(content))
    return ["--from", "coco", root]


def roboflow_voc(root: Path) -> Made:
    for part, items in (("train", TRAIN), ("valid", VAL)):
        for picture in items:
            put(root / part / f"{picture.stem}.xml", voc_xml(picture, picture.write(root / part)))
    return ["--from", "voc", root, "--voc-offset", 0]


def cvat_coco(root: Path) -> Made:
    for subset, items in (("Train", TRAIN), ("Validation", VAL)):
        content = coco([(picture, picture.write(root / "images" / subset)) for picture in items], polygon=True)
        put(root / "annotations" / f"instances_{subset}.json", json.dumps(content))
    return ["--from", "coco", root]


def cvat_coco_default(root: Path) -> Made:
    content = coco([(picture, picture.write(root / "images/default")) for picture in TRAIN + VAL])
    put(root / "annotations/instances_default.json", json.dumps(content))
    return ["--from", "coco", root, "--val-share", 0.4]


def cvat_yolo_1_1(root: Path) -> Made:
    for part, folder in (("train", "obj_train_data"), ("valid", "obj_valid_data")):
        items = SETS[part[:5].replace("valid", "val")]
        for picture in items:
            picture.write(root / folder)
            put(root / folder / f"{picture.stem}.txt", yolo_lines(picture))
        put(root / f"{part}.txt", "".join(f"data/{folder}/{picture.stem}.png\n" for picture in items))
    put(root / "obj.names", "cat\ndog\n")
    lines = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    put(root / "obj.data", lines)
    return ["--from", "yolo", root]


def cvat_ultralytics(root: Path) -> Made:
    ultralytics(root)
    for part, items in SETS.items():
        put(root / f"{part}.txt", "".join(f"data/images/{part}/{picture.stem}.png\n" for picture in items))
    put(root / "data.yaml", "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\nval: val.txt\n")
    return ["--from", "yolo", root]


def cvat_voc(root: Path) -> Made:
    for part, items in SETS.items():
        for picture in items:
            put(root / "Annotations" / f"{picture.stem}.xml", voc_xml(picture, picture.write(root / "JPEGImages")))
        put(root / "ImageSets/Main" / f"{part}.txt", "".join(f"{picture.stem}\n" for picture in items))
        put(root / "ImageSets/Main" / f"cat_{part}.txt", "".join(f"{picture.stem} -1\n" for picture in items))
    return ["--from", "voc", root, "--voc-offset", 0]


def label_studio_coco(root: Path) -> Made:
    written = [(picture, "images\\" + picture.write(root / "images", f"1a2b-{picture.stem}.png")) for picture in TRAIN]
    for picture in VAL:
        picture.write(root / "images", f"9f {picture.stem}.png")
        written.append((picture, f"http://localhost:8080/data/upload/3/9f%20{picture.stem}.png"))
    put(root / "result.json", json.dumps(coco(written, first_id=0)))
    return ["--from", "coco", root, "--val-share", 0.25]


def label_studio_yolo(root: Path) -> Made:
    for picture in TRAIN + VAL:
        picture.write(root / "images")
        put(root / "labels" / f"{picture.stem}.txt", yolo_lines(picture))
    put(root / "classes.txt", "cat\ndog\n")
    put(root / "notes.json", json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2026}}))
    return ["--from", "yolo", root, "--val-share", 0.25]


def labelimg_yolo(root: Path) -> Made:
    for picture in TRAIN + VAL:
        picture.write(root)
        put(root / f"{picture.stem}.txt", yolo_lines(picture))
    put(root / "classes.txt", "cat\ndog\n")
    return ["--from", "yolo", root, "--val-share", 0.25]


def labelimg_voc(root: Path) -> Made:
    for picture in TRAIN + VAL:
        put(root / f"{picture.stem}.xml", voc_xml(picture, picture.write(root)))
    return ["--from", "voc", root, "--val-share", 0.25, "--voc-offset", 0]


def labelme(root: Path) -> Made:
    for picture in TRAIN + VAL:
        name = picture.write(root)
        shapes: list[dict[str, Any]] = []
        for number, (label, x, y, w, h) in enumerate(picture.boxes):
            corners = [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]
            kind, points = ("polygon", corners) if number % 2 else ("rectangle", [corners[2], corners[0]])
            shapes.append({"label": NAMES[label], "points": points, "group_id": None, "shape_type": kind, "flags": {}})
        data: dict[str, Any] = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name}
        if picture is VAL[0]:  # an image that is in its JSON alone
            data["imageData"] = base64.b64encode((root / name).read_bytes()).decode()
            (root / name).unlink()
        data.update(imageHeight=picture.size[1], imageWidth=picture.size[0])
        put(root / f"{picture.stem}.json", json.dumps(data))
    return ["--from", "labelme", root, "--val-share", 0.25]


EXPORTS: list[Callable[[Path], Made]] = [
    ultralytics,
    ultralytics_of_another_machine,
    ultralytics_without_yaml,
    ultralytics_lists,
    roboflow_yolo,
    roboflow_coco,
    roboflow_voc,
    cvat_coco,
    cvat_coco_default,
    cvat_yolo_1_1,
    cvat_ultralytics,
    cvat_voc,
    label_studio_coco,
    label_studio_yolo,
    labelimg_yolo,
    labelimg_voc,
    labelme,
]


def boxes_by_picture(out: Path) -> dict[str, dict[str, list[tuple]]]:
    """Part -> stem -> its boxes with their class, as the files have them, sorted."""
    result: dict[str, dict[str, list[tuple]]] = {}
    for file in [file for file in (out / "annotations").glob("*.json") if "instances" not in file.name]:
        data = json.loads(file.read_text(encoding="utf-8"))
        names = {row["id"]: row["name"] for row in data["categories"]}
        stems = {}
        for image in data["images"]:
            stem = Path(image["file_name"]).stem
            stems[image["id"]] = stem[max(stem.find("train"), stem.find("val"), 0) :]
        boxes = result[file.stem] = {stem: [] for stem in stems.values()}
        for row in data["annotations"]:
            boxes[stems[row["image_id"]]].append((names[row["category_id"]], *row["bbox"]))
    return {part: {stem: sorted(rows) for stem, rows in boxes.items()} for part, boxes in result.items()}


def check_truth(out: Path, divided: bool) -> None:
    found = boxes_by_picture(out)
    assert set(found) == {"train", "val"} and all(found.values())
    truth: dict[str, list[tuple]] = {
        p.stem: sorted((NAMES[label], *box) for label, *box in p.boxes) for p in TRAIN + VAL
    }
    if divided:
        assert set(found["train"]) == {p.stem for p in TRAIN} and set(found["val"]) == {p.stem for p in VAL}
    assert not set(found["train"]) & set(found["val"])
    together = {**found["train"], **found["val"]}
    assert set(together) == set(truth)
    for stem, rows in truth.items():
        assert [row[0] for row in together[stem]] == [row[0] for row in rows]
        np.testing.assert_allclose([r[1:] for r in together[stem]], [r[1:] for r in rows], atol=2e-3)


@pytest.mark.parametrize("into_itself", [False, True], ids=["elsewhere", "into itself"])
@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.__name__)
def test_an_export_leads_to_what_the_custom_configs_train_on(export, into_itself, tmp_path, capsys):
    root = tmp_path / "export"
    words = export(root)
    out = root if into_itself else tmp_path / "mine"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for _ in range(2):  # again gives the same
        assert call("convert", *words, "--out", out) == 0
    report = capsys.readouterr().out
    assert "WARNING" not in report and "taken out" not in report
    assert all(path.read_bytes() == content for path, content in before.items())
    check_truth(out, divided="--val-share" not in words)
    for part in ("train", "val"):
        assert call("check", out / f"annotations/{part}.json", "--classes", "cat,dog") == 0
    config = load_config(CONFIG, {"data_root": str(out), "image_size": (64, 96)})
    assert tuple(config.classes) == ("cat", "dog")
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        with DefaultScope.overwrite_default_scope("efftasks"):
            built = DATASETS.build(config[loader].dataset)
        sample = built[0]
        assert tuple(sample["inputs"].shape) == (3, 64, 96) and sample["data_samples"].skipped_files == ()


def test_the_report_ends_with_the_commands_that_follow(tmp_path, capsys):
    out = tmp_path / "my set"
    assert call("convert", *ultralytics(tmp_path / "export"), "--out", out) == 0
    lines = [line.strip() for line in capsys.readouterr().out.split("next:")[1].strip().splitlines()]
    assert lines[0] == f'efftasks dataset check "{out.as_posix()}/annotations/train.json"'
    assert lines[2].startswith(f"efftasks train {CONFIG} ") and f'"data_root={out.as_posix()}"' in lines[2]
    assert lines[3] == f"efftasks test work_dirs/my_set/{CONFIG}.py work_dirs/my_set/best.pth"
    from efftasks.datasets.convert_write import _CONFIGS

    assert set(_CONFIGS.values()) <= set(shipped_configs())


def segments(root: Path) -> Made:
    made = ultralytics(root)
    for part, items in SETS.items():
        for picture in items:
            put(root / "labels" / part / f"{picture.stem}.txt", yolo_lines(picture, polygon=True))
    return made


def pose(root: Path) -> Made:
    """The first and the third corner of each rectangle are its keypoints."""
    made = ultralytics(root)
    for part, items in SETS.items():
        for picture in items:
            rows = zip(yolo_lines(picture).splitlines(), yolo_lines(picture, polygon=True).splitlines(), strict=True)
            lines = [f"{box} {' '.join(p.split()[1:3])} 2 {' '.join(p.split()[5:7])} 1" for box, p in rows]
            put(root / "labels" / part / f"{picture.stem}.txt", "\n".join(lines))
    yaml = (root / "data.yaml").read_text() + "kpt_shape: [2, 3]\nflip_idx: [0, 1]\n"
    put(root / "data.yaml", yaml)
    return made


@pytest.mark.parametrize(
    ("export", "config", "field"),
    [
        (segments, "o2oseg-n_mobilenetv4-conv-s_1xb16-100e_custom-640", "masks"),
        (pose, "o2opose-n_mobilenetv4-conv-s_1xb16-100e_custom-640", "keypoints"),
    ],
)
def test_masks_and_keypoints_lead_to_configs_of_their_own(export, config, field, tmp_path, capsys):
    assert call("convert", *export(tmp_path / "export"), "--out", tmp_path / "mine") == 0
    out = capsys.readouterr().out
    assert f"efftasks train {config} " in out and "WARNING" not in out
    check_truth(tmp_path / "mine", divided=True)
    assert call("check", tmp_path / "mine/annotations/train.json") == 0
    cfg = load_config(config, {"data_root": str(tmp_path / "mine")})
    with DefaultScope.overwrite_default_scope("efftasks"):
        built = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(built.get_data_info(0)["instances"]) == len(TRAIN[0].boxes)
    assert {"masks": "mask"}.get(field, field) in built.get_data_info(0)["instances"][0]
    assert field in built[0]["data_samples"].gt_instances


@pytest.mark.parametrize("export", [label_studio_yolo, labelimg_voc, labelme, cvat_coco_default])
def test_without_a_validation_part_the_split_is_offered(export, tmp_path):
    words = export(tmp_path / "export")
    words = words[: words.index("--val-share")] + words[words.index("--val-share") + 2 :]
    with pytest.raises(UserError, match=r"has no validation part.*--val-share 0\.2 sets a fifth of the 8 images"):
        call("convert", *words, "--out", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    assert call("convert", *words, "--val-share", 0, "--out", tmp_path / "mine") == 0
    assert [path.name for path in (tmp_path / "mine/annotations").iterdir()] == ["train.json"]


def test_roboflow_without_its_valid_folder(tmp_path, capsys):
    words = roboflow_yolo(tmp_path / "export")
    shutil.rmtree(tmp_path / "export/valid")
    with pytest.raises(UserError, match="has no validation part"):
        call("convert", *words, "--out", tmp_path / "mine")
    assert call("convert", *words, "--out", tmp_path / "mine", "--val-share", 0.2) == 0
    assert "data.yaml: val = ../valid/images" in capsys.readouterr().out
    assert {part: len(found) for part, found in boxes_by_picture(tmp_path / "mine").items()} == {"train": 4, "val": 1}


def test_one_part_to_one_file(tmp_path, capsys):
    root = tmp_path / "export"
    words = ultralytics(root)
    file = root / "annotations/only.json"
    assert call("convert", *words, "--split", "valid", "--out", file) == 0
    assert json.loads(file.read_text())["images"][0]["file_name"] == "val/val0.png"  # as `check` looks for them
    assert call("check", file) == 0
    other = tmp_path / "x.json"
    assert call("convert", *words, "--split", "val", "--out", other) == 0
    assert json.loads(other.read_text())["images"][0]["file_name"] == "val0.png"
    out = capsys.readouterr().out
    assert f"efftasks dataset check {other} --images {root / 'images/val'}" in out
    assert call("check", other, "--images", root / "images/val") == 0
    with pytest.raises(UserError, match="one file takes one part, and there are train, val"):
        call("convert", *words, "--out", other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--voc-offset", 0], "--voc-offset: is for --from voc, got --from yolo"),
        (["--no-crowd"], "--no-crowd: is for --from coco"),
        (["--val-share", 0.2], "--val-share: .* has a validation part"),
        (["--val-share", 1.5], r"--val-share: got 1\.5, expected 0"),
        (["--split", "nope"], "has no part 'nope', it has train, val"),
    ],
)
def test_options_that_do_not_fit(words, message, tmp_path):
    made = ultralytics(tmp_path / "export")
    with pytest.raises(UserError, match=message):
        call("convert", *made, *words, "--out", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.slow
def test_a_converted_set_is_trained_and_tested(tmp_path):
    out = tmp_path / "mine"
    assert main(["dataset", "convert", *map(str, roboflow_yolo(tmp_path / "export")), "--out", str(out)]) == 0
    assert main(["dataset", "check", str(out / "annotations/train.json")]) == 0
    options = [f"data_root={out}", "image_size=(64,64)", "max_epochs=1", "train_cfg.max_epochs=1"]
    options += ["train_dataloader.batch_size=4", "train_dataloader.num_workers=0", "val_dataloader.num_workers=0"]
    options += ["test_dataloader.num_workers=0", "val_dataloader.persistent_workers=False"]
    options += ["test_dataloader.persistent_workers=False"]
    run = tmp_path / "run"
    assert main(["train", CONFIG, "--work-dir", str(run), "--cfg-options", *options]) == 0
    assert main(["test", str(run / f"{CONFIG}.py"), str(next(run.glob("*.pth")))]) == 0
