"""The commands and snippets of the pages run at a small size: the blocks of a page in their order, in its own folder.

`SMALL` says what is added to a command to make it small, `NOT_RUN` which lines are only parsed (by
tests/contracts/test_docs.py), and why; `RUN` lists the pages. `pytest -s tests/docs/test_commands_run.py -k excused`
prints what is run and what is not.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from efftasks.cli.main import main
from efftasks.datasets.shapes import write_shapes

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"

# Command -> the arguments that make it small. They follow the page's own, so that they win.
SMALL = {
    "quickstart": ["--epochs", "1", "--train", "16", "--val", "4"],
    "train": ["--epochs", "1"],
    "export": ["--num-images", "2"],
    "benchmark": ["--runs", "2"],
}
SMALL_OPTIONS = {"train": ["image_size=96", "train_dataloader.batch_size=4", "train_dataloader.num_workers=0"]}

# Lines that are not run, by how they begin, and why.
NOT_RUN = {
    r"make ": "installs; what `make quickstart` then runs is `efftasks quickstart`",
    r"pip install": "installs",
    r"torchrun": "several processes; tests/engine has them",
    r"efftasks convert --from": "needs an authors' checkpoint; tests/models/published has small ones",
    r"efftasks export dfine": "needs an authors' checkpoint",
    r"efftasks predict dfine-n-coco": "fetches an authors' checkpoint; tests/apis/test_zoo.py has a server",
    r"efftasks compare .*int8": "needs a file of 8-bit integers; tests/apis/test_comparing.py compares small ones",
    r".*--track": "needs the package trackers; tests/cli/test_predict_track.py runs it where it is installed",
    r"efftasks test .*cityscapes": "needs Cityscapes",
    r"efftasks export CONFIG": "a pattern, with CONFIG for any",
    r"efftasks .*0,255": "other label maps than those of the lines before; tests/datasets has them",
    r"efftasks export .*--precision (int8|fp16)": "needs detections that score 0.3; tests/export has trained networks",
    r"efftasks predict out/model.onnx 0 ": "needs a camera",
    r".*--provider cuda|.*provider=.cuda": "needs a GPU",
}
# Pages that are not run at all, and why.
PAGES_NOT_RUN = {
    r"CHANGELOG\.md|CONTRIBUTING\.md": "make targets",
    r"docs/benchmarks/.*": "measurements of minutes to hours, on data sets that are not here",
    r"docs/(backbones|compression|configs|query_detectors|design)\.md": "trainings and measurements of hours",
    r"docs/dynamic/.*": "need networks trained for them; tests/runtime, tests/cli and tests/models run the options",
    r"docs/runtimes/(?!onnxruntime).*": "need packages of the runtime; tests/contracts/test_runtimes.py runs each",
    r"docs/tutorials/.*": "run as notebooks",
    r"docs/(zoo|finetuning|reports|compare|loggers|other_tools)\.md": "tested with what they describe",
    r"configs/.*": "need data sets that are not here; tests/contracts/test_configs.py trains a step of each config",
}


class Line(NamedTuple):
    """A command line of a page, or a Python snippet."""

    language: str
    text: str


def lines(page: Path) -> Iterator[Line]:
    """Commands of the shell blocks, one each, and Python blocks, in their order."""
    text = page.read_text(encoding="utf-8")
    for language, block in re.findall(r"^ *```(\w+)[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        if language in ("bash", "sh", "shell", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield Line("bash", shlex.join(words))
        elif language == "python":
            yield Line("python", block)


def reason_not_to_run(line: Line) -> str | None:
    """Why a line is only parsed; None if it is run."""
    if line.language == "python" and not re.search(r"\bimport Predictor\b", line.text):
        return "a part of a config, or of a longer program"
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, line.text)), None)


def small(words: list[str]) -> list[str]:
    """The arguments of a command that make it small, after its own; options of the config last, as they take all."""
    own, options = words, []
    if "--cfg-options" in words:
        where = words.index("--cfg-options")
        own, options = words[:where], words[where + 1 :]
    options = [*options, *SMALL_OPTIONS.get(words[0], [])]
    return [*own, *SMALL.get(words[0], []), *(["--cfg-options", *options] if options else [])]


def run(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a line in the current folder; quickstart may say that it has learned nothing in one epoch."""
    if line.language == "python":
        exec(compile(line.text, "snippet", "exec"), {})
        return
    words = small(shlex.split(line.text)[1:])
    code = main(words)
    output = "".join(capsys.readouterr())
    assert code == 0 or (words[0] == "quickstart" and "nothing was learned" in output), f"{shlex.join(words)}\n{output}"


def pictures(folder: Path, names: tuple[str, ...]) -> None:
    """Some images, and a film of three frames beside their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name in names:
        cv2.imwrite(str(folder / name), random.integers(0, 255, (96, 128, 3), dtype=np.uint8))


def film(path: Path) -> None:
    """A video of three frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (128, 96))
    for i in range(3):
        writer.write(np.full((96, 128, 3), 80 * i, np.uint8))
    writer.release()


def yolo_export(folder: Path) -> None:
    """The shapes as an export in YOLO's form."""
    shapes = write_shapes(folder / "shapes", train=8, val=4)
    for split in ("train", "val"):
        content = json.loads((shapes / "annotations" / f"{split}.json").read_text(encoding="utf-8"))
        for image in content["images"]:
            name = Path(image["file_name"])
            target = folder / "images" / split / name.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shapes / "images" / name, target)
            rows = []
            for x in (x for x in content["annotations"] if x["image_id"] == image["id"]):
                left, top, width, height = (value / 128 for value in x["bbox"])
                center = (left + width / 2, top + height / 2)
                rows.append(f"{x['category_id'] - 1} {center[0]} {center[1]} {width} {height}")
            labels = folder / "labels" / split / f"{name.stem}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("\n".join(rows))
    names = [category["name"] for category in content["categories"]]
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n")


def label_maps(folder: Path) -> None:
    """Images and label maps of 0, 1 and 255, in the layout of the custom configs."""
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        pictures(folder / "img" / split, tuple(f"{i}.jpg" for i in range(count)))
        (folder / "ann" / split).mkdir(parents=True)
        for i in range(count):
            labels = random.choice(np.array([0, 1], np.uint8), (96, 128))
            cv2.imwrite(str(folder / "ann" / split / f"{i}.png"), labels)
    (folder / "classes.json").write_text('["background", "object"]')


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, its checkpoint and its exported file, from one epoch."""
    folder = tmp_path_factory.mktemp("detector")
    data = write_shapes(folder / "shapes", train=8, val=4)
    options = ["--cfg-options", f"data_root={data}/", *SMALL_OPTIONS["train"]]
    assert main(["train", DETECTOR, "--epochs", "1", "--work-dir", str(folder / "run"), *options]) == 0
    config, checkpoint = folder / "run" / f"{DETECTOR}.py", folder / "run" / "best.pth"
    assert main(["export", str(config), str(checkpoint), "--out", str(folder / "out"), "--num-images", "2"]) == 0
    return folder


def have_detector(folder: Path, detector: Path) -> None:
    """What pages call my_config.py, best.pth and out/model.onnx."""
    shutil.copytree(detector / "out", folder / "out")
    shutil.copyfile(detector / "run" / f"{DETECTOR}.py", folder / "my_config.py")
    for place in (folder / "best.pth", folder / "work_dirs" / "my_config" / "best.pth"):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(detector / "run" / "best.pth", place)


def have_yolo(folder: Path, detector: Path) -> None:
    yolo_export(folder / "mine")


def have_yolo_and_detector(folder: Path, detector: Path) -> None:
    have_yolo(folder, detector)
    have_detector(folder, detector)


def have_shapes(folder: Path, detector: Path) -> None:
    write_shapes(folder / "data" / "mine", train=8, val=4)


def have_label_maps(folder: Path, detector: Path) -> None:
    label_maps(folder / "data" / "mine")


# Page -> what it takes for granted.
RUN: dict[str, Callable[[Path, Path], None]] = {
    "README.md": have_yolo_and_detector,
    "docs/get_started.md": have_shapes,
    "docs/datasets.md": have_yolo,
    "docs/instances_and_pose.md": have_shapes,
    "docs/semantic_segmentation.md": have_label_maps,
    "docs/runtime.md": have_detector,
    "docs/export.md": have_detector,
    "docs/runtimes/onnxruntime.md": have_detector,
}


def all_pages() -> list[str]:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.md")]
    return sorted(file.relative_to(ROOT).as_posix() for file in files)


@pytest.mark.parametrize("page", all_pages())
def test_a_page_is_run_or_excused(page: str) -> None:
    reasons = [reason for pattern, reason in PAGES_NOT_RUN.items() if re.fullmatch(pattern, page)]
    listed = list(lines(ROOT / page))
    assert (page in RUN) + len(reasons) == 1 or not listed, "list the page in RUN, or in PAGES_NOT_RUN with a reason"
    for line in listed:
        print(f"{page}: {(reasons or [reason_not_to_run(line) or 'run'])[0]}: {line.text.splitlines()[0]}")


def test_small_arguments_follow_those_of_the_page() -> None:
    assert small(["predict", "a.onnx", "b"]) == ["predict", "a.onnx", "b"]
    assert small(["export", "a.py", "b.pth", "--eval"]) == ["export", "a.py", "b.pth", "--eval", "--num-images", "2"]
    words = small(["train", "a", "--cfg-options", "data_root=b"])
    assert words == ["train", "a", "--epochs", "1", "--cfg-options", "data_root=b", *SMALL_OPTIONS["train"]]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_commands_run(
    page: str, detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path, ("a.jpg", "b.jpg"))
    for name in ("photos", "slides"):
        pictures(tmp_path / name, ("1.jpg", "2.jpg"))
    film(tmp_path / "film.mp4")
    RUN[page](tmp_path, detector)
    monkeypatch.chdir(tmp_path)
    done = 0
    for line in lines(ROOT / page):
        if line.text.startswith("make quickstart"):
            run(Line("bash", "efftasks quickstart --out work_dirs/quickstart"), capsys)
        if reason_not_to_run(line) is None:
            run(line, capsys)
            done += 1
    assert done > 0, "every line is excused: the page belongs in PAGES_NOT_RUN"
