from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from efftasks.datasets.semantic_files import (
    LAYOUTS,
    classes_of,
    find_classes,
    find_pairs,
    images_of,
    load_label,
    read_classes,
    read_label,
)
from efftasks.imaging.file_faults import BrokenImageError
from efftasks.imaging.images import UnreadableImage
from efftasks.imaging.semantic_drawing import semantic_palette, write_indexed_png
from efftasks.structures.errors import UserError

LABELS = np.random.default_rng(0).integers(0, 4, (12, 17), dtype=np.uint8)
LABELS[0, :5] = 255


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_files_pair_by_their_path_without_suffix(tmp_path) -> None:
    touch(tmp_path, "img/a.jpg", "img/x/a.JPG", "img/x/b.v2.png", "img/alone.webp", "img/notes.txt")
    touch(tmp_path, "ann/a.png", "ann/x/a.png", "ann/x/b.v2.tif", "ann/y/b.v2.png")
    found = find_pairs(tmp_path / "img", tmp_path / "ann")
    assert [(pair.name, pair.image.suffix, pair.label and pair.label.name) for pair in found.pairs] == [
        ("a", ".jpg", "a.png"),
        ("alone", ".webp", None),
        ("x/a", ".JPG", "a.png"),
        ("x/b.v2", ".png", "b.v2.tif"),
    ]
    assert found.without_label == [tmp_path / "img/alone.webp"]
    assert found.without_image == [tmp_path / "ann/y/b.v2.png"]
    assert found.same_image == found.same_label == found.skipped == []


def test_cityscapes_names_pair_and_its_other_pictures_are_passed_over(tmp_path) -> None:
    stem = "val/ulm/ulm_000000_000019"
    touch(tmp_path, f"leftImg8bit/{stem}_leftImg8bit.png", "leftImg8bit/val/ulm/0001.jpg")
    kinds = ("color", "instanceIds", "labelIds", "labelTrainIds", "instanceTrainIds")
    touch(tmp_path, *(f"gtFine/{stem}_gtFine_{kind}.png" for kind in kinds), f"gtFine/{stem}_gtFine_polygons.json")
    touch(tmp_path, "gtFine/val/ulm/0001_labelTrainIds.png")
    for part in ("", "val", "val/ulm"):
        images = images_of(tmp_path / "gtFine" / part)
        assert images == tmp_path / "leftImg8bit" / part
        found = find_pairs(images, tmp_path / "gtFine" / part)
        assert [pair.label.name for pair in found.pairs if pair.label] == [
            "0001_labelTrainIds.png",
            "ulm_000000_000019_gtFine_labelTrainIds.png",
        ]
        assert len(found.skipped) == 4 and not found.without_image and not found.without_label


def test_files_of_one_name_are_told_and_the_first_is_taken(tmp_path) -> None:
    touch(tmp_path, "img/a.jpg", "img/a.png", "img/a.JPEG", "ann/a.png", "ann/a_labelTrainIds.png")
    found = find_pairs(tmp_path / "img", tmp_path / "ann")
    assert [pair[1:] for pair in found.pairs] == [(tmp_path / "img/a.JPEG", tmp_path / "ann/a.png")]
    assert [[path.name for path in group] for group in found.same_image] == [["a.JPEG", "a.jpg", "a.png"]]
    assert [[path.name for path in group] for group in found.same_label] == [["a.png", "a_labelTrainIds.png"]]


def test_folders_without_pictures(tmp_path) -> None:
    touch(tmp_path, "img/a.jpg", "none/readme.txt")
    for images, labels, message in (
        ("gone", "img", "gone: no such folder of images"),
        ("img", "gone", "gone: no such folder of label maps"),
        ("none", "img", "none: there are no images"),
        ("img", "none", "none: there are no label maps"),
        ("img", "none/../img", "expected two folders"),
    ):
        with pytest.raises(UserError, match=message):
            find_pairs(tmp_path / images, tmp_path / labels)


@pytest.mark.parametrize("label", LAYOUTS)
def test_the_folder_of_the_images_is_found_beside_that_of_the_label_maps(tmp_path, monkeypatch, label) -> None:
    for part in ("train", "."):
        (tmp_path / "labels" / label / part).mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / LAYOUTS[label] / part).mkdir(parents=True, exist_ok=True)
        expected = tmp_path / "labels" / LAYOUTS[label] / part
        assert images_of(tmp_path / "labels" / label / part) == expected
        monkeypatch.chdir(tmp_path / "labels")
        assert images_of(Path(label, part)) == Path(LAYOUTS[label], part)  # as short as it was given
        monkeypatch.chdir(tmp_path / "labels" / label / part)
        assert images_of(".").resolve() == expected.resolve()
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match=r"masks: no folder of images found .*ann -> img.*--images"):
        images_of(tmp_path / "masks")


NAMES = ("Sky", "Road")
COLORS = [[128, 128, 200], [0, 64, 1]]
OBJECTS = [{"trainId": k, "name": name, "color": COLORS[k], "id": 7} for k, name in enumerate(NAMES)]


@pytest.mark.parametrize(
    ("data", "palette", "ignore"),
    [
        (["Sky", "Road"], None, None),
        ({"classes": ["Sky", "Road"]}, None, None),
        ({"classes": ["Sky", "Road"], "ignore": 9}, None, 9),
        ({"classes": OBJECTS, "ignore": 255}, tuple(map(tuple, COLORS)), 255),
        (OBJECTS[::-1], tuple(map(tuple, COLORS)), None),
        ({"classes": [{"trainId": 1, "name": "Road"}, {"trainId": 0, "name": "Sky"}]}, None, None),
    ],
)
def test_all_forms_of_a_file_of_classes(tmp_path, data, palette, ignore) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(data))
    found = read_classes(tmp_path / "classes.json")
    assert (found.names, found.palette, found.ignore) == (NAMES, palette, ignore)
    assert found.origin == tmp_path / "classes.json"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "is not JSON"),
        (3, "expected"),
        ({}, "with at least one class"),
        ([], "with at least one class"),
        ([""], r"classes\[0\]: got ''"),
        (["a", 3], r"classes\[1\]: got '3', expected a name"),
        (["a", "b", "a"], "got 'a' more than once"),
        ([str(k) for k in range(256)], "got 256 classes"),
        ({"classes": ["a", "b"], "ignore": 1}, "ignore: got 1, which is class 'b'"),
        ([{"name": "a", "value": 0}, {"name": "b", "value": 0}], r"label_values: got \(0, 0\), expected 2 different"),
        ([{"name": "a", "value": 0}, {"name": "b", "value": 256}], "class 'b': got value 256, expected 0 to 255"),
        ([{"name": "a", "value": 0, "trainId": 0}, {"name": "b", "trainId": 1}], "class 'b': got value None"),
        ({"classes": [{"name": "a", "value": 0}, {"name": "b", "value": 9}], "ignore": 9}, "which is class 'b'"),
        ({"classes": ["a"], "ignore": 256}, "ignore: got 256"),
        ({"classes": ["a"], "ignore": "void"}, "ignore: got 'void'"),
        ([{"trainId": 0, "name": "a"}, "b"], r"classes\[1\]: got b, expected every trainId from 0 to 1"),
        ([{"trainId": 1, "name": "a"}], r"classes\[0\]: got trainId 1, expected every trainId from 0 to 0 once"),
        ([{"name": "a"}], "got trainId None"),
        ([{"trainId": True, "name": "a"}], "got trainId True"),
        ([{"trainId": 0, "name": "a"}, {"trainId": 0, "name": "b"}], r"classes\[1\]: got trainId 0"),
        ([{"trainId": 0}], r"classes\[0\]: got 'None', expected a name"),
        ([{"trainId": 0, "name": "a", "color": [1, 2]}], r"trainId 0: got color \[1, 2\]"),
        ([{"trainId": 0, "name": "a", "color": [1, 2, 256]}], "got color"),
        ([OBJECTS[0], {"trainId": 1, "name": "b"}], "trainId 1: got color None"),
    ],
)
def test_a_file_of_classes_that_cannot_be_used_says_why(tmp_path, data, message) -> None:
    path = tmp_path / "classes.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    with pytest.raises(UserError, match=message) as caught:
        read_classes(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_file_of_classes_is_looked_for_up_to_two_folders_above(tmp_path, monkeypatch) -> None:
    deep = tmp_path / "ann/val/city"
    deep.mkdir(parents=True)
    (tmp_path / "classes.json").write_text('["a"]')
    assert find_classes(deep) is None and classes_of(deep) is None
    assert find_classes(deep.parent) == find_classes(tmp_path) == tmp_path / "classes.json"
    (tmp_path / "ann/classes.json").write_text('["b"]')
    found = classes_of(deep)
    assert found is not None and found.names == ("b",)
    given = classes_of(deep, ["x", "y"])
    assert given is not None and given.names == ("x", "y") and given.origin is None
    monkeypatch.chdir(tmp_path / "ann/val")
    assert find_classes(".") == Path("../classes.json")
    with pytest.raises(UserError, match="'x' more than once"):
        classes_of(deep, ["x", "x"])
    with pytest.raises(UserError, match="cannot be read"):
        read_classes(tmp_path / "gone.json")


def save(path: Path, mode: str, **options) -> Path:
    """The labels in a file of one of PIL's modes."""
    if mode == "P":
        image = Image.fromarray(LABELS).convert("P")  # keeps the numbers
        image.putpalette([v for color in semantic_palette(256) for v in color])
    elif mode == "I;16":
        image = Image.fromarray(LABELS.astype(np.uint16))
    else:
        image = Image.fromarray(LABELS)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_numbers_are_read_as_they_were_written(tmp_path, mode, suffix) -> None:
    labels = read_label(save(tmp_path / f"a.{suffix}", mode))
    assert labels.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_of_few_bits_holds_indices_too(tmp_path, bits) -> None:
    labels = LABELS % (1 << bits)
    image = Image.fromarray(labels).convert("P")
    image.putpalette([v for color in semantic_palette(1 << bits) for v in color])
    image.save(tmp_path / "a.png", bits=bits)
    assert (tmp_path / "a.png").read_bytes()[24] == bits
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), labels)


def test_what_this_package_writes_is_read(tmp_path) -> None:
    write_indexed_png(tmp_path / "a.png", LABELS, semantic_palette(4))
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), LABELS)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_cut_files_and_what_is_no_picture(tmp_path) -> None:
    path = tmp_path / "a.png"
    for suffix in ("png", "tif", "bmp"):
        data = save(tmp_path / f"whole.{suffix}", "L").read_bytes()
        for share in (0.0, 0.05, 0.3, 0.6, 0.9):
            path.write_bytes(data[: int(len(data) * share)])
            with pytest.raises(BrokenImageError):
                load_label(path)
            with pytest.raises(UnreadableImage, match=r"a\.png"):
                read_label(path)
    damaged = bytearray(save(path, "L").read_bytes())
    damaged[60] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(BrokenImageError, match="checksum"):
        load_label(path)
    for missing in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(UnreadableImage):
            read_label(missing)


def test_pictures_that_are_no_label_maps(tmp_path) -> None:
    colors = np.array(semantic_palette(256), np.uint8)[LABELS]  # four classes and 255
    cv2.imwrite(str(tmp_path / "color.png"), colors)
    cv2.imwrite(str(tmp_path / "grey.png"), cv2.merge([LABELS] * 3))
    Image.fromarray(LABELS).save(tmp_path / "jpeg.png", "JPEG")
    Image.fromarray(LABELS).save(tmp_path / "jpeg.tif", compression="jpeg")
    Image.fromarray(LABELS > 1).save(tmp_path / "bit.png")
    Image.fromarray(LABELS.astype(np.float32)).save(tmp_path / "float.tif")
    for name, message in (
        ("color.png", "has 3 channels with 5 distinct colors; expected trainIds in one"),
        ("grey.png", "5 distinct colors, the channels are equal"),
        ("jpeg.png", "is a JPEG"),
        ("jpeg.tif", "is a JPEG"),
        ("bit.png", "has 1 bit a pixel"),
        ("float.tif", "numbers of type float32"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read_label(tmp_path / name)
        assert name in str(caught.value) and not isinstance(caught.value, UnreadableImage)


def test_grey_of_two_bits_is_refused_as_readers_stretch_it(tmp_path) -> None:
    rows = b"".join(b"\0" + bytes([0b00011011]) for _ in range(3))  # four pixels a row: 0, 1, 2, 3

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", 4, 3, 2, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert load_label(tmp_path / "a.png").array[0].tolist() == [0, 85, 170, 255]
    with pytest.raises(UserError, match="has 2 bit a pixel"):
        read_label(tmp_path / "a.png")


def test_real_sets_pair_up(real_data) -> None:
    for labels, count in (("camvid/ann/train", 367), ("camvid/ann/val", 101), ("cityscapes_sample/gtFine", 1)):
        found = find_pairs(images_of(real_data / labels), real_data / labels)
        assert len(found.pairs) == count and not (found.without_label or found.without_image or found.same_image)
    classes = read_classes(real_data / "camvid/classes.json")
    assert classes.names[8] == "Car" and classes.palette is not None and classes.palette[8] == (64, 0, 128)
    assert classes.ignore == 255 and len(classes.names) == 11
