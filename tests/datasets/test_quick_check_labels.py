"""The look at label maps before a training: what stops it, what is only named, and that it stays quick."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from efftasks.cli.options import parse_options
from efftasks.config import load_config
from efftasks.datasets.findings import Finding
from efftasks.datasets.label_survey import survey_labels
from efftasks.datasets.quick_check_labels import pair_labels, quick_check_pairs
from efftasks.datasets.quick_check_semantic import quick_check_semantic
from efftasks.datasets.semantic_files import find_pairs
from efftasks.linking.pixels import range_of
from efftasks.structures.errors import UserError

HEIGHT, WIDTH = 12, 16


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def draw(root: Path, maps: Sequence[np.ndarray], suffix: str = ".png") -> None:
    for folder in ("img", "ann"):
        (root / folder).mkdir(exist_ok=True)
    for i, labels in enumerate(maps):
        cv2.imwrite(str(root / f"img/{i:03}.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        Image.fromarray(labels).save(root / f"ann/{i:03}{suffix}")


def of(*numbers: int, dtype: type = np.uint8) -> np.ndarray:
    """A label map with these numbers."""
    return np.resize(np.array(numbers, dtype), (HEIGHT, WIDTH))


def check(
    root: Path,
    classes: Sequence[str],
    training: bool = True,
    ignore: int | None = None,
    values: Sequence[int] | None = None,
    seconds: float = 3.0,
) -> list[Finding]:
    try:
        pairs, findings = pair_labels(root / "img", root / "ann", "", "")
        return [*findings, *quick_check_pairs(pairs, str(root / "ann"), classes, ignore, training, values, seconds)]
    except UserError as error:
        return [Finding("error", str(error))]


def test_sound_label_maps_have_no_findings(tmp_path: Path) -> None:
    draw(tmp_path, [of(0, 1), of(1, 2, 255)])
    assert check(tmp_path, "abc") == check(tmp_path, "abc", training=False) == []


@pytest.mark.parametrize("training", [True, False])
def test_masks_of_0_and_255_are_an_error_that_says_what_to_state(tmp_path: Path, training: bool) -> None:
    draw(tmp_path, [of(0, 255), of(0)])
    (finding,) = check(tmp_path, ["ground", "ball"], training)
    assert finding.level == "error" and str(tmp_path / "ann") in finding.message and "\n" not in finding.message
    assert "label_values=0,255" in finding.message and "if 255 is 'ball'" in finding.message
    assert check(tmp_path, ["ground", "ball"], training, values=[0, 255]) == []
    (finding,) = check(tmp_path, ["ball"])
    assert finding.level == "error" and "classes=background,ball" in finding.message


# Maps, classes, ignore, level in training and in validation (None: no finding), and what the message says.
CASES = {
    "from 1": ([of(1, 2)], "ab", None, "error", "error", "label_values=1,2 ("),
    "from 1, 0 is none": ([of(0, 1, 2)], "ab", None, "error", "error", "label_values=1,2 ignore=0"),
    "three greys": ([of(0, 128), of(255)], "abc", None, "error", "error", "label_values=0,128,255"),
    "stray number": ([of(0, 1), of(0, 77)], "ab", None, "error", "error", "no class, 77 (first in "),
    "all ignored": ([of(255)], "abc", None, "error", "error", "have ignored pixels only"),
    "255 is meant": ([of(0, 255)], "ab", 255, "error", "warning", "'a' alone"),
    "one class alone": ([of(1)], "abc", None, "error", "warning", "1 label map have pixels of 'b' alone"),
    "a class in none": ([of(0, 1)], "abc", None, "warning", "warning", "lack 'c': 1 of 3 class occurs in none"),
    "16 bit": ([of(0, 1, dtype=np.uint16)], "ab", None, "warning", "warning", "16 bit a pixel"),
    "16 bit, large": ([of(0, 1, 300, dtype=np.uint16)], "ab", None, "error", "error", "the largest number is 300"),
    "colors": ([np.zeros((HEIGHT, WIDTH, 3), np.uint8)], "ab", None, "error", "error", "save one of them"),
    "another size": ([of(0, 1)[:-1]], "ab", None, "error", "error", "is 16 x 11, its image 16 x 12"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_its_level(tmp_path: Path, name: str) -> None:
    maps, classes, ignore, training, validation, message = CASES[name]
    draw(tmp_path, maps)
    for level, part in ((training, True), (validation, False)):
        findings = check(tmp_path, classes, part, ignore)
        assert findings and findings[0].level == level, findings
        if part or training == validation:
            assert any(message in finding.message for finding in findings), findings


def test_colors_that_differ_name_the_remedy(tmp_path: Path) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:4] = (128, 64, 128)
    draw(tmp_path, [picture])
    (finding,) = check(tmp_path, "ab")
    assert "3 channels with 2 distinct colors" in finding.message
    assert "save the index of the class for each color, as an 8-bit PNG" in finding.message


def test_files_without_a_counterpart_and_wrong_facts_are_errors(tmp_path: Path) -> None:
    (finding,) = check(tmp_path, "ab")
    assert finding.level == "error" and "no such folder" in finding.message
    draw(tmp_path, [of(0, 1), of(0, 1)])
    (tmp_path / "ann/001.png").unlink()
    (finding,) = check(tmp_path, "ab")
    assert finding.level == "error" and "001.png: one of 1 images without a label map" in finding.message
    (finding,) = check(tmp_path, "ab", values=[0])
    assert finding.level == "error" and "expected 2 different integers" in finding.message


def test_suffixes_pair_images_and_label_maps(tmp_path: Path) -> None:
    draw(tmp_path, [of(0, 1), of(0, 1)], suffix="_labels.png")

    def check_suffixes(image: str, label: str) -> list[Finding]:
        prefix = dict(img_path="img", seg_map_path="ann")
        dataset = dict(data_root=str(tmp_path), data_prefix=prefix, img_suffix=image, seg_map_suffix=label)
        return quick_check_semantic([dict(dataset, metainfo=dict(classes=("a", "b")))], training=True)

    assert check_suffixes(".png", "_labels.png") == []
    (tmp_path / "ann/001_labels.png").unlink()
    (finding,) = check_suffixes(".png", "_labels.png")
    assert "one of 1 images without a label map" in finding.message
    (finding,) = check_suffixes(".jpg", ".png")
    assert "there are no images *.jpg" in finding.message


def test_unreadable_label_maps_are_named(tmp_path: Path) -> None:
    draw(tmp_path, [of(0, 1), of(0, 1)])
    (tmp_path / "ann/001.png").write_bytes(b"")
    (finding,) = check(tmp_path, "ab")
    assert finding.level == "warning" and "is empty (0 bytes), as 1 of 2 label maps" in finding.message


def test_a_turned_photograph_has_the_size_it_is_read_in(tmp_path: Path) -> None:
    draw(tmp_path, [of(0, 1)])
    (tmp_path / "img/000.png").unlink()
    exif = Image.Exif()
    exif[274] = 6
    for form, image in (("jpg", np.zeros((WIDTH, HEIGHT, 3), np.uint8)), ("tif", np.zeros((HEIGHT, WIDTH), np.uint16))):
        Image.fromarray(image).save(tmp_path / f"img/000.{form}", exif=exif if form == "jpg" else Image.Exif())
        assert check(tmp_path, "ab") == []
        (tmp_path / f"img/000.{form}").unlink()


def test_in_no_time_it_reads_a_few_evenly_and_goes_on_in_the_next_run(tmp_path: Path) -> None:
    draw(tmp_path, [of(0, 1, 2 if i == 61 else 0) for i in range(64)])
    pairs = find_pairs(tmp_path / "img", tmp_path / "ann").pairs
    place, runs = str(tmp_path / "ann"), 0
    known: set[int] = set()
    while len(known) < 64:
        survey = survey_labels(pairs, place, seconds=0)
        now = {int(Path(info.label).stem) for info in survey.maps}
        assert now > known and (survey.complete == (len(now) == 64))
        if not known:
            assert 16 <= len(now) < 64 and max(np.diff(sorted(now))) <= 4  # spread over the folder
            (finding,) = quick_check_pairs(pairs[:], place, "abc", None, True, seconds=0)
            assert finding.level == "warning" and "of 64, the others are not read yet" in finding.message
        known, runs = now, runs + 1
    assert runs > 1 and quick_check_pairs(pairs, place, "abc", None, True, seconds=0) == []


def test_cached_label_maps_are_not_read_again_unless_the_file_changes(tmp_path: Path, cache: Path) -> None:
    draw(tmp_path, [of(0, 1)])
    path = tmp_path / "ann/000.png"
    assert check(tmp_path, "ab") == []
    state, size = path.stat(), len(path.read_bytes())
    path.write_bytes(b"x" * size)  # in vain: nothing tells
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert check(tmp_path, "ab") == []
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    assert check(tmp_path, "ab")[0].level == "error"
    (cached,) = cache.glob("efftasks/*.json")
    cached.write_text("{")  # whatever is in it
    assert check(tmp_path, "ab")[0].level == "error"
    assert len(json.loads(cached.read_text())["entries"]) == 1


def test_without_a_cache_folder_it_works_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, [of(0, 1)])
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert check(tmp_path, "ab") == []


def test_real_label_maps_are_sound(real_data: Path) -> None:
    names = json.loads((real_data / "camvid/classes.json").read_text())
    names = [entry["name"] if isinstance(entry, dict) else entry for entry in names.get("classes", names)]
    prefix = dict(img_path="img/val", seg_map_path="ann/val")
    dataset = dict(data_root=str(real_data / "camvid"), data_prefix=prefix, metainfo=dict(classes=names))
    assert quick_check_semantic([dataset], training=True, seconds=60) == []


def test_wrong_values_of_pairs_are_raised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected 2 different"):
        quick_check_pairs([], "here", "ab", None, True, values=[1])
    assert quick_check_pairs([], "here", "ab", None, True)[0].level == "error"


SEMANTIC = "fpnlite-n_mobilenetv4-conv-s_1xb8-100e_custom-512"


def shown(root: Path, part: str, *options: str) -> list[Finding]:
    cfg = load_config(SEMANTIC, parse_options([f"data_root={root}", *options]))
    dataset = cfg[f"{part}_dataloader"].dataset
    return quick_check_semantic([dataset], part == "train", [range_of(dataset)])


def test_what_a_config_states_reaches_the_check(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for folder, picture in (("img", of(0, 4000, dtype=np.uint16)), ("ann", of(0, 255))):
            (tmp_path / folder / part).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / folder / part / "a.png"), picture)
    (tmp_path / "classes.json").write_text(json.dumps(["ground", "ball"]))
    for part in ("train", "val"):
        labels, pixels = shown(tmp_path, part)
        assert labels.level == "error" and "label_values=0,255" in labels.message
        assert pixels.level == "warning" and "pixel_range=0,4095" in pixels.message
        assert shown(tmp_path, part, "label_values=0,255", "pixel_range=0,4095") == []  # what both said


def test_data_sets_of_a_mixture_are_looked_at_together(tmp_path: Path) -> None:
    datasets = []
    for name, number in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        draw(tmp_path / name, [of(number)])
        prefix = dict(img_path="img", seg_map_path="ann")
        datasets.append(dict(data_root=str(tmp_path / name), data_prefix=prefix, metainfo=dict(classes=["x", "y"])))
    assert [finding.level for finding in quick_check_semantic(datasets[:1], training=True)] == ["error"]
    assert quick_check_semantic(datasets, training=True) == []
    (tmp_path / "b/ann/000.png").unlink()
    assert "b/ann: there are no label maps" in quick_check_semantic(datasets, training=True)[0].message
    assert quick_check_semantic([dict(ann_file="train.json")], training=True) == []


def test_zero_may_be_no_class(tmp_path: Path) -> None:
    draw(tmp_path, [of(0, 1, 2)])
    prefix = dict(img_path="img", seg_map_path="ann")
    dataset = dict(data_root=str(tmp_path), data_prefix=prefix, metainfo=dict(classes=["x", "y"]))
    assert [finding.level for finding in quick_check_semantic([dataset], training=True)] == ["error"]
    assert quick_check_semantic([dict(dataset, reduce_zero_label=True)], training=True) == []


def test_the_cityscapes_frame_through_its_config(real_data: Path) -> None:
    name = "fpnlite-n_mobilenetv4-conv-s_4xb4-480e_cityscapes-2048"
    cfg = load_config(name, dict(data_root=str(real_data / "cityscapes_sample")))
    (finding,) = quick_check_semantic([cfg.val_dataloader.dataset], training=False)
    assert finding.level == "warning" and "lack " in finding.message and "'bicycle'" in finding.message
