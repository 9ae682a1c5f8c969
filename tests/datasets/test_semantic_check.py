from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from efftasks.datasets.semantic_check import RULES, check_semantic
from efftasks.datasets.shapes import SEMANTIC_CLASSES, write_shapes
from efftasks.imaging.semantic_drawing import semantic_palette, write_indexed_png
from efftasks.structures.errors import UserError

HEIGHT, WIDTH = 20, 30
NAMES = ["road", "car", "sky"]


def photo(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def label_map(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Sky above, road below, a car of 4 x 5 pixels, and 6 pixels that are ignored."""
    labels = np.zeros((height, width), np.uint8)
    labels[: height // 2] = 2
    labels[-5:-1, 3:8] = 1
    labels[0, :6] = 255
    return labels


@pytest.fixture
def root(tmp_path) -> Path:
    """Two images and their label maps without any fault."""
    for folder in ("img/train", "ann/train/sub", "img/train/sub"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(tmp_path / "img/train/a.jpg"), photo(0))
    cv2.imwrite(str(tmp_path / "img/train/sub/b.png"), photo(1))
    cv2.imwrite(str(tmp_path / "ann/train/a.png"), label_map())
    write_indexed_png(tmp_path / "ann/train/sub/b.png", label_map(), semantic_palette(3))
    (tmp_path / "classes.json").write_text(json.dumps(NAMES))
    return tmp_path


def rules_of(root: Path, **options) -> dict[str, int]:
    report = check_semantic(root / "ann/train", **options)
    return {rule: len(faults) for rule, faults in report.by_rule().items()}


def save(root: Path, labels: np.ndarray, **options) -> None:
    Image.fromarray(labels).save(root / "ann/train/a.png", **options)


def with_id(number: int, pixels: int = 3) -> np.ndarray:
    labels = label_map()
    labels[-1, :pixels] = number
    return labels


def test_sound_folders_have_no_fault_and_every_pixel_is_counted(root) -> None:
    report = check_semantic(root / "ann/train")
    assert report.ok and report.faults == [] and report.notes == []
    assert report.counts == {"images": 2, "label maps": 2, "pairs": 2} and report.images == str(root / "img/train")
    rows = [(row.id, row.name, row.pixels, row.images) for row in report.table]
    # Above 10 rows of 30 less 6 ignored, below 300 less the car of 20; all of it twice.
    assert rows == [(0, "road", 560, 2), (1, "car", 40, 2), (2, "sky", 588, 2), (255, None, 12, 2)]
    assert sum(row.share for row in report.table) == pytest.approx(1) and report.table[1].share == 40 / 1200
    text = report.render_text()
    assert text.endswith("result: no faults") and f"3 classes from {root / 'classes.json'}, 255 is ignored" in text
    assert "  1  car                     40    3.33 %       2" in text.splitlines()
    assert "255  (ignored)               12    1.00 %       2" in text.splitlines()


# One fault at a time: (the rules, what the report must say, what is done to sound folders).
BREAK: dict[str, tuple[dict[str, int], str, Callable[[Path], object]]] = {
    "no label map": (
        {"image-without-label": 1},
        "a.jpg has no label map",
        lambda r: (r / "ann/train/a.png").unlink(),
    ),
    "no image": ({"label-without-image": 1}, "a.png has no image", lambda r: (r / "img/train/a.jpg").unlink()),
    "label map elsewhere": (
        {"image-without-label": 1, "label-without-image": 1},
        "a.png has no image",
        lambda r: (r / "ann/train/a.png").rename(r / "ann/train/sub/a.png"),
    ),
    "two images": (
        {"image-ambiguous": 1},
        "one name, 2 images",
        lambda r: cv2.imwrite(str(r / "img/train/a.png"), photo()),
    ),
    "two label maps": (
        {"label-ambiguous": 1},
        "one name, 2 label maps",
        lambda r: cv2.imwrite(str(r / "ann/train/a.tif"), label_map()),
    ),
    "image empty": (
        {"image-unreadable": 1},
        "a.jpg is empty",
        lambda r: (r / "img/train/a.jpg").write_bytes(b""),
    ),
    "image cut": (
        {"image-unreadable": 1},
        "a.jpg is truncated",
        lambda r: (r / "img/train/a.jpg").write_bytes((r / "img/train/a.jpg").read_bytes()[:-30]),
    ),
    "label map empty": (
        {"label-unreadable": 1},
        "a.png is empty",
        lambda r: (r / "ann/train/a.png").write_bytes(b""),
    ),
    "label map cut": (
        {"label-unreadable": 1},
        "a.png is truncated or damaged (PNG without its end chunk)",
        lambda r: (r / "ann/train/a.png").write_bytes((r / "ann/train/a.png").read_bytes()[:-20]),
    ),
    "label map a text": (
        {"label-unreadable": 1},
        "a.png does not decode as a picture",
        lambda r: (r / "ann/train/a.png").write_text("road"),
    ),
    "another size": (
        {"label-size": 1},
        "a.png is 30 x 19, its image 30 x 20",
        lambda r: save(r, label_map()[:-1]),
    ),
    "sides swapped": (
        {"label-size": 1},
        "a.png is 20 x 30, its image 30 x 20; the two sides are swapped",
        lambda r: save(r, label_map().T.copy()),
    ),
    "in colors": (
        {"label-channels": 1},
        "a.png has 3 channels with 4 distinct colors; expected trainIds in one",
        lambda r: save(r, np.array(semantic_palette(256), np.uint8)[label_map()]),
    ),
    "grey in three channels": (
        {"label-channels": 1},
        "a.png has 3 channels with 4 distinct colors, the channels are equal",
        lambda r: save(r, np.stack([label_map()] * 3, -1)),
    ),
    "with an alpha channel": (
        {"label-channels": 1},
        "a.png has 4 channels",
        lambda r: save(r, np.stack([label_map()] * 4, -1)),
    ),
    "16 bit": (
        {"label-type": 1},
        "a.png has 16 bit a pixel, its largest number is 255; expected 8 bit",
        lambda r: save(r, label_map().astype(np.uint16)),
    ),
    "16 bit of instances": (
        {"label-type": 1, "label-ids": 1},
        "a.png has 26001 (30 px); expected 0 to 2, or 255",
        lambda r: save(r, np.where(np.arange(HEIGHT)[:, None] == 19, np.uint16(26001), label_map())),
    ),
    "floats": (
        {"label-type": 1},
        "a.png has numbers of type float32",
        lambda r: save(r, label_map().astype(np.float32), format="TIFF"),
    ),
    "1 bit": ({"label-type": 1}, "a.png has 1 bit a pixel", lambda r: save(r, label_map() > 1)),
    "a JPEG": ({"label-lossy": 1}, "a.png is a JPEG", lambda r: save(r, label_map(), format="JPEG")),
    "a strange id": ({"label-ids": 1}, "a.png has 9 (4 px); expected 0 to 2, or 255", lambda r: save(r, with_id(9, 4))),
    "many strange ids": (
        {"label-ids": 1},
        "15 (1 px), 16 (1 px), 17 (1 px), 18 (1 px), 29 (1 px) and 25 more",
        lambda r: save(r, np.vstack([label_map()[:-1], [[29, *range(15, 19), *range(30, 55)]]]).astype(np.uint8)),
    ),
    "only ignored": (
        {"only-ignored": 1},
        "a.png has the label 255 only",
        lambda r: save(r, np.full((HEIGHT, WIDTH), 255, np.uint8)),
    ),
    "a class that never occurs": (
        {"class-unused": 1},
        "class 3 'boat' occurs in none of 2 label maps",
        lambda r: (r / "classes.json").write_text(json.dumps([*NAMES, "boat"])),
    ),
}


@pytest.mark.parametrize("name", BREAK)
def test_each_fault_is_found(root, name) -> None:
    rules, message, spoil = BREAK[name]
    spoil(root)
    report = check_semantic(root / "ann/train")
    assert {rule: len(faults) for rule, faults in report.by_rule().items()} == rules
    assert any(message in fault.message for fault in report.faults), [fault.message for fault in report.faults]
    warnings = {"only-ignored", "class-unused"}
    assert report.ok == (set(rules) <= warnings)
    assert {rule for rule in RULES if RULES[rule].severity == "warning"} == warnings


def test_all_faults_are_found_in_one_run(root) -> None:
    image = (root / "img/train/a.jpg").read_bytes()
    for number, (_, _, spoil) in enumerate(BREAK.values()):  # each spoils the files a.* anew: they are put aside
        for folder, suffix, data in (
            ("img", "jpg", image),
            ("ann", "png", cv2.imencode(".png", label_map())[1].tobytes()),
        ):
            (root / folder / "train" / f"a.{suffix}").write_bytes(data)
        spoil(root)
        for path in [*root.glob("*/train/a.*"), *root.glob("ann/train/sub/a.*")]:
            path.rename(path.with_stem(f"{path.stem}{number}"))
    report = check_semantic(root / "ann/train")
    together = set(RULES) - {"label-values", "class-alone"}  # those are faults of all label maps at once
    assert set(report.by_rule()) == together
    text = report.render_text(examples=1)
    assert all(f"{name} ({RULES[name].severity}): " in text for name in together) and "... and 2 more" in text
    assert "(no class)" in text
    faults, warnings = report.number_of("fault"), report.number_of("warning")
    assert (faults, warnings) == (sum(sum(rules.values()) for rules, _, _ in BREAK.values()) - 2, 2)
    assert text.endswith(f"result: {faults} faults, 2 warnings")
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert not data["ok"] and data["faults_by_rule"]["label-channels"] == 3
    assert data["warnings_by_rule"] == {"only-ignored": 1, "class-unused": 1}
    assert len(data["faults"]) == faults and len(data["warnings"]) == 2
    assert data["faults"][0]["rule"] == "image-ambiguous" and data["faults"][0]["image"].startswith(str(root))
    assert data["classes"][0] == vars(report.table[0]) and data["counted"] == report.counted


def test_where_only_a_few_pixels_are_of_a_class_the_share_is_not_shown_as_none(root) -> None:
    for path in ("img/train/a.jpg", "ann/train/a.png"):
        (root / path).unlink()
    labels = np.zeros((300, 500), np.uint8)
    labels[0, :2] = 1
    cv2.imwrite(str(root / "img/train/a.jpg"), photo(0, 300, 500))
    save(root, labels)
    (root / "ann/train/sub/b.png").unlink()
    text = check_semantic(root / "ann/train").render_text()
    assert "  1  car                  2  < 0.01 %       1" in text.splitlines()
    assert "  2  sky                  0    0.00 %       0" in text.splitlines()


def test_names_and_the_ignored_label_can_be_given(root) -> None:
    assert rules_of(root, classes=["a", "b", "c", "d"]) == {"class-unused": 1}
    assert rules_of(root, classes=["a", "b"]) == {"label-ids": 2}
    assert rules_of(root, ignore=99) == {"label-ids": 2}  # 255 is a number like any other then
    (root / "classes.json").write_text(json.dumps({"classes": NAMES, "ignore": 99}))
    assert rules_of(root) == {"label-ids": 2}
    assert rules_of(root, ignore=255) == {}
    with pytest.raises(UserError, match="ignore: got 2, which is class 'sky'"):
        check_semantic(root / "ann/train", ignore=2)
    with pytest.raises(UserError, match="ignore: got 256, expected 0 to 255"):
        check_semantic(root / "ann/train", ignore=256)


def test_without_names_ids_are_counted_and_not_judged(root) -> None:
    (root / "classes.json").unlink()
    save(root, with_id(77))
    report = check_semantic(root / "ann/train")
    assert report.ok and [row.id for row in report.table] == [0, 1, 2, 77, 255]
    assert "the names of the classes are not known" in report.notes[0]
    assert "no class" not in report.render_text()


def test_a_wrong_folder_of_images_is_guessed(root) -> None:
    (root / "other").mkdir()
    cv2.imwrite(str(root / "other/z.png"), photo())
    report = check_semantic(root / "ann/train", root / "other")
    assert len(report.by_rule()["label-without-image"]) == 2 and report.table == []
    assert "class-unused" not in report.by_rule()  # nothing was counted
    assert any(f"is {root / 'other'} the folder of the images" in note for note in report.notes)


def test_calls_without_a_folder(root) -> None:
    with pytest.raises(UserError, match="gone: no such folder of label maps"):
        check_semantic(root / "gone")
    with pytest.raises(UserError, match="gone: no such folder of images"):
        check_semantic(root / "ann/train", root / "gone")
    shutil.rmtree(root / "img")
    with pytest.raises(UserError, match="name one with --images"):
        check_semantic(root / "ann/train")


def test_the_built_in_set_has_no_fault(tmp_path) -> None:
    root = write_shapes(tmp_path, 3, 2, 96)
    report = check_semantic(root / "cityscapes/gtFine", classes=SEMANTIC_CLASSES)
    assert report.ok and report.counts["pairs"] == 5 and sum(row.pixels for row in report.table) == 5 * 96 * 96
    assert report.images == str(root / "cityscapes/leftImg8bit")


def test_real_sets_have_no_fault(real_data) -> None:
    report = check_semantic(real_data / "camvid/ann/val")
    assert report.faults == [] and report.notes == [] and report.counts["pairs"] == 101
    assert [row.id for row in report.table] == [*range(11), 255]
    assert sum(row.pixels for row in report.table) == 101 * 480 * 360
    # One class counted once more, by another reader.
    maps = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (real_data / "camvid/ann/val").iterdir()]
    car = report.table[8]
    assert (car.name, car.pixels) == ("Car", sum(int((m == 8).sum()) for m in maps))
    assert car.images == sum(bool((m == 8).any()) for m in maps)
    report = check_semantic(real_data / "cityscapes_sample/gtFine", classes=[str(k) for k in range(19)])
    assert report.ok and report.counts["pairs"] == 1 and "2 other pictures of Cityscapes" in report.notes[0]


def draw_all(root: Path, labels: np.ndarray, classes: list) -> None:
    """The same label map for both images."""
    for name in ("a", "sub/b"):
        Image.fromarray(labels).save(root / f"ann/train/{name}.png")
    (root / "classes.json").write_text(json.dumps(classes))


def binary(numbers: tuple[int, int]) -> np.ndarray:
    """An object of 3 x 4 pixels."""
    labels = np.full((HEIGHT, WIDTH), numbers[0], np.uint8)
    labels[5:8, 5:9] = numbers[1]
    return labels


def test_masks_of_0_and_255_are_a_fault_with_its_remedy(root) -> None:
    draw_all(root, binary((0, 255)), ["ground", "ball"])
    report = check_semantic(root / "ann/train")
    (fault,) = report.by_rule()["label-values"]
    assert not report.ok and list(report.by_rule()) == ["label-values"]
    assert "2 label maps have the numbers 0, 255, and 255 is ignored; if 255 is 'ball'" in fault.message
    assert "label_values=0,255 (`efftasks dataset check` takes --values 0,255)" in fault.message
    # Who means it says so; with one class alone there is nothing to learn all the same.
    assert rules_of(root, ignore=255) == {"class-alone": 1}
    assert rules_of(root, classes=["ball"]) == {"label-values": 1}
    report = check_semantic(root / "ann/train", values=[0, 255])
    assert report.ok and not report.faults and report.ignore is None and "nothing is ignored" in report.render_text()
    assert [(row.id, row.name, row.pixels) for row in report.table] == [(0, "ground", 1176), (255, "ball", 24)]
    assert rules_of(root, classes=["ball", "ground"], values=[255, 0]) == {}
    assert rules_of(root, values=[0, 200]) == {"class-alone": 1}


def test_values_may_stand_in_the_file_of_classes(root) -> None:
    draw_all(root, binary((0, 255)), [dict(name="ground", value=0), dict(name="ball", value=255)])
    with pytest.raises(UserError, match="expected"):
        check_semantic(root / "ann/train", values=[0])
    assert rules_of(root) == {}
    assert rules_of(root, values=[0, 1]) == {"label-values": 1}  # a command's word counts


@pytest.mark.parametrize(
    ("numbers", "classes", "advice"),
    [
        ((0, 1, 2), ["a", "b"], "label_values=1,2 ignore=0"),
        ((1, 2), ["a", "b"], "label_values=1,2 ("),
        ((0, 128, 255), ["a", "b", "c"], "label_values=0,128,255 ("),
        ((10, 20, 255), ["a", "b"], "label_values=10,20 ("),
        ((0, 1, 255), ["a", "b"], None),
        ((0, 1, 7), ["a", "b"], None),
    ],
)
def test_numbers_of_another_tool_are_recognised(root, numbers, classes, advice) -> None:
    labels = np.resize(np.array(numbers, np.uint8), (HEIGHT, WIDTH))
    draw_all(root, labels, classes)
    report = check_semantic(root / "ann/train")
    assert report.ok == (numbers == (0, 1, 255))
    assert [advice in note for note in report.notes] == [True] if advice else report.notes == []


def test_what_the_advice_says_is_accepted(root) -> None:
    labels = np.resize(np.array((0, 1, 2), np.uint8), (HEIGHT, WIDTH))
    draw_all(root, labels, ["a", "b"])
    report = check_semantic(root / "ann/train", values=[1, 2], ignore=0)
    assert report.ok and [(row.id, row.name) for row in report.table] == [(0, None), (1, "a"), (2, "b")]
    assert "  0  (ignored)" in report.render_text()


def test_one_class_alone_is_a_fault(root) -> None:
    draw_all(root, binary((0, 0)), ["ground", "ball", "sky"])
    assert rules_of(root) == {"class-alone": 1}
